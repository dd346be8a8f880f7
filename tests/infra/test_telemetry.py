"""Log lines and metrics of a process."""

import json
import logging
from collections.abc import Iterator

import pytest

from infra.telemetry import REPEAT_S, Metrics, Repeats, configure_logging


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_a_line_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "text")
    logging.getLogger("api.server").warning("port %d is taken", 8081)
    logging.getLogger("api.server").debug("not shown")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].endswith(" warning api.server: port 8081 is taken")


def test_what_clients_sent_makes_no_lines_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "text")
    logging.getLogger("api").warning("request to %s failed", "/a\n12:00:00.000 error api: \x1b[2J")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("request to /a\\n12:00:00.000 error api: \\x1b[2J failed")


def test_an_object_for_machines_also_with_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    try:
        raise ValueError("what went wrong")
    except ValueError:
        logging.getLogger("api").exception("it failed\nbadly")
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert (told["level"], told["logger"]) == ("error", "api")
    assert told["message"] == "it failed\nbadly"
    assert "ValueError: what went wrong" in told["error"]


def test_an_outage_is_told_in_a_few_lines_and_nothing_is_lost_count_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now_s = 0.0
    caplog.handler.addFilter(repeats := Repeats(burst=3, now_s=lambda: now_s))
    log = logging.getLogger("builder")
    for partition in range(64):
        log.warning("partition %d waits", partition)
        log.warning("another message for %d", partition) if partition == 63 else None
    now_s = REPEAT_S
    log.warning("partition %d waits", 7)
    caplog.handler.removeFilter(repeats)
    assert [r.getMessage() for r in caplog.records] == [
        "partition 0 waits",
        "partition 1 waits",
        "partition 2 waits",
        "another message for 63",
        "partition 7 waits (and 61 more like it)",
    ]


def test_faust_is_silent_about_its_machinery_until_it_warns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("info", "text")
    logging.getLogger("faust.tables.recovery").info("Worker ready")
    logging.getLogger("aiokafka.consumer").warning("heartbeat failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("heartbeat failed")
    configure_logging("debug", "text")
    logging.getLogger("faust.tables.recovery").info("Worker ready")
    assert "Worker ready" in capsys.readouterr().err


def test_a_metric_asked_for_twice_is_the_same_one() -> None:
    metrics = Metrics()
    for _ in range(2):
        metrics.counter("firndb_writes_total", "Writes", ("kind",)).labels("upsert").inc()
        metrics.latency("firndb_wait_seconds", "Waits").observe(0.02)
    text = metrics.text().decode()
    assert 'firndb_writes_total{kind="upsert"} 2.0' in text
    assert 'firndb_wait_seconds_bucket{le="0.025"} 2.0' in text
    with pytest.raises(TypeError, match="firndb_writes_total"):
        metrics.gauge("firndb_writes_total", "Writes")
