"""Rates per project and namespace, on a clock that the test holds: what passes, what waits."""

import random

import pytest

from api.limits import rates
from api.limits.buckets import Bucket, Crowd, Rate
from api.limits.rates import Measure, RateLimits, RateSettings, Scope, setting_name
from core.errors import Overloaded
from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import Metric
from infra.settings import Settings
from infra.telemetry import Metrics
from tests.infra.held_clock import HeldClock


def index(project: str = "p", index_id: str = "i") -> IndexInfo:
    return IndexInfo(
        index_id, project, "movies", 3, Metric.COSINE, VectorType.DENSE, IndexState.READY
    )


OURS, THEIRS = index(), index("q", "j")


def limits(clock: HeldClock, metrics: Metrics | None = None, **given: float) -> RateLimits:
    """`project_write_requests=10`, and so on; bursts of 2 seconds."""
    settings = Settings.load({f"rate_{k}": v for k, v in {"burst_s": 2.0, **given}.items()})
    return RateLimits(RateSettings.of(settings), clock, metrics or Metrics())


def write(
    limited: RateLimits, namespace: str = "ns", whose: IndexInfo = OURS, records: int = 1
) -> float:
    """Seconds to wait; 0: it was admitted."""
    try:
        limited.admit_write(whose, namespace, 100, records)
    except Overloaded as error:
        return error.retry_after_s
    return 0.0


def test_nothing_is_limited_by_default_and_nothing_is_kept() -> None:
    limited = limits(HeldClock())
    for n in range(10_000):
        limited.admit_write(OURS, f"ns{n}", 1 << 20, 1000)
        limited.admit_read(OURS, None)
        limited.spent(OURS, f"ns{n}", 10_000)
    assert not any(limited._accounts.values())


def test_a_burst_passes_then_the_rate_then_who_waits_as_told_is_admitted() -> None:
    clock = HeldClock()
    limited = limits(clock, project_write_requests=10)
    assert [write(limited) for _ in range(20)] == [0.0] * 20
    wait_s = write(limited)
    assert 0.1 <= wait_s <= 0.2
    clock.now_s += wait_s
    assert write(limited) == 0.0
    assert write(limited) > 0


def test_the_refusal_says_what_and_whose_and_counts_itself() -> None:
    clock, metrics = HeldClock(), Metrics()
    limited = limits(clock, metrics, namespace_write_records=100)
    assert write(limited, records=200) == 0.0
    with pytest.raises(Overloaded) as refused:
        limited.admit_write(OURS, "ns", 10, 100)
    assert str(refused.value) == (
        "You've reached the written records per second limit of 100 for namespace 'ns'. "
        "Slow down and try again."
    )
    assert b'firndb_rate_limited_total{measure="written records",scope="namespace"} 1.0' in (
        metrics.text()
    )


def test_a_request_larger_than_the_bucket_passes_when_it_is_full_and_is_paid_for_after() -> None:
    """Else a limit of 100 records/s would refuse an upsert of 1,000 for ever."""
    clock = HeldClock()
    limited = limits(clock, project_write_records=100)
    assert write(limited, records=1000) == 0.0
    assert 8.0 <= write(limited, records=1) <= 8.2
    clock.now_s += 8.1
    assert write(limited, records=1) == 0.0


def test_a_refused_request_costs_nothing() -> None:
    clock = HeldClock()
    limited = limits(clock, project_write_requests=10, namespace_write_requests=1)
    assert [write(limited, "a") for _ in range(2)] == [0.0, 0.0]
    for _ in range(100):
        assert write(limited, "a") > 0
    assert [write(limited, f"b{n}") for n in range(18)] == [0.0] * 18


def test_read_units_are_paid_afterwards_and_stop_the_next_read() -> None:
    clock = HeldClock()
    limited = limits(clock, project_read_units=10)
    limited.admit_read(OURS, "ns")
    limited.spent(OURS, "ns", 120)
    with pytest.raises(Overloaded, match="read units per second limit of 10 for this project"):
        limited.admit_read(OURS, None)
    clock.now_s += 10.2
    limited.admit_read(OURS, "ns")


