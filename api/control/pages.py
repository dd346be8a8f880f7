"""Pages of the control plane's lists: `limit` and `paginationToken`."""

import base64
import binascii
from collections.abc import Callable
from typing import Any, TypeVar

from starlette.requests import Request

from core.errors import InvalidRequest
from infra.catalog.backup_model import Page, Place

T = TypeVar("T")

PAGE_MAX = 100


def asked_page(request: Request) -> tuple[int, Place | None]:
    """How many, behind what. A larger limit than `PAGE_MAX` gives as many: clients that want more
    follow the token. `InvalidRequest`.
    """
    text = request.query_params.get("limit") or str(PAGE_MAX)
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 9 and int(text) > 0):
        raise InvalidRequest(f"limit must be a whole number from 1 on, not {text[:40]!r}")
    token = request.query_params.get("paginationToken")
    return min(int(text), PAGE_MAX), _place_of(token) if token else None


def page_body(page: Page[T], show: Callable[[T], dict[str, Any]]) -> dict[str, Any]:
    """Without `pagination` it is the last one."""
    body: dict[str, Any] = {"data": [show(one) for one in page.items]}
    if page.next is not None:
        created_ms, called = page.next
        token = base64.urlsafe_b64encode(f"{created_ms}:{called}".encode()).decode()
        body["pagination"] = {"next": token}
    return body


def _place_of(token: str) -> Place:
    try:
        created, colon, called = base64.urlsafe_b64decode(token.encode()).decode().partition(":")
        if not colon or len(created) > 15 or not called.isalnum():
            raise ValueError
        return int(created), called
    except (ValueError, binascii.Error):
        raise InvalidRequest(
            "paginationToken is not one that this list gave: begin without one"
        ) from None
