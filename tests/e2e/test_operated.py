"""Whatever an operator does, alone or at the same time: the engine answers as the dict does.

At stake is what lies between the parts, each of which has tests of its own: branches of namespaces
that are purged, snapshots of what is rebuilt, files that several namespaces share and one of them
collects, manifests in sections under all of it, and a process that ends at any time.
"""

import uuid
from collections.abc import Callable

import pytest

from storage.commit import ManifestStore
from storage.sections import Limits
from tests.e2e.operated import BUILDING, Operated

SECTIONS = Limits(flat_bytes=2_000, root_bytes=1_000, section_bytes=1_000)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred rows are many: in sections, in clusters that are ranked, by commands as well."""
    monkeypatch.setattr(ManifestStore.__init__, "__defaults__", (None, SECTIONS))
    monkeypatch.setattr("cli.runtime.rebuilding.builder_settings", lambda _: BUILDING)
    monkeypatch.setattr("cli.runtime.erasing.builder_settings", lambda _: BUILDING)
    monkeypatch.setattr("query.plan.SCAN_ALL_ROWS", 0)
    for place in ("query.plan", "query.operators.probe"):
        monkeypatch.setattr(f"{place}.enough_rows", lambda total, k, share: total)


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("seeds", "steps"), [(2, 15), pytest.param(100, 60, marks=pytest.mark.long)]
)
def test_an_engine_under_an_operator_answers_as_a_dict_does(
    seeds: int, steps: int, record_property: Callable[[str, object], None]
) -> None:
    # The short form begins the same every time; the long one looks elsewhere each time.
    first = 0 if seeds < 100 else uuid.uuid4().int % 1_000_000
    print(f"seeds from {first}")
    record_property("seed", first)
    seen = Operated.run_all(range(first, first + seeds), steps)
    for name, count in sorted(seen.items()):
        print(name, count)
        record_property(name, count)
    for shape in ("clustered", "in sections", "inline", "shared"):
        assert seen[shape] > 0, f"nothing was ever {shape}"
