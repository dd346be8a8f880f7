"""What may go of a namespace, and in which step: pure functions over a survey of its objects.

An object goes in two steps, so that a writer that slept meanwhile finds out (docs/decisions/0010):
a round of the boundary names it and is committed; only what is still unnamed after that is deleted.
Manifests go by their number, which every round declares free up to the newest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from core.object_store import ObjectInfo
from storage.boundary import OBJECTS_MAX, SLOT_S, Boundary
from storage.layout import version_of
from storage.manifest import Manifest

# What is unnamed elsewhere below a namespace's prefix is not ours to judge.
DATA_FOLDERS = ("clusters/", "deltas/", "ids/", "sections/")


@dataclass(frozen=True, slots=True)
class Grace:
    """For how long things stay that nothing names any more.

    ms: above the longest query and the longest job, from its first file to its commit. slot_ms: the
    least time for which the number of a manifest stays taken. boundaries_ms: rounds stay readable
    for so long; a job that began before is dropped, whether its files went or not.
    """

    ms: int
    slot_ms: int = int(SLOT_S * 1000)
    boundaries_ms: int = 3_600_000


@dataclass(frozen=True, slots=True)
class Survey:
    """The objects below `prefix`, by key.

    now_ms: of the store's clock, never ahead of it. manifests, boundaries: ascending. boundary: the
    newest round, committed or not. unnamed: data objects that neither the newest manifest names nor
    the oldest that a reader may hold nor a snapshot.
    said: names that the newest round lists, of objects that its own manifest did not name.
    released: objects of branches whose life is over.
    """

    prefix: str
    now_ms: int
    newest: Manifest
    manifests: Sequence[ObjectInfo]
    boundaries: Sequence[ObjectInfo]
    boundary: Boundary | None
    unnamed: Sequence[ObjectInfo]
    said: frozenset[str] = frozenset()
    released: Sequence[ObjectInfo] = ()

    @property
    def uncommitted(self) -> Boundary | None:
        """The round of a collector that died, to be taken up where it stopped."""
        found = self.boundary
        return found if found is not None and found.number > self.newest.boundary else None


@dataclass(frozen=True, slots=True)
class GarbagePlan:
    """delete, free: what goes now; `free` are manifests, to go one after the other. clear: those
    whose content goes while their number stays taken. forget: rounds that no job can ask for.
    begin: the round that has to be committed before more can go: its objects, and `then_free`.
    release: objects of branches. young: garbage whose time has not come.
    """

    delete: tuple[ObjectInfo, ...]
    free: tuple[ObjectInfo, ...]
    then_free: tuple[ObjectInfo, ...]
    clear: tuple[ObjectInfo, ...]
    forget: tuple[ObjectInfo, ...]
    release: tuple[ObjectInfo, ...]
    begin: Boundary | None
    young: tuple[ObjectInfo, ...]


def superseded(manifests: Sequence[ObjectInfo]) -> list[tuple[ObjectInfo, int]]:
    """Each manifest but the last one, with the time (ms) from which on it was not the newest."""
    return [(info, following.modified_ms) for info, following in pairwise(manifests)]


def oldest_kept(manifests: Sequence[ObjectInfo], now_ms: int, grace: Grace) -> ObjectInfo | None:
    """The first manifest that was the newest within the grace time, so that a reader may hold it;
    None if that is only the last one.
    """
    for info, ended_ms in superseded(manifests):
        if ended_ms > now_ms - grace.ms and info.size:
            return info
    return None


def plan(survey: Survey, grace: Grace) -> GarbagePlan:
    """No round of the survey may be uncommitted."""
    assert survey.uncommitted is None, "the dead collector's round comes first"
    border_ms = survey.now_ms - grace.ms
    old = [info for info in survey.unnamed if info.modified_ms <= border_ms]
    ended = [
        (info, ended_ms)
        for info, ended_ms in superseded(survey.manifests)
        if _version(info) < survey.newest.version
    ]
    over = [(info, ended_ms) for info, ended_ms in ended if ended_ms <= border_ms]
    committed = survey.boundary
    below = 0 if committed is None else committed.manifests_below
    cut = len(survey.prefix)
    delete = tuple(info for info in old if info.key[cut:] in survey.said)
    fresh = [info.key[cut:] for info in old if info.key[cut:] not in survey.said]
    free: list[ObjectInfo] = []
    clear: list[ObjectInfo] = []
    for info, ended_ms in over:
        # Without a gap: a number is free only while all lower ones are.
        if _version(info) < below and ended_ms <= survey.now_ms - grace.slot_ms and not clear:
            free.append(info)
        else:
            clear.append(info)
    begin = None
    if fresh or any(_version(info) >= below for info, _ in over):
        begin = Boundary(
            index_id=survey.newest.index_id,
            namespace=survey.newest.namespace,
            number=1 if committed is None else committed.number + 1,
            manifests_below=survey.newest.version + 1,
            objects=tuple(fresh[:OBJECTS_MAX]),
            created_ms=survey.now_ms,
        )
    young = [info for info in survey.unnamed if info.modified_ms > border_ms]
    young += [info for info, ended_ms in ended if ended_ms > border_ms]
    young += clear if begin is None else ()
    return GarbagePlan(
        delete=delete,
        free=tuple(free),
        then_free=() if begin is None else tuple(clear),
        # What the next round frees needs no clearing.
        clear=() if begin is not None else tuple(info for info in clear if info.size),
        forget=_forgotten(survey, grace),
        release=tuple(survey.released),
        begin=begin,
        young=tuple(young),
    )


def _forgotten(survey: Survey, grace: Grace) -> tuple[ObjectInfo, ...]:
    """Rounds that were followed by another one so long ago that every job since has seen that."""
    border_ms = survey.now_ms - grace.boundaries_ms
    return tuple(
        info
        for info, following in pairwise(survey.boundaries)
        if following.modified_ms <= border_ms
    )


def _version(info: ObjectInfo) -> int:
    version = version_of(info.key)
    assert version is not None, info.key
    return version
