"""A log consumer that keeps a diary, and a process for it: `python -m tests.faust_worker '{json}'`.

The diary (`diary`, one JSON object a line, flushed at once) survives SIGKILL and tells what the
driver did. The checkpoint of a partition is a file in `checkpoints`, shared by all workers of a
test, as the object store is in production.
"""

import asyncio
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.log import LogRecord
from infra.faust import FaustSettings, run_faust_consumer


class DiaryConsumer:
    """A `LogConsumer`. `apply_s`: time a batch takes; `assign_s`: of a slow object store.

    `block_s`: how long `apply` blocks the event loop, which no handler may.
    """

    def __init__(
        self,
        diary: Path,
        checkpoints: Path,
        *,
        apply_s: float = 0.0,
        assign_s: float = 0.0,
        slow_partition: int | None = None,
        block_s: float = 0.0,
    ) -> None:
        self._diary = diary
        self._checkpoints = checkpoints
        self._apply_s = apply_s
        self._assign_s = assign_s
        self._slow = slow_partition
        self._block_s = block_s
        self._applied: dict[int, int] = {}

    def note(self, what: str, **facts: object) -> None:
        with self._diary.open("a") as diary:
            diary.write(json.dumps({"what": what, "pid": os.getpid(), **facts}) + "\n")

    async def assign(self, partition: int) -> int:
        self.note("assigning", partition=partition)
        await asyncio.sleep(self._assign_s)
        file = self._checkpoints / str(partition)
        start = int(file.read_text()) if file.exists() else 0
        self._applied[partition] = start
        self.note("assign", partition=partition, start=start)
        return start

    async def apply(self, partition: int, records: Sequence[LogRecord]) -> None:
        if self._slow is None or self._slow == partition:
            await asyncio.sleep(self._apply_s)
        time.sleep(self._block_s)  # noqa: ASYNC251 - the fault that a test wants
        for record in records:
            value = record.value
            digest = None if value is None else hashlib.md5(value).hexdigest()
            self.note(
                "record",
                partition=partition,
                offset=record.offset,
                value=digest,
                size=len(value or b""),
                headers=[name for name, _ in record.headers],
            )
        self._applied[partition] = records[-1].offset + 1
        pending = self._checkpoints / f"{partition}.{os.getpid()}"
        pending.write_text(str(self._applied[partition]))
        pending.replace(self._checkpoints / str(partition))

    async def revoke(self, partitions: Sequence[int], *, lost: bool) -> None:
        self.note("revoke", partitions=list(partitions), lost=lost)
        for partition in partitions:
            self._applied.pop(partition, None)

    def applied(self, partition: int) -> int:
        return self._applied[partition]

    def committable(self, partition: int) -> int:
        return self._applied[partition]


def read_diary(diary: Path) -> list[dict[str, Any]]:
    """All whole lines; a line cut by SIGKILL is not one."""
    if not diary.exists():
        return []
    text = diary.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


async def main(arguments: dict[str, Any]) -> None:
    consumer = DiaryConsumer(
        Path(arguments["diary"]), Path(arguments["checkpoints"]), **arguments.get("consumer", {})
    )
    options = {**arguments["settings"], "data_dir": Path(arguments["settings"]["data_dir"])}
    consumer.note("started")
    await run_faust_consumer(consumer, FaustSettings(**options))
    consumer.note("ended")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    asyncio.run(main(json.loads(sys.argv[1])))
