"""What the jobs of backups show on /metrics."""

from functools import partial

from core.clock import Clock
from infra.catalog.backup_model import Frequency
from infra.telemetry import Metrics


class BackupMetrics:
    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._clock = clock
        self._last_successes: dict[Frequency, int] = {}
        self.running = metrics.gauge(
            "firndb_backup_jobs_running", "Backups, restores and removals at work here", ["kind"]
        )
        self.ended = metrics.counter(
            "firndb_backup_jobs_total", "Jobs of this process that ended", ["kind", "result"]
        )
        ages = metrics.gauge(
            "firndb_backup_schedule_age_seconds",
            "Since the last good backup, of the enabled schedule that has waited the longest",
            ["frequency"],
        )
        for frequency in Frequency:
            ages.labels(frequency.value).set_function(partial(self._age_s, frequency))

    def saw_schedules(self, last_successes: dict[Frequency, int]) -> None:
        """Milliseconds since 1970; frequencies without an enabled schedule are missing."""
        self._last_successes = last_successes

    def _age_s(self, frequency: Frequency) -> float:
        """0 without such a schedule."""
        at_ms = self._last_successes.get(frequency)
        return 0.0 if at_ms is None else max(0.0, (self._clock.now_ms() - at_ms) / 1000)
