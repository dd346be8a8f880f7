"""Imports as the catalog keeps them: what was asked for, how far it is, how it ended.

Every change of a running import names the state that it expects, so that one which was cancelled
meanwhile stays cancelled.

They take turns: the projects, and of each project the imports. What was tried last waits the
longest, and the longer the more often in a row it could not go on. Times of turns are by the clock
of the leases.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core.clock import Clock, SystemClock, new_uuid
from core.errors import FailedPrecondition, NotFound
from core.limits import IMPORTS_KEPT_MAX, IMPORTS_UNFINISHED_MAX
from infra.catalog.database import Database
from infra.catalog.leases import now_ms
from infra.catalog.paging import in_turns
from infra.catalog.tables import IMPORTS, INDEXES, LEASES, PROJECTS


class ImportState(StrEnum):
    """As clients see it. PENDING: nobody works on it yet, or nobody does any more."""

    PENDING = "Pending"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    COMPLETED = "Completed"
    CANCELLED = "Cancelled"


UNFINISHED = (ImportState.PENDING, ImportState.IN_PROGRESS)
_LEASE = "import/"
_OPEN = IMPORTS.c.state.in_([state.value for state in UNFINISHED])


class ErrorMode(StrEnum):
    """What a row that is no record does: it is left out, or it ends the import."""

    CONTINUE = "continue"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Progress:
    """bytes: of files that are read, of `bytes_total`. records: in files so far, or attached at the
    end; skipped: rows left out. marks: where the skipped ones were counted, see
    `builder.importing`.
    """

    bytes_total: int = 0
    bytes_done: int = 0
    records: int = 0
    skipped: int = 0
    reasons: tuple[str, ...] = ()
    marks: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Import:
    """integration: names the location's credentials, "" for none. attaching: everything is built,
    from here on it cannot be cancelled. cleaned: nothing is left of what was built beside.
    erased: it was so once, but a worker that lost its lease may write late. tries: to work on it,
    since it got further.
    """

    import_id: str
    index_id: str
    uri: str
    integration: str
    error_mode: ErrorMode
    state: ImportState
    created_ms: int
    finished_ms: int | None
    error: str
    attaching: bool
    cleaned: bool
    progress: Progress
    erased: bool
    tries: int

    @property
    def lease(self) -> str:
        return f"{_LEASE}{self.import_id}"

    @property
    def finished(self) -> bool:
        return self.state not in UNFINISHED


class ImportStore:
    """Every method is one transaction; all raise `Unavailable` while the database is away."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()

    async def create(
        self, index_id: str, uri: str, error_mode: ErrorMode, integration: str = ""
    ) -> Import:
        """`FailedPrecondition`: the index has too many that are not finished."""
        import_id = new_uuid()

        def work(connection: Connection) -> Import:
            mine = IMPORTS.c.index_id == index_id
            count = sa.select(sa.func.count()).select_from(IMPORTS)
            waiting = connection.execute(count.where(mine, _OPEN)).scalar_one()
            if waiting >= IMPORTS_UNFINISHED_MAX:
                raise FailedPrecondition(
                    f"This index has {waiting} imports that are not finished, the most there may "
                    "be; wait for one, or cancel one."
                )
            _forget_oldest(connection, index_id)
            connection.execute(
                sa.insert(IMPORTS).values(
                    import_id=import_id,
                    index_id=index_id,
                    uri=uri,
                    integration=integration,
                    error_mode=error_mode.value,
                    state=ImportState.PENDING.value,
                    created_ms=self._clock.now_ms(),
                    error="",
                    attaching=False,
                    cleaned=False,
                    progress=_stored(Progress()),
                    due_ms=now_ms(connection, self._clock),
                    tries=0,
                    erased=False,
                )
            )
            return _found(connection, index_id, import_id)

        return await self._database.write(work)

    async def get(self, index_id: str, import_id: str) -> Import:
        """`NotFound`: this index has no such import."""
        return await self._database.read(lambda connection: _found(connection, index_id, import_id))

    async def page(self, index_id: str, limit: int, after: str = "") -> list[Import]:
        """Newest first; `after`: the id of the last one seen."""

        def work(connection: Connection) -> list[Import]:
            wanted = IMPORTS.c.index_id == index_id
            if after:
                last = _found(connection, index_id, after)
                place = sa.tuple_(IMPORTS.c.created_ms, IMPORTS.c.import_id)
                wanted &= place < sa.tuple_(sa.literal(last.created_ms), sa.literal(last.import_id))
            statement = (
                sa.select(*_SHOWN)
                .where(wanted)
                .order_by(IMPORTS.c.created_ms.desc(), IMPORTS.c.import_id.desc())
                .limit(limit)
            )
            return [_import_of(row) for row in connection.execute(statement)]

        return await self._database.read(work)

    async def cancel(self, index_id: str, import_id: str) -> Import:
        """As it is then: one that is finished, or being attached, goes on as it was. `NotFound`."""

        def work(connection: Connection) -> Import:
            connection.execute(
                sa.update(IMPORTS)
                .where(
                    IMPORTS.c.index_id == index_id,
                    IMPORTS.c.import_id == import_id,
                    IMPORTS.c.attaching.is_(False),
                    _OPEN,
                )
                .values(state=ImportState.CANCELLED.value, finished_ms=self._clock.now_ms())
            )
            return _found(connection, index_id, import_id)

        return await self._database.write(work)

    async def work(self, limit: int = 100) -> list[Import]:
        """What somebody has to work on and nobody does: unfinished ones, and finished ones that
        left something behind. Projects in turns, of each the import that has waited longest; what
        was put off comes once its time has come.
        """

        def work(connection: Connection) -> list[Import]:
            at_ms = now_ms(connection, self._clock)
            lease = sa.literal(_LEASE) + IMPORTS.c.import_id
            held = sa.exists().where(LEASES.c.name == lease, LEASES.c.until_ms > at_ms)
            due = sa.and_(IMPORTS.c.due_ms <= at_ms, ~held)
            wanted = sa.and_(sa.or_(_OPEN, IMPORTS.c.cleaned.is_(False)), due)
            owned = IMPORTS.join(INDEXES, INDEXES.c.index_id == IMPORTS.c.index_id).join(
                PROJECTS, PROJECTS.c.project_id == INDEXES.c.project_id
            )
            key = (IMPORTS.c.due_ms, IMPORTS.c.created_ms, IMPORTS.c.import_id)
            statement = in_turns(
                *(sa.select(*_SHOWN), owned, PROJECTS.c.project_id, key, wanted, limit),
                served=PROJECTS.c.import_tried_ms,
            )
            return [_import_of(row) for row in connection.execute(statement)]

        return await self._database.read(work)

    async def put_off(self, import_id: str, for_s: float, *, tried: bool = False) -> None:
        """`work` gives it again after `for_s`, and after all of its project that waits by then.
        tried: counts, and is its project's turn.
        """
        mine = IMPORTS.c.import_id == import_id

        def work(connection: Connection) -> None:
            at_ms = now_ms(connection, self._clock)
            connection.execute(
                sa.update(IMPORTS)
                .where(mine)
                .values(due_ms=at_ms + int(for_s * 1000), tries=IMPORTS.c.tries + int(tried))
            )
            if tried:
                owner = sa.select(INDEXES.c.project_id).join(IMPORTS).where(mine).scalar_subquery()
                connection.execute(
                    sa.update(PROJECTS)
                    .where(PROJECTS.c.project_id == owner)
                    .values(import_tried_ms=at_ms)
                )

        await self._database.write(work)

    async def plan(self, import_id: str) -> bytes | None:
        """What `begin` has kept; None before."""
        statement = sa.select(IMPORTS.c.plan).where(IMPORTS.c.import_id == import_id)
        found = await self._database.read(lambda c: c.execute(statement).scalar_one_or_none())
        return None if found is None else bytes(found)

    async def begin(
        self, import_id: str, plan: bytes, progress: Progress
    ) -> tuple[bytes, Progress] | None:
        """The files are listed: kept for whoever goes on. None: it is cancelled.

        The answer is what is kept by now: of the first one who came here, and noted since.
        """
        mine = IMPORTS.c.import_id == import_id
        keep = (
            sa.update(IMPORTS)
            .where(mine, _OPEN, IMPORTS.c.plan.is_(sa.null()))
            .values(
                state=ImportState.IN_PROGRESS.value,
                plan=plan,
                progress=_stored(progress),
            )
        )
        kept = sa.select(IMPORTS.c.plan, IMPORTS.c.progress).where(mine, _OPEN)

        def work(connection: Connection) -> tuple[bytes, Progress] | None:
            connection.execute(keep)
            found = connection.execute(kept).first()
            return None if found is None else (bytes(found.plan), _progress_of(found.progress))

        return await self._database.write(work)

    async def note(self, import_id: str, progress: Progress) -> bool:
        """False: it is cancelled, stop."""
        return await self._changed(import_id, progress=_stored(progress), tries=0)

    async def attach(self, import_id: str, last_begun: Sequence[int]) -> tuple[int, ...] | None:
        """From here on it is completed. None: it is cancelled.

        last_begun: by partition, an LSN that is given or will be before the first attach; the
        answer is what the first one who came here has said.
        """
        mine = IMPORTS.c.import_id == import_id
        mark = (
            sa.update(IMPORTS)
            .where(mine, _OPEN, IMPORTS.c.last_begun.is_(sa.null()))
            .values(attaching=True, last_begun=list(last_begun))
        )
        kept = sa.select(IMPORTS.c.last_begun).where(mine, _OPEN)

        def work(connection: Connection) -> tuple[int, ...] | None:
            connection.execute(mark)
            found = connection.execute(kept).first()
            return None if found is None else tuple(found.last_begun)

        return await self._database.write(work)

    async def finish(
        self, import_id: str, state: ImportState, progress: Progress, error: str = ""
    ) -> bool:
        """False: it is cancelled."""
        return await self._changed(
            import_id,
            state=state.value,
            error=error,
            progress=_stored(progress),
            finished_ms=self._clock.now_ms(),
        )

    async def erased(self, import_id: str, again_s: float) -> None:
        """All that was built beside is gone for now; `work` gives it once more after `again_s`."""

        def work(connection: Connection) -> None:
            due_ms = now_ms(connection, self._clock) + int(again_s * 1000)
            connection.execute(
                sa.update(IMPORTS)
                .where(IMPORTS.c.import_id == import_id)
                .values(erased=True, due_ms=due_ms)
            )

        await self._database.write(work)

    async def cleaned(self, import_id: str) -> None:
        """Nothing is left of what was built beside."""
        statement = (
            sa.update(IMPORTS)
            .where(IMPORTS.c.import_id == import_id)
            .values(cleaned=True, plan=None)
        )
        await self._database.write(lambda connection: connection.execute(statement))

    async def counts(self) -> dict[ImportState, int]:
        """How many there are in each state."""
        statement = sa.select(IMPORTS.c.state, sa.func.count()).group_by(IMPORTS.c.state)
        found = await self._database.read(lambda c: c.execute(statement).all())
        by_state = {ImportState(row[0]): int(row[1]) for row in found}
        return {state: by_state.get(state, 0) for state in ImportState}

    async def _changed(self, import_id: str, **values: object) -> bool:
        statement = (
            sa.update(IMPORTS).where(IMPORTS.c.import_id == import_id, _OPEN).values(**values)
        )
        changed = await self._database.write(lambda c: c.execute(statement).rowcount)
        return changed == 1


