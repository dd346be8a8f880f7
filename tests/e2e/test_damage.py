"""A server whose files somebody cuts to nothing while it serves them.

At stake: `cp` of a backup over the data folder, a clean-up script. A mapped file that is cut kills
the process; here it goes on, says what is damaged at the next start, and mends it from the log.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from tests.e2e.commands import told
from tests.e2e.deployments import embedded
from tests.e2e.processes import KEY

DIMENSION = 128
RECORDS = 1_200
VECTORS = np.random.default_rng(3).standard_normal((RECORDS, DIMENSION)).round(3)


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def write(client: httpx.Client, namespace: str, count: int) -> None:
    for first in range(0, count, 200):
        rows = range(first, min(first + 200, count))
        vectors = [{"id": f"r{n}", "values": VECTORS[n].tolist()} for n in rows]
        body = {"namespace": namespace, "vectors": vectors}
        client.post("/vectors/upsert", json=body).raise_for_status()


def ask(client: httpx.Client, row: int, namespace: str = "n") -> httpx.Response:
    body: dict[str, Any] = {"vector": VECTORS[row].tolist(), "topK": 1, "namespace": namespace}
    return client.post("/query", json=body)


def right(answer: httpx.Response, row: int) -> bool:
    return answer.status_code == 200 and answer.json()["matches"][0]["id"] == f"r{row}"


def data_files(folder: Path) -> list[Path]:
    """Large enough to be mapped."""
    found = (folder / "data" / "objects").rglob("*")
    return [p for p in found if p.suffix in (".arrow", ".ann") and p.stat().st_size > 64 << 10]


def covered(server: httpx.Client) -> bool:
    """Whether freshness has handed everything over to the files."""
    text = server.get("/metrics").text
    checkpoints = [line for line in text.splitlines() if "checkpoint_offset{" in line]
    applied = [line for line in text.splitlines() if "applied_offset{" in line]
    numbers = [sum(float(line.split()[-1]) for line in lines) for lines in (checkpoints, applied)]
    return len(checkpoints) > 0 and numbers[0] == numbers[1]


def test_files_cut_to_nothing_under_a_server_and_mended_from_the_log(tmp_path: Path) -> None:
    with embedded(tmp_path) as served:
        host = served.create_index("cut", DIMENSION)
        headers = {"Api-Key": KEY}
        server = httpx.Client(base_url=served.url, headers=headers, timeout=60)
        with httpx.Client(base_url=host, headers=headers, timeout=60) as client:
            write(client, "n", RECORDS)
            write(client, "other", 5)
            until(lambda: covered(server), "everything is in files")
            served.process.stop()
            served.restart()  # freshness forgets what is in files
            assert all(right(ask(client, row), row) for row in range(0, RECORDS, 100))
            with ThreadPoolExecutor(4) as threads:
                asked = [threads.submit(ask, client, row) for row in range(200)]
                for path in data_files(tmp_path):
                    os.truncate(path, 0)
                assert all(right(a.result(), row) for row, a in enumerate(asked))

            served.process.stop()
            served.restart()
            answer = ask(client, 7)
            assert answer.status_code == 500
            assert "does not match its checksum" in answer.json()["message"]
            assert any(path.name in answer.json()["message"] for path in data_files_cut(tmp_path))
            assert right(ask(client, 3, "other"), 3)
            metrics = server.get("/metrics").text
            assert 'firndb_cache_corrupt_reads{source="store"} 0.0' not in metrics
            told("rebuild", "cut", "--namespace", "n", "--data", tmp_path / "data")
            assert all(right(ask(client, row), row) for row in range(0, RECORDS, 100))
        server.close()


def data_files_cut(folder: Path) -> list[Path]:
    found = (folder / "data" / "objects").rglob("*")
    return [p for p in found if p.suffix in (".arrow", ".ann") and p.stat().st_size == 0]
