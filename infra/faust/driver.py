"""`run_faust_consumer`: one Faust app that feeds one `LogConsumer` until it is told to end."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Collection, Iterator
from typing import Any, NoReturn

from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import TopicPartition
from faust.types import StreamT

from core.consumer import LogConsumer
from core.errors import Unavailable
from infra.faust.assignment import Assignment
from infra.faust.loop_guard import loop_guard
from infra.faust.quiet import fewer_repeats
from infra.faust.settings import FaustSettings
from infra.faust.transport import ClientThread, FirnApp
from infra.faust.watchdog import Watchdog

logger = logging.getLogger(__name__)

# Of the time for a stop this part is for the last flush, the rest is for leaving the group.
HANDLER_STOP_SHARE = 0.6
COMMIT_TIMEOUT_S = 2.0
BEAT_S = 1.0


async def run_faust_consumer(consumer: LogConsumer, settings: FaustSettings) -> None:
    """Feed `consumer` with the partitions that the group gives us. Returns after SIGTERM or SIGINT.

    Ends within `stop_timeout_s`, partitions given back and group left; also when cancelled. Raises
    what a handler raised (but `Unavailable`: that call is repeated); `LogMismatch` if the log does
    not hold what a handler wants; `ConsumerStuck` if nothing moves; `Unavailable` if no broker
    answers at the start; a Kafka error that does not pass by itself. The process should exit then.
    A broker lost later is waited for.
    """
    await _Worker(consumer, settings).run()


class _Worker:
    """One run: builds the app, waits for the first reason to end, stops everything."""

    def __init__(self, consumer: LogConsumer, settings: FaustSettings) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._failure: asyncio.Future[None] = self._loop.create_future()
        self._told_to_end = asyncio.Event()
        self._assignment = Assignment(consumer, self, settings, self._fail)
        self._app = build_app(settings, self._assignment, self)
        self._committed: dict[int, int] = {}

    async def run(self) -> None:
        with fewer_repeats(), self._signals(), loop_guard(self._settings.loop_timeout_s) as beat:
            beating = self._loop.create_task(_beat(beat))
            starting = self._loop.create_task(self._app.start())
            tasks = [
                self._loop.create_task(Watchdog(self._app, self._settings).run()),
                self._loop.create_task(self._follow()),
                self._loop.create_task(self._told_to_end.wait()),
            ]
            try:
                done = await first_done([starting, *tasks, self._failure])
                if done == {starting} and starting.exception() is None:
                    done = await first_done([*tasks, self._failure])
                for each in done:
                    each.result()
            except KafkaConnectionError as error:
                raise Unavailable(f"No broker answers at {self._settings.bootstrap}.") from error
            finally:
                await end([starting, *tasks])
                await self._stop()
                await end([beating])
            if self._failure.done():  # of the stop: a last flush that failed
                self._failure.result()

    def fail(self, error: BaseException) -> None:
        """The first failure ends the run; from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the run is over
            self._loop.call_soon_threadsafe(self._fail, error)

    def _fail(self, error: BaseException) -> None:
        if self._failure.done():
            logger.error("after the first failure: %r", error)
        else:
            self._failure.set_exception(error)

    # The two methods of `LogReader`.

    async def place(self, partition: int, offset: int, epoch: int) -> bool:
        thread = self._thread()
        tp = TopicPartition(self._settings.topic, partition)
        return await thread.run(thread.place(tp, offset, epoch), self._settings.request_timeout_s)

    async def bounds(self, partition: int) -> tuple[int, int]:
        thread = self._thread()
        tp = TopicPartition(self._settings.topic, partition)
        found = await thread.run(thread.bounds([tp]), self._settings.request_timeout_s)
        return found[tp]

    def _thread(self) -> ClientThread:
        thread = self._app.thread
        assert thread is not None, "this thread assigns the partitions"
        return thread

    async def _follow(self) -> None:
        """The group's offsets follow the handler's, for people and tools to see."""
        while True:
            await asyncio.sleep(self._settings.commit_interval_s)
            if not self._assignment.suspended:
                await self._commit()

    async def _commit(self) -> None:
        offsets = self._assignment.committable()
        moved = {n: offset for n, offset in offsets.items() if self._committed.get(n) != offset}
        thread = self._app.thread
        if thread is None or not moved:
            return
        topic = self._settings.topic
        hint = {TopicPartition(topic, number): offset for number, offset in moved.items()}
        try:
            await thread.run(thread.commit_hint(hint), COMMIT_TIMEOUT_S)
        except Unavailable as error:
            logger.info("group offsets not moved: %s", error)
        else:
            self._committed = offsets

    async def _stop(self) -> None:
        """Handlers first, while the partitions are still ours; then the group is left."""
        limit_s = self._settings.stop_timeout_s
        deadline = self._loop.time() + limit_s
        try:
            async with asyncio.timeout(limit_s * HANDLER_STOP_SHARE):
                await self._commit()
                await self._assignment.close()
        except TimeoutError:
            logger.error("handlers did not let go of their partitions in time; leaving the group")
        try:
            async with asyncio.timeout_at(deadline):
                await self._app.stop()
        except TimeoutError:
            logger.error("the group was not left in time; it waits out the session timeout")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        signals = (signal.SIGTERM, signal.SIGINT) if self._settings.handle_signals else ()
        for each in signals:
            self._loop.add_signal_handler(each, self._told_to_end.set)
        try:
            yield
        finally:
            for each in signals:
                self._loop.remove_signal_handler(each)


def build_app(settings: FaustSettings, assignment: Assignment, worker: _Worker) -> FirnApp:
    """An app of one agent; what Faust could do besides is off."""
    app = FirnApp(
        settings.group,
        broker=[f"aiokafka://{address}" for address in settings.bootstrap.split(",")],
        datadir=str(settings.data_dir),
        broker_request_timeout=settings.request_timeout_s,
        broker_session_timeout=settings.session_timeout_s,
        stream_wait_empty=False,  # else a rebalance waits for every record in the queue
        stream_buffer_maxsize=64,  # records; the agent only passes them on
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )
    app.worker_settings = settings
    app.assignment = assignment
    app.fail = worker.fail

    async def pass_on(stream: StreamT[Any]) -> None:
        """The agent. It neither waits nor fails: Faust has nothing to restart or to starve."""
        async for fetched in stream:
            assignment.take_in(fetched)

    topic = app.topic(settings.topic, key_serializer="raw", value_serializer="raw", acks=False)
    app.agent(topic, name="pass_on")(pass_on)
    app.finalize()
    app.loop = asyncio.get_running_loop()
    return app


async def _beat(beat: Callable[[], None]) -> NoReturn:
    """As often as the event loop turns, whatever waits meanwhile for a broker that is away."""
    while True:
        beat()
        await asyncio.sleep(BEAT_S)


async def first_done(waited: Collection[asyncio.Future[Any]]) -> set[asyncio.Future[Any]]:
    done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    return done


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel and wait; what they raised was told already, or is not the reason to end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
