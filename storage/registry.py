"""The registry of a partition: names and counts of its namespaces, and the checkpoint.

So nothing has to scan the store. A root, numbered, put-if-absent and fenced by owner epoch, is
written by the partition's builder alone; it names immutable sections of some hundred namespaces
each (`storage.registry_tree`), of which a commit writes those that it changes. Old roots, and
sections that no root names any more, are deleted.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping

import msgspec

from core.clock import new_uuid
from core.errors import CorruptData, Fenced, FirnError, ObjectNotFound, Unavailable
from core.log import NO_LSN
from core.object_store import ObjectStore
from storage.checksum import checksum
from storage.encoded_file import EncodedObject, put_objects
from storage.envelope import MAGIC_BYTES, seal, unseal
from storage.layout import (
    registry_key,
    registry_prefix,
    registry_roots_prefix,
    registry_sections_prefix,
    version_of,
)
from storage.registry_tree import (
    IndexTotals,
    NamespaceSummary,
    Part,
    RegistryKey,
    Row,
    Rows,
    SectionRef,
    changed_rows,
    cut,
    decode_rows,
    find_row,
    inline_section,
    open_section,
    place_of,
    section_object,
    small_neighbour,
)

MAGIC = b"FIRNREG2"
# The newest ones stay, for readers that listed a moment ago and for people.
KEEP_VERSIONS = 4
READ_TRIES = 8
# Sections as they are in the store: some 40 bytes a namespace, so the 100,000 of an embedded
# deployment fit.
CACHE_BYTES = 8 << 20
# Sections that one sweep looks at; the next one sees the others.
SWEEP_MAX = 10_000


class RegistryState(msgspec.Struct, frozen=True, kw_only=True):
    """One version: the root. checkpoint: next offset to consume; everything below it is in
    manifests, but for namespaces that are held.

    commit_uuid: tells a writer its own success.
    """

    partition: int
    log_id: str
    log_epoch: int
    owner_epoch: int
    version: int
    commit_uuid: str
    checkpoint: int = 0
    sections: tuple[SectionRef, ...] = ()

    @property
    def count(self) -> int:
        """Namespaces, the deleted ones included."""
        return sum(ref.count for ref in self.sections)

    @property
    def indexed_lsn(self) -> int:
        """The newest entry that the registry says is indexed; it may lag the manifests by a
        second.
        """
        return max((ref.indexed_lsn for ref in self.sections), default=NO_LSN)

    def totals(self, index_id: str) -> IndexTotals:
        of = (ref.totals.get(index_id, IndexTotals()) for ref in self.sections)
        return sum(of, IndexTotals())


class RegistryConflict(FirnError):
    """Internal. Another writer, of no higher epoch, took the version."""

    def __init__(self, newest: RegistryState) -> None:
        super().__init__(
            f"registry {newest.version} of partition {newest.partition} was written meanwhile"
        )
        self.newest = newest


class _SummaryOne(msgspec.Struct, frozen=True, kw_only=True):
    """As format 1 has it."""

    generation: int
    version: int
    indexed_lsn: int = NO_LSN
    record_count: int = 0
    byte_count: int = 0
    deleted: bool = False
    unfinished: bool = False


class _StateOne(msgspec.Struct, frozen=True, kw_only=True):
    """As format 1 has it: bare msgpack, every namespace in the root."""

    format: int
    partition: int
    log_id: str
    log_epoch: int
    owner_epoch: int
    version: int
    commit_uuid: str
    checkpoint: int = 0
    namespaces: dict[RegistryKey, _SummaryOne] = {}


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(RegistryState)
_decoder_one = msgspec.msgpack.Decoder(_StateOne)


class RegistryStore:
    """Reads and commits the registries of all partitions. Holds sections that were read or written
    last, by their bytes.
    """

    def __init__(self, store: ObjectStore, cache_bytes: int = CACHE_BYTES) -> None:
        self._store = store
        self._cache_bytes = cache_bytes
        self._cached: OrderedDict[str, bytes] = OrderedDict()
        self._cached_bytes = 0

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

    async def get(self, state: RegistryState, key: RegistryKey) -> NamespaceSummary | None:
        """As of `state`, or of a newer version if that one's sections are gone; None: unknown."""
        while state.sections:
            ref = state.sections[place_of(state.sections, key)]
            try:
                return find_row(await self._body(state.partition, ref), key, "the registry")
            except ObjectNotFound as error:
                state = await self._following(state, error)
        return None

    async def walk(
        self, state: RegistryState, index_id: str | None = None, prefix: str = "", after: str = ""
    ) -> AsyncIterator[Row]:
        """In the order of keys: every namespace, or those of an index whose names begin with
        `prefix` and are > `after`. Each as of `state`, or of a newer version.
        """
        start = ("", "") if index_id is None else (index_id, max(prefix, after))
        last: RegistryKey | None = (index_id, after) if index_id is not None and after else None
        while True:
            try:
                async for key, summary in self._rows(state, start):
                    if index_id is not None and not (
                        key[0] == index_id and key[1].startswith(prefix)
                    ):
                        return
                    if last is None or key > last:
                        last = start = key
                        yield key, summary
                return
            except ObjectNotFound as error:
                state = await self._following(state, error)

    async def unfinished(self, state: RegistryState) -> AsyncIterator[Row]:
        """The living namespaces that compaction may have work for, or that are held, for the owner;
        `Fenced` if another one has deleted what `state` names.
        """
        for ref in state.sections:
            if ref.unfinished or ref.held_from != NO_LSN:
                try:
                    rows = decode_rows(await self._body(state.partition, ref), "the registry")
                except ObjectNotFound as error:
                    raise _fenced(await self._following(state, error), state) from error
                for key, one in rows:
                    if (one.unfinished and not one.deleted) or one.held_from != NO_LSN:
                        yield key, one

    async def newest_with_holds(
        self, partition: int
    ) -> tuple[RegistryState | None, dict[RegistryKey, int]]:
        """(the newest state, from which LSN on each held namespace is), of one version."""
        for _ in range(READ_TRIES):
            state = await self.newest(partition)
            held: dict[RegistryKey, int] = {}
            try:
                for ref in () if state is None else state.sections:
                    if ref.held_from != NO_LSN:
                        rows = decode_rows(await self._body(partition, ref), "the registry")
                        held |= {k: o.held_from for k, o in rows if o.held_from != NO_LSN}
                return state, held
            except ObjectNotFound:
                continue  # replaced so long ago that it was deleted
        raise Unavailable(f"the registry of partition {partition} changes faster than it is read")

    async def count(self, state: RegistryState, index_id: str, prefix: str) -> int:
        """Living namespaces of the index whose names begin with `prefix`; as of `state`, or of a
        newer version.
        """
        while True:
            try:
                return await self._counted(state, index_id, prefix)
            except ObjectNotFound as error:
                state = await self._following(state, error)

    async def _counted(self, state: RegistryState, index_id: str, prefix: str) -> int:
        if not prefix:
            return state.totals(index_id).namespaces

        def inside(place: int) -> bool:
            if place >= len(state.sections):
                return False
            first = state.sections[place].first
            return first[0] == index_id and first[1].startswith(prefix)

        found = 0
        places = range(place_of(state.sections, (index_id, prefix)), len(state.sections))
        for place in places:
            ref = state.sections[place]
            if ref.first > (index_id, prefix) and not inside(place):
                break
            if inside(place) and inside(place + 1):
                found += ref.totals[index_id].namespaces
                continue
            for key, one in decode_rows(await self._body(state.partition, ref), "the registry"):
                matches = key[0] == index_id and key[1].startswith(prefix)
                found += matches and not one.deleted
        return found

    async def changed(
        self,
        state: RegistryState,
        changes: Mapping[RegistryKey, NamespaceSummary | None],
        checkpoint: int,
    ) -> RegistryState:
        """What follows `state`, to be committed; its sections are in the store. None takes a
        namespace out. `state` itself if nothing is new. `Unavailable`; `Fenced` if another owner
        has deleted what `state` names.
        """
        try:
            sections = await self._with_changes(state, changes)
        except ObjectNotFound as error:
            raise _fenced(await self._following(state, error), state) from error
        if sections == state.sections and checkpoint == state.checkpoint:
            return state
        return msgspec.structs.replace(
            state,
            version=state.version + 1,
            commit_uuid=new_uuid(),
            checkpoint=checkpoint,
            sections=sections,
        )

    async def commit(self, state: RegistryState) -> None:
        """Returns once `state` is durable and the newest; repeating it with the same state is
        harmless.

        `RegistryConflict`, `Fenced` (a higher owner epoch has written), `Unavailable` (outcome
        unknown: commit the same state again).
        """
        key = registry_key(state.partition, state.version)
        created = await self._store.put_if_absent(key, seal(MAGIC, _encoder.encode(state)))
        versions = await self._versions(state.partition)
        # A writer asleep for so long that its version was free again (deleted) finds itself not the
        # newest.
        if not created or versions[-1:] != [state.version]:
            newest = await self.newest(state.partition)
            if newest is None:
                raise CorruptData(f"the registry of partition {state.partition} vanished")
            if newest.owner_epoch > state.owner_epoch:
                raise _fenced(newest, state)
            if newest.commit_uuid != state.commit_uuid:
                raise RegistryConflict(newest)
        await self._delete([registry_key(state.partition, v) for v in versions[:-KEEP_VERSIONS]])

    async def sweep(self, state: RegistryState, unnamed: frozenset[str]) -> frozenset[str]:
        """Delete the sections that `state` does not name and that are in `unnamed`, what an earlier
        sweep gave; what the next one may delete. The time in between is the readers'.

        Only for the owner whose commit of `state` has just returned, with nothing else of its in
        flight: sections that a newer owner has written are then never seen, because it wrote a root
        before them.
        """
        prefix = registry_prefix(state.partition)
        named = {prefix + ref.object.name for ref in state.sections if ref.object is not None}
        found: set[str] = set()
        async for info in self._store.list(registry_sections_prefix(state.partition)):
            if info.key not in named:
                found.add(info.key)
            if len(found) == SWEEP_MAX:
                break
        versions = await self._versions(state.partition)
        if versions[-1:] != [state.version]:
            return frozenset()
        await self._delete(sorted(found & unnamed))
        return frozenset(found - unnamed)

    async def _with_changes(
        self, state: RegistryState, changes: Mapping[RegistryKey, NamespaceSummary | None]
    ) -> tuple[SectionRef, ...]:
        old = state.sections
        by_place: dict[int, dict[RegistryKey, NamespaceSummary | None]] = {}
        for key, summary in changes.items():
            by_place.setdefault(place_of(old, key), {})[key] = summary
        parts: list[Part] = list(old)
        for place, some in by_place.items():
            before = await self._of(state, old[place]) if old else []
            after = changed_rows(before, some)
            if after != before:
                parts[place : place + 1] = [Rows(after)]
        if not any(isinstance(part, Rows) for part in parts):
            return old
        while (pair := small_neighbour(parts)) is not None:
            low, high = sorted(pair)
            joined = await self._of(state, parts[low]) + await self._of(state, parts[high])
            parts[low : high + 1] = [Rows(joined)]
        return await self._written(state.partition, cut(parts))

    async def _of(self, state: RegistryState, part: Part) -> list[Row]:
        if isinstance(part, Rows):
            return part.rows
        return decode_rows(await self._body(state.partition, part), "the registry")

    async def _written(self, partition: int, parts: list[Part]) -> tuple[SectionRef, ...]:
        if len(parts) == 1 and isinstance(parts[0], Rows):
            return (inline_section(parts[0].rows),)
        objects: list[EncodedObject] = []
        sections: list[SectionRef] = []
        for part in parts:
            if isinstance(part, Rows):
                made, ref = section_object(part.rows, new_uuid())
                objects.append(made)
                sections.append(ref)
            else:
                assert part.object is not None, "what is inline is alone"
                sections.append(part)
        await put_objects(self._store, registry_prefix(partition), objects)
        for made in objects:
            key = registry_prefix(partition) + made.ref.name
            self._keep(key, open_section(made.data, key))
        return tuple(sections)

    async def _rows(self, state: RegistryState, start: RegistryKey) -> AsyncIterator[Row]:
        """Those >= start."""
        if not state.sections:
            return
        for ref in state.sections[place_of(state.sections, start) :]:
            for key, summary in decode_rows(await self._body(state.partition, ref), "the registry"):
                if key >= start:
                    yield key, summary

    async def _body(self, partition: int, ref: SectionRef) -> bytes:
        """`ObjectNotFound` if the section was replaced long ago and deleted."""
        if ref.object is None:
            return ref.inline
        key = registry_prefix(partition) + ref.object.name
        body = self._cached.get(key)
        if body is None:
            data = await self._store.get(key)
            if checksum(data) != ref.object.checksum:
                raise CorruptData(f"{key} does not match its checksum in the registry")
            body = open_section(data, key)
            self._keep(key, body)
        else:
            self._cached.move_to_end(key)
        return body

    def _keep(self, key: str, body: bytes) -> None:
        if key not in self._cached:
            self._cached[key] = body
            self._cached_bytes += len(body)
        while self._cached_bytes > self._cache_bytes:
            _, oldest = self._cached.popitem(last=False)
            self._cached_bytes -= len(oldest)

    async def _following(self, state: RegistryState, error: ObjectNotFound) -> RegistryState:
        """A newer version than one whose section is gone."""
        newest = await self.newest(state.partition)
        if newest is None or newest.version <= state.version:
            raise CorruptData(f"the registry names a section that is missing: {error}") from error
        return newest

    async def _read(self, partition: int, version: int) -> RegistryState:
        key = registry_key(partition, version)
        data = await self._store.get(key)
        try:
            if data[:MAGIC_BYTES] == MAGIC:
                state = _decoder.decode(unseal(MAGIC, data, key))
            else:
                state = _of_format_one(data, key)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CorruptData(f"{key} is not a registry: {error}") from error
        if (state.partition, state.version) != (partition, version):
            raise CorruptData(f"{key} is that of partition {state.partition}, {state.version}")
        return state

    async def _versions(self, partition: int) -> list[int]:
        """Ascending. Sections lie elsewhere, so this is one small request at any size."""
        keys = [info.key async for info in self._store.list(registry_roots_prefix(partition))]
        return [version for key in keys if (version := version_of(key)) is not None]

    async def _delete(self, keys: list[str]) -> None:
        results = await asyncio.gather(*map(self._store.delete, keys), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, Unavailable):
                raise result  # what is left is deleted by a later commit or sweep


def _fenced(newest: RegistryState, ours: RegistryState) -> Fenced:
    return Fenced(
        f"owner epoch {newest.owner_epoch} writes partition {newest.partition}; "
        f"this one, {ours.owner_epoch}, must stop"
    )


def _of_format_one(data: bytes, key: str) -> RegistryState:
    one = _decoder_one.decode(data)
    if one.format != 1:
        raise CorruptData(f"{key} has registry format {one.format}; this build reads 1 and 2")
    rows = [
        (key, NamespaceSummary(**msgspec.structs.asdict(summary)))
        for key, summary in sorted(one.namespaces.items())
    ]
    return RegistryState(
        partition=one.partition,
        log_id=one.log_id,
        log_epoch=one.log_epoch,
        owner_epoch=one.owner_epoch,
        version=one.version,
        commit_uuid=one.commit_uuid,
        checkpoint=one.checkpoint,
        sections=(inline_section(rows),) if rows else (),
    )
