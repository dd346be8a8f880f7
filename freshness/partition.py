"""One partition as the layer holds it: its namespaces, its position, and who waits for it."""

import asyncio
import math
from collections import OrderedDict

from core.operations import (
    Attach,
    CreateNamespace,
    DeleteAll,
    DeleteByFilter,
    DeleteIds,
    DeleteNamespace,
    NamespaceWrite,
    Operation,
    Upsert,
)
from core.turns import waiting
from freshness.aging import Aged
from freshness.held import HeldNamespace
from freshness.protocol import HeldName, Outcome, OutcomeKey

# An outcome is asked for within the deadline of its request; at 1000 such requests a second these
# are 10 s.
OUTCOMES_MAX = 10_000

_DECIDED = (CreateNamespace, DeleteNamespace, DeleteIds, DeleteAll, DeleteByFilter)


class PartitionMemory:
    """`ready_offset`: the log's end when the partition was assigned. `forgotten_lsn`: namespaces
    that are not held may have entries up to here, all of them in published manifests. swept_lsn:
    everything up to here is in published manifests and the registry, but for entries of the
    namespaces in `held_back`, from their LSN on: the builder has not flushed those.
    """

    def __init__(self, partition: int, start: int, ready_offset: int) -> None:
        self.partition = partition
        self.next_offset = start
        self.ready_offset = ready_offset
        self.forgotten_lsn = start - 1
        self.swept_lsn = start - 1
        self.held_back: dict[tuple[str, str], int] = {}
        self.holds_unknown = False
        self.checkpoint = Aged()
        self.checkpoint_news_s = -math.inf
        self.namespaces: dict[tuple[str, str], HeldNamespace] = {}
        self.revoked = False
        self.settling = False
        self._outcomes: OrderedDict[tuple[str, str, OutcomeKey], Outcome] = OrderedDict()
        self._waiters: dict[asyncio.Future[None], int] = {}

    @property
    def applied_lsn(self) -> int:
        return self.next_offset - 1

    @property
    def ready(self) -> bool:
        return self.next_offset >= self.ready_offset

    def held(self, index_id: str, namespace: str) -> HeldNamespace | None:
        return self.namespaces.get((index_id, namespace))

    def held_names(self, index_id: str) -> tuple[HeldName, ...]:
        """Where they do not say, the registry does, if its checkpoint is above `swept_lsn`."""
        return tuple(
            HeldName(name, None if asked else held.memory.exists, asked)
            for (owner, name), held in self.namespaces.items()
            if owner == index_id
            for asked in (held.overflowed or held.memory.floor_lsn > self.swept_lsn,)
        )

    async def apply(self, write: NamespaceWrite, now_s: float) -> HeldNamespace:
        """One write at a time; reads may see a write of several entries grow."""
        key = (write.index_id, write.namespace)
        held = self.namespaces.get(key)
        if held is None:
            held = self.namespaces[key] = HeldNamespace(*key, self.forgotten_lsn)
        self._decide(held, write)
        await held.apply(write, now_s)
        return held

    def learn_checkpoint(self, checkpoint: int, now_s: float) -> None:
        self.checkpoint.learn(checkpoint, now_s)
        self.checkpoint_news_s = now_s

    def learn_holds(self, held_back: dict[tuple[str, str], int], checkpoint: int) -> None:
        """What the registry with that checkpoint says. Nothing of those namespaces is forgotten
        from their LSN on, and what is not here of them is a hole.
        """
        self.held_back = held_back
        self.holds_unknown = False
        for key, first_lsn in held_back.items():
            if key not in self.namespaces:
                self.namespaces[key] = HeldNamespace.with_hole(*key, first_lsn, checkpoint)

    def drop(self, held: HeldNamespace) -> None:
        """Forgets a namespace that holds nothing any more."""
        assert held.is_empty
        del self.namespaces[held.index_id, held.namespace]
        self.forgotten_lsn = max(self.forgotten_lsn, held.memory.floor_lsn)

    def outcome(self, index_id: str, namespace: str, key: OutcomeKey) -> Outcome | None:
        return self._outcomes.get((index_id, namespace, key))

    def advance(self, next_offset: int) -> None:
        """Everything below is applied or was nothing for us; wakes who waited for it."""
        self.next_offset = max(self.next_offset, next_offset)
        if self._waiters:
            for waiter, wanted in list(self._waiters.items()):
                if wanted < self.next_offset and not waiter.done():
                    waiter.set_result(None)

    def revoke(self) -> None:
        self.revoked = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait_for(self, lsn: int, deadline_s: float) -> None:
        """Until `lsn` is applied, the partition is revoked, or the time is over: the caller looks
        which.
        """
        if lsn < self.next_offset or self.revoked or deadline_s <= 0:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = lsn
        try:
            with waiting():
                await asyncio.wait((waiter,), timeout=deadline_s)
        finally:
            del self._waiters[waiter]
            waiter.cancel()

    def _decide(self, held: HeldNamespace, write: NamespaceWrite) -> None:
        """Keeps whether the namespace existed before each entry whose client may ask."""
        if not any(e.request_id and isinstance(e.operation, _DECIDED) for e in write.entries):
            return
        if held.overflowed:
            return  # what it let pass may have said more; nobody can tell now
        known = held.memory.exists
        for entry in write.entries:
            if isinstance(entry.operation, Attach):
                return  # what it does, only the builder knows
            if entry.request_id and isinstance(entry.operation, _DECIDED):
                key = OutcomeKey(write.lsn, entry.request_id)
                self._outcomes[held.index_id, held.namespace, key] = Outcome(write.lsn, known)
            known = _existence_after(entry.operation, known)
        while len(self._outcomes) > OUTCOMES_MAX:
            self._outcomes.popitem(last=False)


def _existence_after(operation: Operation, before: bool | None) -> bool | None:
    match operation:
        case Upsert() | CreateNamespace():
            return True
        case DeleteNamespace():
            return False
        case _:
            return before
