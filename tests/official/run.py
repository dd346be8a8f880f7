"""Run the official Python client's own integration suite, unmodified, against `firndb serve`.

    python -m tests.official.run FOLDER [--sdk 9.0.1] [pytest arguments ...]

FOLDER is a checkout of the client's repository; it is only read. The suite finds the server by
environment variables alone. The server has TLS, with a certificate made for the run, because gRPC
of 9.x insists on it. What runs, and what does not and why: selection.toml.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, parse

from tests.certificates import certified
from tests.e2e.processes import ROOT, FirnProcess, clean_environment, free_ports, index_ports
from tests.official import models

HERE = Path(__file__).resolve().parent
KEY = "pclocal"
SECONDS_PER_TEST_MAX = 120  # of the suite's own waits; its pyproject.toml says 5, for unit tests
IMPORTED = "s3://pinecone-test-public/"  # the suite names it, and cancels before it is read
OUTCOMES = ("passed", "failed", "skipped")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("suite", type=Path, metavar="FOLDER")
    parser.add_argument("--sdk", default="9.0.1", metavar="VERSION")
    arguments, pytest_arguments = parser.parse_known_args()
    if not (arguments.suite / "tests" / "integration" / "conftest.py").exists():
        parser.error(f"{arguments.suite} is no checkout of the client: no tests/integration")
    selection = tomllib.loads((HERE / "selection.toml").read_text())
    python = environment(arguments.sdk)
    with tempfile.TemporaryDirectory(prefix="firndb-official-") as name:
        folder = Path(name)
        suite = copied(arguments.suite, folder / "suite")
        with served(folder) as settings:
            run = Run(python, suite, arguments.sdk, selection, settings)
            results = [*run.against_the_server(pytest_arguments), *run.mocked(pytest_arguments)]
    return report(arguments.sdk, selection, results)


def environment(sdk: str) -> Path:
    """The interpreter of an environment with that client; made at the first run."""
    folder = ROOT / ".clients" / f"official-{sdk}"
    python, mark = folder / "bin" / "python", folder / ".installed"
    needed = HERE / "requirements.txt"
    if not mark.exists() or mark.stat().st_mtime < needed.stat().st_mtime:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        command: list[str | Path] = [python, "-m", "pip", "install", "--quiet"]
        command += ["--disable-pip-version-check", f"pinecone=={sdk}", "-r", needed]
        subprocess.run(command, check=True)
        mark.touch()
    return python


def copied(checkout: Path, folder: Path) -> Path:
    """The tests alone: beside the client's source they would import that, not what is installed."""
    folder.mkdir()
    shutil.copytree(checkout / "tests", folder / "tests", ignore=shutil.ignore_patterns("unit"))
    shutil.copy(checkout / "pyproject.toml", folder)
    return folder


