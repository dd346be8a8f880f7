"""What an import does: which files go into which namespace, and where in them it stands.

The list of files is made once and kept, so that whoever goes on cuts the same rows the same way.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import msgspec

from core.errors import InvalidRequest
from core.limits import IMPORT_NAMESPACES_MAX
from infra.imports.source import SourceFile
from ingest.vectors import checked_namespace

# Positions are LSNs of the namespace in which an import is built: below those of every log, so
# that its deletion, which is an entry of the log, comes after all of them.
_FIRST = -(1 << 62)
_ROW_BITS = 40


@dataclass(frozen=True, slots=True)
class NamespacePlan:
    """number: of the namespace in the import; first: of its first file in the list of all."""

    number: int
    name: str
    first: int
    files: tuple[SourceFile, ...]


class _Files(msgspec.Struct, frozen=True):
    files: list[tuple[str, int, int]]


def encode_plan(files: Sequence[SourceFile]) -> bytes:
    rows = [(file.path, file.size, file.modified_ms) for file in files]
    return zlib.compress(msgspec.msgpack.encode(_Files(rows)), 1)


def decode_plan(data: bytes) -> list[SourceFile]:
    found = msgspec.msgpack.decode(zlib.decompress(data), type=_Files)
    return [SourceFile(*row) for row in found.files]


def namespaces_of(files: Sequence[SourceFile]) -> list[NamespacePlan]:
    """By the first part of the paths, in which `files` are ordered. `InvalidRequest`: a folder's
    name is none of a namespace, or there are too many.
    """
    found: list[NamespacePlan] = []
    first = 0
    for name, group in groupby(files, key=lambda file: file.path.partition("/")[0]):
        try:
            namespace = checked_namespace(name)
        except InvalidRequest as error:
            raise InvalidRequest(f"The folder {name!r} cannot be a namespace: {error}") from error
        own = tuple(group)
        found.append(NamespacePlan(len(found), namespace, first, own))
        first += len(own)
    if len(found) > IMPORT_NAMESPACES_MAX:
        raise InvalidRequest(
            f"An import goes into {IMPORT_NAMESPACES_MAX} namespaces at most, the folder holds "
            f"{len(found)}."
        )
    return found


def position(file: int, row: int) -> int:
    """Behind `row` rows of file number `file`; ascending in that order, and always negative."""
    return _FIRST + (file << _ROW_BITS) + row


def place_of(lsn: int) -> tuple[int, int]:
    """(file, row) of a position."""
    return divmod(lsn - _FIRST, 1 << _ROW_BITS)
