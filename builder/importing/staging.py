"""One namespace of an import while it is built: a chain of manifests of its own, under a name that
no client can say, made by the machinery that flushes and compacts all others.

Its LSNs are positions in the import's files, so the newest manifest says how far it is; a second
worker that believes the import to be its own meets conflicts, and both come to the same rows.
"""

from collections.abc import Sequence

import msgspec

from builder.branching.branches import Place
from builder.chain import Target, Workshop, blank
from builder.compaction.at_rest import compact_to_rest
from builder.flush import flush
from builder.importing.plan import NamespacePlan, place_of, position
from builder.parts import BuilderParts
from builder.settings import BuilderSettings
from core.indexes import IndexInfo, staging_namespace
from core.operations import Entry, NamespaceWrite, Upsert
from ingest.parquet.reader import RecordBatch
from storage.commit import ManifestConflict
from storage.layout import NamespaceSchema
from storage.manifest import Manifest

# Nobody reads it meanwhile, and what is clustered seldom is rewritten seldom: 100,000 records once
# at the end take 40 % less CPU than after each flush (`bench.bulk`). Flushes look ids up in the
# runs of all deltas since, so not too seldom either.
FLUSHES_BETWEEN = 8


class Staging:
    """Used by one task at a time. `begin` first."""

    def __init__(
        self,
        parts: BuilderParts,
        settings: BuilderSettings,
        info: IndexInfo,
        import_id: str,
        planned: NamespacePlan,
    ) -> None:
        self.place = Place(info, staging_namespace(import_id, planned.number))
        self._parts = parts
        self._settings = settings
        self._planned = planned
        self._shop: Workshop = parts.workshop(settings)
        schema = NamespaceSchema(info.index_id, self.place.namespace, info.metric, info.dimension)
        # Below every owner's: once the builder has its entry of the deletion, we are fenced.
        self._target = Target(schema, owner_epoch=0)
        self._manifest: Manifest | None = None
        self._flushes = 0

    @property
    def records(self) -> int:
        return 0 if self._manifest is None else self._manifest.record_count

    @property
    def lsn(self) -> int:
        assert self._manifest is not None, "it has begun"
        return self._manifest.indexed_lsn

    async def known(self) -> Manifest | None:
        """The newest manifest, if it was ever begun."""
        return await self._parts.manifests.newest(*self.place.key)

    async def begin(self) -> tuple[int, int]:
        """(file, row) up to which it is built."""
        self._manifest = await self.known()
        if self._manifest is None:
            start = position(self._planned.first, 0)
            empty = msgspec.structs.replace(
                blank(self._shop, self._target, None), generation=start, indexed_lsn=start
            )
            try:
                self._manifest = await self._parts.manifests.commit(empty)
            except ManifestConflict as conflict:
                self._manifest = conflict.newest
        return place_of(self._manifest.indexed_lsn)

    def write(self, file: int, batch: RecordBatch) -> NamespaceWrite:
        """What `flush` takes, of a batch of the file with that number in the plan."""
        return NamespaceWrite(
            partition=0,
            lsn=position(file, batch.next_row),
            index_id=self.place.index.index_id,
            namespace=self.place.namespace,
            entries=(Entry(Upsert(batch.records)),),
            timestamp_ms=self._parts.clock.now_ms(),
            value_bytes=batch.size_bytes,
        )

    async def flush(self, writes: Sequence[NamespaceWrite]) -> None:
        """Durable when it returns, and now and then compacted."""
        assert self._manifest is not None, "it has begun"
        self._manifest = await flush(self._shop, self._target, self._manifest, writes)
        assert self._manifest is not None, "there is one from the beginning"
        self._flushes += 1
        if self._flushes % FLUSHES_BETWEEN == 0:
            await self.finish()

    async def finish(self) -> None:
        """Compacts until it is at rest, as what is attached should be."""
        assert self._manifest is not None, "it has begun"
        self._manifest = await compact_to_rest(
            self._shop, self._target, self._manifest, self._settings.compaction
        )
