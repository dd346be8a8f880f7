"""`/embed` and `/models`: the configured embedding models, for clients that embed by themselves."""

from typing import Any

import orjson
from fastapi import APIRouter
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from api.auth import Gate
from api.control.body import decode
from api.errors import NotSupported
from api.path_names import NAME
from api.records.bodies import TextInput
from core.embedding import Embedded, EmbeddingModel, InputType
from core.errors import InvalidRequest
from core.limits import EMBED_INPUTS_MAX
from core.metric import Metric
from infra.embedding.embedders import Embedders


class EmbedBody(Struct):
    """`parameters.input_type`: passage (what is stored) or query."""

    model: str
    inputs: list[TextInput]
    parameters: dict[str, Any] | None = None


class InferenceRoutes:
    """Any valid key may ask."""

    def __init__(self, gate: Gate, embedders: Embedders) -> None:
        self._gate = gate
        self._embedders = embedders

    def router(self) -> APIRouter:
        routes = APIRouter()
        routes.add_route("/embed", self.embed, methods=["POST"])
        routes.add_route("/rerank", self.rerank, methods=["POST"])
        routes.add_route("/models", self.list, methods=["GET"])
        routes.add_route(f"/models/{NAME}", self.describe, methods=["GET"])
        return routes

    async def embed(self, request: Request) -> Response:
        caller = await self._gate.reader(request)
        body = decode(await request.body(), EmbedBody)
        if not 1 <= len(body.inputs) <= EMBED_INPUTS_MAX:
            raise InvalidRequest(
                f"Between 1 and {EMBED_INPUTS_MAX} inputs are allowed, got {len(body.inputs)}."
            )
        if any(not one.text.strip() for one in body.inputs):
            raise InvalidRequest("Every input needs a text.")
        kind = _input_type((body.parameters or {}).get("input_type"))
        embedder = self._embedders.named(body.model)
        texts = [one.text for one in body.inputs]
        embedded = await embedder.embed(texts, kind, project=caller.project_id)
        return _json(_shown(body.model, embedded))

    async def rerank(self, request: Request) -> Response:
        await self._gate.reader(request)
        raise NotSupported("This server has no models to rerank with: rerank where you search")

    async def list(self, request: Request) -> Response:
        await self._gate.reader(request)
        asked = request.query_params
        fits = asked.get("type") in (None, "embed") and asked.get("vector_type") in (None, "dense")
        models = self._embedders.models if fits else ()
        return _json({"models": [_model(model) for model in models]})

    async def describe(self, request: Request) -> Response:
        await self._gate.reader(request)
        name = request.path_params["name"]
        return _json(_model(self._embedders.named(name).model))


def _input_type(asked: object) -> InputType:
    try:
        return InputType.PASSAGE if asked is None else InputType(str(asked))
    except ValueError:
        known = ", ".join(InputType)
        raise InvalidRequest(
            f"input_type must be one of {known}, not {str(asked)[:32]!r}"
        ) from None


def _shown(model: str, embedded: Embedded) -> dict[str, Any]:
    return {
        "model": model,
        "vector_type": "dense",
        "data": [{"values": row, "vector_type": "dense"} for row in embedded.vectors],
        "usage": {"total_tokens": embedded.tokens},
    }


def _model(model: EmbeddingModel) -> dict[str, Any]:
    return {
        "model": model.name,
        "short_description": model.description or model.name,
        "type": "embed",
        "vector_type": "dense",
        "default_dimension": model.dimension,
        "supported_dimensions": [model.dimension],
        "modality": "text",
        "provider_name": "self-hosted",
        "max_batch_size": EMBED_INPUTS_MAX,
        "supported_metrics": [metric.value for metric in Metric],
        "supported_parameters": [
            {
                "parameter": "input_type",
                "type": "one_of",
                "value_type": "string",
                "required": False,
                "allowed_values": list(InputType),
                "default": InputType.PASSAGE,
            }
        ],
    }


def _json(body: object) -> Response:
    dumped = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(dumped, media_type="application/json")
