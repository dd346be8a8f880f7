"""`ParquetReader`: the records of Parquet files, decoded by a process that may die of them."""

import asyncio
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import CorruptData, InvalidRequest
from core.indexes import IndexInfo
from core.limits import IMPORT_READER_BYTES_MAX
from core.records import Record, SparseValues
from ingest.parquet.frames import Batch, End, Next, Open, Opened, Refused, read_answer, send

# A batch takes some milliseconds; a file that skips far, or swaps, takes longer.
ANSWER_S = 300.0
_ROOT = Path(__file__).resolve().parents[2]


class BadRow(InvalidRequest):
    """A row is no record, and the import ends with the first one."""


@dataclass(frozen=True, slots=True, eq=False)
class RecordBatch:
    """Records of rows below `next_row`, behind those of the last batch. size_bytes: of all of them,
    packed.
    """

    next_row: int
    records: tuple[Record, ...]
    size_bytes: int
    skipped: int
    reasons: tuple[str, ...]


class ParquetReader:
    """For one index and one user at a time. The process starts with the first file."""

    def __init__(self, info: IndexInfo, *, abort: bool) -> None:
        self._info = info
        self._abort = abort
        self._process: subprocess.Popen[bytes] | None = None
        self._peer: socket.socket | None = None

    async def open(self, descriptor: int, skip_rows: int = 0) -> int:
        """The number of rows. Takes the descriptor, and goes on behind `skip_rows` rows.

        `InvalidRequest`: it is no Parquet file with the columns of an import.
        """
        info = self._info
        question = Open(
            index_id=info.index_id,
            dimension=info.dimension,
            metric=info.metric.value,
            vector_type=info.vector_type.value,
            skip_rows=skip_rows,
            abort=self._abort,
        )
        try:
            answer, _ = await self._ask(question, descriptor)
        finally:
            os.close(descriptor)
        assert isinstance(answer, Opened), answer
        return answer.rows

    async def next(self) -> RecordBatch | None:
        """None: there are no more rows. `BadRow` if that ends the import, `InvalidRequest`."""
        answer, size = await self._ask(Next(), None)
        if isinstance(answer, End):
            return None
        assert isinstance(answer, Batch), answer
        return await asyncio.to_thread(_decoded, answer, size, self._info.dimension)

    async def close(self) -> None:
        process, self._process = self._process, None
        if self._peer is not None:
            self._peer.close()
            self._peer = None
        if process is not None:
            process.kill()
            await asyncio.to_thread(process.wait)

    async def _ask(
        self, question: Open | Next, descriptor: int | None
    ) -> tuple[Opened | Batch | End, int]:
        try:
            answer, size = await asyncio.to_thread(self._exchange, question, descriptor)
        except BaseException:
            await self.close()  # an answer on its way would be taken for the next one's
            raise
        if isinstance(answer, Refused):
            if answer.row is not None:
                raise BadRow(f"row {answer.row}: {answer.text}")
            raise InvalidRequest(answer.text)
        return answer, size

    def _exchange(
        self, question: Open | Next, descriptor: int | None
    ) -> tuple[Opened | Batch | End | Refused, int]:
        peer = self._peer or self._start()
        try:
            send(peer, question, descriptor)
            return read_answer(peer)
        except TimeoutError:
            raise InvalidRequest(f"it takes more than {ANSWER_S:.0f} s to decode") from None
        except (EOFError, OSError) as error:
            raise InvalidRequest("decoding it made the process that decodes it end") from error
        except CorruptData as error:
            raise InvalidRequest(str(error)) from error

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
            given = (str(theirs.fileno()), str(IMPORT_READER_BYTES_MAX))
            self._process = subprocess.Popen(
                (sys.executable, "-m", "ingest.parquet.child", *given),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Arrow's other allocators reserve memory by the gigabyte, which its bound counts.
                env={**os.environ, "PYTHONPATH": path, "ARROW_DEFAULT_MEMORY_POOL": "system"},
            )
        ours.settimeout(ANSWER_S)
        self._peer = ours
        return ours


def _decoded(batch: Batch, size: int, dimension: int | None) -> RecordBatch:
    vectors: Any = [None] * len(batch.ids)
    if dimension is not None:
        vectors = np.frombuffer(batch.values, dtype="<f4").reshape(-1, dimension)
    records = tuple(
        [
            Record(record_id, values, None if sparse is None else _sparse(sparse), metadata)
            for record_id, values, sparse, metadata in zip(
                batch.ids, vectors, batch.sparse, batch.metadata, strict=True
            )
        ]
    )
    return RecordBatch(
        next_row=batch.next_row,
        records=records,
        size_bytes=size,
        skipped=batch.skipped,
        reasons=tuple(batch.reasons),
    )


def _sparse(packed: tuple[bytes, bytes]) -> SparseValues:
    return SparseValues(
        np.frombuffer(packed[0], dtype="<u4"), np.frombuffer(packed[1], dtype="<f4")
    )
