"""`/openapi.json`, and `/docs`: a page that shows it and sends requests, without the internet.

Neither needs a key: they say nothing of what the server holds.
"""

from functools import cache
from importlib.resources import files

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.openapi.document import make_document
from api.openapi.tables import OPERATIONS
from core.errors import NotFound

# Swagger UI, as the package ships it; the rest of that package is not used.
ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
START = b"""\
window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null,
});
"""
PAGE = b"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>FirnDB API</title>
<link rel="icon" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="docs"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# The page may load what this server has, and ask this server; nothing else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
KEPT_S = 3600


def openapi_router() -> APIRouter:
    router = APIRouter()
    router.add_route("/openapi.json", _describe, methods=["GET"])
    router.add_route("/docs", _page, methods=["GET"])
    router.add_route("/docs/{file}", _asset, methods=["GET"])
    return router


async def _describe(request: Request) -> Response:
    return Response(document(), media_type="application/json")


async def _page(request: Request) -> Response:
    headers = {"content-security-policy": POLICY, "x-content-type-options": "nosniff"}
    return Response(PAGE, media_type="text/html", headers=headers)


async def _asset(request: Request) -> Response:
    name = request.path_params["file"]
    headers = {"cache-control": f"public, max-age={KEPT_S}", "x-content-type-options": "nosniff"}
    if name == "start.js":
        return Response(START, media_type="text/javascript", headers=headers)
    if name not in ASSETS:
        raise NotFound(f"There is nothing at {request.url.path}")
    return Response(_read(name), media_type=ASSETS[name], headers=headers)


@cache
def document() -> bytes:
    """The document as JSON."""
    return orjson.dumps(make_document(OPERATIONS))


@cache
def _read(name: str) -> bytes:
    return files("fastapi_offline").joinpath("static", name).read_bytes()
