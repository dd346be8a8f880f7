"""The manifest: which files make up a namespace at which indexed LSN. Immutable.

Every live record of the namespace is live in exactly one row of exactly one file named here: a row
is live unless its number is in the file's `dead` bitmap. Readers need no de-duplication among
files.

In memory a manifest is flat. In the store it is a *root*: of a small namespace the manifest itself,
of a big one a list of *sections*, immutable objects that hold most of it, and the *edits* since
(storage/sections.py).
"""

from collections.abc import Iterable
from enum import StrEnum

import msgspec
import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from core.errors import CorruptData
from core.filters.statistics import FieldStatistics
from core.log import NO_LSN
from storage.envelope import seal, unseal

FORMAT = 2
MAGIC = b"FIRNMAN2"
SECTION_MAGIC = b"FIRNSEC2"


class ObjectRef(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """An immutable object: key below the namespace's prefix, size, xxh3-128 checksum (hex)."""

    name: str
    size: int
    checksum: str


class DataFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A cluster file or a delta.

    columns: the Arrow object.
    vectors: the Annoy object (dense clusters only; a delta keeps its vectors in Arrow).
    cluster: row of the manifest's centroids that this file belongs to; -1 for deltas, and where
    there are no centroids.
    groups: deltas only: (cluster, first row) in ascending row order, rows being grouped by nearest
    centroid.
    dead: serialised roaring bitmap of row numbers, b"" for none.
    origin: prefix of the namespace in whose folder the objects lie, "" for this one's: a branch
    shares files of the namespace that it comes from.
    lsn_as: the LSN that all rows count as: that of the attach entry that brought the file in; the
    rows' own are of the log of the namespace that wrote them. `NO_LSN`: each row's own.
    inline: the columns object's bytes where they are so few that they are kept here; then the store
    has no such object.
    in_runs: the ids of all its live rows are in the manifest's id runs; else they are looked up in
    the file itself.
    """

    uuid: str
    columns: ObjectRef
    vectors: ObjectRef | None
    rows: int
    cluster: int
    radius: float = 0.0
    groups: tuple[tuple[int, int], ...] = ()
    dead: bytes = b""
    dead_count: int = 0
    statistics: dict[str, FieldStatistics] = {}
    origin: str = ""
    lsn_as: int = NO_LSN
    inline: bytes = b""
    in_runs: bool = False

    @property
    def live(self) -> int:
        return self.rows - self.dead_count

    @property
    def is_delta(self) -> bool:
        return self.columns.name.startswith("deltas/")

    def dead_rows(self) -> BitMap:
        return BitMap.deserialize(self.dead) if self.dead else BitMap()


class IdRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Entries id -> (file, row), sorted by id.

    first, last: the lowest and the highest id, inclusive. files: uuids of all the files that it
    names, where they are few; () where they are many. as_of: the version of the manifest whose dead
    rows and missing files are left out. origin: as of a `DataFile`.
    """

    object: ObjectRef
    entries: int
    files: tuple[str, ...]
    first: str = ""
    last: str = ""
    as_of: int = 0
    origin: str = ""


class SectionKind(StrEnum):
    """What a section holds: data files, id runs or centroids, and nothing else of these; or edits
    of what the sections before it hold.
    """

    FILES = "files"
    ID_RUNS = "id_runs"
    CENTROIDS = "centroids"
    EDITS = "edits"


class SectionRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A section in the store. entries: of files, runs or centroids that it adds.

    origin: of the section, and of everything in it that has none of its own, as of a `DataFile`; so
    a branch names its source's sections, and not each file. lsn_as: of all files in it, whatever
    they say themselves; `NO_LSN`: what they say.
    """

    object: ObjectRef
    kind: SectionKind
    entries: int
    origin: str = ""
    lsn_as: int = NO_LSN


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One committed state of a namespace.

    files, id_runs: in no particular order.

    generation: LSN of the first entry of this life of the namespace.
    deleted: a tombstone; no files, and `generation` is still that of the life that ended.
    indexed_lsn: inclusive; NO_LSN for nothing.
    dimension: 0 in a sparse index.
    centroids: float32 (clusters, dimension), little-endian, row-major; b"" before the first
    clustering.
    boundary: the newest round of garbage collection that this manifest is committed after, 0 for
    none.
    sections: where most of this is in the store, or was before it was changed: what is committed
    next builds on them. Whoever makes a manifest of another one leaves them as they are.
    attached: id of the snapshot object that this life of the namespace took its first content from,
    "" for none; what the log says of this life builds on it.
    declared: metadata fields that this life of the namespace was created with a schema for; None:
    it has no schema.
    ingested_bytes, written_bytes: of log records that flushes took, and of data files and id runs
    that flushes and compactions wrote for it, since the first manifest: write amplification.
    """

    format: int = FORMAT
    index_id: str
    namespace: str
    log_id: str
    log_epoch: int
    version: int
    generation: int
    owner_epoch: int
    commit_uuid: str
    indexed_lsn: int = NO_LSN
    deleted: bool = False
    record_count: int = 0
    byte_count: int = 0
    dimension: int = 0
    metric: str = ""
    centroids: bytes = b""
    files: tuple[DataFile, ...] = ()
    id_runs: tuple[IdRun, ...] = ()
    created_ms: int = 0
    boundary: int = 0
    sections: tuple[SectionRef, ...] = ()
    attached: str = ""
    declared: tuple[str, ...] | None = None
    ingested_bytes: int = 0
    written_bytes: int = 0

    def centroid_matrix(self) -> npt.NDArray[np.float32]:
        """float32 (clusters, dimension); (0, dimension) before the first clustering."""
        flat = np.frombuffer(self.centroids, dtype="<f4")
        return flat.reshape(-1, self.dimension) if self.dimension else flat.reshape(0, 0)


class Edits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What changes in a list of files, of runs and of centroids: the content of a section, and of a
    root beside its sections.

    Files are numbered in the order in which the sections of a root add them, and so are runs.
    removed, removed_runs: numbers. files, id_runs: added. dead: by number of the file the rows that
    died since, as a roaring bitmap or, where they are few, one by one. centroids: by first row the
    float32 bytes of consecutive rows, replaced or added. clusters: how many there are then; None:
    as many as before.
    """

    files: tuple[DataFile, ...] = ()
    removed: tuple[int, ...] = ()
    dead: dict[int, bytes | tuple[int, ...]] = {}
    id_runs: tuple[IdRun, ...] = ()
    removed_runs: tuple[int, ...] = ()
    centroids: dict[int, bytes] = {}
    clusters: int | None = None


class Root(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A manifest as it is stored. Without sections `manifest` is all of it; else its files, runs
    and centroids are empty: they are what its sections hold, in order, and then `edits`.
    """

    manifest: Manifest
    edits: Edits = Edits()


# A data file or a run as Python objects, without what is counted apart: names, statistics.
ENTRY_BYTES = 2_000


def memory_of(manifest: Manifest) -> int:
    """About how many bytes of memory it takes."""
    entries = len(manifest.files) + len(manifest.id_runs) + 1
    held = sum(len(file.inline) + len(file.dead) for file in manifest.files)
    return ENTRY_BYTES * entries + held + len(manifest.centroids)


_encoder = msgspec.msgpack.Encoder()
_manifest_decoder = msgspec.msgpack.Decoder(Manifest)
_root_decoder = msgspec.msgpack.Decoder(Root)
_edits_decoder = msgspec.msgpack.Decoder(Edits)
# A bare msgpack map: what format 1 was.
_MAP_16, _FIXMAPS = 0xDE, range(0x80, 0x90)


def encode(root: Root) -> bytes:
    return seal(MAGIC, _encoder.encode(root))


def decode(data: bytes, where: str) -> Root:
    """`CorruptData` naming `where` if the bytes are no manifest of a known format, or damaged."""
    if data[:1] and (data[0] == _MAP_16 or data[0] in _FIXMAPS):
        return Root(manifest=_first_format(data, where))
    body = unseal(MAGIC, data, where)
    try:
        root = _root_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptData(f"{where} is not a manifest: {error}") from error
    if root.manifest.format != FORMAT:
        raise CorruptData(
            f"{where} has manifest format {root.manifest.format}; this build reads {FORMAT} and 1"
        )
    return root


def encode_section(edits: Edits) -> bytes:
    return seal(SECTION_MAGIC, _encoder.encode(edits))


def decode_section(data: bytes, where: str) -> Edits:
    """`CorruptData` naming `where` if the bytes are no section, or damaged."""
    body = unseal(SECTION_MAGIC, data, where)
    try:
        return _edits_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptData(f"{where} is not a section: {error}") from error


def encoded_size(part: Edits | DataFile | IdRun) -> int:
    """Bytes that it takes in a root or a section."""
    return len(_encoder.encode(part))


def check(manifest: Manifest, changed: Iterable[DataFile] | None = None) -> None:
    """`CorruptData` if the manifest contradicts itself; asked before a commit, so that none such is
    ever stored. `changed`: the files whose dead rows are looked at, all if None.
    """
    files, name = manifest.files, f"manifest {manifest.version} of {manifest.namespace!r}"
    if len({file.uuid for file in files}) != len(files):
        raise CorruptData(f"{name} names a file twice")
    if manifest.record_count != sum(file.live for file in files):
        raise CorruptData(f"{name} counts {manifest.record_count} records, its files differ")
    if manifest.deleted and (files or manifest.id_runs):
        raise CorruptData(f"{name} is a tombstone with files")
    for file in files if changed is None else changed:
        try:
            dead = file.dead_rows()
        except ValueError as error:
            raise CorruptData(f"{name}: {error}, file {file.uuid}") from error
        if len(dead) != file.dead_count or (dead and dead.max() >= file.rows):
            raise CorruptData(f"{name}: the dead rows of file {file.uuid} are wrong")


def _first_format(data: bytes, where: str) -> Manifest:
    """Format 1: without checksum and sections. Its id runs are of a kind that is no longer read, so
    they are left out, and the ids of its files are looked up in the files.
    """
    try:
        manifest = _manifest_decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptData(f"{where} is not a manifest: {error}") from error
    if manifest.format != 1:
        raise CorruptData(f"{where} has manifest format {manifest.format} without a checksum")
    runs = sum(run.object.size for run in manifest.id_runs)
    return msgspec.structs.replace(
        manifest, format=FORMAT, id_runs=(), byte_count=manifest.byte_count - runs
    )
