"""A project sees only its own: every operation on every kind of object of another project.

At stake: tenants who trust one server with their data. Whoever asks for another project's object
must learn nothing: not what is in it, and not that it is there; the answer for it and for one that
nobody has differ in the name alone, and cost the same questions to the database.
"""

import base64
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import sqlalchemy as sa
from google.protobuf.json_format import ParseDict

from api.grpc.generated import vector_service_pb2 as pb
from api.openapi.operation import Access
from api.openapi.tables import OPERATIONS
from infra.catalog.backup_model import BackupCounts
from infra.catalog.backups import Backups
from query.records import encode_token
from tests.api.gateway import (
    CLASSIC,
    KEY,
    OTHER_KEY,
    READ_ONLY_KEY,
    READ_WRITE_KEY,
    SERVERLESS,
    Running,
    running_gateway,
)
from tests.api.grpc_client import grpc_client
from tests.api.isolation import (
    CASES,
    GRPC_CASES,
    METADATA,
    NAMESPACE,
    POD,
    RECORD,
    SCHEDULE,
    VECTOR,
    At,
    Case,
    Sees,
)

ALL = [(method, case) for (method, _), cases in CASES.items() for case in cases]
WRONG_KEY = "no-such-key-0123456789abcdef"
HOST = "{name}.db.example"
ACCESS = {(o.method, o.path): o.access for o in OPERATIONS}


@dataclass
class World:
    """`ours`: what the first project has; `absent`: names as long, that nobody has."""

    gateway: Running
    ours: Mapping[str, str]
    absent: Mapping[str, str]
    theirs: str

    async def ask(
        self, method: str, case: Case, names: Mapping[str, str], key: str | None
    ) -> httpx.Response:
        index = self.theirs if case.at is At.THEIR_INDEX else names["index"]
        headers = {} if key is None else {"api-key": key}
        if case.at is not At.CONTROL:
            headers["host"] = HOST.format(name=index)
        body = None if case.body is None else orjson.dumps(case.body).decode()
        for name, value in names.items():
            body = body and body.replace("{" + name + "}", value)
        if body is not None:
            headers["content-type"] = "application/x-ndjson" if case.ndjson else "application/json"
        path = re.sub(r"{(\w+)}", lambda m: names[m[1]], case.path)
        return await self.gateway.http.request(
            method, self.gateway.url + path, headers=headers, content=body
        )

    def forget(self) -> None:
        """The next question of each kind reaches the catalog."""
        self.gateway.callers.forget()
        self.gateway.gateway._living._by_name.forget(lambda _: True)

    async def untouched(self) -> None:
        """The first project has all that it had."""
        for path in (
            "/indexes/{index}",
            "/admin/api-keys/{key}",
            "/bulk/imports/{import}",
            "/backups/{backup}",
            "/restore-jobs/{job}",
            "/collections/{collection}",
            "/backup-schedules/{schedule}",
        ):
            at = At.OUR_INDEX if "import" in path else At.CONTROL
            answer = await self.ask("GET", Case(path, at=at), self.ours, KEY)
            assert answer.status_code == 200, answer.text
            assert answer.json().get("status") != "Cancelled"


def absent_like(name: str) -> str:
    """As long and of the same characters, so that lengths and forms tell nothing."""
    return name.translate(str.maketrans("0123456789abcdef", "1234567890bcdefa"))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    settings: dict[str, Any] = {"index_host": f"http://{HOST}"}
    settings["import_locations"] = "s3://bucket/in/"
    async with running_gateway(tmp_path, **settings) as gateway:
        theirs = {"name": "their-index", "dimension": 3, "metric": "cosine", "spec": SERVERLESS}
        await made(gateway, "/indexes", theirs, key=OTHER_KEY)
        ours = await objects_of_each_kind(gateway)
        absent = {kind: absent_like(name) for kind, name in ours.items()}
        assert not set(absent.values()) & set(ours.values())
        for names in (ours, absent):
            names["import_token"] = encode_token(names["import"])
            names["backup_token"] = encode_token(names["backup"])
            # as the lists of the control plane give them: behind what is newer than everything
            for kind in ("backup", "job"):
                place = f"{10**15 - 1}:{names[kind]}".encode()
                names[f"{kind}_place"] = base64.urlsafe_b64encode(place).decode()
        yield World(gateway, ours, absent, "their-index")


async def made(
    gateway: Running, path: str, body: Any, *, key: str = KEY, index: str | None = None
) -> Any:
    headers = dict(CLASSIC)
    if index is not None:
        headers["host"] = HOST.format(name=index)
    answer = await gateway.ask("POST", path, json=body, key=key, headers=headers)
    assert answer.status_code < 300, answer.text
    return answer.json()


