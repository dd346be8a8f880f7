"""Commands on a deployment: through its owner's admin endpoint, or by opening it.

An embedded data folder has one owner. While a server owns it, a command sends its verb to the
server (one JSON line back per progress step, then the result); otherwise the command owns the
folder for as long as it takes. A distributed deployment is opened directly: its parts are shared
by design.
"""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

from api.admin import PREFIX, TOKEN_HEADER
from cli.runtime.folder import ServerAddress, owned, running_server
from core.errors import ConfigError, FirnError
from infra.settings import Settings
from infra.tls import own_server_only

Progress = Callable[[dict[str, Any]], None]


class CommandFailed(FirnError):
    """What the server said went wrong."""


def ask(settings: Settings, verb: str, arguments: dict[str, Any], progress: Progress) -> Any:
    """Carry out one verb of `cli.runtime.verbs` and return its result (plain JSON values)."""
    if settings.kafka is not None:
        return asyncio.run(_locally(settings, verb, arguments, progress))
    server = running_server(settings.data)
    if server is not None:
        return _remotely(server, verb, arguments, progress)
    if not settings.data.exists():
        raise ConfigError(
            f"there is no data folder {settings.data}; name it with --data, or start a server"
        )
    with owned(settings.data):
        return asyncio.run(_locally(settings, verb, arguments, progress))


async def _locally(
    settings: Settings, verb: str, arguments: dict[str, Any], progress: Progress
) -> Any:
    from cli.runtime.branching import NEED_BUILDER
    from cli.runtime.consuming import indexing
    from cli.runtime.parts import open_parts
    from cli.runtime.verbs import run_verb

    result = None
    async with AsyncExitStack() as stack:
        parts = await stack.enter_async_context(open_parts(settings))
        if settings.kafka is None and verb in NEED_BUILDER:
            await stack.enter_async_context(indexing(parts))
        lines = await stack.enter_async_context(aclosing(run_verb(parts, verb, arguments)))
        async for line in lines:
            if "result" in line:
                result = line["result"]
            else:
                progress(line)
    return result


def _remotely(
    server: ServerAddress, verb: str, arguments: dict[str, Any], progress: Progress
) -> Any:
    for line in _lines(server, verb, arguments):
        if "error" in line:
            raise CommandFailed(line["error"])
        if "result" in line:
            return line["result"]
        progress(line)
    raise CommandFailed("the server ended in the middle of the command; look at its log")


def _lines(server: ServerAddress, verb: str, arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    request = urllib.request.Request(
        f"{server.url}{PREFIX}/{verb}",
        data=json.dumps(arguments).encode(),
        headers={TOKEN_HEADER: server.token, "content-type": "application/json"},
        method="POST",
    )
    try:
        trust = None if server.certificate is None else own_server_only(Path(server.certificate))
        with urllib.request.urlopen(request, timeout=600, context=trust) as answer:
            for line in answer:
                yield json.loads(line)
    except urllib.error.HTTPError as error:
        raise CommandFailed(
            f"the server at {server.url} refuses: {error.read().decode()}"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"the server at {server.url} (process {server.pid}) does not answer: {error}"
        ) from error
