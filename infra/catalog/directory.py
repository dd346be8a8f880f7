"""The catalog as the data plane asks it, for every log entry: mostly from memory.

What the data plane needs of an index never changes, except that it is deleted; so an old answer is
at worst a deletion seen late. While the database is away, indexes that are known go on.
"""

import math

from core.clock import Clock, SystemClock
from core.indexes import IndexInfo
from infra.catalog.catalog import Catalog
from infra.catalog.read_through import Lifetimes, ReadThrough

# fresh_s: how late a deletion may be seen; one read per index in 5 s is nothing to the database.
# absent_s: an unknown index may be created by another process at any moment, so this only keeps a
# flood of entries for an unknown one to one read a second.
LIFETIMES = Lifetimes(fresh_s=5.0, absent_s=1.0, stale_s=math.inf)
# About 500 bytes each: 50 MB.
KEPT_MAX = 100_000


class CatalogDirectory:
    """Implements `core.indexes.IndexDirectory`."""

    def __init__(self, catalog: Catalog, clock: Clock | None = None) -> None:
        self._catalog = catalog
        self._infos = ReadThrough(self._read, LIFETIMES, KEPT_MAX, clock or SystemClock())

    async def find(self, index_id: str) -> IndexInfo | None:
        """See `IndexDirectory.find`."""
        return await self._infos.get(index_id)

    def remember(self, info: IndexInfo) -> None:
        """What this process just created or deleted, known at once."""
        self._infos.put(info.index_id, info)

    async def _read(self, index_id: str) -> IndexInfo | None:
        found = await self._catalog.index_by_id(index_id)
        return None if found is None else found.info