def test_projects_and_namespaces_do_not_pay_for_each_other() -> None:
    clock = HeldClock()
    limited = limits(clock, project_write_requests=10, namespace_write_requests=5)
    while write(limited, "loud") == 0.0:
        pass
    assert write(limited, "quiet") == 0.0
    assert [write(limited, "loud", THEIRS) for _ in range(10)] == [0.0] * 10


def test_reads_do_not_use_up_writes() -> None:
    limited = limits(HeldClock(), project_write_requests=1, project_read_requests=1)
    for _ in range(2):
        limited.admit_read(OURS, "ns")
    with pytest.raises(Overloaded):
        limited.admit_read(OURS, "ns")
    assert write(limited) == 0.0


def test_a_loud_namespace_leaves_room_in_its_projects_rate_for_a_quiet_one() -> None:
    """First come, first served would give the quiet one a token as often as it wins a race."""
    clock, choose = HeldClock(), random.Random(5)
    limited = limits(clock, project_write_requests=100)
    admitted = {"loud": 0, "quiet": 0}
    refused = {"loud": 0, "quiet": 0}
    for _ in range(5000):
        clock.now_s += 0.002  # 10 s in all: 490 of the loud one, 10 of the quiet one per second
        name = "loud" if choose.random() < 0.98 else "quiet"
        (admitted if write(limited, name) == 0.0 else refused)[name] += 1
    assert refused["quiet"] == 0
    assert admitted["quiet"] > 50
    assert 800 <= admitted["loud"] <= 1100, "what the quiet one leaves is the loud one's"


def test_equals_share_a_projects_rate() -> None:
    clock = HeldClock()
    limited = limits(clock, project_write_requests=100)
    admitted = dict.fromkeys("abcd", 0)
    for _ in range(2000):
        clock.now_s += 0.01
        for name in admitted:
            admitted[name] += write(limited, name) == 0.0
    assert sum(admitted.values()) == pytest.approx(2000, rel=0.15)
    assert max(admitted.values()) < 1.3 * min(admitted.values()), admitted


def test_one_namespace_alone_has_its_projects_whole_rate() -> None:
    clock = HeldClock()
    limited = limits(clock, project_write_requests=100)
    admitted = 0
    for _ in range(10_000):
        clock.now_s += 0.001
        admitted += write(limited) == 0.0
    assert admitted == pytest.approx(1200, abs=2)


def test_a_rain_of_namespaces_is_bounded_and_keeps_the_projects_bucket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rates, "ACCOUNTS_MAX", 50)
    limited = limits(HeldClock(), project_write_requests=500, namespace_write_requests=1)
    assert sum(write(limited, f"ns{n}") == 0.0 for n in range(5000)) <= 1000
    assert len(limited._accounts[Scope.NAMESPACE]) == 50
    assert len(limited._accounts[Scope.PROJECT]) == 1
    project = limited._accounts[Scope.PROJECT]["p"]
    assert project.crowd is not None
    assert len(project.crowd._names) <= rates.CROWD_MAX


def test_every_measure_and_scope_has_a_setting() -> None:
    for scope in Scope:
        for measure in Measure:
            name = setting_name(scope, measure)
            settings = RateSettings.of(Settings.load({name: 7}))
            rates_of = {Scope.PROJECT: settings.project, Scope.NAMESPACE: settings.namespace}
            assert {s: dict(r) for s, r in rates_of.items()} == {
                s: {measure: Rate(7.0, 5.0)} if s is scope else {} for s in Scope
            }


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    bucket = Bucket(Rate(10, 2), 0.0)
    bucket.take(20, 1000.0)
    assert bucket.wait_s(1, 1000.0) == pytest.approx(0.1)
    assert bucket.fraction(5000.0) == 1.0


def test_a_crowd_forgets_who_went_away() -> None:
    crowd = Crowd(window_s=1.0, names_max=100, now_s=0.0)
    assert [crowd.add(name, 0.1) for name in "abcab"] == [1, 2, 3, 3, 3]
    assert crowd.add("a", 1.5) == 3, "those of the window before still count"
    assert crowd.add("a", 9.0) == 1
