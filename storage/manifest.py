"""The manifest: which files make up a namespace at which indexed LSN. msgpack, immutable.

Every live record of the namespace is live in exactly one row of exactly one file named here: a row
is live unless its number is in the file's `dead` bitmap. Readers need no de-duplication among
files.
"""

import msgspec
import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from core.errors import CorruptData
from core.filters.statistics import FieldStatistics
from core.log import NO_LSN

FORMAT = 1


class ObjectRef(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """An immutable object: key below the namespace's prefix, size, xxh3-128 checksum (hex)."""

    name: str
    size: int
    checksum: str


class DataFile(msgspec.Struct, frozen=True, kw_only=True):
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


class IdRun(msgspec.Struct, frozen=True, kw_only=True):
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


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One committed state of a namespace.

    generation: LSN of the first entry of this life of the namespace.
    deleted: a tombstone; no files, and `generation` is still that of the life that ended.
    indexed_lsn: inclusive; NO_LSN for nothing.
    dimension: 0 in a sparse index.
    centroids: float32 (clusters, dimension), little-endian, row-major; b"" before the first
    clustering.
    boundary: the newest round of garbage collection that this manifest is committed after, 0 for
    none.
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

    def centroid_matrix(self) -> npt.NDArray[np.float32]:
        """float32 (clusters, dimension); (0, dimension) before the first clustering."""
        flat = np.frombuffer(self.centroids, dtype="<f4")
        return flat.reshape(-1, self.dimension) if self.dimension else flat.reshape(0, 0)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Manifest)


def encode(manifest: Manifest) -> bytes:
    return _encoder.encode(manifest)


def decode(data: bytes, where: str) -> Manifest:
    """`CorruptData` naming `where` if the bytes are no manifest of a known format."""
    try:
        manifest = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptData(f"{where} is not a manifest: {error}") from error
    if manifest.format != FORMAT:
        raise CorruptData(
            f"{where} has manifest format {manifest.format}; this build reads {FORMAT}"
        )
    return manifest


def check(manifest: Manifest) -> None:
    """`CorruptData` if the manifest contradicts itself; asked before a commit, so that none such is
    ever stored.
    """
    files, name = manifest.files, f"manifest {manifest.version} of {manifest.namespace!r}"
    if len({file.uuid for file in files}) != len(files):
        raise CorruptData(f"{name} names a file twice")
    if manifest.record_count != sum(file.live for file in files):
        raise CorruptData(f"{name} counts {manifest.record_count} records, its files differ")
    for file in files:
        try:
            dead = file.dead_rows()
        except ValueError as error:
            raise CorruptData(f"{name}: {error}, file {file.uuid}") from error
        if len(dead) != file.dead_count or (dead and dead.max() >= file.rows):
            raise CorruptData(f"{name}: the dead rows of file {file.uuid} are wrong")
    if manifest.deleted and (files or manifest.id_runs):
        raise CorruptData(f"{name} is a tombstone with files")
