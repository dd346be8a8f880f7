"""`/records/namespaces/...`: write texts, and search by text, vector or id.

Searching by vector or id works on every index; texts need one with integrated embedding.
"""

from collections.abc import Sequence
from urllib.parse import unquote

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.control.embed import IndexEmbed, embed_of
from api.errors import NotSupported
from api.path_names import NAME
from api.records.bodies import (
    ALL_FIELDS,
    SearchRecordsBody,
    TextRecord,
    check_search,
    parse_records,
    vector_query,
)
from api.vectors import answers, headers
from api.vectors.bodies import in_json, judged
from api.vectors.calls import RestCalls
from api.vectors.plane import Call, DataPlane
from core.embedding import Embedded, Embedder
from core.errors import FailedPrecondition, InvalidRequest, NotFound
from infra.embedding.embedders import Embedders
from ingest.bodies import UpsertBody, VectorBody
from ingest.vectors import checked_namespace

PREFIX = b"/records/namespaces/"


class RecordRoutes:
    """Each method is one route; the request's host names the index."""

    def __init__(
        self, calls: RestCalls, plane: DataPlane, embedders: Embedders, max_request_bytes: int
    ) -> None:
        self._calls = calls
        self._plane = plane
        self._embedders = embedders
        self._bytes_max = max_request_bytes

    def router(self) -> APIRouter:
        routes = APIRouter()
        # A name may hold an encoded slash, which the path parameter shows as a plain one.
        routes.add_route(f"/records/namespaces/{NAME}/upsert", self.upsert, methods=["POST"])
        routes.add_route(f"/records/namespaces/{NAME}/search", self.search, methods=["POST"])
        return routes

    async def upsert(self, request: Request) -> Response:
        """All of the records or none: they are embedded first, then written as one entry."""
        namespace = _namespace(request, b"/upsert")
        call, body = await self._calls.to_write(request)
        embed, embedder = self._embedding(call)

        async def embedded(records: Sequence[TextRecord]) -> UpsertBody:
            made = await embedder.embed(
                [record.text for record in records],
                embed.passage_type,
                project=call.index.project_id,
                namespace=namespace,
            )
            return _upsert(namespace, records, made)

        done = await self._plane.upsert_made(
            call, namespace, lambda: parse_records(body, embed.text_field), embedded
        )
        return Response(status_code=201, headers=headers.written(done.lsn))

    async def search(self, request: Request) -> Response:
        namespace = _namespace(request, b"/search")
        call, sent = await self._calls.to_read(request)
        body, _ = await judged(
            call.body_bytes, in_json(sent, SearchRecordsBody, self._bytes_max), check_search
        )
        if body.rerank is not None:
            raise NotSupported("This server has no models to rerank with: leave out rerank")
        if body.query.match_terms is not None:
            raise NotSupported(
                "This server cannot search for terms of a text: leave out match_terms, or filter "
                "by metadata"
            )
        asked: Embedded | None = None
        if body.query.inputs is not None:
            embed, embedder = self._embedding(call)
            self._plane.may_query(call, namespace)
            asked = await embedder.embed(
                [body.query.inputs.text],
                embed.query_type,
                project=call.index.project_id,
                namespace=namespace,
            )
        vector = None if asked is None else asked.vectors[0].tolist()
        query = vector_query(body.query, namespace, vector)
        found = await self._plane.query(
            call,
            lambda: query,
            exhaustive=headers.is_set(request.headers, headers.EXHAUSTIVE),
        )
        fields = None if body.fields is None or ALL_FIELDS in body.fields else set(body.fields)
        usage = {"read_units": found.cost.read_units}
        if asked is not None:
            usage["embed_total_tokens"] = asked.tokens
        answer = await answers.apart(
            found.matches, lambda: answers.hits_body(found.matches, fields, usage)
        )
        return answers.raw_response(answer, headers.seen(found.freshness))

    def _embedding(self, call: Call) -> tuple[IndexEmbed, Embedder]:
        """`InvalidRequest` where the index takes no texts; `FailedPrecondition` where its model is
        not configured any more.
        """
        embed = embed_of(call.spec)
        if embed is None:
            raise InvalidRequest(
                f"The index {call.index.name} has no integrated embedding, so it takes no texts: "
                "use vectors, or give it a model with embed of PATCH /indexes/{name} or POST "
                f"/indexes/create-for-model. Models of this server: {self._embedders.offer()}"
            )
        try:
            return embed, self._embedders.named(embed.model)
        except NotFound as error:
            raise FailedPrecondition(
                f"The index {call.index.name} embeds with a model that is not configured. {error}"
            ) from error


def _upsert(namespace: str, records: Sequence[TextRecord], embedded: Embedded) -> UpsertBody:
    return UpsertBody(
        vectors=[
            VectorBody(id=record.id, values=row.astype("<f4").tobytes(), metadata=record.metadata)
            for record, row in zip(records, embedded.vectors, strict=True)
        ],
        namespace=namespace,
    )


def _namespace(request: Request, action: bytes) -> str:
    """From the path's raw form: only there `/` and `%2F` differ. None is the default namespace."""
    raw: bytes = request.scope["raw_path"]
    name = raw.split(b"?")[0].removeprefix(PREFIX).removesuffix(action)
    if b"/" in name:
        raise NotFound(f"There is nothing at {request.url.path}")
    return checked_namespace(unquote(name))
