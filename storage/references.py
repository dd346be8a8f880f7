"""Which objects a manifest's files and id runs are: what must exist, and what nobody may delete."""

from collections.abc import Iterable, Iterator

from storage.manifest import DataFile, IdRun, Manifest, ObjectRef


def objects_of(files: Iterable[DataFile], runs: Iterable[IdRun]) -> Iterator[tuple[str, ObjectRef]]:
    """(origin, object) of each that is in the store."""
    for file in files:
        if not file.inline:
            yield file.origin, file.columns
            if file.vectors is not None:
                yield file.origin, file.vectors
    for run in runs:
        yield run.origin, run.object


def keys_of(manifest: Manifest, prefix: str) -> frozenset[str]:
    """Of the files, id runs and sections that the manifest of the namespace at `prefix` names."""
    found = [*objects_of(manifest.files, manifest.id_runs)]
    found += [(section.origin, section.object) for section in manifest.sections]
    return frozenset((origin or prefix) + ref.name for origin, ref in found)
