"""The local admin endpoint: what `firndb` commands ask of a running server, below `/firndb/admin`.

The token lies in the data folder and is new at every start: whoever may read the data may also
call this, API keys may not.
"""

import hmac

from fastapi import APIRouter, Depends
from starlette.requests import Request

from core.errors import Unauthenticated

PREFIX = "/firndb/admin"
TOKEN_HEADER = "x-firndb-admin-token"


def admin_router(token: str) -> APIRouter:
    """A router to add routes to, before the app is made; each of them asks for the token."""

    async def guard(request: Request) -> None:
        given = request.headers.get(TOKEN_HEADER, "")
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise Unauthenticated(f"the header {TOKEN_HEADER} must hold the data folder's token")

    return APIRouter(prefix=PREFIX, dependencies=[Depends(guard)])
