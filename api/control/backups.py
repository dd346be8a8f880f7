"""Backups and restore jobs: `/indexes/{name}/backups`, `/backups`, `/restore-jobs`."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from api.auth import Gate
from api.control import classic, deployment, rules, typed
from api.control.body import decode, json_response
from api.control.changes import Changes
from api.control.making import IndexMaker
from api.control.pages import asked_page, page_body
from api.versions import api_version
from core.errors import InvalidRequest, NotFound
from infra.catalog.backup_model import Backup, BackupKind, RestoreJob, RestoreState
from infra.catalog.backups import Backups
from infra.catalog.catalog import Catalog
from infra.catalog.model import SOURCE_BACKUP, SOURCE_COLLECTION, CatalogIndex, NewIndex
from infra.catalog.restores import Restores
from ingest.vectors import shown

NAME_CHARS_MAX = 128
DESCRIPTION_CHARS_MAX = 1024
# Why it failed: Pinecone's resources have no room for it.
ERROR_HEADER = "x-firndb-error"
# Of the source's spec: what it was made of itself, and capacity that may not be wanted twice.
_NOT_COPIED = (SOURCE_BACKUP, SOURCE_COLLECTION, "read_capacity")


class CreateBackup(Struct):
    name: str | None = None
    description: str | None = None


class CreateIndexFromBackup(Struct):
    name: str
    tags: dict[str, str] | None = None
    deletion_protection: str | None = None
    read_capacity: deployment.ReadCapacity | None = None


class BackupRoutes:
    """Of the caller's project; what belongs to another one is not found."""

    def __init__(
        self,
        gate: Gate,
        changes: Changes,
        catalog: Catalog,
        backups: Backups,
        restores: Restores,
        maker: IndexMaker,
        wake: Callable[[], None],
    ) -> None:
        self._gate = gate
        self._changes = changes
        self._catalog = catalog
        self._backups = backups
        self._restores = restores
        self._maker = maker
        self._wake = wake

    def router(self) -> APIRouter:
        router = APIRouter()
        router.add_api_route("/indexes/{name}/backups", self.create, methods=["POST"])
        router.add_api_route("/indexes/{name}/backups", self.list_of_index, methods=["GET"])
        router.add_api_route("/backups", self.list, methods=["GET"])
        router.add_api_route("/backups/{backup_id}", self.describe, methods=["GET"])
        router.add_api_route("/backups/{backup_id}", self.delete, methods=["DELETE"])
        router.add_api_route("/backups/{backup_id}/create-index", self.restore, methods=["POST"])
        router.add_api_route("/restore-jobs", self.list_jobs, methods=["GET"])
        router.add_api_route("/restore-jobs/{job_id}", self.describe_job, methods=["GET"])
        return router

    async def create(self, request: Request, name: str) -> Response:
        async with self._changes.change(request, "backup.create", f"index/{name}") as change:
            wanted = decode(await request.body() or b"{}", CreateBackup)
            called = rules.check_text(wanted.name, "A backup's name", NAME_CHARS_MAX)
            about = rules.check_text(
                wanted.description, "A backup's description", DESCRIPTION_CHARS_MAX
            )
            index = await self._catalog.index(change.caller.project_id, name)
            check_no_pods(index)
            made = await self._backups.create(index, BackupKind.BACKUP, called, about)
            change.resource = f"backup/{made.backup_id}"
        self._wake()
        return json_response(shown_backup(made, request), 201)

    async def list_of_index(self, request: Request, name: str) -> Response:
        """Of the index that lives, or with `include_deleted` of all that ever had the name."""
        caller = await self._gate.reader(request)
        limit, after = asked_page(request)
        if _flag(request, "include_deleted"):
            page = await self._backups.page(caller.project_id, limit, after, index_name=name)
        else:
            index_id = (await self._catalog.index(caller.project_id, name)).info.index_id
            page = await self._backups.page(caller.project_id, limit, after, index_id=index_id)
        return json_response(page_body(page, lambda one: shown_backup(one, request)))

    async def list(self, request: Request) -> Response:
        caller = await self._gate.reader(request)
        limit, after = asked_page(request)
        page = await self._backups.page(caller.project_id, limit, after)
        return json_response(page_body(page, lambda one: shown_backup(one, request)))

    async def describe(self, request: Request, backup_id: str) -> Response:
        caller = await self._gate.reader(request)
        found = await self._backups.get(caller.project_id, known_id(backup_id))
        return with_error(json_response(shown_backup(found, request)), found.error)

    async def delete(self, request: Request, backup_id: str) -> Response:
        resource = f"backup/{backup_id}"
        async with self._changes.change(request, "backup.delete", resource) as change:
            called = known_id(backup_id)
            await self._backups.delete(change.caller.project_id, BackupKind.BACKUP, called)
        self._wake()
        return Response(status_code=202)

    async def restore(self, request: Request, backup_id: str) -> Response:
        resource = f"backup/{backup_id}"
        async with self._changes.change(request, "backup.restore", resource) as change:
            wanted = decode(await request.body(), CreateIndexFromBackup)
            project_id = change.caller.project_id
            backup = await self._backups.get(project_id, known_id(backup_id))
            made, job_id = await self._maker.fill(project_id, _index_of(backup, wanted), backup)
        answer = {"restore_job_id": job_id, "index_id": made.info.index_id}
        return json_response(answer, 202)

    async def list_jobs(self, request: Request) -> Response:
        caller = await self._gate.reader(request)
        limit, after = asked_page(request)
        page = await self._restores.page(caller.project_id, limit, after)
        return json_response(page_body(page, shown_job))

    async def describe_job(self, request: Request, job_id: str) -> Response:
        caller = await self._gate.reader(request)
        found = await self._restores.get(caller.project_id, known_id(job_id))
        return with_error(json_response(shown_job(found)), found.error)


