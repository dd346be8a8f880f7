"""The admin endpoint and the first key: who gets in, and what verbs answer."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from cli.runtime.admin import admin_routes
from cli.runtime.keys import ensure_key, first_words
from cli.runtime.parts import Parts, check_deployment, open_parts
from core.errors import ConfigError
from infra.settings import Settings

TOKEN = "token-token-token"


def settings(folder: Path, **more: object) -> Settings:
    return Settings.load({"data": folder, "partitions": 2, **more})


@pytest_asyncio.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with open_parts(settings(tmp_path)) as opened:
        yield opened


async def ask(parts: Parts, verb: str, arguments: object = None, token: str = TOKEN) -> Any:
    """(status, the lines)."""
    app = FastAPI()
    app.include_router(admin_routes(parts, TOKEN))
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://local") as client:
        answer = await client.post(
            f"/firndb/admin/{verb}",
            content=json.dumps(arguments or {}),
            headers={"x-firndb-admin-token": token},
        )
    return answer.status_code, [json.loads(line) for line in answer.text.splitlines()]


async def test_without_the_token_nobody_gets_in(parts: Parts) -> None:
    with pytest.raises(Exception, match="token"):
        await ask(parts, "status", token="guessed")


async def test_an_unknown_verb_and_a_wrong_argument_are_named(parts: Parts) -> None:
    _, (line,) = await ask(parts, "explode")
    assert "explode" in line["error"]
    assert "status" in line["error"]
    _, (line,) = await ask(parts, "status", {"colour": "red"})
    assert "colour" in line["error"]


async def test_status_and_indexes_of_an_empty_deployment(parts: Parts) -> None:
    assert await ask(parts, "status") == (200, [{"result": []}])
    assert await ask(parts, "indexes") == (200, [{"result": []}])
    for verb in ("rebuild", "recluster"):
        _, (line,) = await ask(parts, verb, {"index": "nowhere", "namespace": None})
        assert "nowhere" in line["error"]


async def test_a_key_is_made_at_the_first_start_only(parts: Parts, tmp_path: Path) -> None:
    key = await ensure_key(parts)
    assert key is not None
    assert await ensure_key(parts) is None
    words = first_words("http://127.0.0.1:8080", key, tmp_path)
    assert words.count(key) == 2
    assert str(tmp_path) in words
    assert key not in first_words("http://127.0.0.1:8080", None, tmp_path)


async def test_after_the_last_key_is_revoked_a_start_makes_one(parts: Parts) -> None:
    await ensure_key(parts)
    (known,) = await parts.catalog.keys()
    await parts.catalog.revoke_key(known.key_id)
    assert await ensure_key(parts) is not None


async def test_a_given_key_is_accepted_until_it_is_revoked(tmp_path: Path) -> None:
    given = settings(tmp_path, api_key="given-key-0123456789")
    async with open_parts(given) as parts:
        assert await ensure_key(parts) is None
        assert await ensure_key(parts) is None
        (known,) = await parts.catalog.keys()
        await parts.catalog.revoke_key(known.key_id)
        with pytest.raises(ConfigError, match="revoked"):
            await ensure_key(parts)


async def test_the_number_of_partitions_cannot_change(tmp_path: Path) -> None:
    async with open_parts(settings(tmp_path)):
        pass
    with pytest.raises(ConfigError, match="2 partitions"):
        async with open_parts(settings(tmp_path, partitions=3)):
            pass


def test_kafka_needs_a_shared_object_store(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="FIRNDB_OBJECT_STORE"):
        check_deployment(settings(tmp_path, kafka="127.0.0.1:9"))
    check_deployment(settings(tmp_path))
