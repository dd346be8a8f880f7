"""Commands on projects, their API keys, and the log of who changed what."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cli.asking import ask, data_option
from cli.output import json_option, plain_errors, print_json, print_table
from infra.catalog.model import KeyRole

KEY_COLUMNS = ["id", "name", "project", "prefix", "role", "created", "expires", "revoked"]

project_option = click.option("--project", help="Only of this project; without it of all of them.")


def role_option(default: str | None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--role",
        type=click.Choice([role.value for role in KeyRole]),
        default=default,
        show_default=default is not None,
        help="admin: everything; read-write: records; read-only: no change at all.",
    )


@click.group()
def projects() -> None:
    """Projects: create, list, delete. Each has indexes and API keys of its own."""


@projects.command("create")
@click.argument("name")
@data_option
@json_option
@plain_errors
def projects_create(name: str, data: Path | None, as_json: bool) -> None:
    """Make a project.

    `firndb keys create --project NAME` then lets somebody in.
    """
    made = ask(data, "projects-create", {"name": name})
    if as_json:
        print_json(made)
    else:
        click.echo(f"{made['name']} (id {made['id']})")


@projects.command("list")
@data_option
@json_option
@plain_errors
def projects_list(data: Path | None, as_json: bool) -> None:
    """List projects."""
    found = ask(data, "projects-list", {})
    if as_json:
        print_json(found)
    elif not found:
        click.echo("there is no project yet; the first start of a server makes one")
    else:
        print_table(found, ["name", "id", "created"])


@projects.command("delete")
@click.argument("name")
@data_option
@json_option
@plain_errors
def projects_delete(name: str, data: Path | None, as_json: bool) -> None:
    """Delete a project that has nothing left.

    That is: no index, collection or backup. Its API keys are revoked.
    """
    done = ask(data, "projects-delete", {"name": name})
    if as_json:
        print_json(done)
    else:
        click.echo(f"deleted {done['deleted']}")


@click.group()
def keys() -> None:
    """API keys: create, list, change, rotate, revoke."""


@keys.command("create")
@click.argument("name", default="")
@click.option("--project", help="Whose key it is.  [default: default]")
@role_option(KeyRole.ADMIN.value)
@click.option("--expires", help="When it ends by itself, such as 2026-12-31T18:00:00Z.")
@data_option
@json_option
@plain_errors
def keys_create(data: Path | None, as_json: bool, **arguments: str | None) -> None:
    """Make an API key, shown once.

    Only its hash is stored. NAME is for you, to find it again in `firndb keys list`.
    """
    _print_secret(ask(data, "keys-create", arguments), as_json)


@keys.command("list")
@project_option
@data_option
@json_option
@plain_errors
def keys_list(project: str | None, data: Path | None, as_json: bool) -> None:
    """List API keys, without their secrets."""
    found = ask(data, "keys-list", {"project": project})
    if as_json:
        print_json(found)
    else:
        print_table(found, KEY_COLUMNS)


@keys.command("change")
@click.argument("key")
@click.option("--name", help="Another name.")
@role_option(None)
@project_option
@data_option
@json_option
@plain_errors
def keys_change(key: str, data: Path | None, as_json: bool, **arguments: str | None) -> None:
    """Give a key another name or role.

    KEY is its id, prefix or name. Its secret stays.
    """
    changed = ask(data, "keys-change", {"wanted": key, **arguments})
    if as_json:
        print_json(changed)
    else:
        print_table([changed], KEY_COLUMNS)


@keys.command("rotate")
@click.argument("key")
@click.option(
    "--keep-old-s",
    type=click.FloatRange(min=0),
    default=0,
    show_default=True,
    help="How many seconds the old secret stays valid.",
)
@project_option
@data_option
@json_option
@plain_errors
def keys_rotate(
    key: str, keep_old_s: float, project: str | None, data: Path | None, as_json: bool
) -> None:
    """Give a key a new secret, shown once.

    KEY is its id, prefix or name.
    """
    asked = {"wanted": key, "keep_old_s": keep_old_s, "project": project}
    _print_secret(ask(data, "keys-rotate", asked), as_json)


@keys.command("revoke")
@click.argument("key")
@project_option
@data_option
@json_option
@plain_errors
def keys_revoke(key: str, project: str | None, data: Path | None, as_json: bool) -> None:
    """Revoke a key by its id, prefix or name.

    It is refused everywhere within seconds.
    """
    done = ask(data, "keys-revoke", {"wanted": key, "project": project})
    if as_json:
        print_json(done)
    else:
        click.echo(f"revoked {done['revoked']}")


@click.command()
@project_option
@click.option("--limit", default=100, show_default=True, help="How many entries, 1 to 1000.")
@click.option("--since", help="Only from this time on, such as 2026-01-31T18:00:00Z.")
@data_option
@json_option
@plain_errors
def audit(data: Path | None, as_json: bool, **arguments: Any) -> None:
    """Show who changed indexes, keys and projects, the newest first.

    key_id is `operator` for commands such as `firndb keys`; an outcome `begun` was never told.
    """
    found = ask(data, "audit", arguments)
    if as_json:
        print_json(found)
    elif not found:
        click.echo("nothing was changed")
    else:
        print_table(
            found, ["time", "project", "key_id", "action", "resource", "outcome", "request_id"]
        )


def _print_secret(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(made)
    else:
        click.echo(f"{made['key']}\n(id {made['id']}; keep the key, it is not shown again)")
