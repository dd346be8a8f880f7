"""Compares requests and answers of a test with the API's own description.

The tests of the HTTP edge send thousands of requests of every kind; each of them shows whether
`/openapi.json` is true.
"""

import re
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import httpx
import jsonschema_rs
import orjson

from api.openapi.operation import NDJSON
from api.openapi.routes import document

SCHEMAS = orjson.loads(document())
# A 2xx to a request that is not described so would be a gap in the description.
ACCEPTED = range(200, 300)


@cache
def _patterns() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    """Paths with parameters last, so that `/indexes/create-for-model` is not taken for a name."""
    paths = sorted(SCHEMAS["paths"].items(), key=lambda item: "{" in item[0])
    return [(re.compile(re.sub(r"{\w+}", "[^/]*", path)), methods) for path, methods in paths]


def described(method: str, path: str) -> dict[str, Any] | None:
    """The operation; None: no such path or method."""
    for pattern, methods in _patterns():
        if pattern.fullmatch(path):
            found: dict[str, Any] | None = methods.get(method.lower())
            return found
    return None


@cache
def _validator(schema: bytes) -> jsonschema_rs.Draft202012Validator:
    wanted = {**orjson.loads(schema), "components": SCHEMAS["components"]}
    return jsonschema_rs.Draft202012Validator(wanted)


def _faults(schema: Any, value: Any) -> list[str]:
    return [
        f"{'/'.join(map(str, error.instance_path))}: {error.message[:300]}"
        for error in _validator(orjson.dumps(schema)).iter_errors(value)
    ]


def check(answer: httpx.Response) -> None:
    """Fails when the answer, or the request that it accepts, is not as described."""
    request = answer.request
    # The raw path: an encoded slash belongs to a name.
    path = request.url.raw_path.decode().partition("?")[0]
    operation = described(request.method, path)
    where = f"{request.method} {urlsplit(str(request.url)).path} -> {answer.status_code}"
    if operation is None:
        assert answer.status_code not in ACCEPTED, f"{where}: answered, but not described"
        return
    response = operation["responses"].get(str(answer.status_code))
    assert response is not None, f"{where}: this status is not described ({answer.text[:300]})"
    for name, content in response.get("content", {}).items():
        if name == "application/json":
            assert answer.headers["content-type"] == name, where
            assert not (faults := _faults(content["schema"], answer.json())), f"{where}: {faults}"
    if "content" not in response:
        assert answer.content == b"", where
    for header in answer.headers:
        if header.startswith(("x-firndb-", "x-pinecone-")):
            assert header in response["headers"], f"{where}: the header {header} is not described"
    if answer.status_code in ACCEPTED:
        _check_request(request, operation, where)


def _check_request(request: httpx.Request, operation: dict[str, Any], where: str) -> None:
    body = operation.get("requestBody")
    sent = request.content
    if body is None or (not sent and not body["required"]):
        return
    lines = [line for line in sent.splitlines() if line.strip()] if _is_lines(body) else [sent]
    schema = body["content"]["application/json"]["schema"]
    for line in lines:
        faults = _faults(schema, orjson.loads(line))
        assert not faults, f"{where}: accepted, but not described: {faults}"


def _is_lines(body: dict[str, Any]) -> bool:
    return NDJSON in body["content"]
