"""`firndb gc`, `firndb purge`."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from cli.asking import ask_with_bar, data_option, namespace_option
from cli.output import json_option, plain_errors, print_json, print_table
from core.printable import printable

COLLECTED = ["index", "namespace", "objects", "bytes", "manifests", "waiting_objects", "note"]
PURGED = ["namespace", "rewritten", "deleted_objects", "deleted_bytes", "scanned_objects", "left"]


@click.command()
@click.argument("index", required=False)
@namespace_option
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--grace", type=float, help="Seconds that garbage stays.  [default: the setting]")
@data_option
@json_option
@plain_errors
def gc(
    index: str | None,
    namespace: str | None,
    dry_run: bool,
    grace: float | None,
    data: Path | None,
    as_json: bool,
) -> None:
    """Delete files and manifests that nothing uses any more.

    The builder does it by itself; this is for what dead processes and deleted indexes have left,
    and to see what waits. Queries and writes go on meanwhile.
    """
    arguments = {"index": index, "namespace": namespace, "dry_run": dry_run, "grace_s": grace}
    rows = ask_with_bar(data, "gc", arguments, as_json, " namespaces")
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo("there is no garbage")
    else:
        print_table(rows, COLLECTED)
        objects, size = (sum(row[c] for row in rows) for c in ("objects", "bytes"))
        click.echo(f"{objects:,} objects, {size:,} bytes {'would go' if dry_run else 'deleted'}")


@click.command()
@click.argument("index")
@namespace_option
@click.option("--id", "ids", multiple=True, help="Delete this record first; more than once.")
@data_option
@json_option
@plain_errors
def purge(
    index: str, namespace: str | None, ids: tuple[str, ...], data: Path | None, as_json: bool
) -> None:
    """Erase deleted records from every object, and prove it.

    Files that still hold some are rewritten, everything that was replaced goes at once, and each
    object that is left is read and searched. It says what snapshots and the log still hold. Exit
    status 1 if something is left.
    """
    arguments = {"index": index, "namespace": namespace, "ids": list(ids)}
    rows = ask_with_bar(data, "purge", arguments, as_json, "")
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo(f"{index} has no namespace")
    else:
        print_table([{**row, "left": len(row["left"])} for row in rows], PURGED)
        for row in rows:
            _print_rest(row)
    if any(row["left"] or row["holding"] for row in rows):
        sys.exit(1)


def _print_rest(row: dict[str, Any]) -> None:
    name, log = printable(row["namespace"]), row["log"]
    for one in row["left"]:
        click.echo(f"{name}: {one['key']} ({one['bytes']:,} bytes): {one['why']}")
    for holder in row["holding"]:
        click.echo(f"{name}: held by snapshot or branch {holder}")
    if log["records"]:
        click.echo(
            f"{name}: the log still holds {log['records']:,} records, LSN {log['first_lsn']} "
            f"({_time(log['first_ms'])}) to {log['last_lsn']} ({_time(log['last_ms'])}) of "
            f"partition {log['partition']}"
        )


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
