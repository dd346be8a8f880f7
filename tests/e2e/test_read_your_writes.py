"""The first query after an acknowledgement sees the write, while flushes go on behind it.

On the embedded deployment it is never stale. On Kafka it may be answered at the deadline, and then
says so; an answer that does not say so is never stale.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import httpx
import pytest

from tests.e2e.deployments import Deployment, distributed, embedded
from tests.e2e.ledger import DIMENSION, values
from tests.e2e.processes import KEY


class Checker:
    """Write, query, compare: new, overwritten and deleted ids in turn. `lsn`: of the last write."""

    def __init__(self, client: httpx.Client, may_be_flagged: bool) -> None:
        self.client = client
        self.may_be_flagged = may_be_flagged
        self.flagged = 0
        self.lsn = -1

    def ask(self, vector: list[float], headers: Mapping[str, str] | None = None) -> httpx.Response:
        body = {"vector": vector, "topK": 1000, "includeMetadata": True}
        return self.client.post("/query", json=body, headers=headers)

    def query(self, vector: list[float]) -> list[tuple[str, int]] | None:
        """(id, version) of all records, or None where the answer says that it is stale."""
        answer = self.ask(vector).raise_for_status()
        if answer.headers.get("x-firndb-stale") == "true":
            assert self.may_be_flagged, "the embedded deployment answered a stale query"
            self.flagged += 1
            return None
        return matched(answer)

    def upsert(self, record: str, version: int) -> list[float]:
        vector = values(record, version)
        body = {"vectors": [{"id": record, "values": vector, "metadata": {"version": version}}]}
        answer = self.client.post("/vectors/upsert", json=body).raise_for_status()
        self.lsn = int(answer.headers["x-pinecone-request-lsn"])
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


def matched(answer: httpx.Response) -> list[tuple[str, int]]:
    """(id, version), best first."""
    return [(m["id"], int(m["metadata"]["version"])) for m in answer.json()["matches"]]


@contextmanager
def checker(host: str, may_be_flagged: bool = False) -> Iterator[Checker]:
    with httpx.Client(base_url=host, headers={"Api-Key": KEY}, timeout=60) as client:
        yield Checker(client, may_be_flagged)


@pytest.fixture(scope="module")
def often_flushing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Memory forgets soon, too, so that answers come from files as well."""
    folder = tmp_path_factory.mktemp("embedded")
    often = {"FIRNDB_FLUSH_AGE_S": "0.05", "FIRNDB_FRESHNESS_GRACE_S": "0"}
    with embedded(folder, often) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def on_kafka(
    tmp_path_factory: pytest.TempPathFactory, service_settings: Mapping[str, str]
) -> Iterator[Deployment]:
    often = {**service_settings, "FIRNDB_FRESHNESS_GRACE_S": "1"}
    with distributed(tmp_path_factory.mktemp("distributed"), often) as deployment:
        yield deployment


@pytest.fixture(params=["often_flushing", "on_kafka"])
def host(request: pytest.FixtureRequest) -> str:
    """The host of a new index on each deployment."""
    deployment: Deployment = request.getfixturevalue(request.param)
    return deployment.create_index(f"own-{uuid.uuid4().hex[:8]}", DIMENSION)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("turns", [150, pytest.param(1000, marks=pytest.mark.long)])
def test_embedded_never_answers_stale(
    often_flushing: Deployment, turns: int, record_property: Callable[[str, object], None]
) -> None:
    with checker(often_flushing.create_index(f"ryw-{turns}", DIMENSION)) as check:
        for number in range(turns):
            check.turn(number)
    record_property("turns", turns)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("turns", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_kafka_never_answers_stale_without_saying_so(
    on_kafka: Deployment, turns: int, record_property: Callable[[str, object], None]
) -> None:
    with checker(on_kafka.create_index(f"ryw-{turns}", DIMENSION), may_be_flagged=True) as check:
        for number in range(turns):
            check.turn(number)
        assert check.flagged < turns, "nearly every answer was stale, so the test showed nothing"
    record_property("turns", turns)
    record_property("flagged answers", check.flagged)


def test_a_strong_read_is_current_or_an_error(host: str) -> None:
    with checker(host) as check:
        for number in range(10):
            vector = check.upsert("r", number)
            answer = check.ask(vector, {"x-firndb-consistency": "strong"})
            while answer.status_code == 504:
                answer = check.ask(vector, {"x-firndb-consistency": "strong"})
            assert answer.status_code == 200, answer.text
            assert matched(answer) == [("r", number)]


def test_min_lsn_waits_for_that_write(host: str) -> None:
    """With it a reader asks for one write that it was told of, whatever the log's end is."""
    with checker(host) as check:
        for number in range(10):
            vector = check.upsert("r", number)
            headers = {"x-firndb-consistency": "eventual", "x-firndb-min-lsn": str(check.lsn)}
            answer = check.ask(vector, headers)
            while answer.status_code == 504:
                answer = check.ask(vector, headers)
            assert answer.status_code == 200, answer.text
            assert matched(answer) == [("r", number)]
            assert int(answer.headers["x-pinecone-max-indexed-lsn"]) >= check.lsn


def test_an_lsn_that_does_not_exist_yet_is_not_waited_for_for_ever(host: str) -> None:
    with checker(host) as check:
        vector = check.upsert("r", 1)
        answer = check.ask(vector, {"x-firndb-min-lsn": str(check.lsn + 1_000_000)})
        assert answer.status_code == 504
        assert "retry-after" in answer.headers


def test_an_eventual_read_answers_from_what_is_there(host: str) -> None:
    with checker(host) as check:
        vector = check.upsert("r", 1)
        answer = check.ask(vector, {"x-firndb-consistency": "eventual"})
        assert answer.status_code == 200
        assert matched(answer) in ([], [("r", 1)])
        assert "x-firndb-stale" not in answer.headers, "it promised nothing"


@pytest.mark.parametrize(
    "header", [("x-firndb-consistency", "often"), ("x-firndb-min-lsn", "seven")]
)
def test_a_header_that_means_nothing_is_refused(
    often_flushing: Deployment, header: tuple[str, str]
) -> None:
    name, value = header
    host = often_flushing.create_index(f"bad-{uuid.uuid4().hex[:8]}", DIMENSION)
    with checker(host) as check:
        answer = check.ask([1.0] * DIMENSION, {name: value})
        assert answer.status_code == 400
        assert name in answer.json()["message"]
