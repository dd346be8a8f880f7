"""What every service offers: a name, an address, a pid, settings, and start / stop / kill."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from infra.services.process import Child, ServiceError, accepts_connections, free_port


class Service(Protocol):
    """A server that tests use, crash and bring back; its data survives all three."""

    @property
    def name(self) -> str: ...

    @property
    def address(self) -> str:
        """host:port that a client connects to; the same after every restart."""

    @property
    def pid(self) -> int | None:
        """Pid of the running server; None when it does not run."""

    @property
    def settings(self) -> dict[str, str]:
        """The FIRNDB_* environment variables that point FirnDB at this service."""

    def start(self) -> None:
        """Start on the data already there and return once it answers; else ServiceError.

        Does nothing when it already runs.
        """

    def stop(self) -> None:
        """End it in good order and return when it is gone. Does nothing when it does not run."""

    def kill(self) -> None:
        """SIGKILL: the crash that a test wants to survive. `start()` brings it back."""


class LocalService(ABC):
    """A Service that is one child process; data, log, pid and ports live in `folder`.

    A second object over the same folder, in this or another process, is the same service: it
    sees the same pid and can stop it.
    """

    name: str

    def __init__(self, folder: Path, ports: Sequence[int | None]) -> None:
        """`ports`: one entry per listener; None means the remembered one, or a free one."""
        self.folder = folder.resolve()
        self.child = Child(self.name, self.folder)
        self._wanted = ports

    @property
    def ports(self) -> list[int]:
        """One port per listener, chosen once per folder and remembered there."""
        memory = self.folder / "ports.json"
        remembered: list[int] = json.loads(memory.read_text()) if memory.exists() else []
        missing = self._wanted[len(remembered) :]
        had = remembered + [free_port() for _ in missing]
        ports = [want or one for want, one in zip(self._wanted, had, strict=True)]
        if ports != remembered:
            self.folder.mkdir(parents=True, exist_ok=True)
            memory.write_text(json.dumps(ports))
        return ports

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports[0]}"

    @property
    def pid(self) -> int | None:
        return self.child.pid

    @property
    @abstractmethod
    def settings(self) -> dict[str, str]:
        """As Service.settings."""

    def start(self) -> None:
        if self.pid is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for port in self.ports:
            # A stranger on our port would pass for our own server in the readiness probe.
            if accepts_connections(port):
                raise ServiceError(
                    f"{self.name}: another program listens on port {port}; "
                    f"end it, or delete {self.folder / 'ports.json'} to get another port"
                )
        self._launch()

    @abstractmethod
    def _launch(self) -> None:
        """Spawn the child on existing or new data and return once it answers."""

    @abstractmethod
    def stop(self) -> None:
        """As Service.stop."""

    def kill(self) -> None:
        self.child.kill()
