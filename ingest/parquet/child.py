"""The process that decodes files: `python -m ingest.parquet.child FD BYTES`: its socket, and the
memory that it may take.

Parquet is a format in which a small file may say that it is huge, decoded by a library in C++. Here
it may be wrong without harm: memory is bounded by the system, and what dies is only this process.
It opens nothing itself, is given descriptors, and ends with its parent.
"""

import os
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from core.indexes import IndexInfo, IndexState, VectorType
from core.limits import IMPORT_REASONS_MAX
from core.metric import Metric
from ingest.parquet.frames import (
    Batch,
    End,
    Next,
    Open,
    Opened,
    Refused,
    read_question,
    send,
)
from ingest.parquet.rows import BadFile, Judged, RowReader

# Of a footer: thousands of row groups are some megabytes.
_THRIFT_BYTES_MAX = 64 << 20


def main() -> None:
    peer, bytes_max = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    bound_memory(bytes_max)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    batches: Iterator[Batch | Refused] = iter(())
    while (asked := read_question(peer)) is not None:
        question, descriptor = asked
        answer: Opened | Batch | End | Refused
        try:
            if isinstance(question, Open):
                assert descriptor is not None, "a file comes with its question"
                answer, batches = opened(question, descriptor)
            else:
                assert isinstance(question, Next), question
                answer = next(batches, End())
        except MemoryError:
            answer = Refused(
                f"it takes more than {bytes_max} bytes of memory to decode; write it with smaller "
                "row groups and pages"
            )
        except BadFile as error:
            answer = Refused(str(error))
        except Exception as error:  # noqa: BLE001 - whatever a bad file makes the decoder say
            answer = Refused(f"it cannot be read as Parquet: {type(error).__name__}: {error}")
        send(peer, answer)


def bound_memory(size: int) -> None:
    """So many more bytes than now: of private memory on Linux, nothing on systems without."""
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + size
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def opened(question: Open, descriptor: int) -> tuple[Opened, Iterator[Batch | Refused]]:
    info = IndexInfo(
        index_id=question.index_id,
        project_id="",
        name="",
        dimension=question.dimension,
        metric=Metric(question.metric),
        vector_type=VectorType(question.vector_type),
        state=IndexState.READY,
    )
    file = pq.ParquetFile(
        pa.PythonFile(os.fdopen(descriptor, "rb"), mode="r"),
        thrift_container_size_limit=_THRIFT_BYTES_MAX,
        thrift_string_size_limit=_THRIFT_BYTES_MAX,
        pre_buffer=False,
    )
    reader = RowReader(file, info)
    return Opened(reader.rows), _batches(reader, question)


def _batches(reader: RowReader, question: Open) -> Iterator[Batch | Refused]:
    for judged in reader.judged(question.skip_rows):
        if question.abort and judged.wrong:
            row, text = judged.wrong[0]
            yield Refused(text, row)
            return
        yield _batch(judged, dense=question.dimension is not None)


def _batch(judged: Judged, *, dense: bool) -> Batch:
    records = judged.records
    return Batch(
        next_row=judged.first_row + judged.rows,
        ids=[record.id for record in records],
        values=b"".join([r.values.tobytes() for r in records if r.values is not None])
        if dense
        else b"",
        sparse=[
            None
            if record.sparse is None
            else (record.sparse.indices.tobytes(), record.sparse.values.tobytes())
            for record in records
        ],
        metadata=[record.metadata for record in records],
        skipped=len(judged.wrong),
        reasons=[f"row {row}: {text}" for row, text in judged.wrong[:IMPORT_REASONS_MAX]],
    )


if __name__ == "__main__":
    main()
