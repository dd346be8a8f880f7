"""The admin verbs: what each does, as a stream of JSON lines that ends with `{"result": ...}`."""

from collections.abc import AsyncGenerator
from typing import Any

from cli.runtime.operations import Operations, as_rows
from cli.runtime.parts import Parts
from core.errors import InvalidRequest

Line = dict[str, Any]


async def run_verb(
    parts: Parts, verb: str, arguments: dict[str, Any]
) -> AsyncGenerator[Line, None]:
    """Progress lines, then one result line. `InvalidRequest`: no such verb or argument."""
    operations = Operations(parts)
    try:
        match verb:
            case "status":
                rows = await operations.status(**arguments)
                yield {"result": as_rows(rows)}
            case "keys-create":
                yield {"result": await operations.create_key(**arguments)}
            case "keys-list":
                yield {"result": await operations.list_keys()}
            case "keys-revoke":
                yield {"result": await operations.revoke_key(**arguments)}
            case _:
                raise InvalidRequest(f"there is no admin verb {verb}")
    except TypeError as error:
        raise InvalidRequest(f"{verb}: {error}") from error
