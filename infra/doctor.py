"""Does what is configured keep its promises? Probes for `firndb doctor`, on real parts."""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from core.clock import new_uuid
from core.errors import FirnError
from core.log import Log
from core.object_store import ObjectStore

PREFIX = "doctor"  # of the keys that probes write and delete again
PROBE_BYTES = 100_000
SAMPLES = 10
# `-` sorts before `/`, and `0` behind it: wrong where a server walks its folders.
ORDERED_NAMES = ("a-b", "a/b", "a0")


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report; `took_ms` is the median of one request where it was timed."""

    name: str
    ok: bool
    detail: str
    took_ms: float | None = None


@dataclass(frozen=True, slots=True)
class RaceReport:
    """Of every round: how many racers were told that they created the object; and whether the
    object was that of the racer who was.
    """

    racers: int
    winners: tuple[int, ...]
    kept: tuple[bool, ...]

    @property
    def atomic(self) -> bool:
        return all(count == 1 for count in self.winners) and all(self.kept)


async def probe_put_if_absent(
    store: ObjectStore, *, racers: int = 32, rounds: int = 5
) -> RaceReport:
    """`racers` writers at once, `rounds` times: commits of manifests rest on exactly one winning.

    Give it the bare adapter: a retry that met its own success would count as no winner.
    """
    winners, kept = [], []
    for _ in range(rounds):
        key = f"{PREFIX}/{new_uuid()}/race"
        bodies = [f"racer {n} {new_uuid()} ".encode() * 200 for n in range(racers)]
        try:
            won = await asyncio.gather(*(store.put_if_absent(key, body) for body in bodies))
            winners.append(won.count(True))
            kept.append(await store.get(key) in [b for b, w in zip(bodies, won, strict=True) if w])
        finally:
            await store.delete(key)
    return RaceReport(racers, tuple(winners), tuple(kept))


async def check_store(store: ObjectStore) -> list[Check]:
    """The promises of `core.object_store` that a wrong server breaks, and its latencies."""
    root = f"{PREFIX}/{new_uuid()}"
    data = os.urandom(PROBE_BYTES)
    checks: list[Check] = []
    try:
        put_ms = await _timed(lambda n: store.put(f"{root}/timed/{n}", data))
        checks.append(Check("object store: put", True, f"{PROBE_BYTES} bytes", put_ms))
        get_ms = await _timed(lambda n: store.get(f"{root}/timed/{n}"))
        intact = await store.get(f"{root}/timed/0") == data
        checks.append(Check("object store: get", intact, "what was put comes back", get_ms))
        part = await store.get_range(f"{root}/timed/0", 500, 1500)
        checks.append(
            Check("object store: range", part == data[500:1500], "bytes [500, 1500) come back")
        )
        checks.append(await _check_order(store, root))
        race = await probe_put_if_absent(store)
        told = f"{race.racers} racing writers, winners per round: {list(race.winners)}"
        checks.append(Check("object store: put-if-absent is atomic", race.atomic, told))
    except FirnError as error:
        checks.append(Check("object store", False, str(error)))
    else:
        checks.append(await _check_deletion(store, root))
    return checks


async def check_log(scratch: Log) -> list[Check]:
    """Append, read back, end and trim on partition 0 of a topic that nobody else uses."""
    try:
        identity = await scratch.identity()
        checks = [
            Check("log: identity", True, f"{identity.log_id}, {identity.partitions} partitions")
        ]
        lsns: list[int] = []
        data = os.urandom(PROBE_BYTES)

        async def append(n: int) -> None:
            lsns.append(await scratch.append(0, b"doctor", data))

        append_ms = await _timed(append)
        grew = all(a < b for a, b in pairwise(lsns))
        checks.append(Check("log: append", grew, f"durable, {PROBE_BYTES} bytes", append_ms))
        end_ms = await _timed(lambda n: scratch.end_offset(0))
        fresh = await scratch.end_offset(0) > lsns[-1]
        checks.append(Check("log: end", fresh, "covers what was acknowledged", end_ms))
        records = await scratch.read(0, lsns[-1], wait_s=5.0)
        intact = [record.value for record in records] == [data]
        checks.append(Check("log: read", intact, "what was appended comes back"))
        await scratch.trim(0, lsns[-1] + 1)
    except FirnError as error:
        return [Check("log", False, str(error))]
    return checks


async def _check_order(store: ObjectStore, root: str) -> Check:
    wanted = [f"{root}/order/{name}" for name in ORDERED_NAMES]
    for key in reversed(wanted):
        await store.put(key, b"")
    listed = [info.key async for info in store.list(f"{root}/order/")]
    return Check("object store: list", listed == wanted, "in the order of whole keys, at once")


async def _check_deletion(store: ObjectStore, root: str) -> Check:
    """Also cleans up."""
    try:
        found = [info.key async for info in store.list(f"{root}/")]
        for key in found:
            await store.delete(key)
        left = [info.key async for info in store.list(f"{root}/")]
    except FirnError as error:
        return Check("object store: delete", False, str(error))
    return Check("object store: delete", not left, "what is deleted is not listed")


async def _timed(act: Callable[[int], Awaitable[object]]) -> float:
    """Median milliseconds of a call, one after the other; the first, which connects, aside."""
    took: list[float] = []
    for n in range(SAMPLES + 1):
        start = time.perf_counter()
        await act(n)
        took.append(time.perf_counter() - start)
    return round(statistics.median(took[1:]) * 1000, 2)


def healthy(checks: Sequence[Check]) -> bool:
    return all(check.ok for check in checks)
