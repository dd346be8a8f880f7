"""Parquet files for imports: records whose content follows from their number alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DIMENSION = 16


def vectors(first: int, count: int, dimension: int = DIMENSION) -> "np.ndarray[Any, Any]":
    """float32 (count, dimension): row r is that of record `first + r`."""
    rows = np.arange(first, first + count, dtype=np.float64)[:, None]
    columns = np.arange(1, dimension + 1, dtype=np.float64)[None, :]
    return np.sin(rows * 0.37 + columns * (1 + rows % 11)).astype(np.float32)


def metadata(number: int) -> dict[str, Any]:
    return {"n": number, "even": number % 2 == 0, "tags": [f"t{number % 5}"], "name": f"r{number}"}


def table(first: int, count: int, dimension: int = DIMENSION) -> pa.Table:
    """Records `r{first}` and so on, as an import takes them."""
    flat: Any = pa.array(vectors(first, count, dimension).ravel())
    offsets: Any = pa.array(np.arange(0, (count + 1) * dimension, dimension, dtype=np.int32))
    numbers = range(first, first + count)
    return pa.table(
        {
            "id": [f"r{number}" for number in numbers],
            "values": pa.ListArray.from_arrays(offsets, flat),
            "metadata": [json.dumps(metadata(number)) for number in numbers],
        }
    )


def write(path: Path, made: pa.Table | Mapping[str, Any], row_group: int = 10_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = made if isinstance(made, pa.Table) else pa.table(dict(made))
    pq.write_table(made, path, row_group_size=row_group)
