"""Fetches and keeps the sections of big manifests.

A reader that knows nothing of a namespace fetches, beside the hint, two *packs* under fixed keys:
copies of all sections that the newest manifest names, so that it needs no second round. They are
hints as well: what is missing there or wrong is fetched by name. The sections of edits have a pack
of their own, which is small and written again every few commits; that of the base is written once
in hundreds.
"""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import msgspec

from core.errors import CorruptData, ObjectNotFound, Unavailable
from core.object_store import ObjectStore
from storage.checksum import checksum
from storage.encoded_file import EncodedObject
from storage.envelope import seal, unseal
from storage.layout import base_pack_key, edits_pack_key
from storage.manifest import Edits, SectionKind, SectionRef, decode_section
from storage.sections import NOTHING, Held, extended

log = logging.getLogger(__name__)

PACK_MAGIC = b"FIRNPCK2"
# A namespace with more (some 40 million records) has no pack: its cold readers need one round more.
PACK_BYTES_MAX = 64 << 20
# Encoded bytes of the sections whose content is kept decoded, which takes some three times as much.
HELD_BYTES_MAX = 64 << 20
# Namespaces of which it is remembered whether they have sections, so that nobody asks for the packs
# of those without again.
SEEN_MAX = 16_384
# Fewer are fetched by name, more with their pack first.
_BY_NAME_MAX = 4
_AT_ONCE = 64
_DECODED_HERE_BYTES = 64 << 10

Packed = Mapping[str, bytes]
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(dict[str, bytes])


