"""Which folders an import may read: the configured locations, and nothing else.

A uri is judged as text, part by part, before anything is opened: what could be understood in two
ways (`..`, `%2e`, an empty part, a host or user in front) is refused instead of being cleaned up.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import ConfigError, InvalidRequest
from core.limits import IMPORT_URI_CHARS_MAX
from infra.settings import Settings

SETTING = "FIRNDB_IMPORT_LOCATIONS"
INTEGRATIONS_SETTING = "FIRNDB_IMPORT_INTEGRATIONS"
_FORMS = "s3://bucket/prefix/ or file:///folder/"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# Printable ASCII without what has a meaning of its own in a URI or on some file system.
_PART = re.compile(r"[A-Za-z0-9 !$&'()*+,\-.:;=@^_{|}~]+")


@dataclass(frozen=True, slots=True)
class Folder:
    """bucket: "" for a folder of this machine; parts: of the path, from its root on."""

    bucket: str
    parts: tuple[str, ...]

    def holds(self, other: "Folder") -> bool:
        """Whether `other` is this folder or lies somewhere in it."""
        return self.bucket == other.bucket and other.parts[: len(self.parts)] == self.parts

    def overlaps(self, other: "Folder") -> bool:
        return self.holds(other) or other.holds(self)

    @property
    def path(self) -> Path:
        return Path("/", *self.parts)

    def __str__(self) -> str:
        scheme = f"s3://{self.bucket}" if self.bucket else "file://"
        return f"{scheme}/{''.join(part + '/' for part in self.parts)}"


@dataclass(frozen=True, slots=True)
class S3Access:
    """Where S3 is and who asks it; None: what AWS's client finds by itself."""

    endpoint: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    region: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """root: the configured location; parts: what the uri names below it."""

    root: Folder
    parts: tuple[str, ...]
    access: S3Access

    @property
    def folder(self) -> Folder:
        return Folder(self.root.bucket, (*self.root.parts, *self.parts))


@dataclass(frozen=True, slots=True)
class Integration:
    """Locations that are read with these credentials when an import names the integration."""

    locations: tuple[Folder, ...]
    access: S3Access


class ImportLocations:
    """own: folders of FirnDB itself, which hold every project's data; none is ever read, whatever
    is configured.
    """

    def __init__(
        self,
        plain: Integration,
        integrations: Mapping[str, Integration],
        own: Sequence[Folder] = (),
    ) -> None:
        self._plain = plain
        self._integrations = dict(integrations)
        self._own = tuple(own)

    def place(self, uri: str, integration: str = "") -> Place:
        """`InvalidRequest` unless the folder lies in a location of the integration ("": those of no
        integration).
        """
        folder = parsed(uri)
        chosen = self._integrations.get(integration) if integration else self._plain
        if chosen is None:
            raise InvalidRequest(
                f"There is no integration '{integration[:80]}'; this server's are set in "
                f"{INTEGRATIONS_SETTING}."
            )
        root = next((one for one in chosen.locations if one.holds(folder)), None)
        if root is None:
            setting = INTEGRATIONS_SETTING if integration else SETTING
            raise InvalidRequest(
                f"'{folder}' does not lie in a location that this server imports from; its "
                f"operator sets them in {setting}."
            )
        if any(one.overlaps(folder) for one in self._own):
            raise InvalidRequest(
                f"'{folder}' holds files of this server itself, which are never imported; put what "
                "is to be imported into a folder of its own."
            )
        return Place(root, folder.parts[len(root.parts) :], chosen.access)


def read_locations(
    locations: str | None, integrations: Path | None, access: S3Access, own: Sequence[Folder]
) -> ImportLocations:
    """From the settings' texts. `ConfigError` names the setting."""
    plain = Integration(_locations((locations or "").split(","), SETTING), access)
    named: dict[str, Integration] = {}
    if integrations is not None:
        try:
            given = json.loads(integrations.read_text())
            named = {str(name): _integration(name, one) for name, one in given.items()}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"{INTEGRATIONS_SETTING}={integrations}: {error}; it is a JSON file: "
                '{"name": {"locations": ["s3://bucket/prefix/"], "endpoint": …, "access_key": …, '
                '"secret_key": …, "region": …}}'
            ) from error
    return ImportLocations(plain, named, own)


def parsed(uri: str) -> Folder:
    """`InvalidRequest` for anything but a plain folder of S3 or of this machine."""
    if len(uri) > IMPORT_URI_CHARS_MAX:
        raise InvalidRequest(f"An import's uri has {IMPORT_URI_CHARS_MAX} characters at most.")
    scheme, mark, rest = uri.partition("://")
    bucket, slash, path = rest.partition("/")
    if scheme == "s3" and mark and _BUCKET.fullmatch(bucket) and ".." not in bucket:
        return Folder(bucket, _parts(path, uri))
    if scheme == "file" and mark and not bucket and slash:
        return Folder("", _parts(path, uri))
    raise InvalidRequest(f"'{_shown(uri)}' cannot be imported from; give {_FORMS}")


def own_folder(url: str) -> Folder:
    """Of an object store's or a data folder's setting, which may be a plain path."""
    scheme, mark, rest = url.partition("://")
    if mark and scheme == "s3":
        bucket, _, path = rest.partition("/")
        return Folder(bucket, tuple(part for part in path.split("/") if part))
    path = rest.partition("/")[2] if mark else url
    return Folder("", Path("/" + path if mark else path).resolve().parts[1:])


def _parts(path: str, uri: str) -> tuple[str, ...]:
    path = path.removesuffix("/")
    parts = tuple(path.split("/")) if path else ()
    for part in parts:
        if part in (".", "..") or not _PART.fullmatch(part):
            raise InvalidRequest(
                f"'{_shown(uri)}' is no plain folder: give {_FORMS} without empty parts, "
                "'.', '..', percent signs and other special characters."
            )
    return parts


def _locations(texts: Sequence[str], setting: str) -> tuple[Folder, ...]:
    found: list[Folder] = []
    for text in (text.strip() for text in texts):
        if not text:
            continue
        try:
            folder = parsed(text)
        except InvalidRequest as error:
            raise ConfigError(f"{setting}: {error}") from error
        if not folder.bucket:
            # The operator may have given a link; what a client names below it may be none.
            folder = Folder("", folder.path.resolve().parts[1:])
            if not folder.parts:
                raise ConfigError(f"{setting}: the whole file system is no location")
        found.append(folder)
    return tuple(found)


def _integration(name: str, given: dict[str, Any]) -> Integration:
    unknown = set(given) - {"locations", "endpoint", "access_key", "secret_key", "region"}
    if unknown:
        raise ValueError(f"{name} has unknown fields: {', '.join(sorted(unknown))}")
    access = {key: str(value) for key, value in given.items() if key != "locations"}
    return Integration(_locations(given["locations"], INTEGRATIONS_SETTING), S3Access(**access))


def _shown(uri: str) -> str:
    return uri if len(uri) <= 80 else uri[:80] + "…"


def locations_of(settings: Settings) -> ImportLocations:
    """`ConfigError` naming the setting."""
    secret = settings.s3_secret_key
    access = S3Access(
        endpoint=settings.s3_endpoint,
        access_key=settings.s3_access_key,
        secret_key=None if secret is None else secret.get_secret_value(),
        region=settings.s3_region,
    )
    own = [settings.object_store_url, str(settings.data), str(settings.cache_folder)]
    return read_locations(
        settings.import_locations,
        settings.import_integrations,
        access,
        [own_folder(url) for url in own],
    )
