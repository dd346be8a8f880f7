"""Writes need the log; the freshness layer only has a say while it answers."""

from api.writes import LogWrites
from core.clock import SystemClock
from core.errors import Unavailable
from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import Metric
from core.operations import DeleteAll
from freshness.protocol import (
    FreshAnswer,
    FreshRequest,
    FreshUsage,
    NamespacesAnswer,
    NamespacesRequest,
)
from ingest.writer import LogWriter
from tests.ingest.memory_log import MemoryLog

DENSE = IndexInfo("dense", "p", "n", 2, Metric.COSINE, VectorType.DENSE, IndexState.READY)


class Silent:
    """A worker that lets everybody wait and then does not answer."""

    def __init__(self) -> None:
        self.asked = 0

    async def usage(self, partition: int) -> FreshUsage:
        self.asked += 1
        raise Unavailable("no answer")

    async def read(self, request: FreshRequest) -> FreshAnswer:
        raise Unavailable("no answer")

    async def namespaces(self, request: NamespacesRequest) -> NamespacesAnswer:
        raise Unavailable("no answer")


async def test_a_worker_that_does_not_answer_holds_up_one_write_not_all() -> None:
    silent, clock = Silent(), SystemClock()
    writes = LogWrites(LogWriter(MemoryLog(), clock), silent, 4, clock)
    for lsn in range(20):
        assert await writes.write(DENSE, "n", [DeleteAll()], request_id="r") == lsn
    assert silent.asked == 1
