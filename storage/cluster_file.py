"""Writes a cluster file: the records near one centroid, as an Annoy and an Arrow object."""

import numpy as np

from core.clock import new_uuid
from core.filters.statistics import collect
from core.metric import F32, Metric
from core.turns import step_aside_in_thread
from storage.annoy_file import build_annoy
from storage.columns_file import encode_columns
from storage.encoded_file import EncodedFile, EncodedObject
from storage.layout import NamespaceSchema, cluster_columns_name, cluster_vectors_name
from storage.manifest import DataFile
from storage.rows import Rows


def write_cluster(
    rows: Rows,
    schema: NamespaceSchema,
    *,
    cluster: int = -1,
    centroid: F32 | None = None,
    uuid: str | None = None,
) -> EncodedFile:
    """n >= 1 rows in the order given, all live. CPU-bound: off the event loop.

    `cluster` is the row of `centroid` (d,) in the manifest's centroids; without centroids -1 and
    None, and then the radius is 0. A sparse index's file has no Annoy object.
    """
    name = uuid or new_uuid()
    columns = EncodedObject.of(
        cluster_columns_name(name), encode_columns(rows, schema, "cluster", with_vectors=False)
    )
    step_aside_in_thread()
    vectors = None
    if rows.vectors is not None:
        vectors = EncodedObject.of(
            cluster_vectors_name(name), build_annoy(rows.vectors, schema.metric)
        )
    step_aside_in_thread()
    file = DataFile(
        uuid=name,
        columns=columns.ref,
        vectors=None if vectors is None else vectors.ref,
        rows=len(rows),
        cluster=cluster,
        radius=_radius(rows.vectors, centroid, schema.metric),
        statistics=collect(rows.metadata),
    )
    return EncodedFile((columns,) if vectors is None else (vectors, columns), file)


def _radius(vectors: F32 | None, centroid: F32 | None, metric: Metric) -> float:
    """The largest L2 distance of a row from the centroid; for cosine, of the rows scaled to unit
    length.
    """
    if vectors is None or centroid is None:
        return 0.0
    points = vectors.astype(np.float64)
    if metric is Metric.COSINE:
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    return float(np.linalg.norm(points - centroid, axis=1).max())
