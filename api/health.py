"""For machines that watch over the process: is it alive, may it get requests, how does it do."""

from collections.abc import Callable

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from infra.telemetry import Metrics


def health_router(metrics: Metrics, not_ready: Callable[[], str | None]) -> APIRouter:
    """`not_ready`: what the process still waits for; None when it may get requests."""
    router = APIRouter()

    async def healthz() -> Response:
        return Response(b'{"status":"alive"}', media_type="application/json")

    async def readyz() -> Response:
        reason = not_ready()
        if reason is None:
            return Response(b'{"status":"ready"}', media_type="application/json")
        body = orjson.dumps({"status": "not ready", "reason": reason})
        return Response(body, status_code=503, media_type="application/json")

    async def show_metrics() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    router.add_api_route("/healthz", healthz, methods=["GET"])
    router.add_api_route("/readyz", readyz, methods=["GET"])
    router.add_api_route("/metrics", show_metrics, methods=["GET"])
    return router
