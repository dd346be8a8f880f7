"""Checks and conversions of what records are made of: ids, dense and sparse values, metadata.

Raises `InvalidRequest` with Pinecone's wording where it is known. The checks are stable: what
passed once and was written to the log passes again when it is read from there.
"""

import math
import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import orjson

from core.errors import InvalidRequest
from core.indexes import canonical_namespace
from core.limits import (
    ID_CHARS_MAX,
    METADATA_BYTES_MAX,
    NAMESPACE_CHARS_MAX,
    SPARSE_INDEX_MAX,
    SPARSE_NONZERO_MAX,
)
from core.records import Metadata, MetadataValue, SparseValues, Vector
from ingest.bodies import SparseBody

_SHOWN_CHARS = 80


class WrongDimension(InvalidRequest):
    """A dense vector's length is not the dimension of the index."""


def checked_id(record_id: str) -> str:
    if not 1 <= len(record_id) <= ID_CHARS_MAX:
        raise InvalidRequest(
            f"Vector ID must be between 1 and {ID_CHARS_MAX} characters long, "
            f"got {len(record_id)} characters."
        )
    if not record_id.isascii() or "\0" in record_id:
        raise InvalidRequest(f"Vector ID must be ASCII without NUL, but got '{shown(record_id)}'.")
    return record_id


def checked_namespace(name: str | None) -> str:
    """The canonical name: `""` and None are the default namespace."""
    namespace = canonical_namespace(name)
    if len(namespace) > NAMESPACE_CHARS_MAX:
        raise InvalidRequest(
            f"A namespace's name must be at most {NAMESPACE_CHARS_MAX} characters long, "
            f"got {len(namespace)} characters."
        )
    if not namespace.isascii() or "\0" in namespace:
        raise InvalidRequest(
            f"A namespace's name must be ASCII without NUL, but got '{shown(namespace)}'."
        )
    return namespace


def checked_prefix(prefix: str) -> str:
    """Of ids or of names of namespaces; an empty one is that of all."""
    if len(prefix) > ID_CHARS_MAX or not prefix.isascii() or "\0" in prefix:
        raise InvalidRequest(
            f"A prefix must be at most {ID_CHARS_MAX} ASCII characters without NUL, "
            f"but got '{shown(prefix)}'."
        )
    return prefix


def dense_vectors(
    ids: Sequence[str], values: Sequence[bytes | list[float] | None], dimension: int
) -> list[Vector]:
    """float32 (dimension,) each: read-only rows of one array for all of them.

    A batch at a time, because numpy's cost is per call: 100 x 384 take about 0.3 ms.
    """
    packed = [_packed(i, v, dimension) for i, v in zip(ids, values, strict=True)]
    matrix = np.frombuffer(b"".join(packed), dtype="<f4").reshape(-1, dimension)
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        bad = ids[int(np.argmin(finite))]
        raise InvalidRequest(
            f"Dense vectors must contain finite 32-bit floats. Vector ID '{bad}' contains "
            "NaN or a value out of range."
        )
    filled = matrix.any(axis=1)
    if not filled.all():
        bad = ids[int(np.argmin(filled))]
        raise InvalidRequest(
            "Dense vectors must contain at least one non-zero value. "
            f"Vector ID '{bad}' contains only zeros."
        )
    return list(matrix)


def query_vector(values: bytes | list[float], dimension: int) -> Vector:
    """float32 (dimension,); all zeros are allowed: hybrid clients send them to switch the dense
    part off.
    """
    vector = np.frombuffer(_packed("", values, dimension), dtype="<f4")
    if not np.isfinite(vector).all():
        raise InvalidRequest("The query vector contains NaN or a value out of range of float32.")
    return vector


def sparse_values(body: SparseBody, where: str) -> SparseValues:
    """Sorted by index. `where` names the vector in error texts, like `Vector ID 'a'`."""
    indices, values = _sparse_indices(body.indices, where), _sparse_numbers(body.values, where)
    if len(indices) != len(values):
        raise InvalidRequest(
            f"Sparse vectors must have as many indices as values. {where} has {len(indices)} "
            f"indices and {len(values)} values."
        )
    if len(indices) == 0:
        raise InvalidRequest(f"Sparse vectors must contain at least one value. {where} has none.")
    if len(indices) > SPARSE_NONZERO_MAX:
        raise InvalidRequest(
            f"Sparse vectors must contain at most {SPARSE_NONZERO_MAX} values. "
            f"{where} has {len(indices)}."
        )
    if not np.isfinite(values).all():
        raise InvalidRequest(
            f"Sparse vectors must contain finite 32-bit floats. {where} contains NaN or a value "
            "out of range."
        )
    order = np.argsort(indices)
    indices, values = indices[order], values[order]
    if (indices[1:] == indices[:-1]).any():
        raise InvalidRequest(f"Sparse vectors must have unique indices. {where} repeats one.")
    return SparseValues(indices, values)


