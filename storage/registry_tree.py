"""The tree of a registry: its rows, sorted by (index id, namespace), cut into sections. No I/O.

A section is immutable. The root names each by its first key, with what is asked of all namespaces
at once (counts, the newest indexed entry), so that nobody has to read them all for it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import msgspec

from core.errors import CorruptData
from core.log import NO_LSN
from storage.encoded_file import EncodedObject
from storage.envelope import seal, unseal
from storage.layout import registry_section_name
from storage.manifest import ObjectRef

SECTION_MAGIC = b"FIRNRGS2"
# Some 20 KB: a commit that touches one namespace writes so much, and the root of 100,000 namespaces
# in one partition is 200 references (some 30 KB). What is written in name order leaves sections of
# SECTION_ROWS behind.
SECTION_ROWS = 500
SPLIT_ROWS = 1_000
MERGE_ROWS = 125

RegistryKey = tuple[str, str]


class NamespaceSummary(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What the newest manifest said when the registry was written. indexed_lsn: inclusive.

    unfinished: compaction may have had work to do; whoever owns the partition next looks again.
    held_from: entries of this namespace from this LSN on may be in no manifest although the
    checkpoint has passed them; NO_LSN for a namespace that keeps up. has_schema: the manifest has
    declared fields.
    """

    generation: int
    version: int
    indexed_lsn: int = NO_LSN
    record_count: int = 0
    byte_count: int = 0
    deleted: bool = False
    unfinished: bool = False
    held_from: int = NO_LSN
    has_schema: bool = False


Row = tuple[RegistryKey, NamespaceSummary]


class IndexTotals(msgspec.Struct, frozen=True, array_like=True):
    """Living namespaces of one index, and their records and bytes."""

    namespaces: int = 0
    records: int = 0
    bytes: int = 0

    def __add__(self, other: "IndexTotals") -> "IndexTotals":
        return IndexTotals(
            self.namespaces + other.namespaces,
            self.records + other.records,
            self.bytes + other.bytes,
        )


class SectionRef(msgspec.Struct, frozen=True, kw_only=True):
    """A section as the root names it; never empty. `inline` is its body where the registry has
    no other, `object` its place below the registry's prefix otherwise.

    indexed_lsn: the highest. held_from: the lowest, NO_LSN for none. totals: by index id.
    """

    first: RegistryKey
    count: int
    unfinished: int
    indexed_lsn: int
    held_from: int
    totals: dict[str, IndexTotals]
    object: ObjectRef | None = None
    inline: bytes = b""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[tuple[str, list[tuple[str, NamespaceSummary]]]])


def encode_rows(rows: Sequence[Row]) -> bytes:
    """A section's body: `[[index id, [[namespace, summary], ...]], ...]`, ascending."""
    groups = groupby(rows, key=lambda row: row[0][0])
    return _encoder.encode(
        [(index_id, [(key[1], summary) for key, summary in group]) for index_id, group in groups]
    )


def decode_rows(body: bytes, where: str) -> list[Row]:
    return [
        ((index_id, name), summary)
        for index_id, rows in _groups(body, where)
        for name, summary in rows
    ]


def find_row(body: bytes, key: RegistryKey, where: str) -> NamespaceSummary | None:
    """As `decode_rows`, for one of them: a third of the time."""
    for index_id, rows in _groups(body, where):
        if index_id == key[0]:
            place = bisect_left(rows, key[1], key=lambda row: row[0])
            return rows[place][1] if place < len(rows) and rows[place][0] == key[1] else None
    return None


def _groups(body: bytes, where: str) -> list[tuple[str, list[tuple[str, NamespaceSummary]]]]:
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptData(f"{where} is no section of a registry: {error}") from error


def inline_section(rows: Sequence[Row]) -> SectionRef:
    return msgspec.structs.replace(_described(rows), inline=encode_rows(rows))


def section_object(rows: Sequence[Row], uuid: str) -> tuple[EncodedObject, SectionRef]:
    data = seal(SECTION_MAGIC, encode_rows(rows))
    encoded = EncodedObject.of(registry_section_name(uuid), data)
    return encoded, msgspec.structs.replace(_described(rows), object=encoded.ref)


def open_section(data: bytes, where: str) -> bytes:
    """The body of a section's object. `CorruptData` names `where`."""
    return unseal(SECTION_MAGIC, data, where)


def _described(rows: Sequence[Row]) -> SectionRef:
    assert rows, "a section is never empty"
    totals: dict[str, IndexTotals] = {}
    for (index_id, _), one in rows:
        more = IndexTotals() if one.deleted else IndexTotals(1, one.record_count, one.byte_count)
        totals[index_id] = totals.get(index_id, IndexTotals()) + more
    held = [one.held_from for _, one in rows if one.held_from != NO_LSN]
    return SectionRef(
        first=rows[0][0],
        count=len(rows),
        unfinished=sum(one.unfinished for _, one in rows),
        indexed_lsn=max(one.indexed_lsn for _, one in rows),
        held_from=min(held, default=NO_LSN),
        totals=totals,
    )


def place_of(sections: Sequence[SectionRef], key: RegistryKey) -> int:
    """The section that has the key, if any has; there is at least one section."""
    return max(0, bisect_right(sections, key, key=lambda ref: ref.first) - 1)


def changed_rows(
    rows: Sequence[Row], changes: Mapping[RegistryKey, NamespaceSummary | None]
) -> list[Row]:
    """The rows after the changes; None takes a row out."""
    merged: dict[RegistryKey, NamespaceSummary | None] = {**dict(rows), **changes}
    return [(key, one) for key, one in sorted(merged.items()) if one is not None]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that become sections of their own."""

    rows: list[Row]


Part = SectionRef | Rows


def cut(parts: Sequence[Part]) -> list[Part]:
    """The same rows in sections of the right size: empty ones dropped, big ones cut evenly."""
    cuts: list[Part] = []
    for part in parts:
        if isinstance(part, SectionRef):
            cuts.append(part)
        else:
            cuts += [Rows(piece) for piece in _pieces(part.rows)]
    return cuts


def _pieces(rows: list[Row]) -> Iterator[list[Row]]:
    pieces = 1 if len(rows) <= SPLIT_ROWS else -(-len(rows) // SECTION_ROWS)
    for number in range(pieces if rows else 0):
        yield rows[len(rows) * number // pieces : len(rows) * (number + 1) // pieces]


def small_neighbour(parts: Sequence[Part]) -> tuple[int, int] | None:
    """(a part that is too small, the neighbour to join it with), or None if there is none.

    Only parts that are written anyway look for one, and only a neighbour that then needs no cut.
    """
    sizes = [part.count if isinstance(part, SectionRef) else len(part.rows) for part in parts]
    for place, part in enumerate(parts):
        if isinstance(part, SectionRef) or sizes[place] >= MERGE_ROWS:
            continue
        beside = [n for n in (place - 1, place + 1) if 0 <= n < len(parts)]
        beside = [n for n in beside if sizes[n] + sizes[place] <= SPLIT_ROWS]
        if beside:
            return place, min(beside, key=lambda n: sizes[n])
    return None
