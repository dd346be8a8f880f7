"""Headers of the data plane: what a read may ask for, and what every answer says of its age.

Those of a request are a mapping by lower case names; in gRPC they are its metadata.
"""

from collections.abc import Mapping

from api.versions import api_version
from core.errors import InvalidRequest
from core.log import NO_LSN
from query.model import Consistency, Freshness, ReadOptions

CONSISTENCY = "x-firndb-consistency"
MIN_LSN = "x-firndb-min-lsn"
EXHAUSTIVE = "x-firndb-exhaustive"
EXPLAIN = "x-firndb-explain"
STALE = "x-firndb-stale"
OVERFLOWED = "x-firndb-overflowed"
OUTCOME = "x-firndb-outcome"


def read_options(headers: Mapping[str, str]) -> ReadOptions:
    """`InvalidRequest` for values that mean nothing."""
    asked = headers.get(CONSISTENCY)
    consistency = Consistency.DEFAULT
    if asked is not None:
        try:
            consistency = Consistency(asked)
        except ValueError:
            known = ", ".join(c.value for c in Consistency)
            raise InvalidRequest(f"{CONSISTENCY} must be one of {known}, not {asked!r}") from None
    return ReadOptions(consistency=consistency, min_lsn=_min_lsn(headers))


def is_set(headers: Mapping[str, str], header: str) -> bool:
    return headers.get(header, "").lower() in ("true", "1")


def written(lsn: int) -> dict[str, str]:
    """Headers of an acknowledged write. The second is the older name of the same."""
    return {"x-pinecone-request-lsn": str(lsn), "x-pinecone-lsn-committed": str(lsn)}


def decided(outcome: int | None) -> dict[str, str]:
    """Marks an answer to a write whose outcome could not be waited for."""
    return {OUTCOME: "unknown"} if outcome is None else {}


def seen(freshness: Freshness) -> dict[str, str]:
    """Headers of an answer that has seen every write up to its LSN."""
    headers = {}
    if freshness.lsn != NO_LSN:
        headers["x-pinecone-max-indexed-lsn"] = str(freshness.lsn)
        headers["x-pinecone-lsn-reconciled"] = str(freshness.lsn)
    if freshness.stale:
        headers[STALE] = "true"
    if freshness.overflowed:
        headers[OVERFLOWED] = "true"
    return headers


def shown_namespace(headers: Mapping[str, str], namespace: str) -> str:
    """The name as this client's API version knows it."""
    return api_version(headers).shown(namespace)


def _min_lsn(headers: Mapping[str, str]) -> int | None:
    asked = headers.get(MIN_LSN)
    if asked is None:
        return None
    if not asked.isascii() or not asked.isdigit() or len(asked) > 18:
        raise InvalidRequest(f"{MIN_LSN} must be an LSN that a write has returned, not {asked!r}")
    return int(asked)
