"""`--long-report PATH`: the session as a page of markdown, for `docs/test-report.md`.

A test adds what it counted with `record_property("kills", 50)`; the page says when, where and on
which commit it ran, so that its numbers can be compared with the next run's.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Row:
    """One test: its outcome, how long it took with its fixtures, and what it counted."""

    test: str
    outcome: str
    seconds: float
    counted: str


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long-report",
        type=Path,
        metavar="PATH",
        help="write a markdown report of this session",
    )


def pytest_configure(config: pytest.Config) -> None:
    path: Path | None = config.getoption("--long-report")
    if path is not None:
        config.pluginmanager.register(Reporter(path), "long-report")


class Reporter:
    """Collects the reports of all phases; a test's outcome is that of its worst phase."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started = time.monotonic()
        self._reports: dict[str, list[pytest.TestReport]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._reports.setdefault(report.nodeid, []).append(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        rows = [row_of(name, reports) for name, reports in self._reports.items()]
        marks = str(session.config.getoption("markexpr"))
        text = page(rows, time.monotonic() - self._started, marks)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(text)


def row_of(name: str, reports: Sequence[pytest.TestReport]) -> Row:
    properties = {str(k): v for report in reports for k, v in report.user_properties}
    return Row(
        test=name.removeprefix("tests/"),
        outcome=outcome_of(reports),
        seconds=sum(report.duration for report in reports),
        counted=", ".join(f"{k} {v}" for k, v in properties.items()),
    )


def outcome_of(reports: Sequence[pytest.TestReport]) -> str:
    """passed, failed, skipped or error (failed outside of the test itself)."""
    if any(r.failed and r.when != "call" for r in reports):
        return "error"
    outcomes = {r.outcome for r in reports}
    return next((o for o in ("failed", "skipped") if o in outcomes), "passed")


def page(rows: Sequence[Row], seconds: float, marks: str) -> str:
    """The markdown: what did not pass, then what counted something, then the rest by file."""
    outcomes = [row.outcome for row in rows]
    counts = ", ".join(f"{outcomes.count(o)} {o}" for o in sorted(set(outcomes))) or "nothing ran"
    lines = ["# Test report", "", f"{counts}; {seconds / 60:.1f} minutes.", ""]
    lines += [f"- {name}: {value}" for name, value in surroundings(marks)]
    troubled = [row for row in rows if row.outcome != "passed"]
    counted = [row for row in rows if row.outcome == "passed" and row.counted]
    plain = [row for row in rows if row.outcome == "passed" and not row.counted]
    if troubled:
        lines += ["", "## Did not pass", "", *table(troubled)]
    if counted:
        lines += ["", "## Loops and what they counted", "", *table(counted)]
    if plain:
        lines += ["", "## Everything else, all passed", "", *files(plain)]
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Row]) -> Iterator[str]:
    yield "| test | outcome | seconds | counted |"
    yield "|---|---|--:|---|"
    for row in rows:
        cells = (row.test, row.outcome, f"{row.seconds:.1f}", row.counted)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def files(rows: Sequence[Row]) -> Iterator[str]:
    """One line for each file of tests."""
    by_file: dict[str, list[float]] = {}
    for row in rows:
        by_file.setdefault(row.test.partition("::")[0], []).append(row.seconds)
    yield "| file | tests | seconds |"
    yield "|---|--:|--:|"
    for name, seconds in sorted(by_file.items()):
        yield f"| {name} | {len(seconds)} | {sum(seconds):.1f} |"


def surroundings(marks: str) -> Iterator[tuple[str, str]]:
    yield "date", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    yield "commit", commit()
    yield "tests", f"marked {marks}" if marks else "all, with the long loops"
    yield "processor", f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield "memory", f"{memory / (1 << 30):.1f} GiB"
    yield "system", f"{platform.system()} {platform.release()}"
    yield "python", platform.python_version()


def commit() -> str:
    """The commit that ran, and whether the files were those of it."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty=, with changes", "--exclude=*", "--abbrev=12"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or "not a checkout"
