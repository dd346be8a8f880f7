"""`/admin`: a project's API keys for its admins, in the words of Pinecone's admin API.

`/oauth/token` is what the official admin client asks first: here a key of the role admin is its
client secret, and its own access token.
"""

from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import APIRouter
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from api.auth import Gate, may_administer
from api.control.body import decode, json_response
from api.control.changes import Changes, RequestedChange
from api.in_flight import give_back
from core.errors import InvalidRequest, NotFound, Overloaded
from core.times import parse_time, shown_time
from infra.catalog.accounts import Accounts
from infra.catalog.callers import Callers
from infra.catalog.keys import new_key
from infra.catalog.model import ApiKey, KeyChange, KeyRole, Project

# The client asks for a new token some minutes before; it gets the same one.
TOKEN_EXPIRES_S = 86_400
# Nobody has proved anything before the body is there, which may take a minute.
TOKENS_AT_ONCE = 32
ORGANIZATION = "firndb"
ID_CHARS = 32

# A role that allows what every one of the named allows, and hardly more. What would allow much
# more than it is named for is not there: see `role_of`.
ROLES = {
    "ProjectEditor": KeyRole.ADMIN,
    "DataPlaneEditor": KeyRole.READ_WRITE,
    "ProjectViewer": KeyRole.READ_ONLY,
    "DataPlaneViewer": KeyRole.READ_ONLY,
    **{role.value: role for role in KeyRole},
}
CONTROL_ROLES = {"ControlPlaneEditor", "ControlPlaneViewer"}
SHOWN_ROLES = {
    KeyRole.ADMIN: "ProjectEditor",
    KeyRole.READ_WRITE: "DataPlaneEditor",
    KeyRole.READ_ONLY: "ProjectViewer",
}


class KeyCreate(Struct):
    """`roles`: none means ProjectEditor. `expires_at`: ISO 8601."""

    name: str
    roles: list[str] | None = None
    expires_at: str | None = None


class KeyUpdate(Struct):
    name: str | None = None
    roles: list[str] | None = None


class KeyRotate(Struct):
    """`keep_old_s`: how many seconds the old secret stays valid."""

    keep_old_s: float = 0


class TokenRequest(Struct):
    client_secret: str
    grant_type: str = "client_credentials"


