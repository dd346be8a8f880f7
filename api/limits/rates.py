"""Rates per project and per namespace: how many requests, bytes and records a second.

Each process has buckets of its own and holds the full rate: connections are not spread evenly over
gateways, and a share of the rate would refuse whoever meets a busy one. Rates of 0 are no limit,
and then nothing is kept.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from api.limits.buckets import Bucket, Crowd, Fading, Rate
from core.clock import Clock
from core.errors import Overloaded
from core.indexes import IndexInfo
from infra.settings import Settings
from infra.telemetry import Metrics

# 1 KB each: 20 MB. A bucket that is forgotten starts full again: at worst somebody gets a second
# burst, and the project's own bucket still counts it.
ACCOUNTS_MAX = 20_000
# A namespace that uses more than its share leaves this much of its project's bucket to the others.
RESERVE = 0.5
CROWD_MAX = 256
# A retry that comes some milliseconds early would be refused again.
RETRY_MARGIN_S = 0.05


class Measure(StrEnum):
    """What is counted, in the words of the error."""

    WRITE_REQUESTS = "write requests"
    WRITE_BYTES = "write bytes"
    WRITE_RECORDS = "written records"
    READ_REQUESTS = "read requests"
    READ_UNITS = "read units"


class Scope(StrEnum):
    PROJECT = "project"
    NAMESPACE = "namespace"


# What a read costs in read units is known afterwards.
_READ = {Measure.READ_REQUESTS: 1.0, Measure.READ_UNITS: 0.0}

Rates = Mapping[Measure, Rate]
"""Only measures that have a limit."""


@dataclass(slots=True)
class _Account:
    """One project or namespace. `spent` and a project's `crowd` divide it among its namespaces."""

    buckets: dict[Measure, Bucket]
    spent: dict[Measure, Fading]
    crowd: Crowd | None


@dataclass(frozen=True, slots=True)
class RateSettings:
    project: Rates = field(default_factory=dict)
    namespace: Rates = field(default_factory=dict)
    burst_s: float = 5.0

    @classmethod
    def of(cls, settings: Settings) -> "RateSettings":
        def rates(scope: Scope) -> Rates:
            found = {m: float(getattr(settings, setting_name(scope, m))) for m in Measure}
            return {m: Rate(r, settings.rate_burst_s) for m, r in found.items() if r > 0}

        return cls(rates(Scope.PROJECT), rates(Scope.NAMESPACE), settings.rate_burst_s)


def setting_name(scope: Scope, measure: Measure) -> str:
    """`rate_project_read_units`"""
    words = "write_records" if measure is Measure.WRITE_RECORDS else measure.replace(" ", "_")
    return f"rate_{scope.value}_{words}"


