"""What an attach entry brings into a namespace: the manifest that a branch's snapshot object holds.

Everything that decides is in the log, in what was folded before, or in an immutable object whose
name is never used again: so a replay decides alike. A damaged object decides nothing; it raises,
and the namespace waits.
"""

import logging
from dataclasses import dataclass

from builder.chain import Target, Workshop
from core.errors import LogMismatch
from core.operations import Attach
from storage.commit import ManifestStore
from storage.layout import namespace_prefix
from storage.manifest import Manifest
from storage.snapshots import Snapshot, SnapshotKind, SnapshotStore, as_attached

logger = logging.getLogger(__name__)

NOT_EMPTY = "not_empty"
TWICE = "twice"
MISSING = "missing"
BEGUN_SINCE = "begun_since"
NOT_HELD = "not_held"


@dataclass(frozen=True, slots=True, eq=False)
class Attachments:
    """Those of one namespace."""

    shop: Workshop
    target: Target

    async def take(self, lsn: int, entry: Attach) -> Manifest | None:
        """The files as this namespace names them from `lsn` on; None: refused, nothing happens.

        `CorruptData`: the object is damaged; put it back, the entry waits for it. `LogMismatch`: it
        is gone, and was there before. `Unavailable`.
        """
        store = self.shop.store
        home = namespace_prefix(entry.source_index, entry.source_namespace)
        snapshots = SnapshotStore(store, ManifestStore(store))
        found = await snapshots.read_exactly(home, entry.snapshot_id, entry.checksum)
        if found is None:
            if entry.snapshot_id in self.shop.attached:
                raise LogMismatch(
                    f"namespace {self.target.schema.namespace!r} was made of snapshot "
                    f"{entry.snapshot_id} of namespace {entry.source_namespace!r}, which is gone: "
                    "its log alone does not hold all of its records"
                )
            self.refuse(lsn, entry, MISSING)
            return None
        if not self._is_holder(found):
            self.refuse(lsn, entry, NOT_HELD)
            return None
        schema = self.target.schema
        manifest = as_attached(await snapshots.manifest(found), found.home, lsn)
        logger.info(
            "namespace %r of index %s begins at LSN %d with %d records of snapshot %s",
            *(schema.namespace, schema.index_id, lsn, manifest.record_count, found.id),
        )
        return manifest

    def refuse(self, lsn: int, entry: Attach, why: str) -> None:
        self.shop.metrics.attaches_refused.labels(why).inc()
        logger.error(
            "the attach of snapshot %s (of %s/%r) at LSN %d does nothing to namespace %r of index "
            "%s: %s",
            *(entry.snapshot_id, entry.source_index, entry.source_namespace, lsn),
            *(self.target.schema.namespace, self.target.schema.index_id, why),
        )

    def _is_holder(self, snapshot: Snapshot) -> bool:
        schema = self.target.schema
        holder = (snapshot.holder_index, snapshot.holder_namespace)
        held = snapshot.kind is SnapshotKind.BRANCH
        return held and holder == (schema.index_id, schema.namespace)
