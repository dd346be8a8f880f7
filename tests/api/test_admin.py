"""The local admin endpoint opens to those who can read the data folder, and to nobody else."""

import httpx
from fastapi import FastAPI

from api.admin import TOKEN_HEADER, admin_router
from api.app import add_error_answers
from tests.api.gateway import KEY

TOKEN = "a-token-of-the-data-folder"


async def test_every_route_asks_for_the_token() -> None:
    router = admin_router(TOKEN)

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
        right = await client.post(path, headers={TOKEN_HEADER: TOKEN})
        assert right.json() == {"flushed": "all"}
