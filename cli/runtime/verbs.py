"""The admin verbs: what each does, as a stream of JSON lines that ends with `{"result": ...}`."""

import inspect
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from cli.runtime.accounts import (
    audit_lines,
    change_key_lines,
    create_key_lines,
    create_project_lines,
    delete_project_lines,
    list_keys_lines,
    list_projects_lines,
    revoke_key_lines,
    rotate_key_lines,
)
from cli.runtime.branching import (
    branch_lines,
    create_lines,
    delete_lines,
    list_lines,
    restore_lines,
)
from cli.runtime.erasing import gc_lines, purge_lines
from cli.runtime.examine import examine
from cli.runtime.exporting import export_lines
from cli.runtime.inspecting import inspect_lines
from cli.runtime.operations import Operations, as_rows
from cli.runtime.parts import Parts
from cli.runtime.rebuilding import rebuild_lines, recluster_lines
from core.errors import InvalidRequest

Line = dict[str, Any]
Lines = AsyncGenerator[Line, None]


async def run_verb(parts: Parts, verb: str, arguments: dict[str, Any]) -> Lines:
    """Progress lines, then one result line. `InvalidRequest`: no such verb or argument."""
    work = VERBS.get(verb)
    if work is None:
        raise InvalidRequest(f"there is no admin verb {verb}; there are {', '.join(VERBS)}")
    try:
        inspect.signature(work).bind(parts, **arguments)
    except TypeError as error:
        raise InvalidRequest(f"{verb}: {error}") from error
    async with aclosing(work(parts, **arguments)) as lines:
        async for line in lines:
            yield line


async def _status(parts: Parts, index: str | None = None, namespace: str | None = None) -> Lines:
    yield {"result": as_rows(await Operations(parts).status(index, namespace))}


async def _indexes(parts: Parts) -> Lines:
    yield {"result": await Operations(parts).indexes()}


async def _doctor(parts: Parts) -> Lines:
    yield {"result": [asdict(check) for check in await examine(parts)]}


VERBS: dict[str, Callable[..., Lines]] = {
    "status": _status,
    "indexes": _indexes,
    "inspect": inspect_lines,
    "rebuild": rebuild_lines,
    "recluster": recluster_lines,
    "snapshot-create": create_lines,
    "snapshot-list": list_lines,
    "snapshot-delete": delete_lines,
    "branch": branch_lines,
    "restore": restore_lines,
    "export": export_lines,
    "gc": gc_lines,
    "purge": purge_lines,
    "doctor": _doctor,
    "projects-create": create_project_lines,
    "projects-list": list_projects_lines,
    "projects-delete": delete_project_lines,
    "keys-create": create_key_lines,
    "keys-list": list_keys_lines,
    "keys-change": change_key_lines,
    "keys-rotate": rotate_key_lines,
    "keys-revoke": revoke_key_lines,
    "audit": audit_lines,
}
