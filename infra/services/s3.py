"""A real S3 server on local disk: VersityGW, built by the Go tool-chain from its release.

Why this one, and why this version: FirnDB's manifests rest on `If-None-Match: *` having exactly
one winner; `docs/decisions/0001-real-services-without-docker.md` has the counts per server.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from pathlib import Path

from botocore.exceptions import ClientError
from botocore.session import get_session

from infra.services.process import ServiceError, accepts_connections, require_tool
from infra.services.service import Service

MODULE = "github.com/versity/versitygw/cmd/versitygw"
VERSION = "v1.8.0"  # first release whose conditional puts are atomic
INSTALL_GO = "install Go 1.25 or newer (https://go.dev/dl)"

ACCESS_KEY = "firndb"
SECRET_KEY = "firndb-on-loopback-only"  # not a secret: the server listens on 127.0.0.1 only
REGION = "us-east-1"
BUCKET = "firndb"
PREFIX = "data"

START_TIMEOUT_S = 30.0
STOP_GRACE_S = 5.0


def fetch(cache: Path) -> Path:
    """Path of the server's binary under `cache`; builds it with Go the first time (about 1 min)."""
    binary = cache / f"versitygw-{VERSION}"
    if binary.exists():
        return binary
    go = require_tool("go", INSTALL_GO)
    pending = (cache / f"versitygw-{uuid.uuid4().hex}.part").resolve()
    try:
        done = subprocess.run(
            [go, "install", f"{MODULE}@{VERSION}"],
            env={**os.environ, "GOBIN": str(pending), "GOFLAGS": "-modcacherw"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServiceError(f"Go could not build VersityGW:\n{done.stdout[-2000:]}")
        (pending / "versitygw").replace(binary)
    finally:
        shutil.rmtree(pending, ignore_errors=True)
    return binary


class S3(Service):
    """One S3 endpoint with path-style addressing; objects are plain files under `folder`/data."""

    name = "s3"

    def __init__(self, folder: Path, cache: Path, port: int | None = None) -> None:
        super().__init__(folder, [port])
        self._cache = cache

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}"

    @property
    def settings(self) -> dict[str, str]:
        return {
            "FIRNDB_OBJECT_STORE": f"s3://{BUCKET}/{PREFIX}",
            "FIRNDB_S3_ENDPOINT": self.endpoint,
            "FIRNDB_S3_ACCESS_KEY": ACCESS_KEY,
            "FIRNDB_S3_SECRET_KEY": SECRET_KEY,
        }

    def start(self) -> None:
        if self.pid is not None:
            return
        binary = fetch(self._cache)
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        self.child.spawn(
            [str(binary), "--quiet", "--keep-alive", "--port", self.address, "posix", str(data)],
            env={"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
        )
        self.child.wait_ready(lambda: accepts_connections(self.ports[0]), START_TIMEOUT_S)
        self.make_bucket(BUCKET)

    def make_bucket(self, bucket: str) -> None:
        """Create `bucket`; does nothing when it exists."""
        session = get_session()
        client = session.create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        try:
            client.create_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
                raise ServiceError(f"no bucket {bucket} at {self.endpoint}: {error}") from error
        finally:
            client.close()

    def stop(self) -> None:
        self.child.stop(STOP_GRACE_S)
