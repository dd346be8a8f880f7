"""count: the exact number of records that a sight shows, without looking at vectors."""

import asyncio

import numpy as np

from core.operations import DeleteByFilter
from freshness.protocol import Hashes
from query.model import Cost
from query.operators.place_file import rows_with
from query.operators.read_records import read_patched
from query.operators.replay import OverlayCache, filters_of
from query.plan import may_match_file
from query.sight import Sight
from storage.namespace import NamespaceReader


async def count(sight: Sight, overlays: OverlayCache, cost: Cost) -> int:
    """The manifest's count, less the live rows that something above it touched or deleted, plus
    what is fresh.

    The sight's answer must have all touched hashes and all patches.
    """
    answer, reader = sight.answer, sight.state.reader
    if reader is None or sight.reader_hidden:
        return answer.live
    assert answer.touched is not None
    hidden = await _hidden_rows(reader, answer.touched)
    patched = len(await read_patched(sight, cost))
    total = reader.manifest.record_count - len(hidden) + answer.live + patched
    if any(isinstance(p.operation, DeleteByFilter) for p in answer.filter_ops):
        total -= await _deleted_rows(sight, reader, overlays, hidden)
    return total


async def _hidden_rows(reader: NamespaceReader, touched: Hashes) -> set[tuple[int, int]]:
    """(place, row) of the live rows whose id hash is touched; opens id runs, and files that none
    covers.
    """
    if len(touched) == 0:
        return set()
    found: set[tuple[int, int]] = set()
    for run in await reader.runs(reader.manifest.id_runs):
        entries = await asyncio.to_thread(run.with_hashes, touched)
        entries = entries[run.alive(entries, reader.dead_of)]
        rows, numbers = run.rows[entries].tolist(), run.numbers[entries].tolist()
        for number, row in zip(numbers, rows, strict=True):
            place = reader.place_of(run.uuid(number))
            assert place is not None, "a live row is in a file of the manifest"
            found.add((place, row))
    for place in reader.bare:
        rows = await asyncio.to_thread(rows_with, await reader.file(place), touched)
        found |= {(place, row) for row in rows.tolist() if row not in reader.dead(place)}
    return found


async def _deleted_rows(
    sight: Sight,
    reader: NamespaceReader,
    overlays: OverlayCache,
    hidden: set[tuple[int, int]],
) -> int:
    """Live, untouched rows that pending deletions by filter take away."""
    operations = filters_of(sight.answer.filter_ops)
    deleted = 0
    for place, file in enumerate(reader.manifest.files):
        if not any(may_match_file(file, op.filter, frozenset()) for op in operations):
            continue
        opened = await reader.file(place)
        made = await overlays.get(reader.prefix, opened, sight.answer.filter_ops)
        if made is None:
            continue
        live = reader.live_mask(place)
        gone = made.gone[live[made.gone]]
        touched = np.array([row for at, row in hidden if at == place], dtype=np.int64)
        deleted += int(np.count_nonzero(~np.isin(gone, touched)))
    return deleted
