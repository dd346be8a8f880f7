"""How commands print: tables for people, `--json` for programs, one line for what went wrong."""

import functools
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, ParamSpec, TypeVar

import click
import orjson

from core.errors import FirnError
from core.printable import printable
from infra.settings import SettingRow

P = ParamSpec("P")
R = TypeVar("R")

INDENT = "    "

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: object) -> None:
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Columns as wide as their widest cell; numbers to the right."""
    cells = [[_cell(row.get(c)) for c in columns] for row in rows]
    widths = [max(len(c), *(len(r[i]) for r in cells), 0) for i, c in enumerate(columns)]
    right = [
        bool(rows) and all(isinstance(row.get(c), int | float | None) for row in rows)
        for c in columns
    ]
    for line in [list(columns), *cells]:
        parts = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ]
        click.echo("  ".join(parts).rstrip())


def print_settings(rows: Sequence[SettingRow]) -> None:
    """Two lines each: values may be long, and a table of them would fit no terminal."""
    for row in rows:
        changed = "" if row.value == row.default else f"   (default: {row.default})"
        click.echo(f"{row.variable} = {row.value}{changed}")
        click.echo(textwrap.fill(row.meaning, 96, initial_indent=INDENT, subsequent_indent=INDENT))


def print_manifest(found: Mapping[str, Any]) -> None:
    """What the verb `inspect` gave, part by part; parts without a row are left out."""
    for name, value in found["header"].items():
        click.echo(f"{name:<14}{_cell(value)}")
    files = [{**file, "statistics": _statistics(file["statistics"])} for file in found["files"]]
    for part, rows in {**found, "files": files}.items():
        if part != "header" and rows:
            click.echo(f"\n{part}")
            # Columns that say nothing in any row would only make the others wrap.
            print_table(rows, [c for c in rows[0] if any(row[c] is not None for row in rows)])


def _statistics(fields: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {said}" for name, said in fields.items())


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else printable(str(value))


def fail(message: str) -> NoReturn:
    """One line on standard error, exit status 1."""
    click.echo(f"firndb: {printable(message)}", err=True)
    sys.exit(1)


def plain_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Errors that a person can do something about end in one line, without a traceback."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except FirnError as error:
            fail(" ".join(str(error).split()))
        except KeyboardInterrupt:
            fail("interrupted")

    return run
