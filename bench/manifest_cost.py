"""What a commit and a cold read of the manifest cost, as the namespace grows: a simulation.

`python -m bench.manifest_cost [--records 10000 100000 1000000 10000000] [--commits 400]`. No data
files are written; manifests, sections and packs are, by the store's own code into memory. Each
commit is a flush of 1,000 records, 100 of which replace random older ones: a delta with its groups,
dead rows, an id run. Compaction keeps up with it: clusters are folded and split, deltas and runs
merged. The first commits, up to a full state, are not counted.
"""

import argparse
import asyncio
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec
import numpy as np
from pyroaring import BitMap

from core.clock import new_uuid
from core.errors import ObjectNotFound
from core.filters.statistics import FieldStatistics, collect
from core.object_store import ObjectInfo, ObjectStore
from storage.commit import ManifestStore
from storage.manifest import DataFile, IdRun, Manifest, ObjectRef
from storage.sections import LIMITS, Limits

CLUSTER_ROWS = 2_500
FLUSH_ROWS = 1_000
REPLACED = 100
FOLD_FRACTION = 0.25
DELTAS_MAX = 8
RUNS_MAX = 8
RUN_ENTRIES = 120_000  # 4 MB
DEAD_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Scale:
    """How much smaller than life: entries of the manifest, and the limits with them."""

    by: int = 1

    @property
    def limits(self) -> Limits:
        one = LIMITS
        return Limits(
            one.flat_bytes // self.by, one.root_bytes // self.by, one.section_bytes // self.by
        )


