"""The registry of a partition: names and counts of its namespaces, and the checkpoint.

So nothing has to scan the store. Written by the partition's builder alone: numbered, put-if-absent,
fenced by owner epoch. Old versions are deleted.
"""

import asyncio

import msgspec

from core.errors import CorruptData, Fenced, FirnError, ObjectNotFound, Unavailable
from core.log import NO_LSN
from core.object_store import ObjectStore
from storage.layout import registry_key, registry_prefix, version_of

FORMAT = 1
# The newest ones stay, for readers that listed a moment ago and for people.
KEEP_VERSIONS = 4
READ_TRIES = 8


class NamespaceSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What the newest manifest said when the registry was written. indexed_lsn: inclusive.

    unfinished: compaction may have had work to do; whoever owns the partition next looks again.
    """

    generation: int
    version: int
    indexed_lsn: int = NO_LSN
    record_count: int = 0
    byte_count: int = 0
    deleted: bool = False
    unfinished: bool = False


class RegistryState(msgspec.Struct, frozen=True, kw_only=True):
    """One version. checkpoint: next offset to consume; everything below it is in manifests.

    namespaces: by (index id, canonical namespace). commit_uuid: tells a writer its own success.
    """

    format: int = FORMAT
    partition: int
    log_id: str
    log_epoch: int
    owner_epoch: int
    version: int
    commit_uuid: str
    checkpoint: int = 0
    namespaces: dict[tuple[str, str], NamespaceSummary] = {}


class RegistryConflict(FirnError):
    """Internal. Another writer, of no higher epoch, took the version."""

    def __init__(self, newest: RegistryState) -> None:
        super().__init__(
            f"registry {newest.version} of partition {newest.partition} was written meanwhile"
        )
        self.newest = newest


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(RegistryState)


class RegistryStore:
    """Reads and commits the registries of all partitions. Holds no state."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def newest(self, partition: int) -> RegistryState | None:
        """None before the first commit."""
        for _ in range(READ_TRIES):
            versions = await self._versions(partition)
            if not versions:
                return None
            try:
                return await self._read(partition, versions[-1])
            except ObjectNotFound:
                continue  # so many commits since the listing that it was deleted
        raise Unavailable(f"the registry of partition {partition} changes faster than it is read")

    async def commit(self, state: RegistryState) -> None:
        """Returns once `state` is durable and the newest; repeating it with the same state is
        harmless.

        `RegistryConflict`, `Fenced` (a higher owner epoch has written), `Unavailable` (outcome
        unknown: commit the same state again).
        """
        key = registry_key(state.partition, state.version)
        created = await self._store.put_if_absent(key, _encoder.encode(state))
        versions = await self._versions(state.partition)
        # A writer asleep for so long that its version was free again (deleted) finds itself not the
        # newest.
        if not created or versions[-1:] != [state.version]:
            newest = await self.newest(state.partition)
            if newest is None:
                raise CorruptData(f"the registry of partition {state.partition} vanished")
            if newest.owner_epoch > state.owner_epoch:
                raise Fenced(
                    f"owner epoch {newest.owner_epoch} writes partition {state.partition}; "
                    f"this one, {state.owner_epoch}, must stop"
                )
            if newest.commit_uuid != state.commit_uuid:
                raise RegistryConflict(newest)
        await self._delete(state.partition, versions[:-KEEP_VERSIONS])

    async def _read(self, partition: int, version: int) -> RegistryState:
        key = registry_key(partition, version)
        try:
            state = _decoder.decode(await self._store.get(key))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CorruptData(f"{key} is not a registry: {error}") from error
        if state.format != FORMAT:
            raise CorruptData(
                f"{key} has registry format {state.format}; this build reads {FORMAT}"
            )
        if (state.partition, state.version) != (partition, version):
            raise CorruptData(f"{key} is that of partition {state.partition}, {state.version}")
        return state

    async def _versions(self, partition: int) -> list[int]:
        """Ascending."""
        keys = [info.key async for info in self._store.list(registry_prefix(partition))]
        return [version for key in keys if (version := version_of(key)) is not None]

    async def _delete(self, partition: int, versions: list[int]) -> None:
        deletions = (self._store.delete(registry_key(partition, v)) for v in versions)
        results = await asyncio.gather(*deletions, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, Unavailable):
                raise result  # what is left is deleted by a later commit
