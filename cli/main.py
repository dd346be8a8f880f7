"""`firndb`: one command for every role and every operator's question."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cli.output import json_option, plain_errors, print_json, print_table
from infra.settings import Settings, unknown_variables

data_option = click.option("--data", type=click.Path(path_type=Path), help="Data folder.")

supervised_option = click.option("--supervised", is_flag=True, hidden=True)


class Commands(click.Group):
    """Commands in the order of this file, which is the order of a newcomer's day."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="firndb")
def cli() -> None:
    """FirnDB: a serverless vector database that you run yourself."""
    for name in unknown_variables():
        click.echo(f"firndb: {name} is not a setting; `firndb settings` lists them", err=True)


@cli.command()
@data_option
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port of the control plane.  [default: 8080]")
@click.option("--index-ports", help="Ports of the indexes, one each.  [default: 8081-8180]")
@click.option("--api-key", help="Accept this API key; without one it is made at the first start.")
@plain_errors
def serve(**options: Any) -> None:
    """Serve everything: embedded in one process, or all roles on the configured Kafka and S3."""
    from cli.runtime.serve import run_serve

    run_serve(Settings.load(options))


@cli.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port of the control plane.  [default: 8080]")
@click.option("--index-ports", help="Ports of the indexes, one each.  [default: 8081-8180]")
@plain_errors
def api(**options: Any) -> None:
    """Run the gateway and query role of a distributed deployment."""
    from cli.runtime.process import run_process
    from cli.runtime.roles import serve_api

    run_process(serve_api, Settings.load(options))


@cli.command()
@supervised_option
@plain_errors
def builder(supervised: bool) -> None:
    """Run the index builder role of a distributed deployment."""
    from cli.runtime.process import run_process
    from cli.runtime.roles import serve_builder

    run_process(serve_builder, Settings.load(), supervised=supervised)


@cli.command()
@supervised_option
@plain_errors
def freshness(supervised: bool) -> None:
    """Run the freshness role of a distributed deployment."""
    from cli.runtime.process import run_process
    from cli.runtime.roles import serve_freshness

    run_process(serve_freshness, Settings.load(), supervised=supervised)


@cli.command()
@click.argument("index", required=False)
@click.option("--namespace", help="Only this namespace.")
@data_option
@json_option
@plain_errors
def status(index: str | None, namespace: str | None, data: Path | None, as_json: bool) -> None:
    """Show records, LSNs, lag, files and bytes of every namespace."""
    rows = _ask(data, "status", {"index": index, "namespace": namespace})
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo("no namespace is indexed yet; a write is, some seconds after it")
    else:
        print_table(rows, list(rows[0]))


@cli.command()
@data_option
@json_option
@plain_errors
def indexes(data: Path | None, as_json: bool) -> None:
    """List the indexes with the ids that keys of the write-ahead log begin with."""
    rows = _ask(data, "indexes", {})
    if as_json:
        print_json(rows)
    else:
        print_table(rows, ["index", "index_id", "dimension", "metric", "vector_type", "port"])


@cli.command()
@click.argument("index")
@click.option("--namespace", help="Only this namespace; without it all of the index.")
@data_option
@json_option
@plain_errors
def rebuild(index: str, namespace: str | None, data: Path | None, as_json: bool) -> None:
    """Replay the log into new files while queries and writes go on, then swap them in."""
    from tqdm import tqdm

    hidden = True if as_json else None  # None: hidden where standard error is no terminal
    with tqdm(unit=" log records", disable=hidden, file=sys.stderr) as bar:

        def progress(line: dict[str, Any]) -> None:
            bar.total = line["total"]
            bar.set_description(line["step"])
            bar.update(line["done"] - bar.n)

        done = _ask(data, "rebuild", {"index": index, "namespace": namespace}, progress)
    if as_json:
        print_json(done)
    else:
        print_table(done, ["namespace", "version", "indexed_lsn", "records"])


@cli.group()
def keys() -> None:
    """API keys: create, list, revoke."""


@keys.command("create")
@click.argument("name", default="")
@click.option("--role", type=click.Choice(["editor", "viewer"]), default="editor")
@data_option
@json_option
@plain_errors
def keys_create(name: str, role: str, data: Path | None, as_json: bool) -> None:
    """Make an API key. It is shown once; only its hash is stored."""
    made = _ask(data, "keys-create", {"name": name, "role": role})
    if as_json:
        print_json(made)
    else:
        click.echo(f"{made['key']}\n(id {made['id']}; keep the key, it is not shown again)")


@keys.command("list")
@data_option
@json_option
@plain_errors
def keys_list(data: Path | None, as_json: bool) -> None:
    """List API keys, without their secrets."""
    found = _ask(data, "keys-list", {})
    if as_json:
        print_json(found)
    else:
        print_table(found, ["id", "name", "prefix", "role", "created", "revoked"])


@keys.command("revoke")
@click.argument("key")
@data_option
@json_option
@plain_errors
def keys_revoke(key: str, data: Path | None, as_json: bool) -> None:
    """Revoke a key by its id, prefix or name; refused everywhere within seconds."""
    done = _ask(data, "keys-revoke", {"wanted": key})
    if as_json:
        print_json(done)
    else:
        click.echo(f"revoked {done['revoked']}")


@cli.command()
@data_option
@json_option
@plain_errors
def doctor(data: Path | None, as_json: bool) -> None:
    """Check that object store, log and catalog keep their promises; status 1 if one does not."""
    checks = _ask(data, "doctor", {})
    if as_json:
        print_json(checks)
    else:
        print_table(checks, ["name", "ok", "took_ms", "detail"])
    if not all(check["ok"] for check in checks):
        sys.exit(1)


@cli.command()
@json_option
@plain_errors
def settings(as_json: bool) -> None:
    """List every setting with its value, default and meaning."""
    rows = Settings.load().table()
    plain = [
        {"variable": r.variable, "value": r.value, "default": r.default, "meaning": r.meaning}
        for r in rows
    ]
    if as_json:
        print_json(plain)
    else:
        print_table(plain, ["variable", "value", "default", "meaning"])


def _ask(
    data: Path | None,
    verb: str,
    arguments: dict[str, Any],
    progress: Callable[[dict[str, Any]], None] = lambda line: None,
) -> Any:
    from cli.admin import ask

    return ask(Settings.load({"data": data}), verb, arguments, progress)


def main() -> None:
    """The console script."""
    cli()


if __name__ == "__main__":
    main()
