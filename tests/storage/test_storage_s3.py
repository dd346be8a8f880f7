"""The commit protocol and the cache on a real S3 server, whose conditional writes decide."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from core.object_store import ObjectStore
from infra.objects.open import open_store
from infra.services.service import Service
from storage.cluster_file import write_cluster
from storage.commit import ManifestConflict, ManifestStore
from storage.file_cache import FileCache
from storage.manifest import Manifest
from storage.namespace import NamespaceReader
from tests.storage.samples import (
    DENSE,
    assert_same_rows,
    put_file,
    sample_manifest,
    sample_rows,
)


@pytest.fixture
async def store(s3_service: Service) -> AsyncIterator[ObjectStore]:
    """Under a prefix of this test's own."""
    settings = s3_service.settings
    store = open_store(
        f"{settings['FIRNDB_OBJECT_STORE']}/{uuid4().hex}",
        s3_endpoint=settings["FIRNDB_S3_ENDPOINT"],
        s3_access_key=settings["FIRNDB_S3_ACCESS_KEY"],
        s3_secret_key=settings["FIRNDB_S3_SECRET_KEY"],
    )
    yield store
    await store.close()


async def test_32_racing_writers_have_one_winner(store: ObjectStore) -> None:
    manifests = ManifestStore(store)
    assert await manifests.newest(DENSE.index_id, DENSE.namespace) is None
    for version in (1, 2):
        racers = [sample_manifest(version, commit_uuid=f"{version}-{n}") for n in range(32)]
        outcomes = await asyncio.gather(*map(manifests.commit, racers), return_exceptions=True)
        winners = [m for m, o in zip(racers, outcomes, strict=True) if isinstance(o, Manifest)]
        assert len(winners) == 1
        assert sum(isinstance(o, ManifestConflict) for o in outcomes) == 31
        assert await manifests.newest(DENSE.index_id, DENSE.namespace) == winners[0]


async def test_what_is_put_is_read_through_the_cache(store: ObjectStore, tmp_path: Path) -> None:
    rows = sample_rows(500)
    file = await put_file(store, DENSE, write_cluster(rows, DENSE))
    await ManifestStore(store).commit(sample_manifest(files=[file]))
    manifest = await ManifestStore(store).newest(DENSE.index_id, DENSE.namespace)
    assert manifest is not None
    cache = FileCache(store, tmp_path, 1 << 30)
    reader = NamespaceReader(cache, manifest)
    assert_same_rows(await reader.live(0), rows.take(np.arange(500)))
    assert (await reader.locate(["r77"]))["r77"].row == 77
    assert cache.copies.fetches == 2
    await cache.close()
