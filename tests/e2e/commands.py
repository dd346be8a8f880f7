"""`firndb` commands as a person runs them: to their end, with what they printed."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.e2e.processes import ROOT, clean_environment


def firndb(
    *arguments: str | Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *map(str, arguments)],
        env={**clean_environment(), **(environment or {})},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def told(*arguments: str | Path, environment: Mapping[str, str] | None = None) -> Any:
    """What the command prints with --json."""
    done = firndb(*arguments, "--json", environment=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def complaint(*arguments: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """The one line that a command says as it fails with status 1."""
    done = firndb(*arguments, environment=environment)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    # what a server logs as it begins to start is no complaint
    lines = [line for line in done.stderr.strip().splitlines() if " info " not in line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("firndb: ")
    return lines[0]
