"""The routes of the control plane: `/indexes`."""

from collections.abc import Callable
from types import ModuleType

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.auth import Gate
from api.control import classic, for_model, typed
from api.control.body import json_response
from api.control.changes import Changes
from api.control.making import IndexMaker
from api.living import LivingIndexes
from api.server import IndexServers
from api.versions import api_version
from infra.catalog.catalog import Catalog
from infra.catalog.directory import CatalogDirectory
from infra.catalog.model import CatalogIndex, NewIndex
from infra.embedding.embedders import Embedders


def shape_of(request: Request) -> ModuleType:
    """The module that reads and shows index resources as this client knows them."""
    return typed if api_version(request.headers).typed else classic


class IndexRoutes:
    """Creates, shows, changes and deletes the indexes of the caller's project."""

    def __init__(
        self,
        gate: Gate,
        changes: Changes,
        catalog: Catalog,
        directory: CatalogDirectory,
        living: LivingIndexes,
        servers: IndexServers,
        maker: IndexMaker,
        embedders: Embedders,
    ) -> None:
        self._gate = gate
        self._changes = changes
        self._catalog = catalog
        self._directory = directory
        self._living = living
        self._servers = servers
        self._maker = maker
        self._embedders = embedders

    def router(self) -> APIRouter:
        router = APIRouter()
        router.add_api_route("/indexes", self.list, methods=["GET"])
        router.add_api_route("/indexes", self.create, methods=["POST"])
        router.add_api_route("/indexes/create-for-model", self.create_for_model, methods=["POST"])
        router.add_api_route("/indexes/{name}", self.describe, methods=["GET"])
        router.add_api_route("/indexes/{name}", self.configure, methods=["PATCH"])
        router.add_api_route("/indexes/{name}", self.delete, methods=["DELETE"])
        return router

    async def list(self, request: Request) -> Response:
        caller = await self._gate.reader(request)
        living = await self._catalog.living_indexes(caller.project_id)
        shape = shape_of(request)
        shown = [shape.show(index, self._host_of(index, request)) for index in living]
        return json_response({"indexes": shown})

    async def create(self, request: Request) -> Response:
        return await self._create(request, lambda body: shape_of(request).parse_create(body))

    async def create_for_model(self, request: Request) -> Response:
        return await self._create(
            request, lambda body: for_model.parse_create(body, self._embedders)
        )

    async def _create(self, request: Request, parse: Callable[[bytes], NewIndex]) -> Response:
        async with self._changes.change(request, "index.create", "index") as change:
            new = parse(await request.body())
            change.resource = f"index/{new.name}"
            index = await self._maker.make(change.caller.project_id, new)
        return self._shown(index, request, 201)

    async def describe(self, request: Request, name: str) -> Response:
        caller = await self._gate.reader(request)
        return self._shown(await self._catalog.index(caller.project_id, name), request, 200)

    async def configure(self, request: Request, name: str) -> Response:
        async with self._changes.change(request, "index.configure", f"index/{name}") as change:
            wanted = shape_of(request).parse_configure(await request.body())
            project_id = change.caller.project_id
            index = await self._catalog.configure_index(
                project_id, name, lambda before: wanted.apply(before, self._embedders)
            )
        self._living.add(index)
        return self._shown(index, request, 202)

    async def delete(self, request: Request, name: str) -> Response:
        """Gone for every reader at once; its bytes go with garbage collection."""
        async with self._changes.change(request, "index.delete", f"index/{name}") as change:
            index = await self._catalog.delete_index(change.caller.project_id, name)
        self._directory.remember(index.info)
        await self._servers.deleted(index)
        return Response(status_code=202)

    def _shown(self, index: CatalogIndex, request: Request, status: int) -> Response:
        resource = shape_of(request).show(index, self._host_of(index, request))
        return json_response(resource, status)

    def _host_of(self, index: CatalogIndex, request: Request) -> str:
        return self._living.names.url_of(index, request.headers.get("host"))
