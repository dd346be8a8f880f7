"""Real Kafka, S3 and PostgreSQL for tests, and the loud word when one of them cannot be had.

A pytest plugin (`pytest_plugins` in conftest.py). A test asks for `kafka_service`, `s3_service`
or `postgres_service`; each is started once a session, on free ports, with its data in a
temporary folder, as a child process (`infra.services`) or, where programs for that are missing,
as a container. Where neither is possible the test is skipped and the session's last paragraph
says so; under CI it fails, because there a skip is a hole that nobody sees.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.services.deployment import FOLDER, cache_of, services_of
from infra.services.process import Unavailable, birth_of
from infra.services.service import Service

ROOT = Path(__file__).resolve().parent.parent
CACHE = cache_of(ROOT / FOLDER)  # downloads are shared with `make services` and between sessions
SESSION_PREFIX = "firndb-services-"
NEEDS = "needs a real "


@pytest.fixture(scope="session")
def services_folder() -> Iterator[Path]:
    """The session's data folder for services; leftovers of killed sessions are ended first."""
    temporary = Path(tempfile.gettempdir())
    end_orphans(temporary)
    folder = Path(tempfile.mkdtemp(prefix=SESSION_PREFIX, dir=temporary))
    folder.chmod(0o711)  # under root PostgreSQL runs as another user, who must pass through
    (folder / "owner.json").write_text(json.dumps([os.getpid(), birth_of(os.getpid())]))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def kafka_service(services_folder: Path) -> Iterator[Service]:
    """A running broker; a test that kills it starts it again before it ends."""
    with running("kafka", services_folder) as service:
        yield service


@pytest.fixture(scope="session")
def s3_service(services_folder: Path) -> Iterator[Service]:
    """A running S3 server with the bucket `firndb`; who kills it starts it again."""
    with running("s3", services_folder) as service:
        yield service


@pytest.fixture(scope="session")
def postgres_service(services_folder: Path) -> Iterator[Service]:
    """A running PostgreSQL; `infra.services.postgres.make_database` gives a test its own."""
    with running("postgres", services_folder) as service:
        yield service


@contextmanager
def running(name: str, folder: Path) -> Iterator[Service]:
    """The service `name`, ended when the block is left, however it is left."""
    service: Service = next(s for s in services_of(folder, CACHE) if s.name == name)
    try:
        try:
            service.start()
        except Unavailable as missing:
            if not docker_answers():
                do_without(name, str(missing))
            from tests.service_containers import container_for  # only where it can be used

            service = container_for(name)
            service.start()
        yield service
    finally:
        service.stop()


def do_without(name: str, reason: str) -> None:
    """Skip the test that asked for `name`; under CI fail it."""
    text = f"{NEEDS}{name}: {reason}"
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(f"{text} (a skip is a failure when CI is set)", pytrace=False)
    pytest.skip(text)


def docker_answers() -> bool:
    """True when a Docker engine runs here, not only its client."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    asked = subprocess.run([docker, "version"], capture_output=True, timeout=20, check=False)
    return asked.returncode == 0


def end_orphans(temporary: Path) -> None:
    """End services of sessions that were killed before they could, and remove their data."""
    for folder in temporary.glob(f"{SESSION_PREFIX}*"):
        # /tmp is everybody's: a pid file that another user wrote is not a reason to kill.
        if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
            continue
        owner = folder / "owner.json"
        if not owner.exists():
            continue
        pid, birth = json.loads(owner.read_text())
        if birth_of(pid) == birth:
            continue
        for service in services_of(folder, CACHE):
            service.kill()
        shutil.rmtree(folder, ignore_errors=True)  # two sessions may sweep at once


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One paragraph at the very end when tests had to do without a real service."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
        if NEEDS in reason:
            reasons[reason.partition(NEEDS)[2]] += 1
    if not reasons:
        return
    terminalreporter.section("NOT TESTED AGAINST REAL SERVICES", sep="!", red=True, bold=True)
    terminalreporter.write_line(
        f"Tests that did not run, because this machine lacks a service: {sum(reasons.values())}"
    )
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"  {count:4} need {reason}")
    terminalreporter.write_line("Or start a Docker engine. With CI=1 this is a failure.")
