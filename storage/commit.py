"""The commit protocol: manifests are numbered without a gap, and one writer wins a number.

Only put-if-absent is asked of the store for it. A put whose outcome is unknown (timed out, retried
below us) is settled by reading the version back: the commit uuid inside says whose it is. The hint
is a copy that may lag or be missing; that nothing follows a version is read from a listing, for
garbage collection frees old numbers (storage/boundary.py).
"""

import logging
from contextlib import suppress

from core.clock import Clock, SystemClock
from core.errors import CorruptData, Fenced, FirnError, ObjectNotFound, Unavailable
from core.object_store import ObjectStore
from storage.boundary import Slots
from storage.layout import hint_key, manifest_key, manifests_prefix, namespace_prefix, version_of
from storage.manifest import Manifest, check, decode, encode

log = logging.getLogger(__name__)

# Below this layer every verb is retried with a deadline of its own; these few settle unknown
# outcomes.
COMMIT_TRIES = 4
# The newest manifest is listed and then read; only a collector without any grace is between.
NEWEST_TRIES = 8
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
    """Reads and commits the manifests of all namespaces. Remembers only when it saw which version
    the newest.

    Every manifest that is read is checked to be that of the namespace and version asked for
    (`CorruptData`). Commits of one namespace are serialised by the caller.
    """

    def __init__(self, store: ObjectStore, clock: Clock | None = None) -> None:
        self._store = store
        self._slots = Slots(store, clock or SystemClock())

    async def newest(
        self, index_id: str, namespace: str, at_least: int | None = None
    ) -> Manifest | None:
        """The newest manifest, proven newest during the call; None: the namespace never existed.

        `at_least`: a version that is known to be committed; saves the reads up to it where the hint
        lags.
        """
        prefix = namespace_prefix(index_id, namespace)
        known = await self._hint(index_id, namespace)
        if at_least is not None and (known is None or known.version < at_least):
            known = await self.read(index_id, namespace, at_least) or known
        for _ in range(NEWEST_TRIES):
            asked_at = self._slots.now()
            # The newest manifest is never collected. So if nothing is listed above this one, it is
            # the newest; that its successor is missing would not say so.
            later = await self._listed(prefix, 0 if known is None else known.version)
            if later is None:
                self._slots.saw_newest(prefix, 0 if known is None else known.version, asked_at)
                return known
            found = await self.read(index_id, namespace, later)
            if found is not None:
                self._slots.saw_newest(prefix, later, asked_at)
                return found
        raise Unavailable(f"the manifests of {prefix} change faster than they are read")

    async def read(self, index_id: str, namespace: str, version: int) -> Manifest | None:
        """One version; None if it is not there (not committed, or collected) or only its place is
        kept.
        """
        key = manifest_key(namespace_prefix(index_id, namespace), version)
        manifest = await self._load(key, index_id, namespace)
        if manifest is not None and manifest.version != version:
            raise CorruptData(f"{key} says that it is version {manifest.version}")
        return manifest

    async def is_newest(self, index_id: str, namespace: str, version: int) -> bool:
        """Whether nothing followed `version` when this was asked; one small request.

        Only for a version read from the store a moment ago: behind a collected one nothing is found
        either.
        """
        key = manifest_key(namespace_prefix(index_id, namespace), version + 1)
        return await self._store.stat(key) is None

    async def commit(self, manifest: Manifest) -> None:
        """Returns once the manifest is committed and durable; repeating it with the same manifest
        is harmless.

        `ManifestConflict`: rebase. `Fenced`: a higher owner epoch has written, stop. `Unavailable`:
        the outcome is unknown even after several tries; commit the same manifest again.
        """
        check(manifest)
        prefix = namespace_prefix(manifest.index_id, manifest.namespace)
        key, data = manifest_key(prefix, manifest.version), encode(manifest)
        began_at = self._slots.now()
        created = await self._created(manifest, key, data)
        if not created:
            winner = await self.read(manifest.index_id, manifest.namespace, manifest.version)
            if winner is None or winner.commit_uuid != manifest.commit_uuid:
                raise await self._conflict(manifest)
        if await self._slots.was_free_again(prefix, manifest.version):
            with suppress(Unavailable):  # nobody reads it: the chain goes on far above
                await self._store.delete(key)
            raise await self._conflict(manifest)
        if created:
            self._slots.saw_newest(prefix, manifest.version, began_at)
        with suppress(Unavailable):  # readers walk on from the older hint, or list
            await self._store.put(hint_key(prefix), data)

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

    async def _hint(self, index_id: str, namespace: str) -> Manifest | None:
        """None where it is missing or unreadable: only a hint, the chain tells the truth."""
        try:
            return await self._load(
                hint_key(namespace_prefix(index_id, namespace)), index_id, namespace
            )
        except CorruptData as error:
            log.warning("ignoring a hint, the chain of manifests decides: %s", error)
            return None

    async def _load(self, key: str, index_id: str, namespace: str) -> Manifest | None:
        try:
            data = await self._store.get(key)
        except ObjectNotFound:
            return None
        if data == KEPT_PLACE:
            return None
        manifest = decode(data, key)
        if (manifest.index_id, manifest.namespace) != (index_id, namespace):
            raise CorruptData(
                f"{key} belongs to {manifest.index_id}/{manifest.namespace!r}, "
                f"not to {index_id}/{namespace!r}"
            )
        return manifest

    async def _listed(self, prefix: str, after: int) -> int | None:
        """The highest version above `after`."""
        last = None
        start = manifest_key(prefix, after)
        async for info in self._store.list(manifests_prefix(prefix), start_after=start):
            version = version_of(info.key)
            last = version if version is not None else last
        return last
