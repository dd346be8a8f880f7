"""The three services of one folder, as `python -m infra.services` and the tests lay them out."""

from __future__ import annotations

from pathlib import Path

from infra.services import kafka, postgres, s3
from infra.services.service import LocalService

FOLDER = Path(".services")  # git-ignored; relative to the working directory


def cache_of(folder: Path) -> Path:
    """Where downloads live: beside the data, so that `clean` can drop one and keep the other."""
    return folder / "cache"


def services_of(folder: Path, cache: Path | None = None) -> list[LocalService]:
    """Kafka, S3 and PostgreSQL with their data under `folder`; nothing is started or created."""
    cache = cache or cache_of(folder)
    return [
        kafka.Kafka(folder / "kafka", cache),
        s3.S3(folder / "s3", cache),
        postgres.Postgres(folder / "postgres"),
    ]
