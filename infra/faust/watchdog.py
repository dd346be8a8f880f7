"""Finds a stuck worker: a crashed service, a transport or a handler without progress."""

import asyncio
import time
from collections.abc import Callable
from typing import NoReturn

from aiokafka.structs import TopicPartition

from core.errors import LogMismatch, Unavailable
from infra.faust.errors import ConsumerStuck
from infra.faust.partition import Partition
from infra.faust.settings import FaustSettings
from infra.faust.transport import ClientThread, FirnApp

CHECK_INTERVAL_S = 1.0
# The end of the log is asked for this many times within a stall timeout.
PROBES_PER_STALL = 6


class StallClock:
    """How long a mark has stood still while something was due."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._marks: dict[object, tuple[object, float]] = {}

    def still_s(self, subject: object, mark: object, *, due: bool) -> float:
        """Seconds for which `mark` of `subject` has been the same and `due` true."""
        then = self._marks.get(subject)
        if not due or then is None or then[0] != mark:
            self._marks[subject] = (mark, self._now())
            return 0.0
        return self._now() - then[1]

    def forget(self) -> None:
        self._marks.clear()


class Watchdog:
    """Raises `ConsumerStuck` out of `run`. A broker that is away is no stall: one can only wait."""

    def __init__(self, app: FirnApp, settings: FaustSettings) -> None:
        self._app = app
        self._settings = settings
        self._clock = StallClock()

    async def run(self) -> NoReturn:
        """Check for ever."""
        next_probe = time.monotonic()
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            self._check_services()
            self._check_handlers()
            if time.monotonic() >= next_probe:
                await self._check_transport()
                next_probe = time.monotonic() + self._settings.stall_timeout_s / PROBES_PER_STALL

    def _check_services(self) -> None:
        app = self._app
        thread = app.thread
        for service in (app, thread, app._fetcher):
            if service is not None and service.crashed:
                raise ConsumerStuck(f"{service.label} crashed: {service.crash_reason!r}")
        if thread is None or thread._consumer is None:
            return
        client = thread._consumer
        for name, task in (
            ("fetcher", client._fetcher and client._fetcher._fetch_task),
            ("coordinator", client._coordinator and client._coordinator._coordination_task),
        ):
            if task is not None and task.done():
                raise ConsumerStuck(f"The Kafka client's {name} has ended.")

    def _check_handlers(self) -> None:
        assignment = self._app.assignment
        limit = self._settings.handler_timeout_s
        for partition in assignment.partitions.values():
            since = partition.busy_since
            if since is not None and time.monotonic() - since > limit:
                raise ConsumerStuck(
                    f"Partition {partition.number}: the handler has not returned for {limit:.0f} s."
                )

    async def _check_transport(self) -> None:
        thread = self._app.thread
        if thread is None or thread._consumer is None:
            return
        limit = self._settings.stall_timeout_s
        probe_s = limit / PROBES_PER_STALL
        try:
            await thread.run(asyncio.sleep(0), probe_s)
        except Unavailable:
            if self._clock.still_s("thread", None, due=True) > limit:
                raise ConsumerStuck(
                    f"The Kafka client's thread has not turned for {limit:.0f} s."
                ) from None
            return
        self._clock.still_s("thread", None, due=False)
        self._check_topic(thread)
        started = [p for p in self._app.assignment.partitions.values() if p.wanted is not None]
        tps = [TopicPartition(self._settings.topic, p.number) for p in started]
        try:
            bounds = await thread.run(thread.bounds(tps), probe_s)
        except Unavailable:
            self._clock.forget()
            return
        if self._app.assignment.suspended:
            self._check_rebalance()
            return
        self._clock.still_s("rebalance", None, due=False)
        for tp, partition in zip(tps, started, strict=True):
            self._check_partition(thread, tp, partition, bounds[tp][1])

    def _check_topic(self, thread: ClientThread) -> None:
        """A topic that is not there gives no partitions and no error."""
        topic = self._settings.topic
        missing = not thread._ensure_consumer().partitions_for_topic(topic)
        if self._clock.still_s("topic", None, due=missing) > self._settings.stall_timeout_s:
            raise LogMismatch(f"The broker has no topic {topic}.")

    def _check_rebalance(self) -> None:
        # A member that died during one rebalance is waited for in the next.
        limit = self._settings.stall_timeout_s + 2 * self._settings.rebalance_timeout_s
        if self._clock.still_s("rebalance", None, due=True) > limit:
            raise ConsumerStuck(f"A rebalance has not ended for {limit:.0f} s.")

    def _check_partition(
        self, thread: ClientThread, tp: TopicPartition, partition: Partition, end: int
    ) -> None:
        """Control records are no records: aiokafka's own position tells that they were passed."""
        position = thread.fetch_position(tp)
        epoch, handed_over = thread.cursor.get(tp, (-1, -1))
        behind = position is None or position < end or handed_over != partition.wanted
        due = behind and partition.number not in self._app.assignment.blocked
        mark = (position, epoch, handed_over, partition.wanted)
        if (still_s := self._clock.still_s(tp, mark, due=due)) > self._settings.stall_timeout_s:
            raise ConsumerStuck(
                f"Partition {tp.partition} has stood still for {still_s:.0f} s: log end {end}, "
                f"fetched {position}, handed over {handed_over}, taken in {partition.wanted}."
            )
