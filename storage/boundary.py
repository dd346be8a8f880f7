"""Garbage collection's durable boundary: what is about to go, said before it goes.

Round n of a namespace is the object `boundary/{n}`, put if absent. It names the objects that the
round may delete, and frees numbers of manifests: those below `manifests_below`. A writer that slept
meanwhile finds out in one of two ways: its commit meets another one and, on the way to the newest
manifest, the list of what went (`collected`); or its number was free again, and the check after the
create says so (`Slots`). docs/decisions/0010 has the argument.
"""

from collections import OrderedDict

import msgspec

from core.clock import Clock
from core.errors import CorruptData, ObjectNotFound, Unavailable
from core.object_store import ObjectStore
from storage.envelope import seal, unseal
from storage.layout import boundaries_prefix, boundary_key, namespace_prefix, version_of

MAGIC = b"FIRNBND1"
# Some 60 bytes each: half a megabyte, and as many deletions; what is left waits for the next round.
OBJECTS_MAX = 8_192
# The number of a manifest is free again at the earliest so long after another one followed it, by
# the store's clock; until then an empty object keeps its place.
SLOT_S = 120.0
# So long a writer may rely on what it saw: half of it, for clocks that run at different speeds.
TRUSTED_S = SLOT_S / 2
# Proofs are used within a minute; each is some 200 bytes.
PROOFS_MAX = 4_096
READ_TRIES = 8


class Boundary(msgspec.Struct, frozen=True, kw_only=True):
    """One round. objects: names below the namespace's prefix, of objects that no manifest or
    snapshot named when the round began. manifests_below: exclusive; never above the version that
    was the newest then, plus one.
    """

    index_id: str
    namespace: str
    number: int
    manifests_below: int
    objects: tuple[str, ...] = ()
    created_ms: int = 0

    @property
    def prefix(self) -> str:
        return namespace_prefix(self.index_id, self.namespace)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Boundary)


class BoundaryStore:
    """Reads and writes the boundaries of all namespaces. Holds no state."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def newest(self, prefix: str) -> Boundary | None:
        """The newest round, committed or not; None if there never was one."""
        for _ in range(READ_TRIES):
            numbers = await self._numbers(prefix, 0)
            if not numbers:
                return None
            found = await self.read(prefix, numbers[-1])
            if found is not None:
                return found
        raise Unavailable(f"the boundaries of {prefix} change faster than they are read")

    async def read(self, prefix: str, number: int) -> Boundary | None:
        """One round; None if it is not there. `CorruptData`."""
        key = boundary_key(prefix, number)
        try:
            data = await self._store.get(key)
        except ObjectNotFound:
            return None
        try:
            found = _decoder.decode(unseal(MAGIC, data, key))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CorruptData(f"{key} is not a boundary: {error}") from error
        if (found.prefix, found.number) != (prefix, number):
            raise CorruptData(f"{key} is round {found.number} of {found.prefix}")
        return found

    async def create(self, boundary: Boundary) -> bool:
        """False: another collector has that round."""
        key = boundary_key(boundary.prefix, boundary.number)
        return await self._store.put_if_absent(key, seal(MAGIC, _encoder.encode(boundary)))

    async def collected(self, prefix: str, after: int) -> frozenset[str] | None:
        """Names that rounds above `after` may have deleted; None if not all of them can be read any
        more: then everything written before may be gone.
        """
        numbers = await self._numbers(prefix, after)
        if numbers and numbers != list(range(after + 1, numbers[-1] + 1)):
            return None
        names: set[str] = set()
        for number in numbers:
            found = await self.read(prefix, number)
            if found is None:
                return None
            names.update(found.objects)
        return frozenset(names)

    async def _numbers(self, prefix: str, after: int) -> list[int]:
        """Ascending, those above `after`."""
        start = boundary_key(prefix, after)
        listed = self._store.list(boundaries_prefix(prefix), start_after=start)
        numbers = [version_of(info.key) async for info in listed]
        return [number for number in numbers if number is not None]


class Slots:
    """Tells whether the number of a manifest just created was one that the collector had freed.

    Costs nothing where the writer saw the end of the chain a moment ago: then no later number can
    have been taken and freed again.
    """

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._boundaries = BoundaryStore(store)
        self._clock = clock
        self._proofs: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def now(self) -> float:
        """To be asked before the request that proves."""
        return self._clock.monotonic()

    def saw_newest(self, prefix: str, version: int, at: float) -> None:
        """Nothing followed `version` (0: there was none) at some time since `at`."""
        self._proofs[prefix] = (version, at)
        self._proofs.move_to_end(prefix)
        if len(self._proofs) > PROOFS_MAX:
            self._proofs.popitem(last=False)

    async def was_free_again(self, prefix: str, version: int) -> bool:
        """Asked after `version` was created: True if it is no part of the chain."""
        seen, at = self._proofs.get(prefix, (version, 0.0))
        if seen < version and self._clock.monotonic() - at < TRUSTED_S:
            return False
        newest = await self._boundaries.newest(prefix)
        return newest is not None and newest.manifests_below > version
