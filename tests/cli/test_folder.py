"""Who owns a data folder.

At stake: two builders over one folder, and commands that talk to a server that is not there.
"""

import json
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from cli.runtime.folder import (
    ADDRESS,
    claimed,
    new_address,
    owned,
    publish_address,
    running_server,
)
from core.errors import ConfigError


def hold(folder: str, told: Connection) -> None:
    """Own the folder and say so, until killed."""
    with owned(Path(folder)):
        publish_address(Path(folder), new_address("http://127.0.0.1:1"))
        told.send("mine")
        signal.pause()


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    with owned(tmp_path / "data"):
        with pytest.raises(ConfigError, match="in use by another FirnDB"), owned(tmp_path / "data"):
            pass
        with owned(tmp_path / "other"):
            pass
    with owned(tmp_path / "data"):
        pass


def test_an_owner_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    child = spawn.Process(target=hold, args=(str(tmp_path), theirs))
    child.start()
    try:
        assert ours.poll(60)
        assert ours.recv() == "mine"
        address = running_server(tmp_path)
        assert address is not None
        assert address.pid == child.pid
        with pytest.raises(ConfigError, match=f"process {child.pid}"), owned(tmp_path):
            pass
    finally:
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join(30)
        ours.close()
        theirs.close()
        child.close()
    assert (tmp_path / ADDRESS).exists(), "a killed process cannot remove its address"
    assert running_server(tmp_path) is None, "so it is not believed without the lock"
    with owned(tmp_path):
        assert not (tmp_path / ADDRESS).exists()


def test_nobody_owns_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert running_server(tmp_path / "nothing") is None
    assert not (tmp_path / "nothing").exists(), "looking makes no folder"


def test_an_owner_without_an_address_is_still_starting(tmp_path: Path) -> None:
    with owned(tmp_path), pytest.raises(ConfigError, match="try again in a moment"):
        running_server(tmp_path)


def test_the_address_is_for_its_user_only_and_gone_with_the_owner(tmp_path: Path) -> None:
    with owned(tmp_path):
        address = new_address("http://127.0.0.1:8080")
        publish_address(tmp_path, address)
        assert (tmp_path / ADDRESS).stat().st_mode & 0o777 == 0o600
        assert json.loads((tmp_path / ADDRESS).read_text())["pid"] == os.getpid()
        assert len(address.token) >= 32
        assert new_address("x").token != address.token
    assert not (tmp_path / ADDRESS).exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--data"), owned(tmp_path / "file" / "data"):
        pass


def test_processes_of_one_role_get_folders_of_their_own(tmp_path: Path) -> None:
    with claimed(tmp_path, "builder") as first, claimed(tmp_path, "builder") as second:
        assert first != second
        with claimed(tmp_path, "freshness") as other:
            assert other not in (first, second)
    with claimed(tmp_path, "builder") as again:
        assert again == first
