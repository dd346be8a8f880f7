"""Reads of records by name: fetch, and list in order."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from core.errors import InvalidRequest
from core.indexes import IndexInfo
from core.operations import DeleteByFilter
from freshness.protocol import Listing
from query.model import Cost, FetchResult, Freshness, ListResult, ReadOptions
from query.operators.read_records import read_records
from query.operators.replay import replayed
from query.sight import ALL_TOUCHED, Sight, Wanted, Watch
from storage.checksum import id_hashes

# Ids that are deleted but not yet in the manifest make a page of the files shorter: then it is read
# on, up to this many times, after which the page is short and has a token.
ROUNDS_MAX = 16
PAGE_MIN = 100


async def fetch(
    watch: Watch, index: IndexInfo, namespace: str, ids: Sequence[str], options: ReadOptions
) -> FetchResult:
    cost = Cost()
    wanted = await watch.wanted_of(index, namespace, options)
    request = replace(watch.request(index, namespace), ids=tuple(dict.fromkeys(ids)))
    sight = await watch.see(request, wanted)
    found = await read_records(sight, request.ids, cost)
    ordered = {i: found[i].record for i in request.ids if i in found}
    return FetchResult(ordered, sight.seen, cost)


class Lister:
    """One listing: pages of files and of freshness side by side, each complete up to some id."""

    def __init__(self, watch: Watch, index: IndexInfo, namespace: str, prefix: str) -> None:
        self._watch = watch
        self._index = index
        self._namespace = namespace
        self._prefix = prefix

    async def page(self, limit: int, token: str | None, options: ReadOptions) -> ListResult:
        """An id that is written or deleted between two pages may or may not be seen, but never
        twice.
        """
        wanted = await self._watch.wanted_of(self._index, self._namespace, options)
        after = "" if token is None else decode_token(token)
        ids: list[str] = []
        seen = Freshness()
        for _ in range(ROUNDS_MAX):
            # one more than asked tells whether there is another page
            size = max(limit + 1 - len(ids), PAGE_MIN)
            found, complete_to, seen = await self._round(after, size, wanted)
            ids += found
            if complete_to is None or len(ids) > limit:
                break
            after = complete_to
        page = tuple(ids[:limit])
        last = None
        if len(ids) > limit:
            last = page[-1]
        elif complete_to is not None:
            last = complete_to
        cost = Cost(rows_scanned=len(ids))
        return ListResult(page, None if last is None else encode_token(last), seen, cost)

    async def _round(
        self, after: str, size: int, wanted: Wanted
    ) -> tuple[list[str], str | None, Freshness]:
        """(ids in order, the id up to which they are all there is; None: the end, what was
        seen).
        """
        request = replace(
            self._watch.request(self._index, self._namespace),
            listing=Listing(self._prefix, after, size),
            touched_max=ALL_TOUCHED,
            patches_of_all=True,
        )
        sight = await self._watch.see(request, wanted)
        fresh = sight.answer.listed
        stored: list[str] = []
        if sight.state.reader is not None and not sight.reader_hidden:
            stored = await sight.state.reader.list_ids(self._prefix, after or None, size)
        ends = [page[-1] for page in (fresh, stored) if len(page) == size]
        complete_to = min(ends, default=None)
        ids = sorted({*fresh, *await _still_there(sight, stored)})
        if complete_to is not None:
            ids = [i for i in ids if i <= complete_to]
        return ids, complete_to, sight.seen


async def _still_there(sight: Sight, ids: Sequence[str]) -> list[str]:
    """Of the files' ids those that nothing above the manifest replaced (freshness lists these) or
    deleted.
    """
    answer = sight.answer
    assert answer.touched is not None
    hidden = np.isin(id_hashes(ids), answer.touched)
    kept = [i for i, touched in zip(ids, hidden, strict=True) if not touched or i in answer.patches]
    if not any(isinstance(p.operation, DeleteByFilter) for p in answer.filter_ops):
        return kept
    return [
        record_id
        for record_id, base in (await sight.state.read(kept)).items()
        if replayed(base, (*answer.patches.get(record_id, ()), *answer.filter_ops)) is not None
    ]


def encode_token(after: str) -> str:
    """Opaque to clients: the last id or name of a page."""
    return base64.urlsafe_b64encode(after.encode()).decode().rstrip("=")


def decode_token(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise InvalidRequest("the pagination token is not one that this server gave") from error
