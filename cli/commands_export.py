"""`firndb export`."""

from pathlib import Path

import click

from cli.asking import ask_with_bar, data_option
from cli.output import json_option, plain_errors, print_json


@click.command()
@click.option("--index", required=True, help="Name of the index.")
@click.option("--namespace", help="The one to export.  [default: __default__]")
@click.option(
    "--to",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The Parquet file to write.",
)
@click.option("--lsn", type=int, help="Only if this is what the namespace was at that LSN.")
@data_option
@json_option
@plain_errors
def export(
    index: str, namespace: str | None, to: Path, lsn: int | None, data: Path | None, as_json: bool
) -> None:
    """Write a namespace into a Parquet file, which an import takes.

    It has every write acknowledged before, and is exact as of the LSN that is shown.
    """
    arguments = {"index": index, "namespace": namespace, "to": str(to.absolute()), "lsn": lsn}
    done = ask_with_bar(data, "export", arguments, as_json, "records")
    if as_json:
        print_json(done)
    else:
        click.echo(
            f"{done['records']} records of {done['namespace']}, exact as of LSN {done['lsn']}: "
            f"{done['file']}, {done['bytes']} bytes"
        )