# Without the plan, which may be megabytes, and what only `attach` wants to know.
_SHOWN = [column for column in IMPORTS.c if column.name not in ("plan", "last_begun")]


def _found(connection: Connection, index_id: str, import_id: str) -> Import:
    wanted = (IMPORTS.c.index_id == index_id, IMPORTS.c.import_id == import_id)
    row = connection.execute(sa.select(*_SHOWN).where(*wanted)).first()
    if row is None:
        raise NotFound("Import not found")
    return _import_of(row)


def _forget_oldest(connection: Connection, index_id: str) -> None:
    over = (
        sa.select(IMPORTS.c.import_id)
        .where(IMPORTS.c.index_id == index_id, ~_OPEN, IMPORTS.c.cleaned.is_(True))
        .order_by(IMPORTS.c.created_ms.desc(), IMPORTS.c.import_id.desc())
        .offset(IMPORTS_KEPT_MAX - 1)
    )
    if connection.dialect.name == "sqlite":
        over = over.limit(-1)  # its OFFSET needs one
    ids = list(connection.scalars(over))
    if ids:
        connection.execute(sa.delete(IMPORTS).where(IMPORTS.c.import_id.in_(ids)))


def _stored(progress: Progress) -> dict[str, Any]:
    return {
        "bytes_total": progress.bytes_total,
        "bytes_done": progress.bytes_done,
        "records": progress.records,
        "skipped": progress.skipped,
        "reasons": list(progress.reasons),
        # As text: JSON numbers of other programs end at 2^53.
        "marks": [[str(part) for part in mark] for mark in progress.marks],
    }


def _progress_of(kept: dict[str, Any]) -> Progress:
    return Progress(
        bytes_total=kept["bytes_total"],
        bytes_done=kept["bytes_done"],
        records=kept["records"],
        skipped=kept["skipped"],
        reasons=tuple(kept["reasons"]),
        marks=tuple((int(a), int(b), int(c)) for a, b, c in kept["marks"]),
    )


def _import_of(row: sa.Row[Any]) -> Import:
    return Import(
        import_id=row.import_id,
        index_id=row.index_id,
        uri=row.uri,
        integration=row.integration,
        error_mode=ErrorMode(row.error_mode),
        state=ImportState(row.state),
        created_ms=row.created_ms,
        finished_ms=row.finished_ms,
        error=row.error,
        attaching=row.attaching,
        cleaned=row.cleaned,
        progress=_progress_of(row.progress),
        erased=row.erased,
        tries=row.tries,
    )
