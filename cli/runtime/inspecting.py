"""`inspect` as an admin verb: one manifest as people read it."""

from collections import Counter
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

from cli.runtime.parts import Parts
from cli.runtime.rebuilding import named_index
from core.errors import NotFound
from core.filters.statistics import FieldStatistics
from core.indexes import canonical_namespace
from core.object_store import ObjectStore
from storage.commit import ManifestStore
from storage.layout import manifest_key, namespace_prefix, snapshots_prefix
from storage.manifest import FORMAT, MAGIC, DataFile, IdRun, Manifest

Row = dict[str, Any]
# Snapshots that are listed; each is one object.
SNAPSHOTS_MAX = 1_000


async def inspect_lines(
    parts: Parts, index: str, namespace: str | None = None, version: int | None = None
) -> AsyncGenerator[Row, None]:
    """One result line: `header`, `sections`, `files`, `id_runs`, `histogram`, `snapshots`.

    `NotFound`: no such index, namespace or version.
    """
    info = await named_index(parts, index)
    name = canonical_namespace(namespace)
    manifests = ManifestStore(parts.store)
    if version is None:
        manifest = await manifests.newest(info.index_id, name)
    else:
        manifest = await manifests.read(info.index_id, name, version)
    if manifest is None:
        which = "" if version is None else f" with a manifest {version}"
        raise NotFound(f"index {index} has no namespace {name}{which} in its files")
    prefix = namespace_prefix(info.index_id, name)
    yield {
        "result": {
            "header": await _header(parts.store, prefix, manifest),
            "sections": [
                {
                    "kind": section.kind.value,
                    "entries": section.entries,
                    "bytes": section.object.size,
                    "object": (section.origin or prefix) + section.object.name,
                }
                for section in manifest.sections
            ],
            "files": [_file(file) for file in manifest.files],
            "id_runs": [_run(run) for run in manifest.id_runs],
            "histogram": histogram(manifest),
            "snapshots": await _snapshots(parts.store, prefix),
        }
    }


async def _header(store: ObjectStore, prefix: str, manifest: Manifest) -> Row:
    """What it says of itself, and where and how it is stored."""
    key = manifest_key(prefix, manifest.version)
    data = await store.get(key)
    created = datetime.fromtimestamp(manifest.created_ms / 1000, UTC)
    deltas = [file for file in manifest.files if file.is_delta]
    return {
        "index_id": manifest.index_id,
        "namespace": manifest.namespace,
        "object": key,
        "format": FORMAT if data.startswith(MAGIC) else 1,
        "object_bytes": len(data),
        "version": manifest.version,
        "created": created.isoformat(timespec="milliseconds"),
        "log_id": manifest.log_id,
        "log_epoch": manifest.log_epoch,
        "generation": manifest.generation,
        "indexed_lsn": manifest.indexed_lsn,
        "owner_epoch": manifest.owner_epoch,
        "commit_uuid": manifest.commit_uuid,
        "deleted": manifest.deleted,
        "boundary": manifest.boundary,
        "dimension": manifest.dimension,
        "metric": manifest.metric,
        "records": manifest.record_count,
        "bytes": manifest.byte_count,
        "clusters": len(manifest.centroid_matrix()),
        "cluster_files": len(manifest.files) - len(deltas),
        "deltas": len(deltas),
        "delta_rows": sum(file.live for file in deltas),
        "dead_rows": sum(file.dead_count for file in manifest.files),
        "id_runs": len(manifest.id_runs),
        "sections": len(manifest.sections),
    }


def _file(file: DataFile) -> Row:
    kind = "delta" if file.is_delta else "cluster"
    return {
        "kind": f"{kind} (inline)" if file.inline else kind,
        "uuid": file.uuid,
        "cluster": None if file.cluster < 0 else file.cluster,
        "rows": file.rows,
        "live": file.live,
        "dead": file.dead_count,
        "bytes": file.columns.size + (0 if file.vectors is None else file.vectors.size),
        "radius": round(file.radius, 4),
        "groups": len(file.groups),
        "in_runs": file.in_runs,
        "origin": file.origin or None,
        "statistics": {
            name: _field(field) for name, field in sorted(file.statistics.items()) if name
        },
    }


def _field(field: FieldStatistics) -> str:
    said = [f"{field.rows} rows"]
    if field.numbers:
        said.append(f"{field.minimum:g}..{field.maximum:g}")
    if field.strings:
        said.append(f"{len(field.strings)} strings")
    if field.booleans:
        said.append("/".join(str(value).lower() for value in field.booleans))
    if field.bloom:
        said.append(f"Bloom filter of {len(field.bloom)} bytes")
    return ", ".join(said)


def _run(run: IdRun) -> Row:
    return {
        "object": run.object.name,
        "entries": run.entries,
        "bytes": run.object.size,
        "first": run.first,
        "last": run.last,
        "origin": run.origin or None,
    }


def histogram(manifest: Manifest) -> list[Row]:
    """Clusters by their live rows, in powers of two: rows from `from` to `to`, inclusive."""
    sizes = Counter[int]()
    for file in manifest.files:
        if file.cluster >= 0:
            sizes[file.cluster] += file.live
    return [
        {"from": 1 << power, "to": (2 << power) - 1, "clusters": count}
        for power, count in sorted(Counter(_power(size) for size in sizes.values()).items())
    ]


def _power(size: int) -> int:
    return max(size, 1).bit_length() - 1


async def _snapshots(store: ObjectStore, prefix: str) -> list[Row]:
    """What keeps files of this namespace in use; `firndb snapshot list` tells more."""
    found: list[Row] = []
    async for info in store.list(snapshots_prefix(prefix)):
        found.append({"id": info.key.rpartition("/")[2], "bytes": info.size})
        if len(found) == SNAPSHOTS_MAX:
            break
    return found
