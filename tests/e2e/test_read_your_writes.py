"""The first query after an acknowledgement sees the write, while flushes go on behind it.

On the embedded deployment it is never stale. On Kafka it may be answered at the deadline, and then
says so; an answer that does not say so is never stale.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.deployments import Deployment, embedded
from tests.e2e.ledger import values
from tests.e2e.processes import KEY


class Checker:
    """Write, query, compare: new, overwritten and deleted ids in turn."""

    def __init__(self, host: str, may_be_flagged: bool) -> None:
        self.client = httpx.Client(base_url=host, headers={"Api-Key": KEY}, timeout=60)
        self.may_be_flagged = may_be_flagged
        self.flagged = 0

    def query(self, vector: list[float]) -> list[tuple[str, int]] | None:
        """(id, version) of all records, or None where the answer says that it is stale."""
        body = {"vector": vector, "topK": 1000, "includeMetadata": True}
        answer = self.client.post("/query", json=body).raise_for_status()
        if answer.headers.get("x-firndb-stale") == "true":
            assert self.may_be_flagged, "the embedded deployment answered a stale query"
            self.flagged += 1
            return None
        return [(m["id"], int(m["metadata"]["version"])) for m in answer.json()["matches"]]

    def upsert(self, record: str, version: int) -> list[float]:
        vector = values(record, version)
        body = {"vectors": [{"id": record, "values": vector, "metadata": {"version": version}}]}
        self.client.post("/vectors/upsert", json=body).raise_for_status()
        return vector

    def turn(self, number: int) -> None:
        record = f"r{number % 40}"
        vector = self.upsert(record, number)
        found = self.query(vector)
        assert found is None or found[0] == (record, number), "a new record is not seen"
        vector = self.upsert(record, number + 1_000_000)
        found = self.query(vector)
        assert found is None or found[0] == (record, number + 1_000_000), "the old version is seen"
        assert found is None or len({i for i, _ in found}) == len(found), "an id twice"
        if number % 2:
            self.client.post("/vectors/delete", json={"ids": [record]}).raise_for_status()
            found = self.query(vector)
            assert found is None or record not in {i for i, _ in found}, "a deleted record is seen"


@pytest.fixture
def often_flushing(tmp_path: Path) -> Iterator[Deployment]:
    with embedded(tmp_path, {"FIRNDB_FLUSH_AGE_S": "0.05"}) as deployment:
        yield deployment


@pytest.mark.parametrize("turns", [150, pytest.param(1000, marks=pytest.mark.long)])
def test_embedded_never_answers_stale(
    often_flushing: Deployment, turns: int, record_property: Callable[[str, object], None]
) -> None:
    checker = Checker(often_flushing.create_index("ryw", 8), may_be_flagged=False)
    for number in range(turns):
        checker.turn(number)
    record_property("turns", turns)
