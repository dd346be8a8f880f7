"""An import beside the same records upserted over HTTP: rate until all is in the index, CPU, bytes;
and an export of them.

`python -m bench.bulk [--records N]`, on the embedded deployment, each on a server of its own. An
upsert is timed until the last one is acknowledged, and until nothing is left to index or compact;
an import until it is completed, which is all of that.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.dataset import F32, vectors
from bench.enlarge import Enlarged
from bench.load import RawClient, upsert_body
from bench.watch import samples, usage
from tests.e2e.deployments import Deployment, embedded
from tests.e2e.processes import KEY

DIMENSION = 384
BATCH, AT_ONCE = 100, 4
# The builder's gauges are looked at every second or so.
QUIET_S = 3.0
FILES = 4
# As a deployment has them; the tests' are for small numbers.
USUAL = {"FIRNDB_FLUSH_AGE_S": "2.0"}
WRITTEN = "firndb_object_store_written_bytes"


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds and bytes; records/s is until all is indexed and at rest."""

    records: int
    acknowledged_s: float
    indexed_s: float
    records_s: float
    cpu_s: float
    written_bytes: float


def metadata_of(number: int) -> dict[str, Any]:
    return {"n": number, "kind": f"k{number % 10}"}


def rows(records: int) -> Iterator[tuple[int, F32]]:
    return Enlarged(vectors()[:6000]).rows(0, records)


def write_files(folder: Path, records: int) -> None:
    folder.mkdir(parents=True)
    schema = pa.schema(
        [("id", pa.string()), ("values", pa.list_(pa.float32())), ("metadata", pa.string())]
    )
    writers = [pq.ParquetWriter(folder / f"{n}.parquet", schema) for n in range(FILES)]
    for first, block in rows(records):
        offsets: Any = pa.array(np.arange(len(block) + 1, dtype=np.int32) * DIMENSION)
        flat: Any = pa.array(block.ravel())
        numbers = range(first, first + len(block))
        columns: dict[str, Any] = {
            "id": [f"r{n}" for n in numbers],
            "values": pa.ListArray.from_arrays(offsets, flat),
            "metadata": [json.dumps(metadata_of(n)) for n in numbers],
        }
        writers[first // 8192 % FILES].write_table(pa.table(columns, schema=schema))
    for writer in writers:
        writer.close()


def shown(deployment: Deployment) -> dict[str, float]:
    return samples(httpx.get(f"{deployment.url}/metrics").text)


def written(now: dict[str, float]) -> float:
    return sum(value for name, value in now.items() if name.startswith(WRITTEN))


def cpu_of(deployment: Deployment) -> float:
    """Of the server and the processes that it has ended."""
    process = deployment.process.process
    assert process is not None
    own = usage(process.pid).cpu_s
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return own + (int(fields[13]) + int(fields[14])) / 100


def at_rest(deployment: Deployment, records: int, client: httpx.Client) -> None:
    """Everything is indexed and nothing is left to compact, for QUIET_S."""
    quiet_s = 0.0
    while quiet_s < QUIET_S:
        time.sleep(0.2)
        now = shown(deployment)
        busy = now.get("firndb_builder_debt_bytes", 1.0) + now.get(
            "firndb_builder_buffered_records", 1.0
        )
        lag = sum(v for n, v in now.items() if n.startswith("firndb_builder_lag_log_records"))
        queue = now.get("firndb_builder_compaction_queue", 1.0)
        quiet_s = 0.0 if busy or lag or queue else quiet_s + 0.2
    found = client.get("/describe_index_stats").json()["totalVectorCount"]
    assert found == records, found


def bodies_of(records: int) -> list[bytes]:
    """All of them at once, some 4 KB a record: making them is no work of the server's."""
    return [
        upsert_body(
            first + i,
            block[i : i + BATCH],
            [metadata_of(first + n) for n in range(i, min(i + BATCH, len(block)))],
        )
        for first, block in rows(records)
        for i in range(0, len(block), BATCH)
    ]


async def upserted(deployment: Deployment, records: int) -> Figures:
    bodies = bodies_of(records)
    host = deployment.create_index("bench", DIMENSION)
    client = RawClient(host, KEY)
    cpu = cpu_of(deployment)
    began = time.perf_counter()
    acknowledged, _ = await client.post_all("/vectors/upsert", bodies, AT_ONCE)
    await client.close()
    with httpx.Client(base_url=host, headers={"Api-Key": KEY}, timeout=60) as asking:
        await asyncio.to_thread(at_rest, deployment, records, asking)
    indexed = time.perf_counter() - began - QUIET_S
    cpu = cpu_of(deployment) - cpu
    return Figures(
        records, acknowledged, indexed, records / indexed, cpu, written(shown(deployment))
    )


def imported(deployment: Deployment, folder: Path, records: int) -> tuple[Figures, float]:
    """And the seconds of an export."""
    host = deployment.create_index("bench", DIMENSION)
    with httpx.Client(base_url=host, headers={"Api-Key": KEY}, timeout=600) as client:
        cpu = cpu_of(deployment)
        began = time.perf_counter()
        asked = client.post("/bulk/imports", json={"uri": f"file://{folder}/"}).raise_for_status()
        state: dict[str, Any] = {"status": "Pending"}
        while state["status"] in ("Pending", "InProgress"):
            time.sleep(0.1)
            state = client.get(f"/bulk/imports/{asked.json()['id']}").json()
        took = time.perf_counter() - began
        assert (state["status"], state["recordsImported"]) == ("Completed", records), state
        cpu = cpu_of(deployment) - cpu
        figures = Figures(records, took, took, records / took, cpu, written(shown(deployment)))
        began = time.perf_counter()
        size = 0
        with client.stream("GET", "/firndb/export?namespace=ns") as answer:
            for chunk in answer.iter_bytes():
                size += len(chunk)
        return figures, time.perf_counter() - began


def fresh(folder: Path) -> Path:
    folder.mkdir()
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure imports and exports.")
    parser.add_argument("--records", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="firndb-bench-") as name:
        folder = Path(name)
        write_files(folder / "in" / "set" / "ns", options.records)
        with embedded(fresh(folder / "a"), USUAL) as deployment:
            upserts = asyncio.run(upserted(deployment, options.records))
        print("upserts", json.dumps(asdict(upserts)), flush=True)
        settings = {**USUAL, "FIRNDB_IMPORT_LOCATIONS": f"file://{folder}/in/"}
        with embedded(fresh(folder / "b"), settings) as deployment:
            bulk, export_s = imported(deployment, folder / "in" / "set", options.records)
        print("import ", json.dumps(asdict(bulk)))
    print(
        f"import: {bulk.records_s:,.0f} records/s, {bulk.records_s / upserts.records_s:.1f} times "
        f"the upserts' {upserts.records_s:,.0f} to the index "
        f"({options.records / upserts.acknowledged_s:,.0f} to acknowledged); "
        f"CPU {upserts.cpu_s / bulk.cpu_s:.1f} times less; export {options.records / export_s:,.0f}"
        " records/s"
    )


if __name__ == "__main__":
    main()
