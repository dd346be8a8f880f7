"""A pytest plugin for the suite of 9.0.1 on a newer client: its clean-up can read the lists.

The newer client's lists are lazy iterators. The suite's helpers that delete an index ask a list
for `.indexes`, and await the asynchronous one. Nothing else of the client is touched.
"""

from collections.abc import Generator
from typing import Any

from pinecone.models import pagination


class Listed(list[Any]):
    @property
    def indexes(self) -> "Listed":
        return self


def awaited(self: Any) -> Generator[Any, Any, Listed]:
    async def read() -> Listed:
        return Listed([item async for item in self])

    return read().__await__()


lazy: Any = pagination.Paginator
lazy.indexes = property(lambda self: Listed(item for item in self))
lazy = pagination.AsyncPaginator
lazy.__await__ = awaited
