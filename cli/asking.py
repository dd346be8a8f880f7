"""How a command asks its deployment: the options that say which, and the progress on the way."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from infra.settings import Settings

data_option = click.option(
    "--data", type=click.Path(path_type=Path), help="Data folder.  [default: firndb-data]"
)
namespace_option = click.option("--namespace", help="Only this namespace; without it all of them.")


def ask(
    data: Path | None,
    verb: str,
    arguments: dict[str, Any],
    progress: Callable[[dict[str, Any]], None] = lambda line: None,
) -> Any:
    from cli.admin import ask

    return ask(Settings.load({"data": data}), verb, arguments, progress)


def ask_with_bar(
    data: Path | None, verb: str, arguments: dict[str, Any], as_json: bool, unit: str
) -> Any:
    from tqdm import tqdm

    hidden = True if as_json else None  # None: hidden where standard error is no terminal
    with tqdm(unit=unit, disable=hidden, file=sys.stderr) as bar:

        def progress(line: dict[str, Any]) -> None:
            bar.total = line["total"]
            bar.set_description(line["step"])
            bar.update(line["done"] - bar.n)

        return ask(data, verb, arguments, progress)
