"""The API key of a first start: the one that was given, or one made and shown once."""

from pathlib import Path

from cli.runtime.parts import Parts
from core.errors import AlreadyExists, ConfigError
from infra.catalog.keys import hash_of, new_key

# Not indented, and no block that an empty line would have to end: to be pasted into any prompt.
SNIPPET = """
from pinecone import Pinecone, ServerlessSpec  # pip install pinecone

pc = Pinecone(
    api_key="{key}",
    host="{url}",
)
spec = ServerlessSpec(cloud="aws", region="us-east-1")
pc.create_index("words", dimension=3, metric="cosine", spec=spec)
index = pc.Index(host=pc.describe_index("words").host)
index.upsert(vectors=[{{"id": "a", "values": [1, 0, 0], "metadata": {{"kind": "noun"}}}}])
print(index.query(vector=[1, 0, 0], top_k=1, include_metadata=True).matches)
"""


async def ensure_key(parts: Parts) -> str | None:
    """Make sure that somebody can get in; returns a key that was made just now, to be shown once.

    `ConfigError` if the key that was given is revoked or not fit to be one.
    """
    project = await parts.catalog.ensure_project()
    given = parts.settings.api_key
    if given is not None:
        secret = given.get_secret_value()
        if await parts.catalog.caller_of(hash_of(secret)) is None:
            try:
                await parts.catalog.add_key(project.project_id, secret, name="settings")
            except AlreadyExists as error:
                raise ConfigError("the given API key is revoked; choose another") from error
        return None
    if any(key.is_valid(parts.clock.now_ms()) for key in await parts.catalog.keys()):
        return None
    secret = new_key()
    await parts.catalog.add_key(project.project_id, secret, name="first")
    return secret


def first_words(url: str, key: str | None, data: Path) -> str:
    """What a person reads when the server is up. `key`: made just now."""
    lines = [f"FirnDB serves on {url}, data in {data}; Ctrl-C stops it"]
    if key is None:
        known = "valid API keys are those given or made before; `firndb keys create` makes another"
        return "\n".join([*lines, known])
    lines += ["", f"API key, shown this once: {key}", "To try it, paste into Python:"]
    return "\n".join([*lines, SNIPPET.format(key=key, url=url)])
