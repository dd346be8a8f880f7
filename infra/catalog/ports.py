"""Which port a new index is served on."""

from collections.abc import Collection, Mapping

from core.errors import FailedPrecondition


def choose_port(allowed: range, living: Collection[int], released_ms: Mapping[int, int]) -> int:
    """A port of `allowed` that no living index has; `FailedPrecondition` when there is none.

    Ports that a deleted index had (`released_ms`: when) come last, the longest released first: a
    client that still talks to a deleted index should not meet another one there.
    """
    free = [port for port in allowed if port not in living]
    if not free:
        raise FailedPrecondition(
            f"All {len(allowed)} index ports are in use: delete an index, or start with a wider "
            f"FIRNDB_INDEX_PORTS than {allowed.start}-{allowed.stop - 1}."
        )
    return min(free, key=lambda port: (released_ms.get(port, 0), port))
