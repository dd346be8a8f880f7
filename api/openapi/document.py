"""The OpenAPI 3.1 document, made from the table of operations and the structs that it names."""

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any

import msgspec

from api.openapi import parameters
from api.openapi.answers.shape import ControlError, DataError
from api.openapi.bounds import bound
from api.openapi.operation import (
    JSON,
    Access,
    Answer,
    JsonSchema,
    Operation,
    Parameter,
    Shape,
    Versions,
)

REFERENCE = "#/components/schemas/{name}"
DESCRIPTION = """\
FirnDB speaks Pinecone's API: its clients work as they are.

**Two planes.** The *control plane* (indexes and what belongs to a project) is at the address that
`firndb serve` prints. Each index has a *data plane* at a host of its own: `host` of the index,
as `GET /indexes/{name}` tells it. This description is served at both; open `/docs` at the host of
an index to try its data plane from the page.

**Keys.** Every operation but those of the process needs an API key, in the header `Api-Key` or as
a bearer token. What belongs to another project is not found.

**Versions.** `X-Pinecone-Api-Version` decides which of its two shapes the index resource has.

**Errors.** Both planes answer in JSON, each in its own shape. 408, 429 and 5xx may succeed when
repeated (after `Retry-After` where it is given), other errors never do by themselves; 501 is what
Pinecone has and this server does not.
"""
SECURITY: list[dict[str, list[str]]] = [{"ApiKey": []}, {"Bearer": []}]
INDEX_HOST = {
    "url": "{index_host}",
    "description": "the host of an index",
    "variables": {
        "index_host": {
            "default": "http://localhost:8081",
            "description": "`host` of the index, as GET /indexes/{name} tells it",
        }
    },
}

ERRORS = {
    400: "The request is wrong; the message says where",
    401: "No API key, or one that is not valid",
    403: "This key may not do it, or the index is protected from deletion",
    404: "What the request names does not exist",
    409: "The name is taken",
    412: "It cannot be done in the present state",
    413: "The body is too large",
    422: "The body is JSON of another shape",
    429: "Too much at once: wait and repeat",
    500: "The server's fault; its log has more under the request's id",
    501: "Pinecone has it, this server does not; the message says what to do instead",
    503: "A part of the system is away: wait and repeat",
    504: "The answer was not there in time: repeat",
}
REPEATABLE = (429, 503, 504)


def error_statuses(operation: Operation) -> list[int]:
    """Every status of a refusal that the operation may have, ascending."""
    statuses = {*operation.errors}
    if operation.access is not Access.PUBLIC:
        statuses |= {400, 401, 429, 500, 503, 504}
        if operation.access is not Access.READ:
            statuses.add(403)
        if operation.on_index_host or "{" in operation.path:
            statuses.add(404)
        if operation.on_index_host:
            statuses.add(412)  # an index that could not be made from its backup
    if operation.request is not None:
        statuses.add(413)
        if not operation.on_index_host:
            statuses.add(422)
    return sorted(statuses)


def make_document(operations: Iterable[Operation]) -> dict[str, Any]:
    """A JSON object. Pure; some milliseconds."""
    operations = list(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "FirnDB",
            "version": version("firndb"),
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "the server of this description"}],
        "security": SECURITY,
        "tags": [{"name": tag} for tag in dict.fromkeys(o.tag for o in operations)],
        "paths": paths,
        "components": {
            "schemas": _components(operations),
            "securitySchemes": {
                "ApiKey": {"type": "apiKey", "in": "header", "name": "Api-Key"},
                "Bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": f"{operation.description}\n\nAccess: {operation.access.value}.".strip(),
        "tags": [operation.tag],
        "parameters": [*_path_parameters(operation.path), *map(_parameter, _asked(operation))],
        "responses": {
            **{str(status): _answer(answer) for status, answer in operation.answers.items()},
            **{
                str(status): _refusal(status, operation)
                for status in error_statuses(operation)
                if status not in operation.answers
            },
        },
    }
    if operation.access is Access.PUBLIC:
        shown["security"] = []
    if operation.on_index_host:
        shown["servers"] = [
            {"url": "/", "description": "this host, when it is that of an index"},
            INDEX_HOST,
        ]
    if operation.request is not None:
        schema = _reference(operation.request)
        shown["requestBody"] = {
            "required": operation.request_required,
            "content": {media: {"schema": schema} for media in operation.request_media},
        }
    return shown


def _asked(operation: Operation) -> tuple[Parameter, ...]:
    known = () if operation.access is Access.PUBLIC else (parameters.VERSION,)
    return (*operation.parameters, *known)


def _path_parameters(path: str) -> Iterator[dict[str, Any]]:
    for before, name in re.findall(r"(\w+)/{(\w+)}", path):
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": parameters.PATH[before],
            "schema": {
                "type": "string",
                "minLength": 1,
                **parameters.PATH_BOUNDS.get(before, {}),
            },
        }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }


