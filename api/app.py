"""The gateway: every route behind one ASGI app, served on the control port and on index ports."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.auth import Gate
from api.authority import Authorities
from api.control.accounts import AccountRoutes
from api.control.audit import AuditRoutes
from api.control.backups import BackupRoutes
from api.control.changes import Changes
from api.control.collections import CollectionRoutes
from api.control.making import IndexMaker
from api.control.routes import IndexRoutes
from api.control.schedules import ScheduleRoutes
from api.edge import Edge
from api.errors import WrongMethod, response_to
from api.grpc.edge import GrpcEdge
from api.grpc.server import GrpcServer
from api.grpc.service import VectorService
from api.health import health_router
from api.in_flight import InFlight
from api.limits.rates import RateLimits, RateSettings
from api.limits.tenants import Tenants
from api.limits.turns import Turns
from api.living import LivingIndexes
from api.openapi.methods import methods_of
from api.openapi.routes import openapi_router
from api.ports import Reads, Writes
from api.records.inference import InferenceRoutes
from api.records.routes import RecordRoutes
from api.relay import Relays
from api.routing import Router
from api.server import STOP_S, HttpServer, IndexServers, bind_control
from api.vectors.calls import RestCalls
from api.vectors.documents import DocumentRoutes
from api.vectors.export import ExportRoutes
from api.vectors.imports import ImportRoutes
from api.vectors.namespace_quota import NamespaceQuota
from api.vectors.namespaces import NamespaceRoutes
from api.vectors.plane import DataPlane
from api.vectors.routes import VectorRoutes
from core.clock import SystemClock
from core.errors import FirnError, InvalidRequest, NotFound
from infra.catalog.audit import AuditLog
from infra.catalog.backups import Backups
from infra.catalog.callers import Callers
from infra.catalog.catalog import Catalog
from infra.catalog.directory import CatalogDirectory
from infra.catalog.imports import ImportStore
from infra.catalog.restores import Restores
from infra.catalog.schedules import Schedules
from infra.embedding.embedders import Embedders
from infra.imports.locations import locations_of
from infra.settings import Settings
from infra.telemetry import Metrics
from infra.tls import ServerTls


@dataclass(frozen=True, slots=True)
class GatewayParts:
    """What the gateway stands on. `not_ready`: what the process still waits for, None when it may
    get requests. `sole`: no other process serves this catalog (see `IndexServers`). `wake_jobs`:
    tells those who run backups and restores here that there is one more; None: nobody does. turns:
    of a process that has more to do than requests; None: the gateway makes its own.
    """

    settings: Settings
    catalog: Catalog
    callers: Callers
    directory: CatalogDirectory
    writes: Writes
    reads: Reads
    metrics: Metrics
    not_ready: Callable[[], str | None]
    sole: bool
    embedders: Embedders = field(default_factory=Embedders)
    routers: Sequence[APIRouter] = ()
    wake_jobs: Callable[[], None] | None = None
    turns: Turns | None = None


class Gateway:
    """The app and its sockets. `start` returns when the control port and every index answer."""

    def __init__(self, parts: GatewayParts) -> None:
        self._settings = parts.settings
        self._living = LivingIndexes(parts.catalog, parts.settings)
        named = not parts.settings.port_per_index
        clock, relays = SystemClock(), Relays(Authorities if named else None)
        turns = parts.turns or Turns(parts.settings.requests_at_once, clock, parts.metrics)
        in_flight = InFlight(turns)
        # The server wraps the app, whose control plane opens index ports on the server.
        self._tls = ServerTls.of(parts.settings)
        context = None if self._tls is None else self._tls.context
        self._http = HttpServer(self._serve, relays, context)
        self._renewing: asyncio.Task[None] | None = None
        self._indexes = IndexServers(
            self._http, parts.catalog, self._living, parts.settings, sole=parts.sole
        )
        parts.metrics.gauge(
            "firndb_unknown_keys_waiting", "API keys that wait to be looked up in the catalog"
        ).set_function(lambda: parts.callers.strangers)
        router = Router(Gate(parts.callers), self._living)
        rates = RateLimits(RateSettings.of(parts.settings), clock, parts.metrics)
        self._namespaces = NamespaceQuota(parts.reads, parts.catalog.quotas.namespaces, clock)
        tenants = Tenants(rates, turns)
        plane = DataPlane(parts.writes, parts.reads, tenants, self._namespaces)
        calls = RestCalls(router, tenants)
        self.app: ASGIApp = build_app(parts, self._living, self._indexes, calls, plane, in_flight)
        self._grpc = GrpcServer(
            GrpcEdge(
                router,
                relays.origins,
                in_flight,
                parts.metrics,
                parts.settings.consistency_deadline_s,
            ),
            VectorService(plane, parts.settings.max_request_bytes).methods(),
            relays,
            parts.settings.max_request_bytes,
        )

    async def start(self) -> int:
        """Returns the control port. `ConfigError` when a port cannot be had."""
        listener = bind_control(self._settings)
        port: int = listener.getsockname()[1]
        await self._grpc.start()
        await self._http.start(listener)
        await self._indexes.start()
        if self._tls is not None:
            self._renewing = asyncio.create_task(self._tls.follow())
        return port

    async def stop(self) -> None:
        """Let running requests finish, then close every socket."""
        if self._renewing is not None:
            self._renewing.cancel()
        await self._indexes.stop()
        await asyncio.gather(self._grpc.stop(STOP_S), self._http.stop())
        await self._namespaces.close()

    async def follow_once(self) -> None:
        """Notice at once which indexes other processes created and deleted."""
        await self._indexes.follow_once()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def build_app(
    parts: GatewayParts,
    living: LivingIndexes,
    servers: IndexServers,
    calls: RestCalls,
    plane: DataPlane,
    in_flight: InFlight,
) -> ASGIApp:
    """The app alone, without sockets."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    gate = Gate(parts.callers)
    bytes_max = parts.settings.max_request_bytes
    settings, catalog = parts.settings, parts.catalog
    audit = AuditLog.of(catalog.database, settings)
    changes = Changes(gate, audit, SystemClock())
    directory, wake = parts.directory, parts.wake_jobs or _nobody
    backups = Backups(catalog.database, catalog.quotas)
    restores = Restores(catalog.database)
    schedules = Schedules(catalog.database, catalog.quotas)
    maker = IndexMaker(catalog, backups, restores, directory, servers, settings, parts.wake_jobs)
    indexes = IndexRoutes(
        gate, changes, catalog, directory, living, servers, maker, parts.embedders
    )
    for routes in (
        VectorRoutes(calls, plane, bytes_max).router(),
        NamespaceRoutes(calls, plane, bytes_max).router(),
        RecordRoutes(calls, plane, parts.embedders, bytes_max).router(),
        DocumentRoutes(calls).router(),
        InferenceRoutes(gate, parts.embedders).router(),
        ExportRoutes(calls, plane).router(),
        ImportRoutes(
            calls, ImportStore(catalog.database), locations_of(settings), bytes_max
        ).router(),
        indexes.router(),
        BackupRoutes(gate, changes, catalog, backups, restores, maker, wake).router(),
        CollectionRoutes(gate, changes, catalog, backups, wake).router(),
        ScheduleRoutes(gate, changes, catalog, backups, schedules).router(),
        AccountRoutes(gate, changes, catalog, parts.callers).router(),
        AuditRoutes(gate, audit).router(),
        health_router(parts.metrics, parts.not_ready),
        openapi_router(),
        *parts.routers,
    ):
        app.include_router(routes)
    add_error_answers(app)
    return Edge(app, parts.metrics, in_flight, bytes_max)


def _nobody() -> None:
    """Jobs are done by another process, which sees them when it looks."""


def add_error_answers(app: FastAPI) -> None:
    """Every error of every route becomes JSON in Pinecone's shape."""
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(FirnError, _answer_error)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_exception_handler(Exception, _answer_error)


async def _answer_error(request: Request, error: Exception) -> Response:
    return response_to(error, request.url.path)


async def _answer_nobody(request: Request, error: Exception) -> Response:
    """The client went away in the middle of its request: nobody reads this, nothing is wrong."""
    return Response(status_code=400)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    """Starlette's own errors: no such route, not this method, a body that broke off."""
    assert isinstance(error, HTTPException)
    status = error.status_code
    path = request.url.path
    match status:
        case 404:
            return response_to(NotFound(f"There is nothing at {path}"), path)
        case 405:
            text = f"{request.method} is not a method of {path}"
            response = response_to(WrongMethod(text), path)
            response.headers["allow"] = ", ".join(methods_of(path))
            return response
        case _:
            return response_to(InvalidRequest(str(error)), path)
