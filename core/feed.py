"""The port `ManifestFeed`: news of committed manifests and checkpoints, from the builder to
freshness and query.

News may be late, repeated or missed: nobody's correctness rests on it, only speed and memory do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ManifestEvent:
    """Manifest `version` of a namespace is committed and covers its entries up to `indexed_lsn`
    (inclusive).
    """

    index_id: str
    namespace: str
    partition: int
    generation: int
    version: int
    indexed_lsn: int
    deleted: bool
    record_count: int


@dataclass(frozen=True, slots=True)
class CheckpointEvent:
    """Everything of the partition below `checkpoint` (a next offset, exclusive) is in manifests and
    the registry, but for so many `held` namespaces, which the registry names.
    """

    partition: int
    checkpoint: int
    held: int = 0


FeedEvent = ManifestEvent | CheckpointEvent


class ManifestFeed(Protocol):
    async def publish(self, event: FeedEvent) -> None: ...

    def subscribe(self, listener: Callable[[FeedEvent], None]) -> Callable[[], None]:
        """Calls `listener` on the event loop for every event; returns the unsubscriber."""
