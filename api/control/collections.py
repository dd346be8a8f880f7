"""Collections, `/collections`: backups of indexes on pods, each known by its name."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from api.auth import Gate
from api.control import rules
from api.control.backups import with_error
from api.control.body import decode, json_response
from api.control.changes import Changes
from core.errors import InvalidRequest
from infra.catalog.backup_model import Backup, BackupKind
from infra.catalog.backups import Backups
from infra.catalog.catalog import Catalog


class CreateCollection(Struct):
    name: str
    source: str


class CollectionRoutes:
    """Of the caller's project; what belongs to another one is not found."""

    def __init__(
        self,
        gate: Gate,
        changes: Changes,
        catalog: Catalog,
        backups: Backups,
        wake: Callable[[], None],
    ) -> None:
        self._gate = gate
        self._changes = changes
        self._catalog = catalog
        self._backups = backups
        self._wake = wake

    def router(self) -> APIRouter:
        router = APIRouter()
        router.add_api_route("/collections", self.create, methods=["POST"])
        router.add_api_route("/collections", self.list, methods=["GET"])
        router.add_api_route("/collections/{name}", self.describe, methods=["GET"])
        router.add_api_route("/collections/{name}", self.delete, methods=["DELETE"])
        return router

    async def create(self, request: Request) -> Response:
        async with self._changes.change(request, "collection.create", "collection") as change:
            wanted = decode(await request.body(), CreateCollection)
            name = rules.check_name(wanted.name)
            change.resource = f"collection/{name}"
            source = rules.known_name(wanted.source)
            index = await self._catalog.index(change.caller.project_id, source)
            if index.spec["deployment"]["deployment_type"] != "pod":
                raise InvalidRequest(
                    "Cannot create collections from serverless indexes: create a backup"
                )
            made = await self._backups.create(index, BackupKind.COLLECTION, name, None)
        self._wake()
        return json_response(shown_collection(made), 201)

    async def list(self, request: Request) -> Response:
        caller = await self._gate.reader(request)
        found = await self._backups.collections(caller.project_id)
        return json_response({"collections": [shown_collection(one) for one in found]})

    async def describe(self, request: Request, name: str) -> Response:
        caller = await self._gate.reader(request)
        found = await self._backups.collection(caller.project_id, rules.known_name(name))
        return with_error(json_response(shown_collection(found)), found.error)

    async def delete(self, request: Request, name: str) -> Response:
        resource = f"collection/{name}"
        async with self._changes.change(request, "collection.delete", resource) as change:
            called = rules.known_name(name)
            await self._backups.delete(change.caller.project_id, BackupKind.COLLECTION, called)
        self._wake()
        return Response(status_code=202)


def shown_collection(collection: Backup) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": collection.name,
        "status": collection.state.value,
        "environment": collection.spec["deployment"]["environment"],
    }
    if collection.record_count is not None:
        shown["size"] = collection.size_bytes
        shown["vector_count"] = collection.record_count
        if collection.dimension is not None:
            shown["dimension"] = collection.dimension
    return shown