@contextmanager
def served(folder: Path) -> Iterator[Mapping[str, str]]:
    """A FirnDB for the run; what to set so that the suite finds it and trusts it."""
    files = certified(folder)
    os.environ["SSL_CERT_FILE"] = str(files.authority)  # for the wait until it is ready
    port = free_ports(1)[0]
    url = f"https://127.0.0.1:{port}"
    arguments = ["serve", "--data", str(folder / "data"), "--port", str(port)]
    arguments += ["--index-ports", index_ports(100), "--api-key", KEY]
    embedders = folder / "embedders.toml"
    embedders.write_text(models.configuration())
    with socket.create_server(("127.0.0.1", 0)) as silent:  # an S3 server that never answers
        settings = {
            "FIRNDB_TLS_CERT": str(files.certificate),
            "FIRNDB_TLS_KEY": str(files.key),
            "FIRNDB_EMBEDDERS": str(embedders),
            "FIRNDB_IMPORT_LOCATIONS": IMPORTED,
            "FIRNDB_S3_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }
        server = FirnProcess(arguments, settings, folder / "firndb.log", f"{url}/readyz")
        server.start()
        try:
            server.wait_until_ready()
            yield {
                "PINECONE_API_KEY": KEY,
                "PINECONE_CONTROLLER_HOST": url,
                "SSL_CERT_FILE": str(files.authority),
                "PINECONE_IMPORT_S3_URI": IMPORTED,
                "SMOKE_RUN_BACKUPS": "1",
                "SMOKE_RUN_POD_SHIMS": "1",
            }
        finally:
            server.clean_up()


class Run:
    """pytest in the client's environment, on the copied suite."""

    def __init__(
        self,
        python: Path,
        suite: Path,
        sdk: str,
        selection: Mapping[str, Any],
        settings: Mapping[str, str],
    ) -> None:
        self._python, self._suite, self._settings = python, suite, settings
        self._selection, self._sdk = selection, sdk

    def against_the_server(self, more: Sequence[str]) -> list[Element]:
        tests = [
            f"tests/{folder}/test_{name}.py"
            for folder in ("integration", "smoke")
            for name in self._selection[folder]
        ]
        names = [*left_out(self._selection, self._sdk), *self._selection["mocked"]["tests"]]
        return self._pytest([*tests, *deselected(names), *more], self._settings)

    def mocked(self, more: Sequence[str]) -> list[Element]:
        absent = left_out(self._selection, self._sdk)
        names = [name for name in self._selection["mocked"]["tests"] if name not in absent]
        if not names:
            return []
        tests = [f"tests/{name}" for name in names]
        return self._pytest([*tests, *more], {"PINECONE_API_KEY": KEY})

    def _pytest(self, arguments: Sequence[str], settings: Mapping[str, str]) -> list[Element]:
        told = self._suite / "results.xml"
        told.unlink(missing_ok=True)
        options = ["-q", "-p", "no:cacheprovider", "-W", "ignore", "--tb=short", "--no-header"]
        options += [f"--timeout={SECONDS_PER_TEST_MAX}", f"--junitxml={told}"]
        options += ["-o", "junit_family=xunit1"]
        if not self._sdk.startswith("9."):
            shutil.copy(HERE / "lists_of_sdk_9.py", self._suite)
            options += ["-p", "lists_of_sdk_9"]
        known = {**clean_environment(), **settings, "PYTHONPATH": str(self._suite)}
        command = [str(self._python), "-m", "pytest", *options, *arguments]
        subprocess.run(command, cwd=self._suite, env=known, check=False)
        return list(parse(told).getroot().iter("testcase")) if told.exists() else []


def left_out(selection: Mapping[str, Any], sdk: str) -> list[str]:
    """The tests that are not run with this client."""
    return [
        name
        for entry in selection["left_out"]
        if sdk.startswith(entry.get("sdk", ""))
        for name in entry["tests"]
    ]


def deselected(names: Iterable[str]) -> list[str]:
    return [part for name in names for part in ("--deselect", f"tests/{name}")]


def outcome(case: Element) -> str:
    kinds = {child.tag for child in case}
    if kinds & {"failure", "error"}:
        return "failed"
    return "skipped" if "skipped" in kinds else "passed"


def report(sdk: str, selection: Mapping[str, Any], results: Sequence[Element]) -> int:
    """Prints what came out, file by file; 0 if nothing failed."""
    files: dict[str, Counter[str]] = {}
    for case in results:
        files.setdefault(str(case.get("file")), Counter())[outcome(case)] += 1
    print(f"\nThe official suite with pinecone {sdk} against FirnDB:\n")
    for name, counted in files.items():
        print("  ", *(f"{counted[kind]:4} {kind}" for kind in OUTCOMES), f"  {name}")
    total = sum(files.values(), Counter())
    print("  ", *(f"{total[kind]:4} {kind}" for kind in OUTCOMES), "   together")
    for entry in selection["left_out"]:
        if sdk.startswith(entry.get("sdk", "")):
            print(f"   {len(entry['tests']):4} left out: {entry['reason']}")
    for kind in ("skipped", "failed"):
        for case in results:
            if outcome(case) == kind:
                print(f"\n{kind}: {case.get('file')}::{case.get('name')}\n  {told_of(case)}")
    return 1 if total["failed"] or not total["passed"] else 0


def told_of(case: Element) -> str:
    """The first words of a failure, or why a test was skipped."""
    for child in case:
        if child.tag in {"failure", "error", "skipped"}:
            return (child.get("message") or "").strip()[:300]
    return ""


if __name__ == "__main__":
    raise SystemExit(main())