def checked_metadata(metadata: Mapping[str, object] | None, where: str) -> Metadata:
    """Flat, typed, numbers as float64. `where` names the vector in error texts."""
    if not metadata:
        return {}
    checked_fields(metadata, where)
    checked: Metadata = {f: _metadata_value(f, value, where) for f, value in metadata.items()}
    try:
        size = len(orjson.dumps(checked))
    except orjson.JSONEncodeError as error:
        raise InvalidRequest(f"Metadata must be valid UTF-8: {error} in {where}.") from error
    if size > METADATA_BYTES_MAX:
        raise InvalidRequest(
            f"Metadata size is {size} bytes, which exceeds the limit of {METADATA_BYTES_MAX} "
            f"bytes per vector, in {where}."
        )
    return checked


def checked_fields(names: Iterable[str], where: str) -> None:
    """Of metadata; `where` names what has them in error texts."""
    for name in names:
        if not name or name.startswith("$"):
            raise InvalidRequest(
                f"Metadata fields must be non-empty and not start with $, got "
                f"'{shown(name)}' in {where}."
            )


def shown(text: str) -> str:
    """A few characters of what was sent, for an error text."""
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def _metadata_value(field: str, value: object, where: str) -> MetadataValue:
    match value:
        case str() | bool():
            return value
        case int() | float():
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if math.isfinite(number):
                return number
        case list() if all(isinstance(element, str) for element in value):
            return value
    kind = {type(None): "null", dict: "an object", list: "a list with other elements"}
    got = kind.get(type(value), f"'{shown(str(value)[:_SHOWN_CHARS])}'")
    raise InvalidRequest(
        "Metadata value must be a string, number, boolean or list of strings, "
        f"got {got} for field '{shown(field)}' in {where}."
    )


def _packed(record_id: str, values: bytes | list[float] | None, dimension: int) -> bytes:
    """The values as little-endian float32; a number beyond its range raises."""
    if isinstance(values, bytes):
        count, odd = divmod(len(values), 4)
        if odd:
            raise InvalidRequest(
                f"Values given as bytes must be little-endian float32, 4 bytes each; "
                f"got {len(values)} bytes."
            )
    else:
        count = len(values) if values else 0
    if count != dimension:
        raise WrongDimension(
            f"Vector dimension {count} does not match the dimension of the index {dimension}"
        )
    if isinstance(values, bytes):
        return values
    assert values is not None, "an index has at least one dimension"
    return _floats(values, f"Vector ID '{record_id}'" if record_id else "The query vector")


def _floats(values: list[float], where: str) -> bytes:
    # struct packs a list about twice as fast as numpy reads one
    try:
        return struct.pack(f"<{len(values)}f", *values)
    except OverflowError as error:
        raise InvalidRequest(
            f"Values must be within the range of 32-bit floats; {where} has one that is not."
        ) from error


def _sparse_indices(indices: bytes | list[int], where: str) -> "np.typing.NDArray[np.uint32]":
    if isinstance(indices, bytes):
        return np.frombuffer(_whole(indices, where), dtype="<u4")
    if indices and not (min(indices) >= 0 and max(indices) <= SPARSE_INDEX_MAX):
        raise InvalidRequest(
            f"Sparse indices must be between 0 and {SPARSE_INDEX_MAX}. {where} has another one."
        )
    return np.array(indices, dtype=np.uint32)


def _sparse_numbers(values: bytes | list[float], where: str) -> Vector:
    packed = _whole(values, where) if isinstance(values, bytes) else _floats(values, where)
    return np.frombuffer(packed, dtype="<f4")


def _whole(packed: bytes, where: str) -> bytes:
    if len(packed) % 4:
        raise InvalidRequest(
            f"Sparse indices and values given as bytes take 4 bytes each. {where} has "
            f"{len(packed)} bytes."
        )
    return packed
