"""The threads behind `asyncio.to_thread`: those of requests apart from those of everything else."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from core.turns import CURRENT

T = TypeVar("T")

# Those that work are few (`core.turns`); the others have stepped aside in the middle of something,
# and whom they wait for needs some as well.
REQUEST_THREADS = 32


class WorkThreads(ThreadPoolExecutor):
    """For `loop.set_default_executor`. What runs for a request (`core.turns`) has threads of its
    own: behind a flush or a compaction it would wait for all of that, as threads are not taken
    away from who has them.
    """

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="background")
        self._of_requests = ThreadPoolExecutor(REQUEST_THREADS, thread_name_prefix="request")

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        turn = CURRENT.get()
        if turn is not None and turn.of_request:
            return self._of_requests.submit(fn, *args, **kwargs)
        return super().submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._of_requests.shutdown(wait, cancel_futures=cancel_futures)
        super().shutdown(wait, cancel_futures=cancel_futures)