async def objects_of_each_kind(gateway: Running) -> dict[str, str]:
    """What the first project has: one of everything that has a name or an id."""
    await gateway.create("ours-index")
    await gateway.create("ours-indpods", spec={"pod": POD})
    vectors = [{"id": RECORD, "values": [1, 0, 0], "metadata": METADATA}]
    await made(
        gateway, "/vectors/upsert", {"vectors": vectors, "namespace": NAMESPACE}, index="ours-index"
    )
    started = await made(gateway, "/bulk/imports", {"uri": "s3://bucket/in/a"}, index="ours-index")
    (project,) = (await gateway.ask("GET", "/admin/projects")).json()["data"]
    keys = await gateway.ask("GET", f"/admin/projects/{project['id']}/api-keys")
    backup = await made(gateway, "/indexes/ours-index/backups", {"name": "ours-backup"})
    backups = Backups(gateway.catalog.database, gateway.catalog.quotas)
    await backups.ready(backup["backup_id"], BackupCounts(1, 1, 1))
    restored = await made(
        gateway, f"/backups/{backup['backup_id']}/create-index", {"name": "ours-restored"}
    )
    await made(gateway, "/collections", {"name": "ours-collection", "source": "ours-indpods"})
    schedule = await made(gateway, "/indexes/ours-index/backup-schedules", SCHEDULE)
    return {
        "index": "ours-index",
        "pods": "ours-indpods",
        "collection": "ours-collection",
        "import": started["id"],
        "project": project["id"],
        "key": keys.json()["data"][0]["id"],
        "backup": backup["backup_id"],
        "job": restored["restore_job_id"],
        "schedule": schedule["schedule_id"],
    }


@contextmanager
def counted_statements(gateway: Running) -> Iterator[list[str]]:
    """The catalog's statements within the block."""
    engine = gateway.catalog.database._engine
    seen: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


def without_names(answer: httpx.Response, names: Mapping[str, str]) -> tuple[Any, ...]:
    """All of the answer, but for the names that the request had, its id and the time."""
    text = answer.text
    for kind, name in names.items():
        text = text.replace(name, f"<{kind}>")
    headers = {
        k: v for k, v in answer.headers.items() if k not in ("date", "x-pinecone-request-id")
    }
    return answer.status_code, text, headers


def test_every_operation_has_its_cases() -> None:
    """A new route must say what another project may not do with it."""
    protected = {(o.method, o.path) for o in OPERATIONS if o.access is not Access.PUBLIC}
    assert not protected - CASES.keys(), "tests/api/isolation.py needs cases for these"
    assert not CASES.keys() - {(o.method, o.path) for o in OPERATIONS}


async def test_another_projects_object_is_like_one_that_nobody_has(world: World) -> None:
    tables = dict(world.gateway.memory.tables)
    wrong: list[str] = []
    # first what is listed: later the audit log has what the caller itself has tried and named
    for method, case in sorted(ALL, key=lambda one: one[1].sees is not Sees.OWN):
        answers, statements = [], []
        for names in (world.ours, world.absent):
            world.forget()
            with counted_statements(world.gateway) as seen:
                answers.append(await world.ask(method, case, names, OTHER_KEY))
            statements.append(seen)
            if case.sees is Sees.ITS_OWN_NAMES:
                await world.gateway.ask("DELETE", f"/indexes/{names['index']}", key=OTHER_KEY)
        if faults := list(_told(world, case, answers)):
            wrong.append(f"{method} {case.path} {case.body}: {faults}")
        if statements[0] != statements[1]:
            wrong.append(f"{method} {case.path} asks differently: {statements}")
    assert not wrong, "\n".join(wrong)
    assert world.gateway.memory.tables == tables
    await world.untouched()


def _told(world: World, case: Case, answers: list[httpx.Response]) -> Iterator[str]:
    """What the answers tell that they must not."""
    ours, absent = (
        without_names(answer, names)
        for answer, names in zip(answers, (world.ours, world.absent), strict=True)
    )
    match case.sees:
        case Sees.NOTHING:
            if ours[0] not in (401, 403, 404) or ours != absent:
                yield f"{ours} and {absent}"
        case Sees.REFUSAL:
            if ours[0] != 400 or ours != absent:
                yield f"{ours} and {absent}"
        case Sees.OWN:
            if ours != absent or ours[0] != 200:
                yield f"{ours} and {absent}"
            yield from (name for name in world.ours.values() if name in answers[0].text)
        case Sees.ITS_OWN_NAMES:
            if ours[0] != absent[0]:
                yield f"{ours} and {absent}"
    for secret in (*METADATA.values(), RECORD):
        yield from (secret for answer in answers if secret in answer.text)


