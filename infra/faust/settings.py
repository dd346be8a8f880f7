"""What a Faust worker is told: where the log is, which group it joins, every bound it keeps."""

from dataclasses import dataclass, fields
from pathlib import Path

from core.errors import ConfigError

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class FaustSettings:
    """Durations are seconds, sizes are bytes.

    Memory: at most about `buffer_bytes_max + fetch_bytes_max`, and for each assigned partition one
    fetched slice that aiokafka keeps ready: `fetch_partition_bytes`, or one record if it is larger.
    """

    bootstrap: str
    """Brokers, "host:port,host:port"."""
    topic: str
    group: str
    """Consumer group, and Faust's app id. Builder and freshness are two groups."""
    data_dir: Path
    """A folder of this process alone; Faust makes it, nothing in it matters."""
    client_id: str = "firndb"
    """What the tools that list a group's members show."""

    session_timeout_s: float = 10.0
    """Without a heartbeat for so long the partitions go to others (brokers refuse under 6 s)."""
    rebalance_timeout_s: float = 20.0
    """How long the group waits for a member to rejoin before it goes on without it."""
    request_timeout_s: float = 30.0
    """Above the two others: a join request is answered only when all members have joined."""

    fetch_partition_bytes: int = 2 * MIB
    fetch_bytes_max: int = 16 * MIB
    partition_records_max: int = 512
    partition_bytes_max: int = 8 * MIB
    """A partition with so much at its handler is not read further; so it bounds a batch as well."""
    buffer_bytes_max: int = 64 * MIB
    """With so much waiting over all partitions, only those with nothing waiting are read."""

    commit_interval_s: float = 3.0
    """How often the group's offsets, read by people and tools only, follow `committable`."""
    stall_timeout_s: float = 60.0
    """A transport that has records to deliver and delivers none for so long is stuck."""
    loop_timeout_s: float = 60.0
    """An event loop that is blocked for so long ends the process, whoever blocks it."""
    handler_timeout_s: float = 600.0
    """A handler's call of so long is stuck. An object store may well be away for minutes."""
    stop_timeout_s: float = 10.0
    """For a last flush, leaving the group and ending the threads; then the rest is abandoned."""
    handle_signals: bool = True
    """End on SIGTERM and SIGINT. False where another part of the loop does it (uvicorn)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
                raise ConfigError(f"Faust worker: {field.name} must be above 0, not {value}.")
        if not (self.bootstrap and self.topic and self.group):
            raise ConfigError("Faust worker: bootstrap, topic and group must not be empty.")
        if self.request_timeout_s <= max(self.session_timeout_s, self.rebalance_timeout_s):
            raise ConfigError(
                "Faust worker: request_timeout_s must be above session_timeout_s "
                "and rebalance_timeout_s."
            )