class SectionStore:
    """For one event loop. Sections are immutable, so what is kept is never wrong."""

    def __init__(self, store: ObjectStore, held_bytes_max: int = HELD_BYTES_MAX) -> None:
        self._store = store
        self._held: OrderedDict[tuple[str, ...], Held] = OrderedDict()
        self._held_bytes = 0
        self._held_bytes_max = held_bytes_max
        self._seen: OrderedDict[str, bool] = OrderedDict()

    async def held(
        self, prefix: str, sections: Sequence[SectionRef], row_bytes: int, packs: Packed | None
    ) -> Held:
        """What these sections hold, in their order. `packs`: what `packs` gave, None if nobody
        asked.

        `ObjectNotFound` naming a section that is collected; `CorruptData` naming a damaged one.
        """
        keys = _held_key(prefix, sections)
        known, held = 0, NOTHING
        for end in range(len(keys), 0, -1):
            found = self._held.get(keys[:end])
            if found is not None:
                self._held.move_to_end(keys[:end])
                known, held = end, found
                break
        missing = sections[known:]
        if not missing:
            return held
        data = await self._data(prefix, missing, packs)
        names = [_key(prefix, section) for section in missing]
        if sum(map(len, data)) <= _DECODED_HERE_BYTES:
            held = _decoded(held, names, missing, data, row_bytes)
        else:
            held = await asyncio.to_thread(_decoded, held, names, missing, data, row_bytes)
        self.keep(prefix, held)
        return held

    def keep(self, prefix: str, held: Held) -> None:
        """Remember what the sections of a manifest hold."""
        if not held.sections:
            return
        key = _held_key(prefix, held.sections)
        if key not in self._held:
            self._held[key] = held
            self._held_bytes += _size(held)
        # What these are the continuation of is not asked for again.
        for end in range(1, len(key)):
            before = self._held.pop(key[:end], None)
            self._held_bytes -= 0 if before is None else _size(before)
        while self._held_bytes > self._held_bytes_max and len(self._held) > 1:
            _, oldest = self._held.popitem(last=False)
            self._held_bytes -= _size(oldest)

    def have_sections(self, prefix: str) -> bool | None:
        """Whether the newest manifest that was seen of it had some; None: none was seen."""
        return self._seen.get(prefix)

    def saw(self, prefix: str, sections: Sequence[SectionRef]) -> None:
        self._seen[prefix] = bool(sections)
        self._seen.move_to_end(prefix)
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)

    async def packs(self, prefix: str) -> Packed:
        """By name, what the two packs have; never fails for what is missing or damaged."""
        base, edits = await asyncio.gather(
            self._pack(base_pack_key(prefix)), self._pack(edits_pack_key(prefix))
        )
        return {**base, **edits}

    async def put(self, prefix: str, objects: Iterable[EncodedObject]) -> None:
        """Durable when it returns; names are fresh."""
        made = list(objects)
        for start in range(0, len(made), _AT_ONCE):
            part = made[start : start + _AT_ONCE]
            await asyncio.gather(*(self._store.put(prefix + o.ref.name, o.data) for o in part))

    async def put_packs(self, prefix: str, held: Held, made: Sequence[EncodedObject]) -> None:
        """Bring the packs up to date after a commit; as the hint, they may stay behind."""
        if not made:
            return
        new = {encoded.ref.name: encoded.data for encoded in made}
        edits = [s for s in held.sections if s.kind is SectionKind.EDITS]
        base = [s for s in held.sections if s.kind is not SectionKind.EDITS]
        with suppress(Unavailable, ObjectNotFound):
            if any(section.object.name in new for section in base):
                await self._put_pack(prefix, base_pack_key(prefix), base, new)
            await self._put_pack(prefix, edits_pack_key(prefix), edits, new)

    async def drop_packs(self, prefix: str) -> None:
        """Of a namespace whose manifest has no sections any more."""
        with suppress(Unavailable):
            await self._store.delete(base_pack_key(prefix))
            await self._store.delete(edits_pack_key(prefix))

    async def _put_pack(
        self, prefix: str, key: str, sections: Sequence[SectionRef], new: Packed
    ) -> None:
        """An empty one where they are too many, or a reader would fetch an old one for nothing."""
        content: dict[str, bytes] = {}
        if sum(section.object.size for section in sections) <= PACK_BYTES_MAX:
            older = [section for section in sections if section.object.name not in new]
            known = {**(await self._pack(key) if older else {}), **new}
            data = await self._data(prefix, sections, known)
            content = {s.object.name: d for s, d in zip(sections, data, strict=True)}
        sealed = await asyncio.to_thread(lambda: seal(PACK_MAGIC, _encoder.encode(content)))
        await self._store.put(key, sealed)

    async def _pack(self, key: str) -> Packed:
        try:
            data = await self._store.get(key)
            body = await asyncio.to_thread(unseal, PACK_MAGIC, data, key)
            return _decoder.decode(body)
        except ObjectNotFound:
            return {}
        except (CorruptData, msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.warning("ignoring %s, its sections are fetched one by one: %s", key, error)
            return {}

    async def _data(
        self, prefix: str, sections: Sequence[SectionRef], packs: Packed | None
    ) -> list[bytes]:
        """The bytes of each, verified."""
        if packs is None:
            packs = {}
            for place, count in Counter(s.origin or prefix for s in sections).items():
                if count > _BY_NAME_MAX:
                    packs = {**packs, **await self.packs(place)}
        data: list[bytes] = []
        for start in range(0, len(sections), _AT_ONCE):
            part = sections[start : start + _AT_ONCE]
            data += await asyncio.gather(*(self._one(prefix, s, packs) for s in part))
        return data

    async def _one(self, prefix: str, section: SectionRef, packs: Packed) -> bytes:
        packed = packs.get(section.object.name)
        if packed is not None and _is(packed, section):
            return packed
        key = _key(prefix, section)
        for _ in range(2):  # a damaged answer is not yet a damaged object
            data = await self._store.get(key)
            if _is(data, section):
                return data
        raise CorruptData(f"{key} does not match the size and checksum in its manifest")


def _decoded(
    held: Held,
    keys: Sequence[str],
    sections: Sequence[SectionRef],
    data: Sequence[bytes],
    row_bytes: int,
) -> Held:
    edits: list[Edits] = [decode_section(d, key) for d, key in zip(data, keys, strict=True)]
    return extended(held, zip(sections, edits, strict=True), row_bytes)


def _held_key(prefix: str, sections: Sequence[SectionRef]) -> tuple[str, ...]:
    """A branch sees other files in a section than the namespace that wrote it."""
    return tuple(f"{_key(prefix, s)} {s.origin} {s.lsn_as}" for s in sections)


def _key(prefix: str, section: SectionRef) -> str:
    return (section.origin or prefix) + section.object.name


def _is(data: bytes, section: SectionRef) -> bool:
    ref = section.object
    return len(data) == ref.size and checksum(data) == ref.checksum


def _size(held: Held) -> int:
    return held.base_bytes + held.edits_bytes
