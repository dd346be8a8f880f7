"""The living indexes, by the host that their clients talk to."""

import re

from core.clock import Clock, SystemClock
from core.coalesced import Coalesced
from core.errors import FailedPrecondition, NotFound, Unavailable
from core.indexes import IndexState
from infra.catalog.catalog import Catalog
from infra.catalog.model import CatalogIndex
from infra.catalog.read_through import Lifetimes, ReadThrough
from infra.settings import Settings

# A created index of another process is served this late at worst, a deleted one is gone this late.
FRESH_S = 2.0
_LIFETIMES = Lifetimes(fresh_s=FRESH_S, absent_s=0.5, stale_s=float("inf"))
_KEPT_MAX = 10_000
# When clients ask again for an index that is being filled.
_FILLED_IN_S = 2.0
# Of a project's id: a DNS label has 63 characters, an index name up to 45, the dash one.
PROJECT_CHARS = 12

_WORDS = {
    "host": r"[^/]+",
    "port": r"\d+",
    "name": r"(?P<name>[a-z0-9-]{1,45})",
    "project": rf"(?P<project>[0-9a-f]{{{PROJECT_CHARS}}})",
}


class HostNames:
    """What an index's host is called, and which index a host means. Pure."""

    def __init__(self, template: str, listen_host: str, scheme: str = "http") -> None:
        self._template = template
        self._scheme = scheme
        self._listen_host = "127.0.0.1" if listen_host in ("0.0.0.0", "::", "") else listen_host
        authority = template.split("://", 1)[1].split("/")[0].split(":")[0]
        parts = re.split(r"{(\w+)}", authority)
        self._pattern = re.compile(
            "".join(_WORDS[p] if i % 2 else re.escape(p) for i, p in enumerate(parts))
        )

    def url_of(self, index: CatalogIndex, asked_host: str | None) -> str:
        """With scheme. `asked_host`: how the client calls the control plane, so it reaches us."""
        return self._template.format(
            scheme=self._scheme,
            host=_bare(asked_host) if asked_host else self._listen_host,
            port=index.port,
            name=index.info.name,
            project=index.info.project_id[:PROJECT_CHARS],
        )

    def parse(self, host: str) -> tuple[str, str | None] | None:
        """(index name, first characters of its project's id if the template has them), or None."""
        match = self._pattern.fullmatch(_bare(host).lower())
        if match is None:
            return None
        return match["name"], match.groupdict().get("project")


def _bare(host: str) -> str:
    """Without the port. IPv6 addresses keep their brackets."""
    return re.sub(r":\d+$", "", host)


class LivingIndexes:
    """`refresh` is called at the start and every `FRESH_S` by whoever serves the ports."""

    def __init__(self, catalog: Catalog, settings: Settings, clock: Clock | None = None) -> None:
        self.names = HostNames(settings.index_host, settings.host, settings.scheme)
        self._port_per_index = settings.port_per_index
        self._catalog = catalog
        self._by_port: dict[int, CatalogIndex] = {}
        self._changes = 0
        clock = clock or SystemClock()
        self._by_name = ReadThrough(self._read, _LIFETIMES, _KEPT_MAX, clock)
        self._filling = Coalesced(self._read)

    async def refresh(self) -> list[CatalogIndex]:
        """Read them all. `Unavailable` leaves the known ones in place."""
        while True:
            changes = self._changes
            living = await self._catalog.living_indexes()
            if changes == self._changes:  # else this list may lack what was just created here
                break
        self._by_port = {index.port: index for index in living if index.port is not None}
        return living

    def add(self, index: CatalogIndex) -> None:
        """Created or changed in this process: known at once."""
        self._changes += 1
        if index.port is not None:
            self._by_port[index.port] = index
        self._by_name.put(_key(index.info.project_id, index.info.name), index)

    def remove(self, index: CatalogIndex) -> None:
        self._changes += 1
        if index.port is not None:
            self._by_port.pop(index.port, None)
        self._by_name.put(_key(index.info.project_id, index.info.name), None)

    async def at(self, port: int, host: str, project_id: str) -> CatalogIndex | None:
        """The project's index that listens on `port` or is called `host`.

        None: no index has such a host. `NotFound`: none that lives and belongs to this project.
        `Unavailable`: it is not filled from its backup yet; `FailedPrecondition`: it never will be.
        """
        if self._port_per_index:
            found = self._by_port.get(port)
            if found is None:
                return None
        else:
            parsed = self.names.parse(host)
            if parsed is None:
                return None
            name, project = parsed
            if project not in (None, project_id[:PROJECT_CHARS]):
                raise NotFound("Index not found")
            found = await self._by_name.get(_key(project_id, name))
        if found is None or found.info.project_id != project_id:
            raise NotFound("Index not found")
        return found if found.info.state is IndexState.READY else await self._filled(found)

    async def _filled(self, index: CatalogIndex) -> CatalogIndex:
        """As soon as it is, whoever fills it: the catalog is asked each time."""
        now = await self._filling.ask(_key(index.info.project_id, index.info.name))
        if now is None or now.info.index_id != index.info.index_id:
            raise NotFound("Index not found")
        match now.info.state:
            case IndexState.READY:
                self.add(now)
                return now
            case IndexState.INITIALIZATION_FAILED:
                raise FailedPrecondition(
                    "The index could not be created from its backup: delete it, and try again"
                )
        raise Unavailable(
            "The index is Initializing: it is being created from a backup",
            retry_after_s=_FILLED_IN_S,
        )

    async def _read(self, key: str) -> CatalogIndex | None:
        project_id, name = key.split("/", 1)
        try:
            return await self._catalog.index(project_id, name)
        except NotFound:
            return None


def _key(project_id: str, name: str) -> str:
    return f"{project_id}/{name}"
