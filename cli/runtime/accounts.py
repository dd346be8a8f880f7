"""Verbs on projects, API keys and the audit log: what an operator may, who needs no key."""

from collections.abc import AsyncGenerator
from typing import Any

from api.control.audit import shown as shown_entry
from api.control.changes import audited
from cli.runtime.parts import Parts
from core.clock import new_uuid
from core.errors import InvalidRequest, NotFound
from core.times import parse_time, shown_time
from infra.catalog.accounts import DEFAULT_PROJECT
from infra.catalog.audit import OPERATOR, PAGE_MAX, AuditLog
from infra.catalog.keys import new_key
from infra.catalog.model import ApiKey, KeyChange, KeyRole, Project

Lines = AsyncGenerator[dict[str, Any], None]


async def create_project_lines(parts: Parts, name: str) -> Lines:
    async with audited(audit_of(parts), *_nobody(), "project.create", f"project/{name}") as change:
        project = await parts.catalog.create_project(name)
        change.project_id = project.project_id
    yield {"result": _shown_project(project)}


async def list_projects_lines(parts: Parts) -> Lines:
    yield {"result": [_shown_project(one) for one in await parts.catalog.projects()]}


async def delete_project_lines(parts: Parts, name: str) -> Lines:
    """Its keys are revoked with it."""
    project = await _project(parts, name)
    who = (project.project_id, OPERATOR, new_uuid())
    async with audited(audit_of(parts), *who, "project.delete", f"project/{name}"):
        await parts.catalog.delete_project(project.project_id)
    parts.callers.forget()
    yield {"result": {"deleted": project.project_id}}


async def create_key_lines(
    parts: Parts,
    name: str = "",
    role: str = KeyRole.ADMIN.value,
    project: str | None = None,
    expires: str | None = None,
) -> Lines:
    """The only time that the key itself is told; its hash is what is stored."""
    owner = await _project(parts, project or DEFAULT_PROJECT)
    secret = new_key()
    who = (owner.project_id, OPERATOR, new_uuid())
    async with audited(audit_of(parts), *who, "api-key.create", "api-key") as change:
        key = await parts.catalog.add_key(
            owner.project_id,
            secret,
            name=name,
            role=_role(role),
            expires_ms=None if expires is None else parse_time(expires),
        )
        change.resource = f"api-key/{key.key_id}"
    parts.callers.forget(key.key_id)
    yield {"result": {**_shown_key(key, owner.name), "key": secret}}


async def list_keys_lines(parts: Parts, project: str | None = None) -> Lines:
    """Of all projects if none is named."""
    owner = None if project is None else (await _project(parts, project)).project_id
    names = {one.project_id: one.name for one in await parts.catalog.projects()}
    found = await parts.catalog.keys(owner)
    yield {
        "result": [
            _shown_key(key, names[key.project_id]) for key in found if key.project_id in names
        ]
    }


async def change_key_lines(
    parts: Parts,
    wanted: str,
    name: str | None = None,
    role: str | None = None,
    project: str | None = None,
) -> Lines:
    key = await _valid_key(parts, wanted, project)
    change = KeyChange(name, None if role is None else _role(role))
    async with audited(audit_of(parts), *_who(key), "api-key.configure", f"api-key/{key.key_id}"):
        changed = await parts.catalog.change_key(key.key_id, change)
    parts.callers.forget(key.key_id)
    yield {"result": _shown_key(changed, await _name_of(parts, key))}


async def rotate_key_lines(
    parts: Parts, wanted: str, keep_old_s: float = 0, project: str | None = None
) -> Lines:
    key = await _valid_key(parts, wanted, project)
    secret = new_key()
    async with audited(audit_of(parts), *_who(key), "api-key.rotate", f"api-key/{key.key_id}"):
        rotated = await parts.catalog.rotate_key(key.key_id, secret, keep_old_s)
    parts.callers.forget(key.key_id)
    yield {"result": {**_shown_key(rotated, await _name_of(parts, key)), "key": secret}}


async def revoke_key_lines(parts: Parts, wanted: str, project: str | None = None) -> Lines:
    """Also a project's last admin key: the operator can make another."""
    key = await _valid_key(parts, wanted, project)
    async with audited(audit_of(parts), *_who(key), "api-key.delete", f"api-key/{key.key_id}"):
        await parts.catalog.revoke_key(key.key_id)
    parts.callers.forget(key.key_id)
    yield {"result": {"revoked": key.key_id}}


async def audit_lines(
    parts: Parts, project: str | None = None, limit: int = 100, since: str | None = None
) -> Lines:
    if not 1 <= limit <= PAGE_MAX:
        raise InvalidRequest(f"the limit must be between 1 and {PAGE_MAX}, not {limit}")
    owner = None if project is None else (await _project(parts, project)).project_id
    since_ms = None if since is None else parse_time(since)
    found = await audit_of(parts).entries(owner, limit, since_ms)
    names = {one.project_id: one.name for one in await parts.catalog.projects()}
    yield {
        "result": [
            {**shown_entry(entry), "project": names.get(entry.project_id, entry.project_id)}
            for entry in found
        ]
    }


def audit_of(parts: Parts) -> AuditLog:
    return AuditLog.of(parts.catalog.database, parts.settings, parts.clock)


def _nobody() -> tuple[str, str, str]:
    """The project does not exist yet."""
    return "", OPERATOR, new_uuid()


def _who(key: ApiKey) -> tuple[str, str, str]:
    return key.project_id, OPERATOR, new_uuid()


async def _project(parts: Parts, name: str) -> Project:
    """By name or id; `default` is made where it is missing."""
    if name == DEFAULT_PROJECT:
        return await parts.catalog.ensure_project()
    for one in await parts.catalog.projects():
        if name in (one.name, one.project_id):
            return one
    raise NotFound(f"there is no project {name}; `firndb projects list` shows them")


async def _name_of(parts: Parts, key: ApiKey) -> str:
    return (await parts.catalog.project(key.project_id)).name


async def _valid_key(parts: Parts, wanted: str, project: str | None) -> ApiKey:
    """By id, or by a prefix or name that only one valid key has."""
    owner = None if project is None else (await _project(parts, project)).project_id
    now_ms = parts.clock.now_ms()
    valid = [key for key in await parts.catalog.keys(owner) if key.is_valid(now_ms)]
    found = [key for key in valid if wanted in (key.key_id, key.prefix, key.name)]
    if len(found) != 1:
        raise NotFound(
            f"{len(found) or 'no'} valid API key{'s are' if found else ' is'} called {wanted}; "
            "`firndb keys list` shows their ids"
        )
    return found[0]


def _role(text: str) -> KeyRole:
    try:
        return KeyRole(text)
    except ValueError:
        known = ", ".join(role.value for role in KeyRole)
        raise InvalidRequest(f"there is no role {text}; there are {known}") from None


def _shown_project(project: Project) -> dict[str, Any]:
    return {
        "name": project.name,
        "id": project.project_id,
        "created": shown_time(project.created_ms),
    }


def _shown_key(key: ApiKey, project: str) -> dict[str, Any]:
    return {
        "id": key.key_id,
        "name": key.name,
        "project": project,
        "prefix": key.prefix,
        "role": key.role.value,
        "created": shown_time(key.created_ms),
        "expires": None if key.expires_ms is None else shown_time(key.expires_ms),
        "revoked": None if key.revoked_ms is None else shown_time(key.revoked_ms),
    }
