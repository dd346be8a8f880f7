"""The local admin endpoint opens to those who can read the data folder, and to nobody else."""

import stat
from pathlib import Path

import httpx
from fastapi import FastAPI

from api.admin import TOKEN_FILE, TOKEN_HEADER, admin_router, admin_token
from api.app import add_error_answers
from tests.api.gateway import KEY


def test_the_token_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    token = admin_token(tmp_path)
    assert admin_token(tmp_path) == token
    assert len(token) >= 40
    assert stat.S_IMODE((tmp_path / TOKEN_FILE).stat().st_mode) == 0o600


async def test_every_route_asks_for_the_token(tmp_path: Path) -> None:
    router = admin_router(admin_token(tmp_path))

    @router.post("/flush")
    async def flush() -> dict[str, str]:
        return {"flushed": "all"}

    app = FastAPI()
    app.include_router(router)
    add_error_answers(app)
    path = "/firndb/admin/flush"
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        for headers in ({}, {"api-key": KEY}, {TOKEN_HEADER: "wrong"}):
            assert (await client.post(path, headers=headers)).status_code == 401
        right = await client.post(path, headers={TOKEN_HEADER: admin_token(tmp_path)})
        assert right.json() == {"flushed": "all"}
