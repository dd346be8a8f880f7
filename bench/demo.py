"""`make demo`: load real text embeddings through the official client and search them.

Uses the FirnDB server that owns the data folder (`--data`, default firndb-data), or the one at
PINECONE_CONTROLLER_HOST with PINECONE_API_KEY; where none runs it starts one on free ports in a
temporary folder and ends it afterwards.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pinecone import Pinecone, ServerlessSpec

from bench.dataset import documents, query_vectors, questions, vectors
from cli.output import plain_errors
from cli.runtime.folder import running_server
from core.errors import ConfigError
from tests.e2e.deployments import embedded
from tests.e2e.processes import KEY

INDEX = "demo-texts"
BATCH = 150  # records of 384 floats: about 1.2 MB of JSON, under the 2 MB limit of an upsert
FIRNDB = [sys.executable, "-m", "cli.main"]

# (row of the query texts, filter or None)
SEARCHES: list[tuple[int, dict[str, Any] | None]] = [
    (161, None),
    (161, {"section": {"$in": ["doc", "utils"]}}),
    (127, None),
    (396, {"lexname": "noun.person"}),
    (525, {"section": "libs", "installed_size": {"$lt": 200}}),
]


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, str]]:
    """(URL, API key) of the server that the caller runs, or of a temporary one."""
    url, key = os.environ.get("PINECONE_CONTROLLER_HOST"), os.environ.get("PINECONE_API_KEY")
    if url and key:
        yield url, key
    elif (owner := running_server(folder)) is not None:
        made = _keys(folder, "create", "demo")
        try:
            yield owner.url, made["key"]
        finally:
            _keys(folder, "revoke", made["id"])
    else:
        with tempfile.TemporaryDirectory(prefix="firndb-demo-") as place:
            print("no server runs: starting one for this demo")
            with embedded(Path(place)) as own:
                yield own.url, KEY


def _keys(folder: Path, *arguments: str) -> Any:
    done = subprocess.run(
        [*FIRNDB, "keys", *arguments, "--data", str(folder), "--json"],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise ConfigError(done.stderr.removeprefix("firndb: "))
    return json.loads(done.stdout)


def load(client: Pinecone) -> Any:
    """The demo index, filled; the records say what they are in their metadata."""
    if not client.has_index(INDEX):
        spec = ServerlessSpec(cloud="aws", region="us-east-1")
        client.create_index(INDEX, dimension=384, metric="cosine", spec=spec)
    index = client.Index(host=client.describe_index(INDEX).host or "")
    rows = [
        {
            "id": document.id,
            "values": vector.tolist(),
            "metadata": {"text": document.text, "source": document.source, **document.metadata},
        }
        for document, vector in zip(documents(), vectors(), strict=True)
    ]
    started = time.perf_counter()
    for first in range(0, len(rows), BATCH):
        index.upsert(vectors=rows[first : first + BATCH])
    taken = time.perf_counter() - started
    print(f"  upserted {len(rows)} records of 384 dimensions in {taken:.1f} s")
    print(f"  the index holds {index.describe_index_stats().total_vector_count} records")
    return index


def show(index: Any, row: int, condition: dict[str, Any] | None) -> None:
    text = questions()[row].text
    print(f'\n"{text}"' + (f"\n   where {json.dumps(condition)}" if condition else ""))
    started = time.perf_counter()
    found = index.query(
        vector=query_vectors()[row].tolist(), top_k=3, filter=condition, include_metadata=True
    )
    taken = (time.perf_counter() - started) * 1000
    for match in found.matches:
        print(f"   {match.score:.3f}  {match.metadata['text'][:86]}")
    print(f"   ({taken:.1f} ms through the client)")


@plain_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("firndb-data"))
    options = parser.parse_args()
    with server(options.data) as (url, key):
        print(f"loading real text embeddings into {url}, index {INDEX}")
        client = Pinecone(api_key=key, host=url)
        index = load(client)
        for row, condition in SEARCHES:
            show(index, row, condition)
        print(f"\nindex {INDEX} at {client.describe_index(INDEX).host}")


if __name__ == "__main__":
    main()
