"""Bounds that answers and writes meet: results that grow too large, memory that fills up."""

import threading
from pathlib import Path

import numpy as np
import pytest

from api.vectors import answers
from api.vectors.plane import page_size
from api.vectors.routes import page_limit
from api.writes import LogWrites
from core.clock import SystemClock
from core.errors import InvalidRequest, Overloaded, Unavailable
from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import Metric
from core.operations import DeleteAll
from core.records import Record
from freshness.protocol import (
    FreshAnswer,
    FreshRequest,
    FreshStatus,
    FreshUsage,
    NamespacesAnswer,
    NamespacesRequest,
    NamespaceUsage,
)
from infra.logs.sqlite import LogFile, SqliteLog
from ingest.writer import LogWriter
from query.model import Cost, Match

INDEX = IndexInfo("i", "p", "movies", 3, Metric.COSINE, VectorType.DENSE, IndexState.READY)


class Usage:
    """A freshness layer that is as full as it is told; None: nobody serves the partition."""

    def __init__(self, usage: FreshUsage | None) -> None:
        self._usage = usage

    async def read(self, request: FreshRequest) -> FreshAnswer:
        return FreshAnswer(FreshStatus.NOT_READY)

    async def namespaces(self, request: NamespacesRequest) -> NamespacesAnswer:
        return NamespacesAnswer(FreshStatus.NOT_READY)

    async def usage(self, partition: int) -> FreshUsage:
        if self._usage is None:
            raise Unavailable("nobody")
        return self._usage


def of_namespace(fraction: float) -> FreshUsage:
    usage = NamespaceUsage("i", "ns", 1_800_000, 1 << 20, fraction, overflowed=fraction >= 1)
    return FreshUsage(0.1, 1 << 20, (usage,))


def test_an_answer_beyond_its_limit_is_refused_with_what_to_do() -> None:
    values = np.ones(1000, dtype=np.float32)
    matches = [Match(str(n), 1.0, 0, values=values) for n in range(1100)]
    with pytest.raises(InvalidRequest, match="maximum of 4194304 bytes: ask for a lower topK"):
        answers.query_body(matches, "ns", Cost(), explain=False)
    assert answers.query_body(matches[:1000], "ns", Cost(), explain=False)


def test_a_fetch_beyond_its_limit_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers, "FETCH_RESULT_BYTES_MAX", 100)
    record = Record("a", np.ones(100, dtype=np.float32), None, {})
    with pytest.raises(InvalidRequest, match="maximum of 100 bytes: fetch fewer ids"):
        answers.fetch_body({"a": record}, "ns", Cost())


async def test_a_big_answer_is_written_off_the_event_loop() -> None:
    """At stake: a fetch of 1,000 records of 1,536 dimensions takes a quarter of a second."""

    def where() -> bytes:
        return threading.current_thread().name.encode()

    def records(count: int, dimension: int) -> list[Record]:
        values = np.ones(dimension, dtype=np.float32)
        return [Record(str(n), values, None, {}) for n in range(count)]

    here = where()
    assert await answers.apart(records(10, 384), where) == here
    assert await answers.apart([Match(str(n), 1.0, 0) for n in range(1000)], where) == here
    assert await answers.apart(records(100, 384), where) != here
    assert await answers.apart([Match(str(n), 1.0, 0) for n in range(10_000)], where) != here


@pytest.mark.parametrize("asked", ["0", "101", "-1", "ten", "1e2"])
def test_a_page_has_1_to_100_entries(asked: str) -> None:
    with pytest.raises(InvalidRequest, match="between 1 and 100"):
        page_size(page_limit(asked))
    assert page_size(page_limit("100")) == page_size(page_limit(None)) == 100


@pytest.mark.parametrize(
    ("usage", "refusal"),
    [
        (FreshUsage(0.9, 966_367_642), "FIRNDB_FRESHNESS_MEMORY_BYTES"),
        (of_namespace(0.9), "1800000 records of this namespace"),
        (FreshUsage(0.89, 900_000_000), None),
        (of_namespace(0.89), None),
        (None, None),
    ],
)
async def test_writes_are_refused_before_memory_is_full(
    tmp_path: Path, usage: FreshUsage | None, refusal: str | None
) -> None:
    """A write needs the log, not the freshness layer: without one it is accepted."""
    file = await LogFile.open(tmp_path / "log.db")
    log = await SqliteLog.open(file, "wal", 1)
    writer = LogWriter(log, SystemClock())
    writes = LogWrites(writer, Usage(usage), 1, SystemClock())
    try:
        if refusal is None:
            assert await writes.write(INDEX, "ns", [DeleteAll()], request_id="r") == 0
        else:
            with pytest.raises(Overloaded, match=refusal):
                await writes.write(INDEX, "ns", [DeleteAll()], request_id="r")
            assert await log.end_offset(0) == 0
    finally:
        await writer.close()
        await log.close()
        await file.close()
