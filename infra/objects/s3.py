"""`ObjectStore` in an S3 bucket, on the client that s3fs configures.

Requests go straight to that client: s3fs' own calls repeat a put after a lost answer and keep
listings, which would turn a won `put_if_absent` into a lost one and read-after-write into luck. So
nothing here repeats a request whose outcome is unknown; `RetryingStore` above may, and then a
`put_if_absent` can meet its own success as "exists": who cares (the commit of a manifest) writes a
uuid into the object and looks.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import s3fs
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
)
from botocore.exceptions import (
    ConnectionError as EndpointError,
)
from botocore.handlers import add_expect_header

from core.errors import (
    ConfigError,
    FirnError,
    InvalidRequest,
    ObjectNotFound,
    TooLarge,
    Unavailable,
)
from core.object_store import ObjectInfo, ObjectStore
from infra.objects.keys import check_key

# Of one process: enough to hide 50 ms a request behind 1000 requests/s.
CONCURRENCY = 64
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0  # for the next bytes, not for the whole object
CONFLICT_TRIES = 10
CONFLICT_WAIT_S = 0.02
# Other things can be missing, too: the bucket, with some servers the user.
NOT_THERE = ("NoSuchKey", "NotFound", "404", "")
SLOW_DOWN = ("SlowDown", "RequestTimeout", "TooManyRequests", "Throttling", "ThrottlingException")
# A rival put was under way; asked again, its outcome is known: 412, or free.
IN_CONFLICT = ("ConditionalRequestConflict", "OperationAborted")
# What a server on a file system (here VersityGW) answers when `a` and `a/b` collide, but also,
# once, when a deletion removes the emptied folder under a put.
KEY_COLLIDES = ("ObjectParentIsFile", "ExistingObjectIsDirectory")


class S3Store(ObjectStore):
    """Connects at the first request and belongs to that event loop."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        region: str | None = None,
        concurrency: int = CONCURRENCY,
    ) -> None:
        """`prefix`: folder within the bucket, "" for none. Without keys AWS's own chain applies."""
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._turn = asyncio.Semaphore(concurrency)
        self._session = s3fs.S3FileSystem(
            asynchronous=True,
            skip_instance_cache=True,
            endpoint_url=endpoint,
            key=access_key,
            secret=secret_key,
            client_kwargs={"region_name": region} if region else {},
            config_kwargs={
                "max_pool_connections": concurrency,
                "connect_timeout": CONNECT_TIMEOUT_S,
                "read_timeout": READ_TIMEOUT_S,
                "retries": {"total_max_attempts": 1},
                # Many compatible servers do not know the newer trailing checksums.
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            },
        )
        self._client: Any = None

    async def get(self, key: str) -> bytes:
        with self._mapped(key):
            return await self._read(key)

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        if not 0 <= start < end:
            raise InvalidRequest(f"range [{start}, {end}) of {key} is empty")
        with self._mapped(key):
            return await self._read(key, Range=f"bytes={start}-{end - 1}")

    async def put(self, key: str, data: bytes) -> None:
        with self._mapped(key):
            await self._put(key, data)

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        with self._mapped(key):
            try:
                await self._put(key, data, IfNoneMatch="*")
            except ClientError as error:
                if _status(error) == 412:
                    return False
                raise
        return True

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        more: dict[str, str] = {}
        if start_after:
            more["StartAfter"] = self._prefix + start_after
        while True:
            with self._mapped(prefix):
                client = await self._connected()
                async with self._turn:
                    page = await client.list_objects_v2(
                        Bucket=self._bucket, Prefix=self._prefix + prefix, **more
                    )
            for found in page.get("Contents", ()):
                key = found["Key"].removeprefix(self._prefix)
                if key and not key.endswith(
                    "/"
                ):  # other tools' folder marks are no objects of ours
                    modified_ms = int(found["LastModified"].timestamp() * 1000)
                    yield ObjectInfo(key, found["Size"], modified_ms)
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    async def delete(self, key: str) -> None:
        with self._mapped(key):
            try:
                await self._call("delete_object", key)
            except ClientError as error:
                if _code(error) != "NoSuchKey":
                    raise

    async def stat(self, key: str) -> ObjectInfo | None:
        with self._mapped(key):
            try:
                head = await self._call("head_object", key)
            except ClientError as error:
                if _status(error) == 404:
                    return None
                raise
        modified_ms = int(head["LastModified"].timestamp() * 1000)
        return ObjectInfo(key, head["ContentLength"], modified_ms)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _connected(self) -> Any:
        if self._client is None:
            client = await self._session.set_session()
            # Waiting for "100 Continue" before the body would add a round trip to every put.
            client.meta.events.unregister("before-call.s3", add_expect_header)
            self._client = client
        return self._client

    async def _call(self, verb: str, key: str, **more: Any) -> Any:
        check_key(self._prefix + key)
        client = await self._connected()
        async with self._turn:
            return await getattr(client, verb)(Bucket=self._bucket, Key=self._prefix + key, **more)

    async def _put(self, key: str, data: bytes, **condition: str) -> None:
        """Sent again where the server said that it did nothing because of a neighbour's request."""
        for tries_left in reversed(range(CONFLICT_TRIES)):
            try:
                await self._call("put_object", key, Body=data, **condition)
                return
            except ClientError as error:
                if tries_left == 0 or _code(error) not in (*IN_CONFLICT, *KEY_COLLIDES):
                    raise
            await asyncio.sleep(CONFLICT_WAIT_S)

    async def _read(self, key: str, **more: Any) -> bytes:
        check_key(self._prefix + key)
        client = await self._connected()
        async with self._turn:
            got = await client.get_object(Bucket=self._bucket, Key=self._prefix + key, **more)
            async with got["Body"] as body:
                data: bytes = await body.read()
        if len(data) != got["ContentLength"]:
            raise Unavailable(f"the object store broke off within {key}")
        return data

    @contextmanager
    def _mapped(self, key: str) -> Iterator[None]:
        """S3's and the network's errors become the port's."""
        try:
            yield
        except ClientError as error:
            raise self._told(error, key) from error
        except (NoCredentialsError, PartialCredentialsError, NoRegionError) as error:
            raise ConfigError(f"S3 at {self._place}: {error}") from error
        except (
            EndpointError,
            HTTPClientError,
            IncompleteReadError,
            aiohttp.ClientError,
            TimeoutError,
            OSError,
        ) as error:
            raise Unavailable(f"S3 at {self._place} does not answer: {error}") from error
        except BotoCoreError as error:
            raise ConfigError(f"S3 at {self._place}: {error}") from error

    @property
    def _place(self) -> str:
        return f"{self._session.endpoint_url or 'AWS'}, bucket {self._bucket}"

    def _told(self, error: ClientError, key: str) -> FirnError:
        status, code = _status(error), _code(error)
        said = f"S3 at {self._place} says {code} ({status}) about {key!r}"
        if code == "NoSuchBucket":
            return ConfigError(f"S3 at {self._place}: there is no such bucket; create it")
        if status == 404 and code in NOT_THERE:
            return ObjectNotFound(f"there is no object {key}")
        if status == 416:
            return InvalidRequest(f"the range does not lie in object {key}")
        if code in KEY_COLLIDES:
            return InvalidRequest(f"object key and folder collide at {key}")
        if code == "EntityTooLarge":
            return TooLarge(f"object {key} is too large for S3")
        if status >= 500 or status in (408, 409, 429) or code in SLOW_DOWN:
            return Unavailable(said)
        if status in (401, 403):
            return ConfigError(f"{said}: check the access key, its rights and the region")
        return ConfigError(f"{said}: {error.response['Error'].get('Message', '')}")


def _status(error: ClientError) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def _code(error: ClientError) -> str:
    return str(error.response["Error"].get("Code", ""))
