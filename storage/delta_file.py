"""Writes a delta: one flush as a single Arrow object, its rows grouped by nearest centroid."""

from core.clock import new_uuid
from core.filters.statistics import collect
from storage.columns_file import encode_columns
from storage.encoded_file import EncodedFile, EncodedObject
from storage.layout import NamespaceSchema, delta_name
from storage.manifest import DataFile
from storage.rows import Rows


def write_delta(
    rows: Rows,
    schema: NamespaceSchema,
    *,
    groups: tuple[tuple[int, int], ...] = (),
    uuid: str | None = None,
) -> EncodedFile:
    """n >= 1 rows in the order given, all live. CPU-bound: off the event loop.

    `groups`: (cluster, first row), ascending by row, each up to the next one's first row; ()
    without centroids.
    """
    starts = [first for _, first in groups]
    if groups and (starts[0] != 0 or starts != sorted(set(starts)) or starts[-1] >= len(rows)):
        raise ValueError(f"groups {groups} do not divide {len(rows)} rows")
    name = uuid or new_uuid()
    columns = EncodedObject.of(
        delta_name(name), encode_columns(rows, schema, "delta", with_vectors=True)
    )
    file = DataFile(
        uuid=name,
        columns=columns.ref,
        vectors=None,
        rows=len(rows),
        cluster=-1,
        groups=groups,
        statistics=collect(rows.metadata),
    )
    return EncodedFile((columns,), file)
