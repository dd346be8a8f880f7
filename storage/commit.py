"""The commit protocol: manifests are numbered without a gap, and one writer wins a number.

Only put-if-absent is asked of the store for it. A put whose outcome is unknown (timed out, retried
below us) is settled by reading the version back: the commit uuid inside says whose it is. The hint
is a copy that may lag or be missing; that nothing follows a version is read from a listing, for
garbage collection frees old numbers (storage/boundary.py). Big manifests are divided into sections
(storage/sections.py), which are put before the manifest that names them.
"""

import asyncio
import logging
from contextlib import suppress

from core.clock import Clock, SystemClock
from core.errors import CorruptData, Fenced, FirnError, ObjectNotFound, Unavailable
from core.object_store import ObjectStore
from storage.boundary import Slots
from storage.layout import hint_key, manifest_key, manifests_prefix, namespace_prefix, version_of
from storage.manifest import Manifest, Root, check, decode, encode
from storage.references import keys_of
from storage.section_store import Packed, SectionStore
from storage.sections import (
    LIMITS,
    NOTHING,
    Division,
    Limits,
    divide,
    edits_since,
    resolve,
    root_of,
)

log = logging.getLogger(__name__)

# Below this layer every verb is retried with a deadline of its own; these few settle unknown
# outcomes.
COMMIT_TRIES = 4
# The newest manifest is listed and then read; only a collector without any grace is between.
NEWEST_TRIES = 8
# Manifests with fewer files are divided, encoded and put together in less than a millisecond.
FILES_HERE_MAX = 64
# What is left in the place of a manifest whose content had to go before its number may be free.
KEPT_PLACE = b""


class ManifestConflict(FirnError):
    """Internal. Another writer, of no higher epoch, took the version: rebase on `newest`."""

    def __init__(self, newest: Manifest) -> None:
        super().__init__(
            f"manifest {newest.version} of {newest.namespace!r} was committed meanwhile"
        )
        self.newest = newest


