"""Damaged data files: noticed and named, healed where a good one exists, never a dead process."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.storage.damage_under_readers import HOW


def read_in_a_process(folder: Path, where: str, how: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.storage.damage_under_readers"]
    return subprocess.run(
        [*command, str(folder), where, how], capture_output=True, text=True, timeout=120
    )


SHORT = [("copy", "cut to nothing"), ("store", "cut in half"), ("store", "overwritten")]
EVERY = [
    pytest.param(where, how, marks=[] if (where, how) in SHORT else pytest.mark.long)
    for where in ("copy", "store")
    for how in HOW
]


@pytest.mark.parametrize(("where", "how"), EVERY)
def test_no_damage_to_files_kills_or_misleads_who_reads_them(
    tmp_path: Path, where: str, how: str
) -> None:
    """A truncated mapping is SIGBUS, which no Python code survives: hence a process of its own."""
    done = read_in_a_process(tmp_path, where, how)
    assert done.returncode == 0, (done.returncode, done.stderr)


def test_a_mapped_file_that_is_cut_would_have_killed_the_process(tmp_path: Path) -> None:
    """What the test above can see: without private copies it dies."""
    done = read_in_a_process(tmp_path, "mapped", "cut to nothing")
    assert done.returncode == -signal.SIGBUS, (done.returncode, done.stderr)
