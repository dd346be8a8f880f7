"""`python -m infra.services up | down | status | fetch`: real services for a developer.

Settings go to standard output and everything else to standard error, so that
`eval "$(python -m infra.services up)"` sets a shell up.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from infra.services.process import ServiceError

try:
    from infra.services import kafka, postgres, s3
    from infra.services.deployment import FOLDER, cache_of, services_of
except ModuleNotFoundError as missing:
    raise SystemExit(f"{missing}: pip install 'firndb[kafka,s3,postgres]'") from missing

in_folder = click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=FOLDER,
    show_default=True,
    help="Data, logs, pids and downloads.",
)


def note(text: str) -> None:
    click.echo(text, err=True)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold off a second `up` or `down` in the same folder until this one is done."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Run a real Kafka, S3 server and PostgreSQL on this machine, without Docker."""


@cli.command()
@in_folder
def up(folder: Path) -> None:
    """Start what does not run yet and print the settings to use it."""
    failed = False
    with alone_in(folder):
        for service in services_of(folder):
            if service.pid is not None:
                note(f"{service.name} already runs at {service.address}, pid {service.pid}")
            else:
                note(f"{service.name} starts (the first time after a download) ...")
                try:
                    service.start()
                except ServiceError as error:
                    note(f"{service.name}: {error}")
                    failed = True
                    continue
                note(f"{service.name} runs at {service.address}, pid {service.pid}")
            for key, value in service.settings.items():
                click.echo(f"export {key}={value}")
    if failed:
        raise SystemExit(1)
    note("with these set, `firndb serve` runs on them; `make services-stop` ends them")


@cli.command()
@in_folder
def down(folder: Path) -> None:
    """End the services of this folder, and nothing else; their data stays."""
    with alone_in(folder):
        for service in reversed(services_of(folder)):
            if service.pid is None:
                note(f"{service.name} does not run")
                continue
            service.stop()
            note(f"{service.name} ended")


@cli.command()
@in_folder
def status(folder: Path) -> None:
    """Say what runs from this folder; exit code 1 unless all of it does."""
    running = 0
    for service in services_of(folder):
        pid = service.pid
        running += pid is not None
        click.echo(
            f"{service.name}: " + (f"{service.address}, pid {pid}" if pid else "not running")
        )
    raise SystemExit(0 if running == len(services_of(folder)) else 1)


@cli.command()
@in_folder
def fetch(folder: Path) -> None:
    """Download what the services need and start nothing; exit code 1 if something is missing."""
    cache = cache_of(folder)
    steps: dict[str, Callable[[], Path]] = {
        "kafka": lambda: kafka.fetch(cache),
        "s3": lambda: s3.fetch(cache),
        "postgres": postgres.binaries,
    }
    failed = False
    for name, step in steps.items():
        try:
            note(f"{name}: {step()}")
        except ServiceError as error:
            note(f"{name}: {error}")
            failed = True
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    cli(prog_name="python -m infra.services")
