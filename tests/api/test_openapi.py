"""The API's own description is complete and true.

At stake: clients made from it that fail on what the server really answers. The answers themselves
are compared in every test of this folder (`openapi_check.py`).
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest
from starlette.routing import Route

from api.openapi.routes import ASSETS
from api.openapi.tables import OPERATIONS
from tests.api.gateway import KEY, Running
from tests.api.openapi_check import SCHEMAS, check

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def registered(routes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """(method, path); FastAPI keeps included routers as they are."""
    for route in routes:
        if isinstance(route, Route):
            for method in (route.methods or set()) - {"HEAD"}:
                yield method, re.sub(r":\w+}", "}", route.path)
        else:
            yield from registered(route.original_router.routes)


def test_the_table_is_what_is_served(gateway: Running) -> None:
    app: Any = gateway.gateway.app
    served = [r for r in registered(app._app.routes) if not r[1].startswith("/firndb/admin")]
    assert sorted(served) == sorted((o.method, o.path) for o in OPERATIONS)


def test_names_of_operations_are_unique() -> None:
    assert len({o.name for o in OPERATIONS}) == len(OPERATIONS)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for below in value.values():
            yield from references(below)
    elif isinstance(value, list):
        for below in value:
            yield from references(below)


def test_every_schema_is_one_and_every_reference_leads_to_one() -> None:
    schemas = SCHEMAS["components"]["schemas"]
    for schema in schemas.values():
        jsonschema_rs.meta.validate({"$schema": DIALECT, **schema})
    named = {r.removeprefix("#/components/schemas/") for r in references(SCHEMAS)}
    assert named <= schemas.keys()
    assert schemas.keys() == named, "a schema that nothing uses"


async def test_the_description_needs_no_key_and_names_no_index(gateway: Running) -> None:
    host = (await gateway.create("secret-name"))["host"]
    for base in ("", host):
        shown = await gateway.ask("GET", "/openapi.json", host=base, key=None)
        assert shown.json() == SCHEMAS
        assert "secret-name" not in shown.text
        page = await gateway.ask("GET", "/docs", host=base, key=None)
        assert page.headers["content-type"].startswith("text/html")
        assert "secret-name" not in page.text


async def test_the_page_loads_only_what_this_server_has(gateway: Running) -> None:
    page = (await gateway.ask("GET", "/docs", key=None)).text
    wanted = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert sorted(wanted) == sorted(["docs/start.js", *(f"docs/{name}" for name in ASSETS)])
    for path in wanted:
        answer = await gateway.ask("GET", f"/{path}", key=None)
        assert answer.status_code == 200
        assert len(answer.content) > 100
    bundle = await gateway.ask("GET", "/docs/swagger-ui-bundle.js", key=None)
    assert b"SwaggerUIBundle" in bundle.content
    for name in ("redoc.standalone.js", "..%2f__init__.py", "%2e%2e"):
        assert (await gateway.ask("GET", f"/docs/{name}", key=None)).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status", "body", "headers"),
    [
        ("GET", "/indexes", 200, b'{"indexes":[{"name":"x"}]}', {}),
        ("GET", "/indexes", 418, b"{}", {}),
        ("GET", "/nowhere", 200, b"{}", {}),
        ("GET", "/indexes", 200, b'{"indexes":[]}', {"x-firndb-new": "1"}),
        ("GET", "/indexes/x", 404, b'{"code":5,"message":"","details":[]}', {}),
        ("DELETE", "/indexes/x", 202, b"{}", {}),
    ],
)
def test_the_comparison_finds_what_is_not_described(
    method: str, path: str, status: int, body: bytes, headers: dict[str, str]
) -> None:
    answer = httpx.Response(
        status,
        content=body,
        headers={"content-type": "application/json", **headers},
        request=httpx.Request(method, f"http://x{path}", headers={"api-key": KEY}),
    )
    with pytest.raises(AssertionError, match=re.escape(path)):
        check(answer)