class Objects(ObjectStore):
    """In memory, counting bytes by the first part of what follows the namespace's prefix."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.put_bytes = 0
        self.puts = 0
        self.got_bytes = 0
        self.gets = 0

    async def get(self, key: str) -> bytes:
        self.gets += 1
        if key not in self.objects:
            raise ObjectNotFound(key)
        self.got_bytes += len(self.objects[key])
        return self.objects[key]

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        return (await self.get(key))[start:end]

    async def put(self, key: str, data: bytes) -> None:
        self.puts += 1
        self.put_bytes += len(data)
        self.objects[key] = data

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        if key in self.objects:
            return False
        await self.put(key, data)
        return True

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        for key in sorted(self.objects):
            if key.startswith(prefix) and key > start_after:
                yield ObjectInfo(key, len(self.objects[key]), 0)

    async def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    async def stat(self, key: str) -> ObjectInfo | None:
        held = self.objects.get(key)
        return None if held is None else ObjectInfo(key, len(held), 0)

    async def close(self) -> None:
        """Nothing to do."""


class Namespace:
    """A namespace in steady state, of which only the manifest exists."""

    def __init__(self, records: int, dimension: int, scale: Scale) -> None:
        self.random = random.Random(7)
        self.flush_rows = FLUSH_ROWS // scale.by
        self.replaced = REPLACED // scale.by
        self.rows = min(records // scale.by, CLUSTER_ROWS)
        self.statistics = [some_statistics(seed, self.rows) for seed in range(8)]
        count = max(1, records // scale.by // CLUSTER_ROWS)
        rng = np.random.default_rng(7)
        self.dimension = dimension
        self.centroids = rng.standard_normal((count, dimension), dtype=np.float32)
        self.clusters = [self.cluster(number) for number in range(count)]
        self.clusters_max = count + count // 10  # beyond, as many records go as come
        self.deltas: list[DataFile] = []
        runs = max(1, records // scale.by // RUN_ENTRIES)
        self.runs = [self.run(RUN_ENTRIES) for _ in range(runs)]
        self.fold_due = self.split_due = 0.0

    def manifest(self, version: int, sections: Manifest | None) -> Manifest:
        files = (*self.clusters, *self.deltas)
        return Manifest(
            index_id="bench",
            namespace="bench",
            log_id=new_uuid(),
            log_epoch=1,
            version=version,
            generation=0,
            owner_epoch=1,
            commit_uuid=new_uuid(),
            indexed_lsn=version,
            record_count=sum(file.live for file in files),
            dimension=self.dimension,
            metric="cosine",
            centroids=self.centroids.astype("<f4").tobytes(),
            files=files,
            id_runs=tuple(self.runs),
            sections=() if sections is None else sections.sections,
        )

    def flush(self) -> None:
        """A delta; rows of random clusters die."""
        touched = sorted(
            {self.random.randrange(len(self.clusters)) for _ in range(self.flush_rows)}
        )
        step = self.flush_rows / len(touched)
        groups = tuple((cluster, int(n * step)) for n, cluster in enumerate(touched))
        self.deltas.append(self.file("deltas", self.flush_rows, groups=groups))
        for _ in range(self.replaced):
            place = self.random.randrange(len(self.clusters))
            self.clusters[place] = self.dying(self.clusters[place], 1)
        self.runs.append(self.run(self.flush_rows))

    def compact(self) -> None:
        """What a flush makes due in the long run."""
        self.fold_due += self.flush_rows / (FOLD_FRACTION * self.rows)
        self.split_due += (self.flush_rows - self.replaced) / self.rows
        while self.fold_due >= 1.0:
            self.fold_due -= 1.0
            self.fold(self.random.randrange(len(self.clusters)))
        if self.split_due >= 1.0 and len(self.clusters) < self.clusters_max:
            self.split_due -= 1.0
            place = self.random.randrange(len(self.clusters))
            self.fold(place)
            self.centroids = np.concatenate([self.centroids, self.centroids[place : place + 1] + 1])
            self.centroids[place] -= 1
            self.clusters.append(self.cluster(len(self.clusters)))
        if len(self.deltas) > DELTAS_MAX:
            # Older deltas are mostly folded by then: what is left of half of them becomes one.
            half = len(self.deltas) // 2 + 1
            groups = tuple(
                (number, number) for number in range(min(len(self.clusters), self.flush_rows))
            )
            self.deltas[:half] = [self.file("deltas", self.flush_rows, groups=groups)]
        small = [run for run in self.runs if run.entries < RUN_ENTRIES]
        if len(small) > RUNS_MAX:
            merged = sum(run.entries for run in small)
            self.runs = [run for run in self.runs if run.entries >= RUN_ENTRIES]
            self.runs.append(self.run(merged))

    def fold(self, place: int) -> None:
        """The cluster is written anew, and its groups in the deltas die."""
        self.clusters[place] = self.cluster(place)
        for number, delta in enumerate(self.deltas):
            starts = dict(delta.groups)
            if place in starts:
                dead = delta.dead_rows()
                dead.add(starts[place])
                self.deltas[number] = with_dead(delta, dead)

    def cluster(self, number: int) -> DataFile:
        dead = int(self.rows * DEAD_SHARE * self.random.random() * 2)
        return self.dying(self.file("clusters", self.rows, cluster=number), dead)

    def file(
        self, kind: str, rows: int, cluster: int = -1, groups: tuple[tuple[int, int], ...] = ()
    ) -> DataFile:
        uuid = new_uuid()
        columns = ObjectRef(name=f"{kind}/{uuid}.arrow", size=400_000, checksum=new_uuid())
        vectors = ObjectRef(name=f"{kind}/{uuid}.ann", size=4_000_000, checksum=new_uuid())
        return DataFile(
            uuid=uuid,
            columns=columns,
            vectors=None if groups else vectors,
            rows=rows,
            cluster=cluster,
            radius=self.random.random(),
            groups=groups,
            statistics=self.random.choice(self.statistics),
            in_runs=True,
        )

    def run(self, entries: int) -> IdRun:
        uuid = new_uuid()
        ref = ObjectRef(name=f"ids/{uuid}", size=34 * entries, checksum=new_uuid())
        return IdRun(
            object=ref, entries=entries, files=(), first=new_uuid(), last=new_uuid(), as_of=1
        )

    def dying(self, file: DataFile, count: int) -> DataFile:
        return with_dead(
            file, file.dead_rows() | BitMap(self.random.sample(range(file.rows), count))
        )


def with_dead(file: DataFile, dead: BitMap) -> DataFile:
    dead.run_optimize()
    return msgspec.structs.replace(file, dead=dead.serialize(), dead_count=len(dead))


def some_statistics(seed: int, rows: int) -> dict[str, FieldStatistics]:
    """Of metadata with an enumeration, a year, a price and a user: a Bloom filter among them."""
    rng = random.Random(seed)
    return collect(
        [
            {
                "genre": f"genre {rng.randrange(12)}",
                "year": float(rng.randrange(1990, 2025)),
                "price": rng.random() * 100,
                "user": f"user-{rng.randrange(10_000)}",
            }
            for _ in range(rows)
        ]
    )


@dataclass(frozen=True, slots=True)
class Cost:
    """Per commit, of the counted ones: bytes and puts; cpu_ms of all of the commit. Per cold
    resolve: bytes, GETs, cpu_ms. root_bytes, sections: at the end.
    """

    commit_bytes: list[int]
    commit_puts: float
    commit_cpu_ms: list[float]
    cold_bytes: int
    cold_gets: int
    cold_cpu_ms: float
    root_bytes: int
    sections: int
    merges: int

    @property
    def mean_bytes(self) -> float:
        return sum(self.commit_bytes) / len(self.commit_bytes)


async def simulate(records: int, commits: int, dimension: int = 384, scale: int = 1) -> Cost:
    """`commits` are counted, after a quarter as many that are not."""
    sizes = Scale(scale)
    namespace, store = Namespace(records, dimension, sizes), Objects()
    manifests = ManifestStore(store, limits=sizes.limits)
    known: Manifest | None = None
    spent: list[int] = []
    cpu: list[float] = []
    puts = merges = 0
    first = commits // 4 + 1
    for version in range(1, first + commits):
        namespace.flush()
        namespace.compact()
        manifest = namespace.manifest(version, known)
        bytes_before, puts_before = store.put_bytes, store.puts
        began = time.process_time()
        before, known = known, await manifests.commit(manifest)
        if version >= first:
            cpu.append(1e3 * (time.process_time() - began))
            spent.append(store.put_bytes - bytes_before)
            puts += store.puts - puts_before
            old = () if before is None else before.sections
            merges += len(set(old) - set(known.sections)) > 0
        forget_old(store, known)
    assert known is not None
    bytes_before, gets_before = store.got_bytes, store.gets
    began = time.process_time()
    found = await ManifestStore(store, limits=sizes.limits).recent("bench", "bench")
    cold_cpu_ms = 1e3 * (time.process_time() - began)
    assert found is not None
    assert {f.uuid for f in found.files} == {f.uuid for f in known.files}
    hint = next(data for key, data in store.objects.items() if key.endswith("/manifest"))
    return Cost(
        spent,
        puts / commits,
        cpu,
        store.got_bytes - bytes_before,
        store.gets - gets_before,
        cold_cpu_ms,
        len(hint),
        len(found.sections),
        merges,
    )


def forget_old(store: Objects, manifest: Manifest) -> None:
    """What a garbage collector does: only the newest manifest and its sections stay."""
    named = {section.object.name.rpartition("/")[2] for section in manifest.sections}
    for key in list(store.objects):
        _, kind, name = key.rsplit("/", 2)
        old = kind == "manifests" and int(name) < manifest.version
        if old or (kind == "sections" and name not in named):
            del store.objects[key]


def quantile(values: list[float] | list[int], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def measured(records: list[int], commits: int, dimension: int) -> None:
    print(
        "   records | commit KB mean   p50    p99     max | puts | root KB | sections merges |"
        " commit CPU ms mean  p99 | cold GETs      KB  CPU ms"
    )
    for count in records:
        cost = await simulate(count, commits, dimension)
        kb = [size / 1e3 for size in cost.commit_bytes]
        print(
            f"{count:>10,} | {sum(kb) / len(kb):>14.1f} {quantile(kb, 0.5):>5.0f}"
            f" {quantile(kb, 0.99):>6.0f} {max(kb):>7.0f} | {cost.commit_puts:>4.1f}"
            f" | {cost.root_bytes / 1e3:>7.1f} | {cost.sections:>8} {cost.merges:>6}"
            f" | {sum(cost.commit_cpu_ms) / commits:>18.1f}"
            f" {quantile(cost.commit_cpu_ms, 0.99):>4.0f}"
            f" | {cost.cold_gets:>9} {cost.cold_bytes / 1e3:>7.0f} {cost.cold_cpu_ms:>7.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--records", type=int, nargs="+", default=[10**4, 10**5, 10**6, 10**7])
    parser.add_argument("--commits", type=int, default=400)
    parser.add_argument("--dimension", type=int, default=384)
    given = parser.parse_args()
    asyncio.run(measured(given.records, given.commits, given.dimension))


if __name__ == "__main__":
    main()
