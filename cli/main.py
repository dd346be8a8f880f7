"""`firndb`: one command for every role and every operator's question."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cli.asking import ask as _ask
from cli.asking import ask_with_bar as _ask_with_bar
from cli.asking import data_option, namespace_option
from cli.commands_accounts import audit, keys, projects
from cli.commands_erasure import gc, purge
from cli.commands_export import export
from cli.commands_snapshots import branch, restore, snapshot
from cli.output import (
    json_option,
    plain_errors,
    print_json,
    print_manifest,
    print_settings,
    print_table,
)
from infra.settings import Settings, unknown_variables

supervised_option = click.option("--supervised", is_flag=True, hidden=True)


class Commands(click.Group):
    """Commands in the order of this file, which is the order of a newcomer's day."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="firndb")
def cli() -> None:
    """FirnDB: a serverless vector database that you run yourself.

    Every setting is also a variable FIRNDB_... of the environment: `firndb settings` lists them.
    """
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
    """Serve everything, in one process or on Kafka.

    Without FIRNDB_KAFKA this is the embedded deployment: one process, everything in the data
    folder. With FIRNDB_KAFKA and FIRNDB_OBJECT_STORE it runs all roles on them, the builder and
    freshness roles as supervised child processes.

    The first start prints an API key and a snippet to try it. Ctrl-C stops after a last flush.
    """
    from cli.runtime.serve import run_serve

    run_serve(Settings.load(options))


@cli.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port of the control plane.  [default: 8080]")
@click.option("--index-ports", help="Ports of the indexes, one each.  [default: 8081-8180]")
@plain_errors
def api(**options: Any) -> None:
    """Run the gateway and query role (on Kafka).

    Run as many as you like. All roles share FIRNDB_KAFKA, FIRNDB_OBJECT_STORE and FIRNDB_CATALOG.
    """
    from cli.runtime.process import run_process
    from cli.runtime.roles import serve_api

    run_process(serve_api, Settings.load(options))


@cli.command()
@supervised_option
@plain_errors
def builder(supervised: bool) -> None:
    """Run the index builder role (on Kafka).

    Run as many as you like; they share the partitions. FIRNDB_BUILDER_PORT has health and metrics.
    """
    from cli.runtime.process import run_process
    from cli.runtime.roles import serve_builder

    run_process(serve_builder, Settings.load(), supervised=supervised)


@cli.command()
@supervised_option
@plain_errors
def freshness(supervised: bool) -> None:
    """Run the freshness role (on Kafka).

    Run as many as you like; they share the partitions. The gateways reach this one at
    FIRNDB_FRESHNESS_URL: set it where they are on other machines.
    """
    from cli.runtime.process import run_process
    from cli.runtime.roles import serve_freshness

    run_process(serve_freshness, Settings.load(), supervised=supervised)


@cli.command()
@click.argument("index", required=False)
@namespace_option
@data_option
@json_option
@plain_errors
def status(index: str | None, namespace: str | None, data: Path | None, as_json: bool) -> None:
    """Show records, LSNs, lag, files and debt of namespaces.

    \b
    records      of the newest manifest; what is written since is searchable, but not counted
    log_end      next LSN of the partition
    fresh_from   from this LSN on, writes may be in no manifest yet: the freshness layer has them
    indexed_lsn  up to this LSN the files have everything of the namespace
    lag          log records of the partition from fresh_from on
    unfolded_bytes, debt_bytes  rows in deltas; these and dead rows while compaction has work to do
    amplification               bytes written over bytes of log records, since the first manifest
    garbage_bytes               objects that the newest manifest does not name
    """
    rows = _ask(data, "status", {"index": index, "namespace": namespace})
    if as_json:
        print_json(rows)
    elif not rows:
        which = "such namespace" if index or namespace else "namespace"
        click.echo(f"no {which} is indexed yet; a write is, some seconds after it")
    else:
        print_table(rows, [name for name in rows[0] if name != "cluster_sizes"])
        for row in rows if namespace else []:
            click.echo(f"clusters of {row['namespace']}: {row['cluster_sizes'] or 'none'}")


@cli.command()
@click.argument("index")
@click.option("--namespace", help="Which one.  [default: __default__]")
@click.option("--version", type=int, help="Number of the manifest.  [default: the newest]")
@data_option
@json_option
@plain_errors
def inspect(
    index: str, namespace: str | None, version: int | None, data: Path | None, as_json: bool
) -> None:
    """Show a manifest: which files make up a namespace.

    Its header, the sections that it is stored in, its data files with live and dead rows and what
    is known of their metadata, its id runs, how large its clusters are, and its snapshots.
    """
    asked = {"index": index, "namespace": namespace, "version": version}
    found = _ask(data, "inspect", asked)
    if as_json:
        print_json(found)
    else:
        print_manifest(found)


@cli.command()
@data_option
@json_option
@plain_errors
def indexes(data: Path | None, as_json: bool) -> None:
    """List indexes with their ids and ports.

    The id is what keys of records in the write-ahead log begin with.
    """
    rows = _ask(data, "indexes", {})
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo("there is no index yet; clients create them")
    else:
        print_table(rows, ["index", "index_id", "dimension", "metric", "vector_type", "port"])


@cli.command()
@click.argument("index")
@namespace_option
@data_option
@json_option
@plain_errors
def rebuild(index: str, namespace: str | None, data: Path | None, as_json: bool) -> None:
    """Replay the log into new files and swap them in.

    Queries and writes go on meanwhile. It needs the log from its beginning.
    """
    done = _ask_with_bar(
        data, "rebuild", {"index": index, "namespace": namespace}, as_json, " log records"
    )
    if as_json:
        print_json(done)
    elif not done:
        click.echo(f"nothing of {index} is indexed yet, so there is nothing to rebuild")
    else:
        print_table(done, ["namespace", "version", "indexed_lsn", "records"])


@cli.command()
@click.argument("index")
@namespace_option
@data_option
@json_option
@plain_errors
def recluster(index: str, namespace: str | None, data: Path | None, as_json: bool) -> None:
    """Find clusters anew from the files alone.

    Clusters are split, merged and repaired as data comes and goes, so this is for data that has
    changed its nature. Queries and writes go on meanwhile.
    """
    done = _ask_with_bar(
        data, "recluster", {"index": index, "namespace": namespace}, as_json, " rows"
    )
    if as_json:
        print_json(done)
    elif not done:
        click.echo(f"nothing of {index} is indexed yet, so there is nothing to cluster")
    else:
        print_table(done, ["namespace", "version", "records", "clusters"])
        if not all(row["clusters"] for row in done):
            click.echo("0 clusters: so little that one file has it all; nothing was done")


cli.add_command(snapshot)
cli.add_command(branch)
cli.add_command(restore)
cli.add_command(export)
cli.add_command(gc)
cli.add_command(purge)
cli.add_command(projects)
cli.add_command(keys)
cli.add_command(audit)


@cli.command()
@data_option
@json_option
@plain_errors
def doctor(data: Path | None, as_json: bool) -> None:
    """Check that store, log and catalog keep their promises.

    It writes and deletes under names of its own. Exit status 1 if a check fails.
    """
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
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        print_settings(rows)


def main() -> None:
    """The console script."""
    cli()


if __name__ == "__main__":
    main()