class RateLimits:
    """Asked before a request does any work; each question costs a few microseconds."""

    def __init__(self, settings: RateSettings, clock: Clock, metrics: Metrics) -> None:
        self._settings = settings
        self._clock = clock
        self._rates = {Scope.PROJECT: settings.project, Scope.NAMESPACE: settings.namespace}
        self._off = not settings.project and not settings.namespace
        # One map each: a rain of new namespaces must not push a project's bucket out.
        self._accounts: dict[Scope, OrderedDict[str, _Account]] = {s: OrderedDict() for s in Scope}
        self._refused = metrics.counter(
            "firndb_rate_limited_total", "Requests refused by a rate limit", ("scope", "measure")
        )

    def admit_write(self, index: IndexInfo, namespace: str, size_bytes: int, records: int) -> None:
        """`Overloaded` if the project or the namespace writes too fast: then nothing is counted."""
        if self._off:
            return
        amounts = {
            Measure.WRITE_REQUESTS: 1.0,
            Measure.WRITE_BYTES: float(size_bytes),
            Measure.WRITE_RECORDS: float(records),
        }
        self._admit(index, namespace, amounts)

    def admit_read(self, index: IndexInfo, namespace: str | None) -> None:
        """`namespace` None: a read of the index as a whole. What it costs in read units is known
        afterwards (`spent`): it is admitted while there are any left. `Overloaded`.
        """
        if not self._off:
            self._admit(index, namespace, _READ)

    def check_read(self, index: IndexInfo, namespace: str) -> None:
        """`Overloaded` if the buckets are too empty for a read; takes nothing."""
        if not self._off:
            now = self._clock.monotonic()
            self._check(self._of(index, namespace, now), namespace, _READ, now)

    def spent(self, index: IndexInfo, namespace: str | None, read_units: int) -> None:
        """What an admitted read cost in the end."""
        if self._off:
            return
        now = self._clock.monotonic()
        for account in self._of(index, namespace, now).values():
            _take(account, {Measure.READ_UNITS: float(read_units)}, now)

    def _admit(
        self, index: IndexInfo, namespace: str | None, amounts: Mapping[Measure, float]
    ) -> None:
        now = self._clock.monotonic()
        accounts = self._of(index, namespace, now)
        self._check(accounts, namespace, amounts, now)
        self._leave_room(index, namespace, accounts, amounts, now)
        for account in accounts.values():
            _take(account, amounts, now)

    def _check(
        self,
        accounts: Mapping[Scope, _Account],
        namespace: str | None,
        amounts: Mapping[Measure, float],
        now: float,
    ) -> None:
        for scope, account in accounts.items():
            for measure, amount in amounts.items():
                bucket = account.buckets.get(measure)
                # read units: at least one must be there
                wait_s = bucket.wait_s(amount or 1.0, now) if bucket is not None else 0.0
                if wait_s > 0:
                    raise self._refusal(scope, measure, namespace, wait_s)

    def _leave_room(
        self,
        index: IndexInfo,
        namespace: str | None,
        accounts: Mapping[Scope, _Account],
        amounts: Mapping[Measure, float],
        now: float,
    ) -> None:
        """`Overloaded` for a namespace that has used more than its share, once half of the
        project's bucket is gone: the rest is for its neighbours, who would else find it empty.
        """
        project, own = accounts[Scope.PROJECT], accounts.get(Scope.NAMESPACE)
        if namespace is None or own is None or project.crowd is None:
            return
        crowd = project.crowd.add(f"{index.index_id}/{namespace}", now)
        for measure in amounts:
            bucket = project.buckets.get(measure)
            if bucket is None or (left := bucket.fraction(now)) >= RESERVE:
                continue
            if own.spent[measure].value(now) * crowd > project.spent[measure].value(now) * 1.01:
                wait_s = (RESERVE - left) * self._settings.burst_s
                raise self._refusal(Scope.PROJECT, measure, namespace, wait_s)

    def _of(self, index: IndexInfo, namespace: str | None, now: float) -> dict[Scope, _Account]:
        accounts = {Scope.PROJECT: self._account(Scope.PROJECT, index.project_id, now)}
        if namespace is not None:
            key = f"{index.index_id}/{namespace}"
            accounts[Scope.NAMESPACE] = self._account(Scope.NAMESPACE, key, now)
        return accounts

    def _account(self, scope: Scope, key: str, now: float) -> _Account:
        kept = self._accounts[scope]
        account = kept.get(key)
        if account is not None:
            kept.move_to_end(key)
            return account
        if len(kept) >= ACCOUNTS_MAX:
            kept.popitem(last=False)
        window_s = self._settings.burst_s
        account = kept[key] = _Account(
            {measure: Bucket(rate, now) for measure, rate in self._rates[scope].items()},
            {measure: Fading(window_s, now) for measure in self._settings.project},
            Crowd(window_s, CROWD_MAX, now) if scope is Scope.PROJECT else None,
        )
        return account

    def _refusal(
        self, scope: Scope, measure: Measure, namespace: str | None, wait_s: float
    ) -> Overloaded:
        self._refused.labels(scope.value, measure.value).inc()
        limit = self._rates[scope][measure].per_s
        whose = "this project" if scope is Scope.PROJECT else f"namespace {namespace!r}"
        return Overloaded(
            f"You've reached the {measure.value} per second limit of {limit:g} for {whose}. "
            "Slow down and try again.",
            retry_after_s=wait_s + RETRY_MARGIN_S,
        )


def _take(account: _Account, amounts: Mapping[Measure, float], now: float) -> None:
    for measure, amount in amounts.items():
        bucket, spent = account.buckets.get(measure), account.spent.get(measure)
        if bucket is not None:
            bucket.take(amount, now)
        if spent is not None:
            spent.add(amount, now)