def _answer(answer: Answer) -> dict[str, Any]:
    shown: dict[str, Any] = {"description": answer.description, "headers": _headers(answer.headers)}
    if answer.shape is not None:
        shown["content"] = {answer.media: {"schema": _reference(answer.shape)}}
    elif answer.media != JSON:
        shown["content"] = {answer.media: {"schema": {"type": "string"}}}
    return shown


def _refusal(status: int, operation: Operation) -> dict[str, Any]:
    shape = DataError if operation.on_index_host else ControlError
    names = ("retry-after",) if status in REPEATABLE else ()
    return {
        "description": ERRORS[status],
        "headers": _headers(names),
        "content": {JSON: {"schema": _reference(shape)}},
    }


def _headers(names: tuple[str, ...]) -> dict[str, Any]:
    return {
        name: {
            "description": parameters.ANSWER_HEADERS[name],
            "schema": {"type": "string"},
        }
        for name in ("x-pinecone-request-id", *names)
    }


def _reference(shape: Shape) -> JsonSchema:
    name = shape.name if isinstance(shape, Versions) else shape.__name__
    return {"$ref": REFERENCE.format(name=name)}


def _components(operations: Iterable[Operation]) -> dict[str, JsonSchema]:
    shapes: list[Shape] = [ControlError, DataError]
    for operation in operations:
        shapes += [answer.shape for answer in operation.answers.values() if answer.shape]
        if operation.request is not None:
            shapes.append(operation.request)
    composed = {shape.name: shape for shape in shapes if isinstance(shape, Versions)}
    structs = {shape for shape in shapes if not isinstance(shape, Versions)}
    structs |= {struct for one in composed.values() for struct in one.structs}
    ordered = sorted(structs, key=lambda struct: struct.__name__)
    _, made = msgspec.json.schema_components(ordered, ref_template=REFERENCE)
    schemas = _renamed(made)
    bound(schemas)
    for name, one in composed.items():
        schemas[name] = {
            "description": one.description,
            "anyOf" if one.alike else "oneOf": [_reference(struct) for struct in one.structs],
        }
    return dict(sorted(schemas.items()))


def _renamed(schemas: dict[str, JsonSchema]) -> dict[str, JsonSchema]:
    """Private structs without their underscore; those of the same name, which msgspec tells apart
    by their modules, with the module before it: `api.control.typed._Pod` is `TypedPod`.
    """
    names = {name: _public(name) for name in schemas}
    assert len(set(names.values())) == len(names), "two structs would be one component"

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            named = isinstance(value.get("title"), str)  # else it is a property of this name
            return {k: renamed(v) for k, v in value.items() if k != "title" or not named}
        if isinstance(value, list):
            return [renamed(below) for below in value]
        prefix = REFERENCE.format(name="")
        if isinstance(value, str) and value.startswith(prefix):
            name = value.removeprefix(prefix)
            return prefix + names.get(name, name)
        return value

    return {names[name]: renamed(schema) for name, schema in schemas.items()}


def _public(name: str) -> str:
    *_, module, own = ["", *name.split(".")]
    return module.title().replace("_", "") + own.lstrip("_")
