"""One child process that outlives its starter: spawn, find again, stop, kill.

A service is found again through its pid file, which holds the pid *and* a stamp of when that
process began. A pid alone is not an identity: the kernel hands it out again, and `down` must
never end a stranger.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOG_TAIL_BYTES = 2_000
# Below the ranges from which Linux (32768-60999) and macOS (49152-65535) take outgoing ports.
PORTS = range(20_000, 32_000)


class ServiceError(Exception):
    """A service cannot be fetched or started; the message is one paragraph for a person."""


class Unavailable(ServiceError):
    """This machine cannot have the service: a program is missing or a download failed.

    The message is one line that says what to install or do.
    """


def require_tool(program: str, install: str) -> str:
    """Absolute path of `program`, on PATH or beside this Python; else Unavailable with `install`.

    Beside this Python because some tools can be had from PyPI, and a virtual environment need
    not be activated to be used.
    """
    path = shutil.which(program) or shutil.which(program, path=Path(sys.executable).parent)
    if path is None:
        raise Unavailable(f"{program} is not on PATH: {install}")
    return path


def download(command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
    """Run a package manager to its end; Unavailable with its last line if it fails."""
    done = subprocess.run(
        list(command),
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        # Maven gives its reason first and advice on how to debug it last.
        reasons = [line for line in lines if line.startswith("[ERROR]")] or lines[-1:] or ["?"]
        raise Unavailable(f"`{' '.join(command)}` failed: {reasons[0]}")


def free_port() -> int:
    """A loopback TCP port that was free a moment ago (another process may take it first)."""
    # The kernel's own choice would lie among the ports of outgoing connections: a client that
    # keeps calling a killed broker there can connect to itself and so occupy the broker's port.
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def accepts_connections(port: int) -> bool:
    """True when something on this machine's loopback listens on `port`."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def birth_of(pid: int) -> str | None:
    """A stamp of when `pid` began, unlike that of any other process; None when it is gone.

    A zombie is gone, for it holds no port, but only once its last thread is: a killed JVM shows
    as a zombie for some milliseconds while other threads still have its sockets open.
    """
    proc = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            # The command name may hold spaces and brackets: fields count from the last one.
            fields = proc.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        state, threads, began = fields[0], int(fields[17]), fields[19]
        return None if state in "ZX" and threads <= 1 else f"{boot}/{began}"
    listed = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    status, _, started = listed.stdout.strip().partition(" ")
    return started.strip() if started and not status.startswith("Z") else None


# Processes begun by this one, kept until they are polled dead: without that they would stay
# zombies, and Popen complains when it is collected while its process goes on, as ours should.
_own_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, slots=True)
class Child:
    """The one process of a service, remembered in `folder`/pid.json, logging to `folder`/log."""

    name: str
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def _pid_file(self) -> Path:
        return self.folder / "pid.json"

    @property
    def pid(self) -> int | None:
        """Pid of the living process, whoever started it; None when it does not run."""
        try:
            record = json.loads(self._pid_file.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        pid: int = record["pid"]
        if (own := _own_children.get(pid)) is not None and own.poll() is not None:
            del _own_children[pid]
        birth = birth_of(pid)
        return pid if birth is not None and birth == record["birth"] else None

    def spawn(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        user: int | None = None,
        group: int | None = None,
    ) -> None:
        """Start `command` in its own session, so that Ctrl-C in a terminal does not reach it."""
        if self.pid is not None:
            raise ServiceError(f"{self.name} already runs with pid {self.pid}")
        with self.log.open("ab") as log:
            handle = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=self.folder,
                start_new_session=True,
                user=user,
                group=group,
                extra_groups=None if user is None else [],
            )
        _own_children[handle.pid] = handle
        record = {"pid": handle.pid, "birth": birth_of(handle.pid)}
        pending = self._pid_file.with_suffix(".new")
        pending.write_text(json.dumps(record))
        pending.replace(self._pid_file)

    def wait_ready(self, answers: Callable[[], bool], timeout_s: float) -> None:
        """Return once `answers()` is true; ServiceError with the log's end if it dies or is late.

        A late process is killed: a half-started one would only hold its port.
        """
        deadline = time.monotonic() + timeout_s
        while not answers():
            if self.pid is None:
                raise ServiceError(f"{self.name} ended while starting; {self._log_end()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServiceError(
                    f"{self.name} gave no answer in {timeout_s:.0f} s; {self._log_end()}"
                )
            time.sleep(0.05)

    def stop(self, grace_s: float, sign: signal.Signals = signal.SIGTERM) -> None:
        """End it politely, by force after `grace_s`; returns when it is gone. Idempotent."""
        if not self._signal(sign) or self._gone_within(grace_s):
            self._pid_file.unlink(missing_ok=True)
            return
        self.kill()

    def kill(self) -> None:
        """SIGKILL, as a power cut would: no flush, no goodbye; returns when it is gone."""
        if self._signal(signal.SIGKILL) and not self._gone_within(10.0):
            raise ServiceError(f"{self.name} (pid {self.pid}) survives SIGKILL")
        self._pid_file.unlink(missing_ok=True)

    def _signal(self, sign: signal.Signals) -> bool:
        pid = self.pid
        if pid is None:
            return False
        try:
            os.kill(pid, sign)
        except ProcessLookupError:
            return False
        return True

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.pid is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _log_end(self) -> str:
        try:
            end = self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        except FileNotFoundError:
            end = "(nothing was logged)"
        return f"its log {self.log} ends:\n{end}"
