"""A gateway on real sockets over a catalog in a temporary folder and records in a dict."""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from api.app import Gateway, GatewayParts
from infra.catalog.callers import Callers
from infra.catalog.catalog import Catalog
from infra.catalog.directory import CatalogDirectory
from infra.catalog.model import KeyRole
from infra.catalog.quotas import Quotas
from infra.embedding.embedders import Embedders
from infra.settings import Settings
from infra.telemetry import Metrics
from tests.api.memory_index import MemoryIndex
from tests.api.openapi_check import check
from tests.e2e.processes import index_ports

KEY = "gateway-test-key"
READ_ONLY_KEY = "gateway-read-only-key"
READ_WRITE_KEY = "gateway-read-write-key"
OTHER_KEY = "another-projects-key"
NEWEST = {"x-pinecone-api-version": "2026-07"}
CLASSIC = {"x-pinecone-api-version": "2025-10"}
SERVERLESS = {"serverless": {"cloud": "aws", "region": "us-east-1"}}


@dataclass
class Running:
    """A gateway that serves, and a client of it. `url`: of the control plane."""

    gateway: Gateway
    url: str
    http: httpx.AsyncClient
    catalog: Catalog
    callers: Callers
    memory: MemoryIndex
    metrics: Metrics
    not_ready: list[str] = field(default_factory=list)

    async def ask(
        self, method: str, path: str, *, key: str | None = KEY, host: str = "", **options: Any
    ) -> httpx.Response:
        """Every answer is compared with the API's own description."""
        headers: dict[str, str] = dict(options.pop("headers", {}))
        if key is not None:
            headers["api-key"] = key
        answer = await self.http.request(
            method, (host or self.url) + path, headers=headers, **options
        )
        check(answer)
        return answer

    async def create(self, name: str = "movies", **body: Any) -> Mapping[str, Any]:
        """A new index in the classic shape, by default of dimension 3; its resource."""
        wanted = {"name": name, "dimension": 3, "metric": "cosine", "spec": SERVERLESS, **body}
        answer = await self.ask("POST", "/indexes", json=wanted, headers=CLASSIC)
        assert answer.status_code == 201, answer.text
        resource: Mapping[str, Any] = answer.json()
        return resource


@asynccontextmanager
async def running_gateway(
    folder: Path, *, sole: bool = True, trust: ssl.SSLContext | bool = True, **overrides: object
) -> AsyncIterator[Running]:
    """With a key of each role in one project, and an admin key of another."""
    settings = Settings.load(
        {"data": folder, "port": 0, "index_ports": index_ports(10), **overrides}
    )
    catalog = Catalog.open(settings.catalog_url, quotas=Quotas.of(settings))
    callers, memory, metrics = Callers(catalog), MemoryIndex(), Metrics()
    embedders = Embedders.open(settings.embedders, metrics)
    not_ready: list[str] = []
    parts = GatewayParts(
        settings=settings,
        catalog=catalog,
        callers=callers,
        directory=CatalogDirectory(catalog),
        writes=memory,
        reads=memory,
        metrics=metrics,
        not_ready=lambda: not_ready[0] if not_ready else None,
        sole=sole,
        embedders=embedders,
    )
    gateway = Gateway(parts)
    try:
        if not await catalog.keys():
            await _add_keys(catalog)
        port = await gateway.start()
        async with httpx.AsyncClient(timeout=30, verify=trust) as http:
            url = settings.url_at(port)
            yield Running(gateway, url, http, catalog, callers, memory, metrics, not_ready)
    finally:
        await gateway.stop()
        await embedders.close()
        await catalog.close()


async def _add_keys(catalog: Catalog) -> None:
    ours = await catalog.ensure_project()
    theirs = await catalog.ensure_project("another")
    await catalog.add_key(ours.project_id, KEY)
    await catalog.add_key(ours.project_id, READ_ONLY_KEY, role=KeyRole.READ_ONLY)
    await catalog.add_key(ours.project_id, READ_WRITE_KEY, role=KeyRole.READ_WRITE)
    await catalog.add_key(theirs.project_id, OTHER_KEY)