def with_error(response: Response, error: str | None) -> Response:
    if error is not None:
        text = " ".join(error.split())
        response.headers[ERROR_HEADER] = text.encode("ascii", "backslashreplace").decode()
    return response


def known_id(text: str) -> str:
    """An id as this server gives them; `NotFound` for anything else."""
    if len(text) != 32 or not text.isascii() or not text.isalnum():
        raise NotFound(f"Resource {shown(text)} not found")
    return text


def check_no_pods(index: CatalogIndex) -> None:
    if index.spec["deployment"]["deployment_type"] == "pod":
        raise InvalidRequest(
            f"The index {index.info.name} is on pods, which have no backups: create a collection"
        )


def shown_backup(backup: Backup, request: Request) -> dict[str, Any]:
    """The backup resource, in the shape of the client's API version."""
    where = backup.spec["deployment"]
    shown = {
        "backup_id": backup.backup_id,
        "source_index_name": backup.source_index_name,
        "source_index_id": backup.source_index_id,
        "name": backup.name,
        "description": backup.description,
        "status": backup.state.value,
        # An index in somebody's own cloud has an environment instead.
        "cloud": where.get("cloud", where["deployment_type"]),
        "region": where.get("region", where.get("environment", "")),
        "record_count": backup.record_count,
        "namespace_count": backup.namespace_count,
        "size_bytes": backup.size_bytes,
        "tags": backup.tags or None,
        "created_at": rules.shown_time(backup.created_ms),
        "source_index_deleted_at": rules.shown_time(backup.source_deleted_ms),
    }
    if api_version(request.headers).typed:
        fields = typed.shown_fields(backup.dimension, backup.metric, backup.spec)
        return {**shown, "schema": {"fields": fields}}
    metadata = classic.shown_metadata(backup.spec)
    shown |= {"dimension": backup.dimension, "metric": backup.metric.value}
    return shown if metadata is None else {**shown, "schema": metadata}


def shown_job(job: RestoreJob) -> dict[str, Any]:
    if job.state is RestoreState.COMPLETED:
        percent = 100.0
    else:
        # Not 100 before the index is ready, though all of its namespaces are there.
        percent = min(99.0, 100 * job.namespaces_done / max(1, job.namespaces_total))
    return {
        "restore_job_id": job.job_id,
        "backup_id": job.backup_id,
        "target_index_name": job.target_index_name,
        "target_index_id": job.target_index_id,
        "status": job.state.value,
        "created_at": rules.shown_time(job.created_ms),
        "completed_at": rules.shown_time(job.completed_ms),
        "percent_complete": round(percent, 1),
    }


def _index_of(backup: Backup, wanted: CreateIndexFromBackup) -> NewIndex:
    """As the source was, but for what the client wants otherwise."""
    spec = {key: value for key, value in backup.spec.items() if key not in _NOT_COPIED}
    spec |= deployment.new_capacity(wanted.read_capacity)
    tags = backup.tags if wanted.tags is None else rules.check_tags(wanted.tags)
    return NewIndex(
        name=rules.check_name(wanted.name),
        dimension=backup.dimension,
        metric=backup.metric,
        vector_type=backup.vector_type,
        spec={**spec, SOURCE_BACKUP: backup.backup_id},
        deletion_protection=rules.parse_protection(wanted.deletion_protection or "disabled"),
        tags=tags,
    )


def _flag(request: Request, name: str) -> bool:
    text = request.query_params.get(name, "false").lower()
    if text not in ("true", "false"):
        raise InvalidRequest(f"{name} must be true or false, not {text[:40]!r}")
    return text == "true"
