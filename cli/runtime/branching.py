"""`snapshot-*`, `branch` and `restore` as admin verbs."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict
from typing import Any

from builder.branching.branches import Branches, Place
from builder.branching.history import Moment
from cli.runtime.consumers import builder_parts
from cli.runtime.parts import Parts
from cli.runtime.rebuilding import Tell, named_index, told_lines
from core.errors import InvalidRequest, NotFound
from core.indexes import IndexInfo, canonical_namespace
from ingest.vectors import checked_namespace
from ingest.writer import LogWriter
from storage.file_cache import FileCache
from storage.registry import RegistryStore
from storage.snapshots import Snapshot

Line = dict[str, Any]
Lines = AsyncGenerator[Line, None]

# What waits for entries to be indexed: on a folder that no server has, they do it themselves.
NEED_BUILDER = ("snapshot-create", "branch", "restore", "purge", "export")
ROLE = "snapshots"


@asynccontextmanager
async def _branches(parts: Parts, cache: FileCache) -> AsyncIterator[Branches]:
    writer = LogWriter(parts.wal, parts.clock)
    try:
        yield Branches(builder_parts(parts, cache), writer)
    finally:
        await writer.close()


async def create_lines(
    parts: Parts, index: str, namespace: str | None = None, name: str = ""
) -> Lines:
    """One row for each namespace; without a name all that live."""
    info = await named_index(parts, index)

    async def work(cache: FileCache, tell: Tell) -> list[Line]:
        rows: list[Line] = []
        async with _branches(parts, cache) as branches:
            if namespace is None:
                await branches.everything_indexed()
            async for place in namespaces_of(parts, info, namespace, deleted=False):
                rows.append(_row(await branches.snapshot(place, name)))
                tell("taking snapshots", len(rows), len(rows))
        return rows

    async with aclosing(told_lines(parts, ROLE, work)) as lines:
        async for line in lines:
            yield line


async def list_lines(parts: Parts, index: str, namespace: str | None = None) -> Lines:
    info = await _with_snapshots(parts, index)

    async def work(cache: FileCache, tell: Tell) -> list[Line]:
        rows: list[Line] = []
        async with _branches(parts, cache) as branches:
            async for place in namespaces_of(parts, info, namespace, deleted=True):
                rows += [_row(one) for one in await branches.snapshots(place)]
        return rows

    async with aclosing(told_lines(parts, ROLE, work)) as lines:
        async for line in lines:
            yield line


async def delete_lines(
    parts: Parts, index: str, snapshot: str, namespace: str | None = None
) -> Lines:
    info = await _with_snapshots(parts, index)

    async def work(cache: FileCache, tell: Tell) -> Line:
        found: list[Snapshot] = []
        async with _branches(parts, cache) as branches:
            async for place in namespaces_of(parts, info, namespace, deleted=True):
                all_of = await branches.snapshots(place)
                found += [one for one in all_of if snapshot in (one.id, one.name)]
            if len(found) != 1:
                raise NotFound(
                    f"index {index} has {len(found) or 'no'} snapshot{'s' if found else ''} called "
                    f"{snapshot}; `firndb snapshot list` shows their ids"
                )
            await branches.delete(found[0])
        return _row(found[0])

    async with aclosing(told_lines(parts, ROLE, work)) as lines:
        async for line in lines:
            yield line


async def branch_lines(
    parts: Parts, index: str, namespace: str | None, to: str, to_index: str | None = None
) -> Lines:
    source, target = await _both(parts, index, namespace, to, to_index)

    async def work(cache: FileCache, tell: Tell) -> Line:
        async with _branches(parts, cache) as branches:
            return asdict(await branches.branch(source, target))

    async with aclosing(told_lines(parts, ROLE, work)) as lines:
        async for line in lines:
            yield line


async def restore_lines(
    parts: Parts,
    index: str,
    to: str,
    snapshot: str | None = None,
    namespace: str | None = None,
    to_index: str | None = None,
    to_lsn: int | None = None,
    to_time_ms: int | None = None,
) -> Lines:
    """`to_lsn`, `to_time_ms`: one of them at most."""
    if to_lsn is not None and to_time_ms is not None:
        raise InvalidRequest("a point in time is an LSN or a time, not both")
    source, target = await _both(parts, index, namespace, to, to_index)
    moment = None
    if to_lsn is not None or to_time_ms is not None:
        moment = Moment(to_lsn, to_time_ms)

    async def work(cache: FileCache, tell: Tell) -> Line:
        async with _branches(parts, cache) as branches:
            found = None if snapshot is None else await branches.find(source, snapshot)
            restored = await branches.restore(
                source,
                target,
                snapshot=found,
                moment=moment,
                progress=lambda done, total: tell("repeating the log", done, total),
            )
        return asdict(restored)

    async with aclosing(told_lines(parts, ROLE, work)) as lines:
        async for line in lines:
            yield line


async def _with_snapshots(parts: Parts, name: str) -> IndexInfo:
    """By name, or by id: a deleted index keeps its snapshots. `NotFound`."""
    found = await parts.directory.find(name)
    return await named_index(parts, name) if found is None else found


async def _both(
    parts: Parts, index: str, namespace: str | None, to: str, to_index: str | None
) -> tuple[Place, Place]:
    """Source and target."""
    info = await _with_snapshots(parts, index)
    other = await named_index(parts, info.name if to_index is None else to_index)
    target = Place(other, checked_namespace(canonical_namespace(to)))
    return Place(info, canonical_namespace(namespace)), target


async def namespaces_of(
    parts: Parts, info: IndexInfo, namespace: str | None, *, deleted: bool
) -> AsyncIterator[Place]:
    """The one that is named, or all that the registries know."""
    if namespace is not None:
        yield Place(info, canonical_namespace(namespace))
        return
    registry = RegistryStore(parts.store)
    for partition in range(parts.partitions):
        state = await registry.newest(partition)
        if state is None:
            continue
        async for (_, name), summary in registry.walk(state, info.index_id):
            if deleted or not summary.deleted:
                yield Place(info, name)


def _row(snapshot: Snapshot) -> Line:
    return {
        "namespace": snapshot.namespace,
        "id": snapshot.id,
        "name": snapshot.name,
        "created_ms": snapshot.created_ms,
        "records": snapshot.record_count,
        "indexed_lsn": snapshot.indexed_lsn,
        "bytes": snapshot.byte_count,
    }
