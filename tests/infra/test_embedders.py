"""Models behind HTTP and in the process: what the operator writes down is what is asked, bounded,
and what cannot work says whom to turn to.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.embedding import Embedder, InputType
from core.errors import (
    ConfigError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    Overloaded,
    Unavailable,
)
from core.metric import Metric
from infra.embedding.embedders import Embedders
from infra.embedding.slots import FairSlots
from infra.telemetry import Metrics
from tests.fixtures.embedder import DIMENSION, KEY, Handler, embed

PASSAGE = InputType.PASSAGE


class Scripted(Handler):
    """Takes an answer from `script` before it does its work; keeps what it was asked."""

    script: list[Callable[["Scripted"], None]]
    asked: list[dict[str, Any]]

    def do_POST(self) -> None:  # noqa: N802
        if not self.script:
            self.asked.append({"path": self.path, "headers": dict(self.headers)})
            return super().do_POST()
        self.rfile.read(int(self.headers["content-length"]))
        self.asked.append({"path": self.path})
        return self.script.pop(0)(self)


def says(status: int, body: Any, **headers: str) -> Callable[[Scripted], None]:
    return lambda handler: handler.answer(status, body, **headers)


@pytest.fixture
def server() -> Iterator[tuple[str, type[Scripted]]]:
    """Its URL, and where its script is written."""
    handler = type("Script", (Scripted,), {"script": [], "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}", handler
        httpd.shutdown()
        thread.join()


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Embedders]:
    monkeypatch.setenv("EMBEDDER_KEY", KEY)

    def opened_file(text: str) -> Embedders:
        path = tmp_path / "embedders.toml"
        path.write_text(text)
        return Embedders.open(path, Metrics())

    return opened_file


def table(server: str, **more: Any) -> str:
    lines = {"url": f"{server}/v1/embeddings", "dimension": DIMENSION, "key_env": "EMBEDDER_KEY"}
    given = {**lines, **more}
    return "[words]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in given.items())


async def asked_once(embedders: Embedders, texts: list[str]) -> np.ndarray[Any, Any]:
    try:
        return (await embedders.named("words").embed(texts, PASSAGE, project="p")).vectors
    finally:
        await embedders.close()


@pytest.mark.parametrize("api", ["openai", "pinecone"])
async def test_a_model_over_http_gives_its_vectors_in_the_order_of_the_texts(
    server: tuple[str, type[Scripted]], opened: Callable[[str], Embedders], api: str
) -> None:
    path = "/embed" if api == "pinecone" else "/v1/embeddings"
    embedders = opened(table(server[0], url=server[0] + path, api=api, batch=2, concurrency=2))
    texts = [f"word{n} and more" for n in range(5)]
    embedded = await embedders.named("words").embed(texts, PASSAGE, project="p")
    assert embedded.vectors.dtype == np.float32
    np.testing.assert_array_equal(embedded.vectors, embed(texts))
    assert embedded.tokens == 35
    assert len(server[1].asked) == 3
    await embedders.close()


async def test_a_model_in_the_process(opened: Callable[[str], Embedders]) -> None:
    embedders = opened(
        '[words]\nlocal = "tests.fixtures.embedder:make"\ndimension = 16\nbatch = 3\n'
        'metric = "dotproduct"\n[words.options]\ndimension = 16'
    )
    texts = ["one two", "three", "four", "five five five"]
    embedded = await embedders.named("words").embed(texts, InputType.QUERY, project="p")
    np.testing.assert_array_equal(embedded.vectors, embed(texts, 16))
    assert embedded.tokens == 7
    assert [m.metric for m in embedders.models] == [Metric.DOTPRODUCT]
    with pytest.raises(InvalidRequest, match="unspeakable"):
        await embedders.named("words").embed(["an unspeakable word"], PASSAGE, project="p")
    await embedders.close()


async def test_a_prefix_goes_before_each_text(opened: Callable[[str], Embedders]) -> None:
    embedders = opened(
        f'[words]\nlocal = "tests.fixtures.embedder:make"\ndimension = {DIMENSION}\n'
        'query_prefix = "query: "\npassage_prefix = "passage: "'
    )
    words = embedders.named("words")
    np.testing.assert_array_equal(
        (await words.embed(["ice"], InputType.QUERY, project="p")).vectors, embed(["query: ice"])
    )
    np.testing.assert_array_equal(
        (await words.embed(["ice"], PASSAGE, project="p")).vectors, embed(["passage: ice"])
    )
    await embedders.close()


async def test_what_may_work_in_a_moment_is_tried_again(
    server: tuple[str, type[Scripted]], opened: Callable[[str], Embedders]
) -> None:
    server[1].script += [says(503, b"loading"), says(429, b"slowly")]
    vectors = await asked_once(opened(table(server[0])), ["ice"])
    np.testing.assert_array_equal(vectors, embed(["ice"]))
    assert len(server[1].asked) == 3


async def test_what_does_not_work_is_given_up(
    server: tuple[str, type[Scripted]], opened: Callable[[str], Embedders]
) -> None:
    server[1].script += [says(500, b"broken")] * 4
    with pytest.raises(Unavailable, match="answers 500 for now"):
        await asked_once(opened(table(server[0])), ["ice"])
    assert len(server[1].asked) == 3


async def test_a_server_that_is_not_there_is_unavailable(
    opened: Callable[[str], Embedders],
) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await asked_once(opened(table("http://127.0.0.1:1")), ["ice"])


async def test_a_refused_text_is_the_callers(
    server: tuple[str, type[Scripted]], opened: Callable[[str], Embedders]
) -> None:
    server[1].script.append(says(413, b"too long"))
    with pytest.raises(InvalidRequest, match=r"refuses a text \(413\): too long"):
        await asked_once(opened(table(server[0])), ["ice"])
    assert len(server[1].asked) == 1


ROW = [0.5] * DIMENSION


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (says(404, b"no such path"), "answers 404"),
        (says(401, b""), "answers 401"),
        (says(302, b"", location="http://127.0.0.1:1/elsewhere"), "answers 302"),
        (says(200, b"<html>"), "cannot be read"),
        (says(200, {"data": [{"values": ROW}]}), "cannot be read"),
        (says(200, {"data": []}), "shape"),
        (says(200, {"data": [{"embedding": ROW}] * 2}), "shape"),
        (says(200, {"data": [{"embedding": [1.0, 2.0]}]}), r"shape \(1, 2\) instead of \(1, 64\)"),
        (says(200, {"data": [{"embedding": [1e39, *ROW[1:]]}]}), "out of range"),
        (says(200, b" " * (3 << 20)), "more than"),
    ],
)
async def test_an_embedder_that_is_set_up_wrongly_is_the_operators(
    server: tuple[str, type[Scripted]],
    opened: Callable[[str], Embedders],
    answer: Callable[[Scripted], None],
    match: str,
) -> None:
    """Clients must not repeat it: it is no 5xx."""
    server[1].script.append(answer)
    with pytest.raises(FailedPrecondition, match=match):
        await asked_once(opened(table(server[0])), ["ice"])
    assert len(server[1].asked) == 1


async def test_one_failed_batch_fails_the_request(
    server: tuple[str, type[Scripted]], opened: Callable[[str], Embedders]
) -> None:
    server[1].script.append(says(400, b"bad word"))
    with pytest.raises(InvalidRequest, match="bad word"):
        await asked_once(opened(table(server[0], batch=1, concurrency=4)), list("abcdefgh"))


async def test_time_and_requests_are_bounded(
    server: tuple[str, type[Scripted]],
    opened: Callable[[str], Embedders],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("infra.embedding.bounded.PROJECT_REQUESTS_MAX", 2)
    held = threading.Event()
    server[1].script += [lambda handler: handler.answer(503, b"", late=str(held.wait(30)))] * 9
    embedders = opened(table(server[0], timeout_s=2.0))
    words: Embedder = embedders.named("words")
    waiting = [asyncio.create_task(words.embed(["ice"], PASSAGE, project="p")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 requests of this project wait for the model words"):
        await words.embed(["ice"], PASSAGE, project="p")
    for one in waiting:
        with pytest.raises(DeadlineExceeded, match=r"did not embed 1 texts in 2(\.0)? s"):
            await one
    held.set()
    server[1].script.clear()
    np.testing.assert_array_equal(
        (await words.embed(["ice"], PASSAGE, project="p")).vectors, embed(["ice"])
    )
    await embedders.close()


async def test_a_model_that_is_not_there_is_told_with_those_that_are(
    opened: Callable[[str], Embedders],
) -> None:
    with pytest.raises(NotFound, match="no model 'e5': it has words"):
        opened(table("http://x")).named("e5")
    with pytest.raises(NotFound, match="FIRNDB_EMBEDDERS"):
        Embedders.open(None, Metrics()).named("e5")


LOCAL = 'dimension = 3\nlocal = "{}"'


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[m", "is not TOML"),
        ("m = 1", r"table \[m\]: Expected `object`"),
        ("[m]\nurl = 'http://x'", "missing required field `dimension`"),
        ("[m]\nurl = 'http://x'\ndimension = 0", "`int` >= 1 - at `\\$.dimension`"),
        ("[m]\nurl = 'http://x'\ndimension = 3\nspeed = 1", "unknown field `speed`"),
        ("[m]\ndimension = 3", "either url or local"),
        ("[m]\ndimension = 3\nurl = 'ftp://x'", "must begin with http"),
        ("[m]\ndimension = 3\nlocal = 'json'", "must be module:factory"),
        ("[m]\ndimension = 3\nurl = 'http://x'\nkey_env = 'NOT_SET_9'", "NOT_SET_9, which is not"),
        (f"[m]\n{LOCAL.format('no_such_module:make')}", "No module named"),
        (f"[m]\n{LOCAL.format('json:make')}", "has no attribute 'make'"),
        (f"[m]\n{LOCAL.format('json:loads')}", "failed: TypeError"),
        (f"[m]\n{LOCAL.format('collections:Counter')}", "must make a function"),
        ('["a\\u0007"]\ndimension = 3', "name has 1 to 128 characters"),
    ],
)
def test_a_wrong_file_is_told_at_the_start(
    opened: Callable[[str], Embedders], text: str, match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        opened(text)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Embedders.open(tmp_path / "none.toml", Metrics())


async def test_projects_have_a_busy_model_in_turn() -> None:
    """A flood of one project, and of one of its namespaces, leaves their turns to the others."""
    slots, order = FairSlots(1), list[str]()

    async def work(project: str, namespace: str) -> None:
        async with slots.slot(project, namespace):
            order.append(project + namespace)
            await asyncio.sleep(0)

    wanted = [("a", "1")] * 4 + [("a", "2")] * 2 + [("b", "1")] * 2
    tasks = [asyncio.create_task(work(*tenant)) for tenant in wanted]
    await asyncio.gather(*tasks)
    assert order == ["a1", "a1", "b1", "a2", "b1", "a1", "a2", "a1"]


async def test_who_gives_up_holds_nobody_up() -> None:
    slots = FairSlots(1)
    async with slots.slot("a", ""):
        waiting = [asyncio.create_task(_once(slots, project)) for project in "aabb"]
        await asyncio.sleep(0)
        for task in waiting[:3]:
            task.cancel()
    await waiting[3]
    # Called and cancelled at the same time: its slot goes on to the next.
    async with slots.slot("a", ""):
        called, following = (asyncio.create_task(_once(slots, p)) for p in "ab")
        await asyncio.sleep(0)
    called.cancel()
    await following
    async with asyncio.timeout(5), slots.slot("a", ""):
        assert called.cancelled()


async def _once(slots: FairSlots, project: str) -> None:
    async with slots.slot(project, ""):
        pass
