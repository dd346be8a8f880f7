"""Waiting for the index builder, wherever it runs: until what the log holds is in manifests."""

from dataclasses import dataclass

from builder.parts import BuilderParts
from core.errors import DeadlineExceeded
from core.log import NO_LSN
from core.partition import partition_of, wal_key
from storage.manifest import Manifest

# A builder at work has everything in manifests within seconds, and the checkpoint one later; a
# person waits for it.
WAIT_S = 120.0
# A look is a few requests: soon again at first, then a tenth of the time that has passed.
POLL_FIRST_S = 0.01
POLL_MAX_S = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Of the builder on one partition: LSNs below `checkpoint` are in manifests."""

    parts: BuilderParts
    wait_s: float = WAIT_S

    def partition(self, index_id: str, namespace: str) -> int:
        return partition_of(wal_key(index_id, namespace), self.parts.partitions)

    async def everything(self, index_id: str, namespace: str) -> None:
        """All of the namespace that is in the log now. `DeadlineExceeded`."""
        await self._wait(self.partition(index_id, namespace), (index_id, namespace))

    async def whole_log(self) -> None:
        """All that is in the log now, but of namespaces that wait for a person."""
        for partition in range(self.parts.partitions):
            await self._wait(partition, None)

    async def _wait(self, partition: int, key: tuple[str, str] | None) -> None:
        end = await self.parts.log.end_offset(partition)
        began_s = self.parts.clock.monotonic()
        while not await self._reached(partition, key, end):
            if not await self._pause(began_s):
                raise DeadlineExceeded(
                    f"partition {partition} is not indexed up to LSN {end - 1} after "
                    f"{self.wait_s:.0f} s; see whether the index builder runs (`firndb status`)"
                )

    async def entry(self, index_id: str, namespace: str, lsn: int) -> Manifest:
        """A manifest that covers the namespace's entry at `lsn`. `DeadlineExceeded`."""
        parts, began_s = self.parts, self.parts.clock.monotonic()
        while True:
            manifest = await parts.manifests.newest(index_id, namespace)
            if manifest is not None and manifest.indexed_lsn >= lsn:
                return manifest
            if not await self._pause(began_s):
                raise DeadlineExceeded(
                    f"what was written for namespace {namespace!r} is accepted (up to LSN {lsn}), "
                    f"but not in the index after {self.wait_s:.0f} s; see whether the index "
                    "builder runs (`firndb status`)"
                )

    async def _pause(self, began_s: float) -> bool:
        """False: no more time."""
        clock = self.parts.clock
        passed_s = clock.monotonic() - began_s
        if passed_s >= self.wait_s:
            return False
        await clock.sleep(min(POLL_MAX_S, POLL_FIRST_S + passed_s / 10))
        return True

    async def _reached(self, partition: int, key: tuple[str, str] | None, end: int) -> bool:
        registry = self.parts.registry
        state = await registry.newest(partition)
        if state is None:
            return end == 0
        summary = None if key is None else await registry.get(state, key)
        if summary is not None and NO_LSN < summary.held_from < end:
            return False
        if state.checkpoint >= end:
            return True
        # What a transaction leaves at the log's end, no reader is ever given.
        return not await self.parts.log.read(partition, state.checkpoint, max_records=1)
