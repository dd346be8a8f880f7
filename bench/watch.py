"""What processes use and what they say of themselves: /proc and Prometheus' text format."""

import os
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_SAMPLE = re.compile(r"^(firndb_\w+(?:{[^}]*})?) (\S+)$")
_TICKS = os.sysconf("SC_CLK_TCK")


SAMPLE_S = 0.2


@dataclass(frozen=True, slots=True)
class Usage:
    """cpu_s: user and system seconds since its start; peak_mb: of resident memory, with the pages
    of mapped files that the system may take back.
    """

    cpu_s: float
    peak_mb: float


class AnonymousMemory:
    """The most memory of each process that is no page of a file, looked at every `SAMPLE_S`."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self.peak_mb: dict[str, float] = dict.fromkeys(pids, 0.0)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopping.wait(SAMPLE_S):
            for role, pid in self._pids.items():
                status = Path(f"/proc/{pid}/status").read_text()
                found = re.search(r"RssAnon:\s+(\d+) kB", status)
                assert found is not None
                self.peak_mb[role] = max(self.peak_mb[role], int(found[1]) / 1024)


def usage(pid: int) -> Usage:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS, int(peak[1]) / 1024)


def samples(text: str) -> dict[str, float]:
    """`name{labels}` -> value of FirnDB's own metrics."""
    found = (_SAMPLE.match(line) for line in text.splitlines())
    return {match[1]: float(match[2]) for match in found if match is not None}


def summed(processes: Iterable[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for one in processes:
        for name, value in one.items():
            total[name] = total.get(name, 0.0) + value
    return total


def since(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What was added; counters that are new count from 0."""
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


def labelled(values: dict[str, float], metric: str) -> dict[str, float]:
    """The values of one metric with one label, by that label's value."""
    found = {re.match(rf'{metric}{{\w+="([^"]*)"}}$', name): v for name, v in values.items()}
    return {match[1]: value for match, value in found.items() if match is not None}
