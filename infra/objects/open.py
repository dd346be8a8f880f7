"""From a setting's text to an object store."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from core.errors import ConfigError
from core.object_store import ObjectStore
from infra.objects.local import LocalStore

FORMS = "give a folder, file:///folder or s3://bucket/prefix"


def open_store(
    url: str,
    *,
    s3_endpoint: str | None = None,
    s3_access_key: str | None = None,
    s3_secret_key: str | None = None,
    region: str | None = None,
) -> ObjectStore:
    """A bare adapter, without retries or counting. `ConfigError` says what is wrong with `url`.

    A folder is made here; a bucket must exist, which its first request shows.
    """
    if "://" not in url:
        if not url:
            raise ConfigError(f"the object store is not set: {FORMS}")
        return LocalStore(Path(url))
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path != "":
        return LocalStore(Path(unquote(parts.path)))
    if parts.scheme != "s3" or not parts.netloc:
        raise ConfigError(f"the object store {url} is not understood: {FORMS}")
    if (s3_access_key is None) != (s3_secret_key is None):
        raise ConfigError("set both the S3 access key and the secret key, or neither")
    try:
        from infra.objects.s3 import S3Store
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{url} needs the package {error.name}: pip install 'firndb[s3]'"
        ) from error
    return S3Store(
        parts.netloc,
        parts.path,
        endpoint=s3_endpoint,
        access_key=s3_access_key,
        secret_key=s3_secret_key,
        region=region,
    )
