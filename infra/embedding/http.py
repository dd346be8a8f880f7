"""A model behind HTTP: what text-embeddings-inference, ollama, vLLM and many others speak
(`POST /v1/embeddings`), or Pinecone's `POST /embed`.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec
import numpy.typing as npt
import orjson

from core.embedding import InputType
from core.errors import FailedPrecondition, InvalidRequest, Unavailable
from infra.embedding.config import EmbedderConfig

log = logging.getLogger(__name__)

CONNECT_S = 5.0
TRIES = 3
PAUSE_S = 0.25
# What servers say when it may work in a moment.
TRY_AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))
# Of these a text is to blame: too long, empty, not to the model's liking.
TEXT_REFUSED = frozenset((400, 413, 422))
# A float as JSON takes at most some 25 characters; the rest is for names and errors.
NUMBER_BYTES_MAX = 32
REST_BYTES_MAX = 1 << 20
# JSON of this size takes about half a millisecond to decode; more goes to a thread.
INLINE_BYTES_MAX = 64 << 10
# Of what a server says.
SHOWN_CHARS = 200


class _Usage(msgspec.Struct):
    total_tokens: int | None = None


class _OpenAiVector(msgspec.Struct):
    embedding: list[float]
    index: int | None = None


class _OpenAiAnswer(msgspec.Struct):
    data: list[_OpenAiVector]
    usage: _Usage | None = None


class _PineconeVector(msgspec.Struct):
    values: list[float]


class _PineconeAnswer(msgspec.Struct):
    data: list[_PineconeVector]
    usage: _Usage | None = None


class HttpBatches:
    """`Batches` over one pool of connections. Redirects are not followed, proxies of the
    environment not used: texts go to the configured URL and nowhere else.
    """

    def __init__(self, name: str, config: EmbedderConfig, key: str | None) -> None:
        assert config.url is not None
        self._name = name
        self._url = config.url
        self._config = config
        self._answer_bytes_max = config.batch * config.dimension * NUMBER_BYTES_MAX + REST_BYTES_MAX
        self._client = httpx.AsyncClient(
            headers=_headers(config, key),
            timeout=httpx.Timeout(config.timeout_s, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=config.concurrency),
            follow_redirects=False,
            trust_env=False,
        )

    async def embed_batch(
        self, texts: Sequence[str], input_type: InputType
    ) -> tuple[npt.ArrayLike, int | None]:
        body = orjson.dumps(self._asked(texts, input_type))
        for left in reversed(range(TRIES)):
            try:
                answer = await self._send(body)
                break
            except Unavailable:
                if not left:
                    raise
                await asyncio.sleep(PAUSE_S * (TRIES - left) * random.uniform(0.5, 1.5))
        if len(answer) <= INLINE_BYTES_MAX:
            return self._read(answer)
        return await asyncio.to_thread(self._read, answer)

    async def close(self) -> None:
        await self._client.aclose()

    def _asked(self, texts: Sequence[str], input_type: InputType) -> dict[str, Any]:
        model = self._config.remote_model or self._name
        if self._config.api == "pinecone":
            inputs = [{"text": text} for text in texts]
            return {"model": model, "inputs": inputs, "parameters": {"input_type": input_type}}
        return {"model": model, "input": list(texts), "encoding_format": "float"}

    async def _send(self, body: bytes) -> bytes:
        """The body of a 200."""
        try:
            async with self._client.stream("POST", self._url, content=body) as response:
                answer = await self._bounded(response)
        except httpx.TransportError as error:
            log.warning("the model %s cannot be reached at %s: %r", self._name, self._url, error)
            raise Unavailable(f"the model {self._name} cannot be reached for now") from error
        status = response.status_code
        if status == 200:
            return answer
        said = answer[: SHOWN_CHARS * 4].decode(errors="replace")[:SHOWN_CHARS]
        if status in TEXT_REFUSED:
            raise InvalidRequest(f"The model {self._name} refuses a text ({status}): {said}")
        # What is not about a text is the operator's to read.
        log.warning("the model %s answers %d: %s", self._name, status, said)
        if status in TRY_AGAIN:
            raise Unavailable(f"the model {self._name} answers {status} for now")
        raise self._set_up_wrongly(f"answers {status}")

    async def _bounded(self, response: httpx.Response) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if size > self._answer_bytes_max:
                raise self._set_up_wrongly(f"answers more than {self._answer_bytes_max} bytes")
            chunks.append(chunk)
        return b"".join(chunks)

    def _read(self, answer: bytes) -> tuple[npt.ArrayLike, int | None]:
        try:
            if self._config.api == "pinecone":
                sent = msgspec.json.decode(answer, type=_PineconeAnswer)
                return [v.values for v in sent.data], _tokens(sent.usage)
            given = msgspec.json.decode(answer, type=_OpenAiAnswer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._set_up_wrongly(f"answers what cannot be read: {error}") from error
        # Without an index they are in order.
        ordered = sorted(given.data, key=lambda v: v.index or 0)
        return [v.embedding for v in ordered], _tokens(given.usage)

    def _set_up_wrongly(self, what: str) -> FailedPrecondition:
        text = (
            f"The embedder of the model {self._name} {what}. Whoever runs this server must correct "
            "its table in FIRNDB_EMBEDDERS, or that embedder"
        )
        log.error("%s", text)
        return FailedPrecondition(text)


def _headers(config: EmbedderConfig, key: str | None) -> dict[str, str]:
    headers = {"content-type": "application/json", "user-agent": "firndb"}
    if config.api == "pinecone":
        headers["x-pinecone-api-version"] = "2025-10"
    if key is not None:
        headers.update(
            {"api-key": key} if config.api == "pinecone" else {"authorization": f"Bearer {key}"}
        )
    return headers


def _tokens(usage: _Usage | None) -> int | None:
    return None if usage is None else usage.total_tokens
