"""The commit protocol: manifests are numbered without a gap, and one writer wins a number.

Only put-if-absent is asked of the store for it. A put whose outcome is unknown (timed out, retried
below us) is settled by reading the version back: the commit uuid inside says whose it is. The hint
is a copy that may lag or be missing.
"""

import logging
from contextlib import suppress

from core.errors import CorruptData, Fenced, FirnError, ObjectNotFound, Unavailable
from core.object_store import ObjectStore
from storage.layout import hint_key, manifest_key, manifests_prefix, namespace_prefix, version_of
from storage.manifest import Manifest, check, decode, encode

log = logging.getLogger(__name__)

# Below this layer every verb is retried with a deadline of its own; these few settle unknown
# outcomes.
COMMIT_TRIES = 4


class ManifestConflict(FirnError):
    """Internal. Another writer, of no higher epoch, took the version: rebase on `newest`."""

    def __init__(self, newest: Manifest) -> None:
        super().__init__(
            f"manifest {newest.version} of {newest.namespace!r} was committed meanwhile"
        )
        self.newest = newest


class ManifestStore:
    """Reads and commits the manifests of all namespaces. Holds no state.

    Every manifest that is read is checked to be that of the namespace and version asked for
    (`CorruptData`). Commits of one namespace are serialised by the caller.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

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
        if known is not None:
            walked = await self._walk(known)
            # A hint so old that garbage collection passed it would look like the newest: nothing
            # follows it. Manifests go in ascending order, so while this one is there its successors
            # are.
            if await self._store.stat(manifest_key(prefix, walked.version)) is not None:
                return walked
        listed = await self._listed(prefix)
        if listed is None:
            return None
        start = await self.read(index_id, namespace, listed)
        if start is None:
            raise Unavailable(f"manifest {listed} of {prefix} vanished while it was read")
        return await self._walk(start)

    async def read(self, index_id: str, namespace: str, version: int) -> Manifest | None:
        """One version; None if it is not there (not committed, or collected)."""
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
        if not await self._created(manifest, key, data):
            winner = await self.read(manifest.index_id, manifest.namespace, manifest.version)
            if winner is None or winner.commit_uuid != manifest.commit_uuid:
                raise await self._conflict(manifest)
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

    async def _walk(self, known: Manifest) -> Manifest:
        """The last manifest of the chain from `known` on."""
        while True:
            following = await self.read(known.index_id, known.namespace, known.version + 1)
            if following is None:
                return known
            known = following

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
        manifest = decode(data, key)
        if (manifest.index_id, manifest.namespace) != (index_id, namespace):
            raise CorruptData(
                f"{key} belongs to {manifest.index_id}/{manifest.namespace!r}, "
                f"not to {index_id}/{namespace!r}"
            )
        return manifest

    async def _listed(self, prefix: str) -> int | None:
        last = None
        async for info in self._store.list(manifests_prefix(prefix)):
            version = version_of(info.key)
            last = version if version is not None else last
        return last
