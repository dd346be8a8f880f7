"""Real `firndb` processes for the end-to-end tests: started, waited for, killed, ended."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent
KEY = "e2e-key-0123456789abcdef"
START_TRIES = 600  # of 0.1 s: Kafka roles on a busy two-core machine


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    ports = [int(opened.getsockname()[1]) for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def index_ports(count: int = 30) -> str:
    """A range of `count` neighbouring free ports, for `--index-ports`."""
    for first in range(20000 + os.getpid() % 20000, 60000, count):
        held: list[socket.socket] = []
        try:
            for port in range(first, first + count):
                held.append(socket.socket())
                held[-1].bind(("127.0.0.1", port))
            return f"{first}-{first + count - 1}"
        except OSError:
            continue
        finally:
            for opened in held:
                opened.close()
    raise RuntimeError("no range of free ports")


@dataclass
class FirnProcess:
    """One `firndb ...` process; `kill` is SIGKILL, `stop` is SIGTERM. Both wait for its end."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    ready_url: str
    process: subprocess.Popen[bytes] | None = None
    starts: int = field(default=0)

    def start(self) -> None:
        assert self.process is None, "it runs already"
        self.starts += 1
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", *self.arguments],
                env={**clean_environment(), **self.environment},
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Until `/readyz` answers 200; fails with the process's log if it ends before."""
        for _ in range(START_TRIES):
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"{self.arguments} ended:\n{self.log.read_text()[-4000:]}")
            try:
                if httpx.get(self.ready_url, timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"{self.arguments} is not ready:\n{self.log.read_text()[-4000:]}")

    def kill(self) -> None:
        """SIGKILL; a process that has ended by itself before is a failure."""
        assert self.process is not None
        status = self.process.poll()
        assert status is None, f"it ended with status {status}:\n{self.log.read_text()[-4000:]}"
        self.clean_up()

    def clean_up(self) -> None:
        """Nothing of it runs afterwards, whatever happened before."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)
            self.process = None

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.terminate()
        try:
            status = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.clean_up()
            raise
        self.process = None
        return status


def clean_environment() -> dict[str, str]:
    """This process's environment without settings of FirnDB or the clients."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("FIRNDB_", "PINECONE_"))}