class AccountRoutes:
    """Keys of other projects, and revoked ones, are not found."""

    def __init__(self, gate: Gate, changes: Changes, accounts: Accounts, callers: Callers) -> None:
        self._gate = gate
        self._changes = changes
        self._accounts = accounts
        self._callers = callers
        self._tokens = 0

    def router(self) -> APIRouter:
        router = APIRouter()
        keys = "/admin/projects/{project_id}/api-keys"
        router.add_api_route("/oauth/token", self.token, methods=["POST"])
        router.add_api_route("/admin/projects", self.list_projects, methods=["GET"])
        router.add_api_route("/admin/projects/{project_id}", self.project, methods=["GET"])
        router.add_api_route(keys, self.list_keys, methods=["GET"])
        router.add_api_route(keys, self.create_key, methods=["POST"])
        router.add_api_route("/admin/api-keys/{key_id}", self.key, methods=["GET"])
        router.add_api_route("/admin/api-keys/{key_id}", self.change_key, methods=["PATCH"])
        router.add_api_route("/admin/api-keys/{key_id}", self.revoke_key, methods=["DELETE"])
        rotate = "/firndb/api-keys/{key_id}/rotate"
        router.add_api_route(rotate, self.rotate_key, methods=["POST"])
        return router

    async def token(self, request: Request) -> Response:
        """The one request that proves its caller by its body."""
        if self._tokens >= TOKENS_AT_ONCE:
            raise Overloaded(f"{TOKENS_AT_ONCE} tokens are being asked for; try again soon")
        give_back()
        self._tokens += 1
        try:
            secret = decode(await request.body(), TokenRequest).client_secret
            may_administer(await self._callers.prove(secret))
        finally:
            self._tokens -= 1
        return json_response(
            {"access_token": secret, "token_type": "Bearer", "expires_in": TOKEN_EXPIRES_S}
        )

    async def list_projects(self, request: Request) -> Response:
        """The caller's own: a key never reaches beyond it."""
        caller = await self._gate.admin(request)
        return json_response({"data": [_project(await self._accounts.project(caller.project_id))]})

    async def project(self, request: Request, project_id: str) -> Response:
        caller = await self._gate.admin(request)
        _own(project_id, caller.project_id)
        return json_response(_project(await self._accounts.project(project_id)))

    async def list_keys(self, request: Request, project_id: str) -> Response:
        caller = await self._gate.admin(request)
        _own(project_id, caller.project_id)
        found = await self._accounts.keys(project_id)
        return json_response({"data": [_key(key) for key in found if key.revoked_ms is None]})

    async def create_key(self, request: Request, project_id: str) -> Response:
        async with self._changes.change(request, "api-key.create", "api-key") as change:
            _own(project_id, change.caller.project_id)
            wanted = decode(await request.body(), KeyCreate)
            secret = new_key()
            key = await self._accounts.add_key(
                project_id,
                secret,
                name=wanted.name,
                role=role_of(wanted.roles) or KeyRole.ADMIN,
                expires_ms=None if wanted.expires_at is None else parse_time(wanted.expires_at),
            )
            change.resource = _resource(key.key_id)
        self._callers.forget(key.key_id)
        return json_response({"key": _key(key), "value": secret}, 201)

    async def key(self, request: Request, key_id: str) -> Response:
        caller = await self._gate.admin(request)
        return json_response(_key(await self._found(key_id, caller.project_id)))

    async def change_key(self, request: Request, key_id: str) -> Response:
        async with self._changing(request, "api-key.configure", key_id) as change:
            await self._found(key_id, change.caller.project_id)
            wanted = decode(await request.body(), KeyUpdate)
            key = await self._accounts.change_key(
                key_id, KeyChange(wanted.name, role_of(wanted.roles)), spare_last_admin=True
            )
        self._callers.forget(key_id)
        return json_response(_key(key))

    async def rotate_key(self, request: Request, key_id: str) -> Response:
        async with self._changing(request, "api-key.rotate", key_id) as change:
            await self._found(key_id, change.caller.project_id)
            wanted = decode(await request.body() or b"{}", KeyRotate)
            secret = new_key()
            key = await self._accounts.rotate_key(key_id, secret, wanted.keep_old_s)
        self._callers.forget(key_id)
        return json_response({"key": _key(key), "value": secret})

    async def revoke_key(self, request: Request, key_id: str) -> Response:
        async with self._changing(request, "api-key.delete", key_id) as change:
            await self._found(key_id, change.caller.project_id)
            await self._accounts.revoke_key(key_id, spare_last_admin=True)
        self._callers.forget(key_id)
        return Response(status_code=202)

    def _changing(
        self, request: Request, action: str, key_id: str
    ) -> AbstractAsyncContextManager[RequestedChange]:
        return self._changes.change(request, action, _resource(key_id))

    async def _found(self, key_id: str, project_id: str) -> ApiKey:
        """The key as far as this project may know of it; `NotFound`."""
        missing = NotFound("API key not found")
        if not _is_id(key_id):
            raise missing
        try:
            key = await self._accounts.key(key_id)
        except NotFound:
            raise missing from None
        if key.project_id != project_id or key.revoked_ms is not None:
            raise missing
        return key


def role_of(names: list[str] | None) -> KeyRole | None:
    """The role that allows what the named roles allow together; None for none given.

    `InvalidRequest` where only a much stronger role would: one that changes indexes, but no
    records, or sees indexes, but no records.
    """
    if names is None:
        return None
    unknown = sorted(set(names) - ROLES.keys() - CONTROL_ROLES)
    if unknown or not names:
        raise InvalidRequest(
            f"roles must be some of {', '.join(sorted([*ROLES, *CONTROL_ROLES]))}"
            + (f", not {unknown[0][:40]!r}" if unknown else "")
        )
    roles = [ROLES[name] for name in names if name in ROLES]
    if KeyRole.ADMIN in roles:
        return KeyRole.ADMIN
    if not roles or (KeyRole.READ_WRITE not in roles and "ControlPlaneEditor" in names):
        raise InvalidRequest(
            "This server has no role for the control plane alone: ask for DataPlaneEditor or "
            "DataPlaneViewer with it, or for ProjectEditor or ProjectViewer"
        )
    if "ControlPlaneEditor" in names:
        return KeyRole.ADMIN
    return KeyRole.READ_WRITE if KeyRole.READ_WRITE in roles else KeyRole.READ_ONLY


def _own(project_id: str, callers: str) -> None:
    if project_id != callers:
        raise NotFound("Project not found")


def _is_id(text: str) -> bool:
    """Else no key has it, and the database need not see what a URL can hold."""
    return len(text) == ID_CHARS and text.isascii() and text.isalnum()


def _resource(key_id: str) -> str:
    return f"api-key/{key_id}"


def _project(project: Project) -> dict[str, Any]:
    return {
        "id": project.project_id,
        "name": project.name,
        "max_pods": 0,
        "force_encryption_with_cmek": False,
        "organization_id": ORGANIZATION,
        "created_at": shown_time(project.created_ms),
    }


def _key(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.key_id,
        "name": key.name,
        "project_id": key.project_id,
        "roles": [SHOWN_ROLES[key.role]],
        "role": key.role.value,
        "prefix": key.prefix,
        "created_at": shown_time(key.created_ms),
        "expires_at": None if key.expires_ms is None else shown_time(key.expires_ms),
    }
