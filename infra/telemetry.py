"""What a process says of itself: log lines on stderr, and metrics that Prometheus collects."""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal, TypeVar

import orjson
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.metrics import MetricWrapperBase

from core.printable import printable

# Seconds. From a query in memory (1 ms) to the longest deadline (25 s), about three a decade.
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25)

# They tell of every request and every connection.
CHATTY = ("uvicorn", "alembic", "aiobotocore", "botocore", "s3fs", "asyncio")
# At every rebalance they tell each step of their own machinery; our driver says what came of it.
FAUST = ("faust", "mode", "aiokafka", "infra.faust.transport")

REPEAT_S = 10.0
# Of a laptop's 16 partitions some tell the same; three show that it is not only one of them.
BURST = 3
TEMPLATES_MAX = 1000

M = TypeVar("M", bound=MetricWrapperBase)


def configure_logging(level: str, style: Literal["text", "json"]) -> None:
    """Send every logger to stderr, one line or one JSON object per message. May be called again."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if style == "json" else TextLines())
    if level != "debug":
        handler.addFilter(Repeats(burst=BURST))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in FAUST:
        logging.getLogger(name).setLevel(logging.NOTSET if level == "debug" else logging.WARNING)


class Repeats(logging.Filter):
    """Lets `burst` messages of one template through in `REPEAT_S`, then one with the number held
    back: an outage is told by every partition and every try, and reads the same each time.
    """

    def __init__(self, burst: int = 1, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._burst = burst
        self._now_s = now_s
        # By template: (start of its window, messages in it).
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        template = str(record.msg)
        now = self._now_s()
        if len(self._seen) >= TEMPLATES_MAX:
            self._seen.clear()  # somebody formats before logging; better too many lines than none
        since, count = self._seen.get((record.name, template), (now, 0))
        held_back = 0
        if now - since >= REPEAT_S:
            since, held_back, count = now, max(0, count - self._burst), 0
        self._seen[record.name, template] = (since, count + 1)
        if held_back:
            record.msg = f"{template} (and {held_back} more like it)"
        return count < self._burst


class TextLines(logging.Formatter):
    """`12:30:01.123 warning api.server: port 8081 is taken`"""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        line = f"{at} {record.levelname.lower()} {record.name}: "
        line += printable(record.getMessage())
        return line if not record.exc_info else f"{line}\n{self.formatException(record.exc_info)}"


class JsonLines(logging.Formatter):
    """One object per line: at (UTC, ISO 8601), level, logger, message, error if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return orjson.dumps(fields).decode()


class Metrics:
    """One process's metrics. Asking for a name twice gives the same metric.

    Names start with `firndb_`; labels have few values (never an id, a namespace or a path).
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._known: dict[str, MetricWrapperBase] = {}

    def counter(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Counter:
        return self._known_or(name, Counter, meaning, labels)

    def gauge(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Gauge:
        return self._known_or(name, Gauge, meaning, labels)

    def latency(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Histogram:
        """A histogram of seconds."""
        known = self._known.get(name)
        if isinstance(known, Histogram):
            return known
        made = Histogram(name, meaning, labels, registry=self._registry, buckets=LATENCY_BUCKETS_S)
        self._known[name] = made
        return made

    def value(self, name: str) -> float:
        """The sample of a metric without labels, 0 if there is none; counters end on `_total`."""
        return self._registry.get_sample_value(name) or 0.0

    def text(self) -> bytes:
        """All of them in Prometheus' text format, and those of the process (memory, CPU, files)."""
        return generate_latest(self._registry) + generate_latest(REGISTRY)

    def _known_or(self, name: str, kind: type[M], meaning: str, labels: Sequence[str]) -> M:
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = kind(name, meaning, labels, registry=self._registry)
        if not isinstance(known, kind):
            raise TypeError(f"metric {name} is a {type(known).__name__}, not a {kind.__name__}")
        return known
