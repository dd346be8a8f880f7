"""`firndb snapshot`, `firndb branch`, `firndb restore`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from cli.asking import ask, ask_with_bar, data_option, namespace_option
from cli.output import json_option, plain_errors, print_json, print_table
from core.errors import InvalidRequest

SHOWN = ["namespace", "id", "name", "created", "records", "indexed_lsn", "bytes"]
RESTORED = ["index", "namespace", "records", "lsn", "replayed"]

to_option = click.option("--to", required=True, help="Name of the new namespace.")
to_index_option = click.option("--to-index", help="An index of the same schema.  [default: INDEX]")


@click.group()
def snapshot() -> None:
    """Snapshots of namespaces: create, list, delete."""


@snapshot.command("create")
@click.argument("index")
@namespace_option
@click.option("--name", default="", help="For you, to find it again.")
@data_option
@json_option
@plain_errors
def snapshot_create(
    index: str, namespace: str | None, name: str, data: Path | None, as_json: bool
) -> None:
    """Keep a namespace with every write acknowledged so far.

    It costs the same whatever the size: files that it shares with the namespace are kept.
    """
    arguments = {"index": index, "namespace": namespace, "name": name}
    _show(ask(data, "snapshot-create", arguments), as_json, f"{index} has no namespace")


@snapshot.command("list")
@click.argument("index")
@namespace_option
@data_option
@json_option
@plain_errors
def snapshot_list(index: str, namespace: str | None, data: Path | None, as_json: bool) -> None:
    """List snapshots, also those of deleted namespaces.

    A deleted index keeps its snapshots; name it by its id.
    """
    found = ask(data, "snapshot-list", {"index": index, "namespace": namespace})
    _show(found, as_json, f"{index} has no snapshot")


@snapshot.command("delete")
@click.argument("index")
@click.argument("snapshot")
@namespace_option
@data_option
@json_option
@plain_errors
def snapshot_delete(
    index: str, snapshot: str, namespace: str | None, data: Path | None, as_json: bool
) -> None:
    """Delete a snapshot by its id or name.

    What was restored or branched from it stays.
    """
    arguments = {"index": index, "snapshot": snapshot, "namespace": namespace}
    done = ask(data, "snapshot-delete", arguments)
    if as_json:
        print_json(done)
    else:
        click.echo(f"deleted {done['id']} of {done['namespace']}")


@click.command()
@click.argument("index")
@click.option("--namespace", help="The one to branch.  [default: __default__]")
@to_option
@to_index_option
@data_option
@json_option
@plain_errors
def branch(
    index: str,
    namespace: str | None,
    to: str,
    to_index: str | None,
    data: Path | None,
    as_json: bool,
) -> None:
    """Make a copy of a namespace that shares its files, at once.

    From then on both go their own ways.
    """
    arguments = {"index": index, "namespace": namespace, "to": to, "to_index": to_index}
    _told(ask(data, "branch", arguments), as_json)


@click.command()
@click.argument("index")
@click.option("--snapshot", help="Its id or name; without it the newest before the point in time.")
@click.option("--namespace", help="The one to restore from.  [default: __default__]")
@to_option
@to_index_option
@click.option("--to-lsn", type=int, help="As it was after this LSN of its partition.")
@click.option("--to-time", help="As it was at this time, 2026-01-31T18:00:00Z for example.")
@data_option
@json_option
@plain_errors
def restore(
    index: str,
    snapshot: str | None,
    namespace: str | None,
    to: str,
    to_index: str | None,
    to_lsn: int | None,
    to_time: str | None,
    data: Path | None,
    as_json: bool,
) -> None:
    """Make a new namespace of a snapshot, or of a point in time.

    A point in time is a snapshot and the entries of the log since then, as far as it is kept.
    What a deleted index left is restored with --to-index; name it by its id.
    """
    arguments = {
        "index": index,
        "snapshot": snapshot,
        "namespace": namespace,
        "to": to,
        "to_index": to_index,
        "to_lsn": to_lsn,
        "to_time_ms": None if to_time is None else _time_ms(to_time),
    }
    _told(ask_with_bar(data, "restore", arguments, as_json, " log records"), as_json)


def _time_ms(text: str) -> int:
    """A time without a zone is that of this machine."""
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError as error:
        raise InvalidRequest(f"--to-time: {text!r} is no time like 2026-01-31T18:00:00Z") from error


def _show(found: list[dict[str, Any]], as_json: bool, nothing: str) -> None:
    rows = [{**row, "created": _shown(row["created_ms"])} for row in found]
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo(nothing)
    else:
        print_table(rows, SHOWN)


def _told(done: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(done)
    else:
        print_table([done], RESTORED)


def _shown(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
