"""Which indexes and namespaces have objects, found without listing all of them."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from core.object_store import ObjectStore
from storage.layout import TOP_FOLDERS

# Sorts right behind `/`: what is above `a0` is not below `a/`.
_BEHIND_SLASH = "0"


async def index_prefixes(store: ObjectStore) -> AsyncIterator[str]:
    """The ids of indexes with objects; a listing for each, of one page at most."""
    async for name in _children(store, ""):
        if name not in TOP_FOLDERS:
            yield name


async def namespace_prefixes(store: ObjectStore, index_id: str) -> AsyncIterator[str]:
    """The prefixes (with their slash) of an index's namespaces that have objects."""
    async for name in _children(store, f"{index_id}/"):
        yield f"{index_id}/{name}/"


async def _children(store: ObjectStore, prefix: str) -> AsyncIterator[str]:
    after = ""
    while True:
        # Closed at once: a listing left open would go on to its next page.
        async with aclosing(_first(store, prefix, after)) as keys:
            key = await anext(keys, None)
        if key is None:
            return
        name = key[len(prefix) :].partition("/")[0]
        yield name
        after = prefix + name + _BEHIND_SLASH


async def _first(store: ObjectStore, prefix: str, after: str) -> AsyncGenerator[str, None]:
    async for info in store.list(prefix, start_after=after):
        yield info.key
        return
