"""Pages of what was made last, by a key that nothing shifts; and jobs in turns."""

from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa

from infra.catalog.backup_model import Page, Place
from infra.catalog.database import Database

T = TypeVar("T")


async def page_of(
    database: Database,
    statement: sa.Select[Any],
    key: tuple[sa.Column[int], sa.Column[str]],
    limit: int,
    after: Place | None,
    decode: Callable[[sa.Row[Any]], T],
) -> Page[T]:
    """Newest first, those behind `after`. `key`: (created_ms, id) of the table."""
    if after is not None:
        statement = statement.where(
            sa.or_(key[0] < after[0], sa.and_(key[0] == after[0], key[1] < after[1]))
        )
    statement = statement.order_by(key[0].desc(), key[1].desc()).limit(limit + 1)
    rows = await database.read(lambda connection: list(connection.execute(statement).all()))
    last = rows[limit - 1] if len(rows) > limit else None
    place = None if last is None else (getattr(last, key[0].name), getattr(last, key[1].name))
    return Page([decode(row) for row in rows[:limit]], place)


def in_turns(
    statement: sa.Select[Any],
    table: sa.FromClause,
    owner: sa.Column[str],
    key: tuple[sa.Column[Any], ...],
    wanted: sa.ColumnElement[bool],
    limit: int,
    served: sa.Column[int] | None = None,
) -> sa.Select[Any]:
    """Of what is `wanted` the oldest, but the first of every owner before the second of any: else
    one who has more than `limit` keeps all others out. `key`: what is oldest, at last by the id of
    the table. `served`: when the owner's last turn was; of owners the one that waits longest.
    """
    turn = sa.func.row_number().over(partition_by=owner, order_by=key)
    last = sa.null() if served is None else served
    shown = (key[-1].label("ranked"), turn.label("turn"), last.label("served"))
    turns = sa.select(*shown).select_from(table).where(wanted).subquery()
    found = statement.join(turns, turns.c.ranked == key[-1])
    return found.order_by(turns.c.turn, turns.c.served, *key).limit(limit)