@pytest.mark.parametrize("key", [None, WRONG_KEY, "", KEY + "x", KEY[:-1], KEY.upper()])
async def test_without_a_key_nothing_is_told(world: World, key: str | None) -> None:
    for method, case in ALL:
        answers = [await world.ask(method, case, n, key) for n in (world.ours, world.absent)]
        assert answers[0].status_code == 401, (method, case, answers[0].text)
        ours, absent = (
            without_names(a, n) for a, n in zip(answers, (world.ours, world.absent), strict=True)
        )
        assert ours == absent


@pytest.mark.parametrize(
    ("key", "refused"),
    [
        (READ_ONLY_KEY, {Access.WRITE, Access.ADMIN}),
        (READ_WRITE_KEY, {Access.ADMIN}),
    ],
)
async def test_a_key_that_may_not_is_refused_before_anything_is_looked_up(
    world: World, key: str, refused: set[Access]
) -> None:
    """403 for its own project's objects as for what nobody has."""
    tables = dict(world.gateway.memory.tables)
    asked = 0
    for (method, path), cases in CASES.items():
        for case in cases if ACCESS[method, path] in refused else ():
            answers = [await world.ask(method, case, n, key) for n in (world.ours, world.absent)]
            assert [a.status_code for a in answers] == [403, 403], (method, path, answers[0].text)
            assert answers[0].text == answers[1].text
            asked += 1
    assert asked >= 10
    assert world.gateway.memory.tables == tables
    await world.untouched()


def _grpc_cases() -> Iterator[tuple[str, Any]]:
    for method, cases in GRPC_CASES.items():
        for fields in cases:
            yield method, ParseDict(dict(fields), getattr(pb, f"{method}Request")())


async def test_over_grpc_another_projects_index_is_like_one_that_nobody_has(world: World) -> None:
    tables = dict(world.gateway.memory.tables)
    told: dict[str, list[Any]] = {}
    for name in (world.ours["index"], world.absent["index"]):
        authority = ("grpc.default_authority", HOST.format(name=name))
        async with grpc_client(world.gateway.url, authority) as client:
            for method, message in _grpc_cases():
                for key in (OTHER_KEY, None, WRONG_KEY):
                    world.forget()
                    with counted_statements(world.gateway) as seen:
                        code, text, metadata = await client.refused(method, message, key=key)
                    assert code.name == ("NOT_FOUND" if key == OTHER_KEY else "UNAUTHENTICATED")
                    metadata = {k: v for k, v in metadata.items() if k != "x-pinecone-request-id"}
                    told.setdefault(name, []).append((method, code, text, metadata, seen))
    assert told[world.ours["index"]] == told[world.absent["index"]]
    assert world.gateway.memory.tables == tables


async def test_over_grpc_a_key_that_only_reads_writes_nothing(world: World) -> None:
    tables = dict(world.gateway.memory.tables)
    writes = {"Upsert", "Update", "Delete", "CreateNamespace", "DeleteNamespace"}
    for name in (world.ours["index"], world.absent["index"]):
        authority = ("grpc.default_authority", HOST.format(name=name))
        async with grpc_client(world.gateway.url, authority) as client:
            for method, message in _grpc_cases():
                if method in writes:
                    code, *_ = await client.refused(method, message, key=READ_ONLY_KEY)
                    assert code.name == "PERMISSION_DENIED"
    assert world.gateway.memory.tables == tables


async def test_on_its_port_another_projects_index_is_not_found(tmp_path: Path) -> None:
    """Where each index has a port, anybody can connect to it: only the key's project counts."""
    async with running_gateway(tmp_path) as gateway:
        host = (await gateway.create("ours-index"))["host"]
        vectors = [{"id": RECORD, "values": VECTOR, "metadata": METADATA}]
        body = {"vectors": vectors, "namespace": NAMESPACE}
        assert (await gateway.ask("POST", "/vectors/upsert", host=host, json=body)).is_success
        tables = dict(gateway.memory.tables)
        told = set()
        for method, case in ALL:
            if case.at is At.OUR_INDEX:
                path = host + case.path.replace("{import}", "0" * 32)
                headers = {"api-key": OTHER_KEY}
                if case.ndjson:
                    headers["content-type"] = "application/x-ndjson"
                content = None if case.body is None else orjson.dumps(case.body)
                answer = await gateway.http.request(method, path, headers=headers, content=content)
                told.add((answer.status_code, answer.text))
        assert told == {(404, '{"code":5,"message":"Index not found","details":[]}')}
        async with grpc_client(host) as client:
            for called, message in _grpc_cases():
                code, text, _ = await client.refused(called, message, key=OTHER_KEY)
                assert (code.name, text) == ("NOT_FOUND", "Index not found")
        assert gateway.memory.tables == tables


def test_every_grpc_method_has_its_cases() -> None:
    served = {m.name for m in pb.DESCRIPTOR.services_by_name["VectorService"].methods}
    assert GRPC_CASES.keys() == served
