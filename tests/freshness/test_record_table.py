"""The table of fresh records against a dict, in segments so small that every batch crosses some."""

import random

import numpy as np
import pytest

from core.records import Record
from freshness import segments
from freshness.segments import RecordTable


@pytest.mark.parametrize("seed", range(20))
def test_batches_do_what_a_dict_does(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """What is removed stays removed, whichever segments are given back on the way."""
    monkeypatch.setattr(segments, "FIRST_CAPACITY", 2)
    monkeypatch.setattr(segments, "CAPACITY_MAX", 8)
    choose, table, model = random.Random(seed), RecordTable(), dict[str, tuple[int, float]]()
    for lsn in range(300):
        ids = choose.sample([f"r{n}" for n in range(40)], choose.randrange(25))
        if choose.random() < 0.5:
            table.remove(ids)
            for name in ids:
                model.pop(name, None)
        else:
            values = np.array([choose.random()], dtype=np.float32)
            table.put([Record(name, values, None, {}) for name in ids], lsn)
            model.update((name, (lsn, float(values[0]))) for name in ids)
        assert len(table) == len(model)
        found = [
            (row.record.id, row.lsn, float(row.record.values[0]))
            for view in table.views()
            for place in np.flatnonzero(view.live[: view.count])
            if (row := view.stored(int(place))).record.values is not None
        ]
        assert sorted(found) == sorted((name, *version) for name, version in model.items())
        for name, (written, _) in model.items():
            stored = table.get(name)
            assert stored is not None
            assert (stored.record.id, stored.lsn) == (name, written)
