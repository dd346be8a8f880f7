"""How a read sees a namespace: a manifest and what freshness says above it, without a hole between
them.
"""

from dataclasses import dataclass, replace

from core.clock import Clock
from core.errors import DeadlineExceeded, Unavailable
from core.indexes import IndexInfo
from core.log import NO_LSN
from core.partition import partition_of, wal_key
from freshness.protocol import FreshAnswer, FreshReader, FreshRequest, FreshStatus
from query.manifests import ManifestCache, NamespaceState
from query.model import Consistency, Freshness, ReadOptions
from query.positions import Positions

# Counts and listings need every touched id: 2 million hashes are 16 MB.
ALL_TOUCHED = 1 << 31
# Each try proves a newer manifest; freshness forgets at most once a second.
TRIES_MAX = 8
# A restored namespace is in its manifest some 0.1 s after its attach entry is in the log.
ATTACH_POLL_S = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """`answer` is empty where freshness had nothing to add. `seen`: what both together cover."""

    state: NamespaceState
    answer: FreshAnswer
    seen: Freshness

    @property
    def exists(self) -> bool:
        said = self.answer.exists
        return self.state.exists if said is None else said

    @property
    def declared(self) -> tuple[str, ...] | None:
        """Fields of the namespace's schema, if it has one."""
        manifest = self.state.manifest
        if manifest is None or manifest.deleted or self.answer.ended:
            return self.answer.declared
        return manifest.declared

    @property
    def reader_hidden(self) -> bool:
        """No file row counts."""
        return self.answer.cleared or self.state.reader is None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a read waits for. known: False if the log could not say where it ends."""

    lsn: int
    known: bool
    strict: bool
    until_s: float


class Watch:
    """Pairs manifests with freshness, by the protocol of `freshness.protocol`."""

    def __init__(
        self,
        manifests: ManifestCache,
        fresh: FreshReader,
        positions: Positions,
        clock: Clock,
        partitions: int,
        deadline_s: float,
    ) -> None:
        self._manifests = manifests
        self._fresh = fresh
        self._positions = positions
        self._clock = clock
        self._partitions = partitions
        self._deadline_s = deadline_s

    def partition(self, index_id: str, namespace: str) -> int:
        return partition_of(wal_key(index_id, namespace), self._partitions)

    def request(self, index: IndexInfo, namespace: str) -> FreshRequest:
        """To be filled with what is asked; `see` sets the LSNs and the deadline."""
        return FreshRequest(
            index_id=index.index_id,
            namespace=namespace,
            partition=self.partition(index.index_id, namespace),
            metric=index.metric,
            dimension=index.dimension,
            manifest_lsn=NO_LSN,
        )

    async def wanted_of(self, index: IndexInfo, namespace: str, options: ReadOptions) -> Wanted:
        """What a read of one namespace wants to see: its own newest write, where the log can tell,
        so that it does not wait for its neighbours' in the same partition.
        """
        key = wal_key(index.index_id, namespace)
        return await self.wanted(partition_of(key, self._partitions), options, key)

    async def wanted(
        self, partition: int, options: ReadOptions, key: bytes | None = None
    ) -> Wanted:
        deadline_s = self._deadline_s if options.deadline_s is None else options.deadline_s
        until_s = self._clock.monotonic() + deadline_s
        strict = options.consistency is Consistency.STRONG
        if options.min_lsn is not None:
            return Wanted(options.min_lsn, True, True, until_s)
        if options.consistency is Consistency.EVENTUAL:
            return Wanted(NO_LSN, True, False, self._clock.monotonic())
        try:
            return Wanted(await self._positions.end_lsn(partition, key), True, strict, until_s)
        except Unavailable:
            if strict:
                raise
            return Wanted(NO_LSN, False, False, until_s)

    def left_s(self, wanted: Wanted) -> float:
        return max(0.0, wanted.until_s - self._clock.monotonic())

    async def see(self, request: FreshRequest, wanted: Wanted) -> Sight:
        """`DeadlineExceeded` if a strict read could not see all that it wanted."""
        state = await self._manifests.get(request.index_id, request.namespace)
        state, answer = await self._paired(request, state, wanted)
        while _attaching(answer, wanted) and self.left_s(wanted) > 0:
            newer = await self._manifests.refresh(request.index_id, request.namespace)
            if newer.version == state.version:
                await self._clock.sleep(min(ATTACH_POLL_S, self.left_s(wanted)))
            state, answer = await self._paired(request, newer, wanted)
        if answer.status not in (FreshStatus.OK, FreshStatus.BEHIND):
            state = await self._manifests.refresh(request.index_id, request.namespace)
        seen = _seen(state, answer, wanted)
        if wanted.strict and seen.stale:
            _refuse(seen, answer, wanted)
        return Sight(state, answer, seen)

    async def _paired(
        self, request: FreshRequest, state: NamespaceState, wanted: Wanted
    ) -> tuple[NamespaceState, FreshAnswer]:
        """A manifest at or above freshness' floor, or a proof that it is the newest."""
        for _ in range(TRIES_MAX):
            answer = await self._ask(request, state, wanted)
            if answer.status not in (FreshStatus.REREAD, FreshStatus.UNPROVEN):
                return state, answer
            state = await self._manifests.prove(
                request.index_id, request.namespace, answer.floor_lsn
            )
        raise Unavailable(f"the manifest of {request.namespace!r} changes faster than it is read")

    async def _ask(
        self, request: FreshRequest, state: NamespaceState, wanted: Wanted
    ) -> FreshAnswer:
        asked = replace(
            request,
            manifest_lsn=state.complete_lsn,
            want_lsn=wanted.lsn,
            deadline_s=self.left_s(wanted),
        )
        try:
            return await self._fresh.read(asked)
        except Unavailable:
            # the files alone are an answer as of their own LSN, and it says so
            return FreshAnswer(FreshStatus.NOT_READY)


def _attaching(answer: FreshAnswer, wanted: Wanted) -> bool:
    """Whether what is wanted comes with files that a manifest will name in a moment."""
    missing = answer.overflowed_from
    return answer.attaching and missing is not None and missing <= wanted.lsn


def _seen(state: NamespaceState, answer: FreshAnswer, wanted: Wanted) -> Freshness:
    lsn = state.complete_lsn
    if answer.status is FreshStatus.OK:
        applied = answer.applied_lsn
        if answer.overflowed_from is not None:
            applied = min(applied, answer.overflowed_from - 1)
        lsn = max(lsn, applied)
    stale = lsn < wanted.lsn or not wanted.known
    return Freshness(lsn, stale, overflowed=answer.overflowed_from is not None)


def _refuse(seen: Freshness, answer: FreshAnswer, wanted: Wanted) -> None:
    if seen.overflowed:
        raise Unavailable(
            f"this namespace has more unindexed writes than memory; reads see it up to {seen.lsn}, "
            f"not {wanted.lsn}, until the index builder catches up",
            retry_after_s=5.0,
        )
    raise DeadlineExceeded(
        f"reads see this namespace up to LSN {seen.lsn}; {wanted.lsn} was not reached in time"
        + ("" if answer.status is FreshStatus.OK else f" (freshness: {answer.status.value})")
    )
