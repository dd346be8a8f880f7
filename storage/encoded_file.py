"""Data files as bytes, ready to be put: immutable objects first, then the manifest naming them."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from core.object_store import ObjectStore
from storage.checksum import checksum
from storage.manifest import DataFile, ObjectRef


@dataclass(frozen=True, slots=True, eq=False)
class EncodedObject:
    """One object: its name below the namespace's prefix with size and checksum, and its bytes."""

    ref: ObjectRef
    data: bytes

    @classmethod
    def of(cls, name: str, data: bytes) -> "EncodedObject":
        return cls(ObjectRef(name=name, size=len(data), checksum=checksum(data)), data)


@dataclass(frozen=True, slots=True, eq=False)
class EncodedFile:
    """A cluster file or delta: `file` goes into the manifest once `objects` are in the store."""

    objects: tuple[EncodedObject, ...]
    file: DataFile


async def put_objects(store: ObjectStore, prefix: str, objects: Iterable[EncodedObject]) -> None:
    """Durable when it returns. Names are fresh uuids, so a repeated put writes the same bytes
    again.
    """
    await asyncio.gather(*(store.put(prefix + o.ref.name, o.data) for o in objects))
