"""The local admin endpoint: what `firndb` commands ask of a running server, below `/firndb/admin`.

The token lies in the data folder, so whoever may read the data may also call this; API keys may
not.
"""

import hmac
import os
import secrets
from pathlib import Path

from fastapi import APIRouter, Depends
from starlette.requests import Request

from core.errors import Unauthenticated

PREFIX = "/firndb/admin"
TOKEN_FILE = "admin.token"
TOKEN_HEADER = "x-firndb-admin-token"


def admin_token(data_folder: Path) -> str:
    """The folder's token, made at the first call; readable by its owner only."""
    path = data_folder / TOKEN_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    token = secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w") as file:
        file.write(token)
    return token


def admin_router(token: str) -> APIRouter:
    """A router to add routes to, before the app is made; each of them asks for the token."""

    async def guard(request: Request) -> None:
        given = request.headers.get(TOKEN_HEADER, "")
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise Unauthenticated(f"the header {TOKEN_HEADER} must hold the data folder's token")

    return APIRouter(prefix=PREFIX, dependencies=[Depends(guard)])
