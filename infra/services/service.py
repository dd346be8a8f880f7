"""What every service offers: a name, an address, a pid, and start / stop / kill."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from infra.services.process import Child, free_port


class Service(ABC):
    """One server process whose data, log, pid and ports live in `folder`.

    A second object over the same folder, in this or another process, is the same service: it
    sees the same pid and can stop it. Ports are chosen once per folder and kept, so that a
    restart is found at the same address.
    """

    name: str

    def __init__(self, folder: Path, ports: Sequence[int | None]) -> None:
        """`ports`: one entry per listener; None means the remembered one, or a free one."""
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.child = Child(self.name, self.folder)
        self.ports = self._settle_ports(ports)

    def _settle_ports(self, wanted: Sequence[int | None]) -> list[int]:
        memory = self.folder / "ports.json"
        remembered: list[int] = json.loads(memory.read_text()) if memory.exists() else []
        remembered += [free_port() for _ in wanted[len(remembered) :]]
        ports = [want or had for want, had in zip(wanted, remembered, strict=True)]
        memory.write_text(json.dumps(ports))
        return ports

    @property
    def address(self) -> str:
        """host:port that a client connects to."""
        return f"127.0.0.1:{self.ports[0]}"

    @property
    def pid(self) -> int | None:
        """Pid of the running server; None when it does not run."""
        return self.child.pid

    @property
    @abstractmethod
    def settings(self) -> dict[str, str]:
        """The FIRNDB_* environment variables that point FirnDB at this service."""

    @abstractmethod
    def start(self) -> None:
        """Start on the data already there and return once it answers; ServiceError if it cannot.

        Does nothing when it already runs.
        """

    @abstractmethod
    def stop(self) -> None:
        """End it in good order and return when it is gone. Does nothing when it does not run."""

    def kill(self) -> None:
        """SIGKILL: the crash that a test wants to survive. `start()` brings it back."""
        self.child.kill()
