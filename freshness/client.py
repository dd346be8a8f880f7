"""Asks the freshness worker that owns a partition, wherever it is now.

Partitions move when workers come and go. A worker that no longer owns one says so; one that is gone
refuses the connection. Both mean: look for the owner again, as long as the request's deadline
allows.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import aiohttp

from core.errors import CorruptData, Overloaded, Unavailable
from core.owners import OwnerBoard
from freshness.protocol import (
    FreshAnswer,
    FreshRequest,
    FreshStatus,
    FreshUsage,
    NamespacesAnswer,
    NamespacesRequest,
)
from freshness.server import NOT_OWNER
from freshness.wire import (
    MEDIA_TYPE,
    decode_answer,
    decode_namespaces_answer,
    decode_usage,
    encode_plain,
    encode_request,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """connections: to one worker. in_flight_max: requests of this process; beyond it they are
    refused.

    slack_s: on top of a request's own deadline, for the way and the work. retry_s: between two
    looks for the owner.
    """

    connections: int = 64
    in_flight_max: int = 1024
    slack_s: float = 1.0
    retry_s: float = 0.05


class RemoteFreshReader:
    """A `FreshReader`. `close` when done.

    `read` and `namespaces` answer with status NOT_OWNER when no owner is found in time;
    `Unavailable` when the owner does not answer.
    """

    def __init__(self, owners: OwnerBoard, settings: ClientSettings | None = None) -> None:
        self._owners = owners
        self._settings = settings or ClientSettings()
        self._session: aiohttp.ClientSession | None = None
        self._in_flight = 0

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def read(self, request: FreshRequest) -> FreshAnswer:
        answer = await self._ask(
            request.partition,
            "/read",
            lambda left_s: encode_request(replace(request, deadline_s=left_s)),
            request.deadline_s,
            decode_answer,
        )
        return FreshAnswer(FreshStatus.NOT_OWNER) if answer is None else answer

    async def namespaces(self, request: NamespacesRequest) -> NamespacesAnswer:
        answer = await self._ask(
            request.partition,
            "/namespaces",
            lambda left_s: encode_plain(replace(request, deadline_s=left_s)),
            request.deadline_s,
            decode_namespaces_answer,
        )
        return NamespacesAnswer(FreshStatus.NOT_OWNER) if answer is None else answer

    async def usage(self, partition: int) -> FreshUsage:
        usage = await self._ask(partition, f"/usage/{partition}", lambda _: b"", 0.0, decode_usage)
        if usage is None:
            raise Unavailable(f"no freshness worker serves partition {partition} at the moment")
        return usage

    async def _ask(
        self,
        partition: int,
        path: str,
        body: Callable[[float], bytes],
        deadline_s: float,
        decode: Callable[[bytes], T],
    ) -> T | None:
        """None: no owner within the deadline. `body` is made from the seconds that are left."""
        if self._in_flight >= self._settings.in_flight_max:
            raise Overloaded("too many reads wait for freshness workers")
        self._in_flight += 1
        try:
            return await self._asked(partition, path, body, deadline_s, decode)
        finally:
            self._in_flight -= 1

    async def _asked(
        self,
        partition: int,
        path: str,
        body: Callable[[float], bytes],
        deadline_s: float,
        decode: Callable[[bytes], T],
    ) -> T | None:
        until_s = time.monotonic() + deadline_s
        failure: Unavailable | None = None
        while True:
            left_s = max(0.0, until_s - time.monotonic())
            url = self._owners.owner_of(partition)
            if url is not None:
                try:
                    data = await self._post(url + path, body(left_s), left_s)
                except Unavailable as error:
                    failure = error
                else:
                    if data is not None:
                        return await self._decoded(decode, data)
                    failure = None
            if left_s <= self._settings.retry_s:
                break
            await asyncio.sleep(self._settings.retry_s)
        if failure is not None:
            raise failure
        return None

    async def _post(self, url: str, body: bytes, left_s: float) -> bytes | None:
        """None: not the owner. `Unavailable` if it does not answer, or not with what was asked."""
        try:
            async with self._open().post(
                url,
                data=body,
                headers={"content-type": MEDIA_TYPE},
                timeout=aiohttp.ClientTimeout(total=left_s + self._settings.slack_s),
            ) as response:
                data = await response.read()
                if response.status == NOT_OWNER:
                    return None
                if response.status != 200:
                    raise Unavailable(f"the freshness worker at {url} answers {response.status}")
                return data
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(
                f"the freshness worker at {url} does not answer: {error!r}"
            ) from error

    async def _decoded(self, decode: Callable[[bytes], T], data: bytes) -> T:
        """Large answers in a thread: 1 MB of records takes some milliseconds."""
        try:
            return await asyncio.to_thread(decode, data) if len(data) > 1 << 16 else decode(data)
        except CorruptData as error:
            raise Unavailable(
                f"the freshness worker answers in another release: {error}"
            ) from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, limit_per_host=self._settings.connections)
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session