class ManifestStore:
    """Reads and commits the manifests of all namespaces. Remembers what sections hold, and when it
    saw which version the newest.

    Every manifest that is read is checked to be that of the namespace and version asked for
    (`CorruptData`). Commits of one namespace are serialised by the caller.
    """

    def __init__(
        self, store: ObjectStore, clock: Clock | None = None, limits: Limits = LIMITS
    ) -> None:
        self._store = store
        self._limits = limits
        self._slots = Slots(store, clock or SystemClock())
        self._sections = SectionStore(store)

    async def newest(
        self, index_id: str, namespace: str, at_least: int | None = None
    ) -> Manifest | None:
        """The newest manifest, proven newest during the call; None: the namespace never existed.

        `at_least`: a version that is known to be committed; saves the reads up to it where the hint
        lags.
        """
        prefix = namespace_prefix(index_id, namespace)
        known = await self._hint(index_id, namespace)
        if at_least is not None and (known is None or known.manifest.version < at_least):
            known = await self._root(index_id, namespace, at_least) or known
        for _ in range(NEWEST_TRIES):
            root = await self._newest_root(index_id, namespace, known)
            if root is None:
                return None
            try:
                return await self._resolved(prefix, root, None)
            except ObjectNotFound as error:
                known, missing = None, error  # collected, so something newer is there
        raise CorruptData(f"a section of the newest manifest is missing: {missing}")

    async def outline(self, index_id: str, namespace: str) -> Manifest | None:
        """As `newest`, but for files, runs and centroids, which are missing if it has sections: for
        who only wants to know how far it goes, or makes them anew, because they are damaged.
        """
        root = await self._newest_root(index_id, namespace, await self._hint(index_id, namespace))
        if root is None:
            return None
        # A rebuild goes on from here: its commit is to take the packs of what it replaces along.
        self._sections.saw(namespace_prefix(index_id, namespace), root.manifest.sections)
        return root.manifest

    async def _newest_root(self, index_id: str, namespace: str, known: Root | None) -> Root | None:
        prefix = namespace_prefix(index_id, namespace)
        unread: int | None = None
        for _ in range(NEWEST_TRIES):
            asked_at = self._slots.now()
            # The newest manifest is never collected. So if nothing is listed above this one, it is
            # the newest; that its successor is missing would not say so.
            version = 0 if known is None else known.manifest.version
            later = await self._listed(prefix, version)
            if later is not None:
                known = await self._root(index_id, namespace, later)
                if known is None and later == unread:
                    # Places are kept, and collected, only below the newest.
                    key = manifest_key(prefix, later)
                    raise CorruptData(f"{key}, listed as the newest manifest, is empty or missing")
                if known is None:
                    unread = later
                    continue
                version = later
            self._slots.saw_newest(prefix, version, asked_at)
            return known
        raise Unavailable(f"the manifests of {prefix} change faster than they are read")

    async def recent(self, index_id: str, namespace: str) -> Manifest | None:
        """A manifest that was the newest not long ago: what the hint says, in one round of requests
        whatever its size; `newest` where there is no hint.

        It may even be collected; who must know proves it, or meets `ObjectNotFound` at its files.
        A namespace of which nothing is known costs two requests for packs that it may not have.
        """
        prefix = namespace_prefix(index_id, namespace)
        packs: Packed | None = None
        if self._sections.have_sections(prefix) is not False:
            root, packs = await asyncio.gather(
                self._hint(index_id, namespace), self._sections.packs(prefix)
            )
        else:
            root = await self._hint(index_id, namespace)
        if root is not None:
            with suppress(ObjectNotFound):
                return await self._resolved(prefix, root, packs)
        return await self.newest(index_id, namespace)

    async def read(self, index_id: str, namespace: str, version: int) -> Manifest | None:
        """One version; None if it is not there (not committed, or collected) or only its place is
        kept.
        """
        root = await self._root(index_id, namespace, version)
        if root is None:
            return None
        try:
            return await self._resolved(namespace_prefix(index_id, namespace), root, None)
        except ObjectNotFound:
            return None

    async def encoded(self, manifest: Manifest) -> bytes:
        """The root of a manifest that was read or committed: a copy of it, small whatever its size,
        that needs the same sections.
        """
        prefix = namespace_prefix(manifest.index_id, manifest.namespace)
        held = await self._sections.held(prefix, manifest.sections, 4 * manifest.dimension, None)
        edits = await asyncio.to_thread(edits_since, held, manifest)
        return encode(root_of(manifest, edits))

    async def decoded(self, data: bytes, prefix: str, where: str) -> Manifest:
        """What `encoded` gave, of the namespace at `prefix`. `CorruptData` naming `where`,
        `ObjectNotFound` naming a section.
        """
        return await self._resolved(prefix, decode(data, where), None)

    async def named(self, index_id: str, namespace: str, version: int) -> frozenset[str] | None:
        """Keys of all objects that one version is made of, wherever they lie; None as `read`."""
        manifest = await self.read(index_id, namespace, version)
        if manifest is None:
            return None
        return keys_of(manifest, namespace_prefix(index_id, namespace))

    async def is_newest(self, index_id: str, namespace: str, version: int) -> bool:
        """Whether nothing followed `version` when this was asked; one small request.

        Only for a version read from the store a moment ago: behind a collected one nothing is found
        either.
        """
        key = manifest_key(namespace_prefix(index_id, namespace), version + 1)
        return await self._store.stat(key) is None

    async def commit(self, manifest: Manifest) -> Manifest:
        """Returns once the manifest is committed and durable; repeating it with the same manifest
        is harmless. The manifest as stored: what is made of it next is made of this.

        `ManifestConflict`: rebase. `Fenced`: a higher owner epoch has written, stop. `Unavailable`:
        the outcome is unknown even after several tries; commit the same manifest again.
        """
        prefix = namespace_prefix(manifest.index_id, manifest.namespace)
        division = await self._divided(prefix, manifest)
        await self._sections.put(prefix, division.objects)
        key, data = manifest_key(prefix, manifest.version), division.data
        stored, as_divided = division.manifest, True
        began_at = self._slots.now()
        created = await self._created(manifest, key, data)
        if not created:
            winner = await self._root(manifest.index_id, manifest.namespace, manifest.version)
            if winner is None or winner.manifest.commit_uuid != manifest.commit_uuid:
                raise await self._conflict(manifest)
            # An earlier call may have divided it in another way; that one counts.
            as_divided = winner.manifest.sections == stored.sections
            if not as_divided:
                data, stored = encode(winner), await self._resolved(prefix, winner, None)
        if await self._slots.was_free_again(prefix, manifest.version):
            # Left where it is: nobody reads it, and garbage collection takes it.
            raise await self._conflict(manifest)
        if created:
            self._slots.saw_newest(prefix, manifest.version, began_at)
        with suppress(Unavailable):  # readers walk on from the older hint, or list
            await self._store.put(hint_key(prefix), data)
        if as_divided:
            self._sections.keep(prefix, division.held)
            await self._put_packs(prefix, division)
        self._sections.saw(prefix, stored.sections)
        return stored

    async def _divided(self, prefix: str, manifest: Manifest) -> Division:
        """Checked, and with new sections if it is time for them."""
        try:
            held = await self._sections.held(
                prefix, manifest.sections, 4 * manifest.dimension, None
            )
        except ObjectNotFound:  # so old that it will meet a conflict
            held = NOTHING

        def divided() -> Division:
            division = divide(manifest, held, self._limits)
            check(manifest, division.changed)
            return division

        if manifest.sections or len(manifest.files) > FILES_HERE_MAX:
            return await asyncio.to_thread(divided)
        return divided()

    async def _put_packs(self, prefix: str, division: Division) -> None:
        if division.manifest.sections:
            await self._sections.put_packs(prefix, division.held, division.objects)
        elif self._sections.have_sections(prefix):
            await self._sections.drop_packs(prefix)

    async def _created(self, manifest: Manifest, key: str, data: bytes) -> bool:
        """Whether this call is known to have created the object; False: it is there, whoever made
        it.
        """
        tries = 0
        while True:
            try:
                return await self._store.put_if_absent(key, data)
            except Unavailable as error:
                tries += 1
                if tries == COMMIT_TRIES:
                    raise Unavailable(
                        f"manifest {manifest.version} of {manifest.namespace!r} may or may not be "
                        f"committed: {error}",
                        retry_after_s=error.retry_after_s,
                    ) from error

    async def _conflict(self, ours: Manifest) -> FirnError:
        newest = await self.newest(ours.index_id, ours.namespace, at_least=ours.version)
        if newest is None:
            return CorruptData(f"the manifests of {ours.namespace!r} vanished under its writer")
        if newest.owner_epoch > ours.owner_epoch:
            return Fenced(
                f"owner epoch {newest.owner_epoch} writes {ours.namespace!r}; "
                f"this one, {ours.owner_epoch}, must stop"
            )
        return ManifestConflict(newest)

    async def _hint(self, index_id: str, namespace: str) -> Root | None:
        """None where it is missing or unreadable: only a hint, the chain tells the truth."""
        try:
            return await self._load(
                hint_key(namespace_prefix(index_id, namespace)), index_id, namespace
            )
        except CorruptData as error:
            log.warning("ignoring a hint, the chain of manifests decides: %s", error)
            return None

    async def _root(self, index_id: str, namespace: str, version: int) -> Root | None:
        key = manifest_key(namespace_prefix(index_id, namespace), version)
        root = await self._load(key, index_id, namespace)
        if root is not None and root.manifest.version != version:
            raise CorruptData(f"{key} says that it is version {root.manifest.version}")
        return root

    async def _load(self, key: str, index_id: str, namespace: str) -> Root | None:
        try:
            data = await self._store.get(key)
        except ObjectNotFound:
            return None
        if data == KEPT_PLACE:
            return None
        root = decode(data, key)
        owner = (root.manifest.index_id, root.manifest.namespace)
        if owner != (index_id, namespace):
            raise CorruptData(
                f"{key} belongs to another namespace, not to {index_id}/{namespace!r}"
            )
        return root

    async def _resolved(self, prefix: str, root: Root, packs: Packed | None) -> Manifest:
        """`ObjectNotFound` naming a section that is collected."""
        sections = root.manifest.sections
        self._sections.saw(prefix, sections)
        if not sections:
            return root.manifest
        row_bytes = 4 * root.manifest.dimension
        held = await self._sections.held(prefix, sections, row_bytes, packs)
        return await asyncio.to_thread(resolve, root, held)

    async def _listed(self, prefix: str, after: int) -> int | None:
        """The highest version above `after`."""
        last = None
        start = manifest_key(prefix, after)
        async for info in self._store.list(manifests_prefix(prefix), start_after=start):
            version = version_of(info.key)
            last = version if version is not None else last
        return last
