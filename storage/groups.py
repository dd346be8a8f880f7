"""Which rows of a file belong to which cluster: all of a cluster file, ranges of a delta. Pure."""

from storage.manifest import DataFile

# The cluster of rows that no centroid stands for: every query looks at them.
UNGROUPED = -1

Group = tuple[int, int, int]


def groups_of(file: DataFile) -> list[Group]:
    """(cluster, first row, end row) in row order, without gaps; the end is exclusive."""
    if not file.is_delta or not file.groups:
        return [(file.cluster, 0, file.rows)]
    ends = [first for _, first in file.groups[1:]] + [file.rows]
    return [(cluster, first, end) for (cluster, first), end in zip(file.groups, ends, strict=True)]


def group_live(file: DataFile) -> dict[int, int]:
    """Live rows by cluster."""
    dead = file.dead_rows()
    live: dict[int, int] = {}
    for cluster, first, end in groups_of(file):
        rows = end - first - (dead.range_cardinality(first, end) if dead else 0)
        live[cluster] = live.get(cluster, 0) + rows
    return live
