"""The object store's own time: what it says when an object is put, and the seconds since.

Ages of objects are told by the store, so nobody else's clock may decide on them.
"""

from core.clock import Clock, new_uuid
from core.errors import Unavailable
from core.object_store import ObjectStore

# Clocks that go wrong by 100 seconds a day drift by half a second in this time.
MEASURED_EVERY_S = 600.0
FOLDER = "registry/clock/"


class StoreClock:
    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._measured: tuple[int, float] | None = None

    async def now_ms(self) -> int:
        """Milliseconds since 1970, never ahead of the store. `Unavailable`."""
        if self._measured is None or self._clock.monotonic() - self._measured[1] > MEASURED_EVERY_S:
            self._measured = await self._measure()
        then_ms, at = self._measured
        return then_ms + int((self._clock.monotonic() - at) * 1000)

    async def _measure(self) -> tuple[int, float]:
        key = FOLDER + new_uuid()
        await self._store.put(key, b"")
        info = await self._store.stat(key)
        at = self._clock.monotonic()
        await self._store.delete(key)
        if info is None:
            raise Unavailable(f"the object store lost {key} in an instant")
        return info.modified_ms, at
