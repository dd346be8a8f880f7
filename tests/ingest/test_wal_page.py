"""`docs/wal.md` is a contract with people who produce to the topic: its examples must be accepted
as they stand.
"""

import ast
import json
import re
from pathlib import Path

import pytest

from core.indexes import IndexInfo
from core.limits import LOG_RECORD_BYTES_MAX
from core.log import LogRecord
from core.partition import partition_of
from ingest.admit import Admitted, admit
from ingest.dead_letters import VALUE_BYTES_MAX
from ingest.entries import EntryBody
from ingest.rejection import Reason
from ingest.schema import render
from tests.ingest.indexes import HYBRID

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "wal.md").read_text()
PARTITIONS = 16


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


class AnyIndex:
    async def find(self, index_id: str) -> IndexInfo | None:
        return HYBRID


async def operations(value: bytes, key: bytes = b"3f2a/films") -> list[str]:
    headers = (("content-type", b"application/json"),)
    record = LogRecord(partition_of(key, PARTITIONS), 0, key, headers, value, 0)
    verdict = await admit(record, AnyIndex(), PARTITIONS)
    assert isinstance(verdict, Admitted), verdict
    assert not verdict.rejected
    return [type(entry.operation).__name__ for entry in verdict.write.entries]


@pytest.mark.parametrize("example", blocks("json"))
async def test_a_json_example_is_admitted(example: str) -> None:
    assert await operations(example.encode())


async def test_the_examples_show_every_operation() -> None:
    shown = {name for example in blocks("json") for name in await operations(example.encode())}
    assert shown == {
        "Upsert",
        "UpdateById",
        "UpdateByFilter",
        "DeleteIds",
        "DeleteByFilter",
        "DeleteAll",
        "CreateNamespace",
        "DeleteNamespace",
        "Attach",
    }


async def test_the_shell_example_is_admitted() -> None:
    (shell,) = blocks("sh")
    (value,) = re.findall(r"echo '(.*)'", shell)
    (key,) = re.findall(r"-k (\S+)", shell)
    assert await operations(value.encode(), key.encode()) == ["DeleteIds"]
    assert "partitioner=murmur2_random" in shell


async def test_the_python_example_is_valid_and_produces_an_admitted_record() -> None:
    (source,) = blocks("python")
    tree = ast.parse(source)
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    entry = next(
        ast.literal_eval(a.value) for a in assigned if ast.unparse(a.targets[0]) == "entry"
    )
    assert await operations(json.dumps(entry).encode()) == ["Upsert"]
    assert '"partitioner": "murmur2_random"' in source


def test_every_reason_is_explained_and_no_other() -> None:
    table = PAGE[PAGE.index("| code | what to do |") :]
    assert re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE) == [r.value for r in Reason]


def test_the_numbers_are_the_codes() -> None:
    assert PAGE.count(f"{LOG_RECORD_BYTES_MAX >> 20} MiB") == 2
    assert f"{VALUE_BYTES_MAX >> 10} KiB" in PAGE
    for entry in EntryBody.__args__:
        assert f"`{entry.__struct_config__.tag}`" in PAGE


def test_the_published_schema_is_up_to_date() -> None:
    published = (DOCS / "wal.schema.json").read_bytes()
    assert published == render(), "run: python -m ingest.schema docs/wal.schema.json"
