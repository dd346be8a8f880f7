"""The JSON Schema of the log's wire format, published as `docs/wal.schema.json`.

`python -m ingest.schema docs/wal.schema.json` writes it; a test says when that is due.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec
import orjson

from ingest.entries import EntryBody, Envelope


def json_schema() -> dict[str, Any]:
    """What a JSON record's value may be: an envelope, or one entry alone."""
    (envelope, entry), components = msgspec.json.schema_components(
        [Envelope, EntryBody], ref_template="#/$defs/{name}"
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "FirnDB write-ahead log record, schema version 1",
        "description": "The value of a record of the topic firn.wal as JSON; see wal.md.",
        "anyOf": [envelope, entry],
        "$defs": components,
    }


def render() -> bytes:
    """The schema as it lies in `docs/`."""
    return orjson.dumps(json_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(render())
