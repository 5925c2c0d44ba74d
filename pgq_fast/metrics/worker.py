"""Histograms of a worker: where the time of its jobs goes, seen from inside."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from pgq_fast.errors import MissingExtraError

try:
    from prometheus_client.metrics_core import (
        CounterMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry
except ImportError as error:
    raise MissingExtraError("WorkerMetrics", "prometheus") from error

from pgq_fast.metrics.histogram import Histogram
from pgq_fast.models import Job
from pgq_fast.observer import RunOutcome
from pgq_fast.types import QueueEntrypoint

__all__ = ["WorkerMetrics"]

WAIT_BOUNDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21600,
)  # fmt: skip
"""Seconds in the queue: a worker that waits for work starts a job within a few milliseconds, and a
backlog may be hours old."""

RUN_BOUNDS: Final = (
    0.00001, 0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1, 2.5, 5, 10, 30, 60, 300, 900, 3600,
)  # fmt: skip
"""Seconds of a run: handlers that do next to nothing take some microseconds."""

STATEMENT_BOUNDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
)  # fmt: skip
"""Seconds of a statement."""

BATCH_BOUNDS: Final = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Jobs of a claim."""


class WorkerMetrics(Collector):
    """A worker's observer, and a collector of prometheus-client.

    Set it as ``observer`` of the ``QueueManager`` before ``run``. One object may observe several
    workers of a process, whose figures add up. All label values are names of entrypoints that the
    workers have handlers for, or one of five outcomes.

    Args:
        registry: Where to register; None for nowhere.

    Raises:
        ValueError: The registry has these metrics already, from another object.
    """

    def __init__(self, registry: CollectorRegistry | None = REGISTRY) -> None:
        # Scrapes come from other threads.
        self._lock = threading.Lock()
        self._waits = defaultdict[str, Histogram](lambda: Histogram(WAIT_BOUNDS))
        self._runs = defaultdict[tuple[str, str], Histogram](lambda: Histogram(RUN_BOUNDS))
        self._batches = Histogram(BATCH_BOUNDS)
        self._claims = Histogram(STATEMENT_BOUNDS)
        self._acks = Histogram(STATEMENT_BOUNDS)
        self._acknowledged = 0
        if registry is not None:
            registry.register(self)

    # -- As an observer -----------------------------------------------------------------------

    def claimed(self, jobs: Sequence[Job], seconds: float) -> None:
        """Count a claim, and how long its jobs had waited."""
        waits = defaultdict[QueueEntrypoint, list[float]](list)
        due, seconds_waited = None, 0.0
        for job in jobs:
            # Jobs that were enqueued together have one object for when they were due.
            if due is not job.execute_after:
                due = job.execute_after
                seconds_waited = (job.updated - due).total_seconds()
            waits[job.entrypoint].append(seconds_waited)
        with self._lock:
            for entrypoint, values in waits.items():
                self._waits[entrypoint].add(values)
            self._batches.add([len(jobs)])
            self._claims.add([seconds])

    def ran(
        self, entrypoint: QueueEntrypoint, outcome: RunOutcome, seconds: Sequence[float]
    ) -> None:
        """Count runs."""
        with self._lock:
            self._runs[entrypoint, outcome].add(list(seconds))

    def acknowledged(self, jobs: int, seconds: float) -> None:
        """Count a statement, and the jobs whose end it wrote."""
        with self._lock:
            self._acks.add([seconds])
            self._acknowledged += jobs

    # -- As a collector -----------------------------------------------------------------------

    def describe(self) -> Iterator[Metric]:
        """The metrics without their values."""
        return iter(self._families())

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        waits, runs, batches, claims, acks, acknowledged = families = self._families()
        with self._lock:
            for entrypoint, histogram in self._waits.items():
                waits.add_metric([entrypoint], *histogram.cumulative())
            for labels, histogram in self._runs.items():
                runs.add_metric(labels, *histogram.cumulative())
            batches.add_metric([], *self._batches.cumulative())
            claims.add_metric([], *self._claims.cumulative())
            acks.add_metric([], *self._acks.cumulative())
            acknowledged.add_metric([], self._acknowledged)
        return iter(families)

    @staticmethod
    def _families() -> tuple[
        HistogramMetricFamily,
        HistogramMetricFamily,
        HistogramMetricFamily,
        HistogramMetricFamily,
        HistogramMetricFamily,
        CounterMetricFamily,
    ]:
        return (
            HistogramMetricFamily(
                "pgqueuer_worker_queue_wait_seconds",
                "Time from when a job was due until this worker claimed it.",
                labels=["entrypoint"],
            ),
            HistogramMetricFamily(
                "pgqueuer_worker_run_seconds",
                "Time that the handler of a job took.",
                labels=["entrypoint", "outcome"],
            ),
            HistogramMetricFamily(
                "pgqueuer_worker_batch_jobs", "Jobs that a claim brought, zero included."
            ),
            HistogramMetricFamily(
                "pgqueuer_worker_claim_seconds", "Time from sending a claim to having its jobs."
            ),
            HistogramMetricFamily(
                "pgqueuer_worker_ack_seconds", "Time of the statements that wrote how jobs ended."
            ),
            CounterMetricFamily(
                "pgqueuer_worker_acknowledged_jobs", "Jobs whose end the server has taken."
            ),
        )
