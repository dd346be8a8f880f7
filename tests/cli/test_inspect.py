"""`firndb inspect`: what a person sees of a manifest, beside a server and on a closed folder."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from cli.main import cli
from cli.runtime.inspecting import inspect_lines
from cli.runtime.parts import open_parts
from core.errors import NotFound
from core.metric import Metric
from infra.settings import Settings
from storage.cluster_file import write_cluster
from storage.commit import ManifestStore
from storage.delta_file import write_delta
from storage.encoded_file import put_objects
from storage.layout import NamespaceSchema
from storage.manifest import Manifest
from tests.infra.catalog_suite import NEW
from tests.storage.samples import sample_manifest, sample_rows, with_dead

DIMENSION = 3


def settings(folder: Path) -> Settings:
    return Settings.load({"data": folder, "partitions": 2})


async def fill(folder: Path) -> None:
    """Index `movies`, default namespace: an empty manifest, then two clusters and a delta."""
    async with open_parts(settings(folder)) as parts:
        project = await parts.catalog.ensure_project()
        index = await parts.catalog.create_index(project.project_id, NEW, range(9001, 9004))
        of = NamespaceSchema(index.info.index_id, "__default__", Metric.COSINE, DIMENSION)
        manifests = ManifestStore(parts.store)
        await manifests.commit(sample_manifest(1, of=of))
        await manifests.commit(await a_clustered_one(parts.store, of))


async def a_clustered_one(store: Any, of: NamespaceSchema) -> Manifest:
    centroids = np.ones((2, DIMENSION), dtype="<f4")
    encoded = [
        write_cluster(sample_rows(rows, DIMENSION), of, cluster=n, centroid=centroids[n])
        for n, rows in enumerate((5, 20))
    ]
    encoded.append(write_delta(sample_rows(4, DIMENSION), of, groups=((0, 0), (1, 3))))
    for one in encoded:
        await put_objects(store, of.prefix, one.objects)
    files = [with_dead(encoded[0].file, [1]), *(one.file for one in encoded[1:])]
    manifest = sample_manifest(2, of=of, files=files)
    return msgspec.structs.replace(manifest, centroids=centroids.tobytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    asyncio.run(fill(tmp_path / "data"))
    return tmp_path / "data"


def run(folder: Path, *arguments: str) -> str:
    done = CliRunner().invoke(
        cli, ["inspect", *arguments, "--data", str(folder)], env={"FIRNDB_PARTITIONS": "2"}
    )
    assert done.exit_code == 0, done.output
    return done.output


def test_a_closed_folder_as_json(folder: Path) -> None:
    found = json.loads(run(folder, "movies", "--json"))
    header = found["header"]
    assert (header["version"], header["format"], header["records"]) == (2, 2, 28)
    assert (header["clusters"], header["cluster_files"], header["deltas"]) == (2, 2, 1)
    assert header["object_bytes"] > 0
    assert header["namespace"] == "__default__"
    first, second, delta = found["files"]
    assert (first["kind"], first["rows"], first["live"], first["dead"]) == ("cluster", 5, 4, 1)
    assert second["cluster"] == 1
    assert (delta["kind"], delta["cluster"], delta["groups"]) == ("delta", None, 2)
    assert first["statistics"]["year"].startswith("3 rows, 1991.1..1994.1")
    assert found["histogram"] == [
        {"from": 4, "to": 7, "clusters": 1},
        {"from": 16, "to": 31, "clusters": 1},
    ]
    assert found["sections"] == found["snapshots"] == []


def test_a_closed_folder_for_people(folder: Path) -> None:
    text = run(folder, "movies")
    for wanted in ("indexed_lsn   20", "records       28", "\nfiles\n", "\nhistogram\n", "year: "):
        assert wanted in text
    assert "\nsections\n" not in text


def test_an_older_version(folder: Path) -> None:
    found = json.loads(run(folder, "movies", "--version", "1", "--json"))
    assert (found["header"]["version"], found["files"]) == (1, [])


async def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    await fill(tmp_path)
    async with open_parts(settings(tmp_path)) as parts:
        for asked, said in (
            (("nowhere", None, None), "no index nowhere"),
            (("movies", "nobody", None), "no namespace nobody in its files"),
            (("movies", None, 9), "no namespace __default__ with a manifest 9"),
        ):
            with pytest.raises(NotFound, match=said):
                await anext(inspect_lines(parts, *asked))
