"""read: the current version of given ids, from freshness where it knows, from the files where it
does not.
"""

import asyncio
from collections.abc import Sequence

from core.records import StoredRecord
from query.model import Cost
from query.operators.replay import replayed
from query.sight import Sight

# Replaying a record takes some microseconds.
INLINE_ROWS = 50


async def read_records(sight: Sight, ids: Sequence[str], cost: Cost) -> dict[str, StoredRecord]:
    """Only ids that exist. The sight's answer was asked about these `ids`."""
    answer = sight.answer
    found = {i: stored for i, stored in answer.current.items() if stored is not None}
    cost.fresh_rows += len(found)
    if sight.reader_hidden:
        return found
    unknown = [i for i in dict.fromkeys(ids) if i not in answer.current]
    for record_id, base in (await sight.state.read(unknown)).items():
        current = replayed(base, (*answer.patches.get(record_id, ()), *answer.filter_ops))
        if current is not None:
            found[record_id] = current
    cost.rows_scanned += len(unknown)
    return found


async def read_patched(sight: Sight, cost: Cost) -> list[StoredRecord]:
    """The current versions of all records whose updates are pending and whose base is in the
    files.
    """
    answer = sight.answer
    if not answer.patches or sight.reader_hidden:
        return []
    bases = await sight.state.read_bases(list(answer.patches))
    cost.replayed_rows += len(bases)

    def replay() -> list[StoredRecord]:
        versions = (
            replayed(base, (*answer.patches[record_id], *answer.filter_ops))
            for record_id, base in bases.items()
        )
        return [version for version in versions if version is not None]

    return replay() if len(bases) <= INLINE_ROWS else await asyncio.to_thread(replay)
