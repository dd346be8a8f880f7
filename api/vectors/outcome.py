"""What a write turned out to be: only the log's order tells, so it is asked for after the write."""

import logging

from api.ports import Reads
from core.errors import Unavailable
from core.indexes import IndexInfo

log = logging.getLogger(__name__)


async def existed_before(
    reads: Reads, index: IndexInfo, namespace: str, lsn: int, request_id: str
) -> bool | None:
    """Did the namespace exist just before the write at `lsn` that this request made?

    None: not known in time. The write stands all the same, so this is no error: a client that is
    told of one would write again.
    """
    try:
        return (await reads.outcome(index, namespace, lsn, request_id, None)).existed
    except Unavailable as error:
        log.warning("the outcome of the write at LSN %d is not known: %s", lsn, error)
        return None
