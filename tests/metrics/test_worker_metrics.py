"""What a worker's observer hears, and what a scrape of its histograms says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry

from behaviour.helpers import eventually
from pgq_fast import PgQueuer, RetryRequested
from pgq_fast.metrics.server import QueueMetrics, serve_metrics
from pgq_fast.metrics.worker import WorkerMetrics
from pgq_fast.models import Context, Job
from pgq_fast.observer import RunOutcome
from pgq_fast.queries import Queries
from pgq_fast.types import QueueEntrypoint, QueueExecutionMode
from support.drivers import MakeDriver
from support.scrape import scrape

DRAIN = QueueExecutionMode.drain
OUTCOMES = {"successful": 7, "exception": 3, "retried": 2, "canceled": 2}


class Notes:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.claims: list[int] = []
        self.waits: list[float] = []
        self.runs: Counter[tuple[str, RunOutcome]] = Counter()
        self.calls_of_ran = 0
        self.acknowledged_jobs = 0
        self.seconds: list[float] = []

    def claimed(self, jobs: Sequence[Job], seconds: float) -> None:
        self.claims.append(len(jobs))
        self.seconds.append(seconds)
        self.waits += [(job.updated - job.execute_after).total_seconds() for job in jobs]

    def ran(
        self, entrypoint: QueueEntrypoint, outcome: RunOutcome, seconds: Sequence[float]
    ) -> None:
        self.calls_of_ran += 1
        self.runs[entrypoint, outcome] += len(seconds)
        self.seconds += seconds

    def acknowledged(self, jobs: int, seconds: float) -> None:
        self.acknowledged_jobs += jobs
        self.seconds.append(seconds)


async def worker_with_every_outcome(make_driver: MakeDriver, dsn: str) -> PgQueuer:
    """A worker, and on its queue 14 jobs that end in all ways; two of them only at a second run."""
    pgq = PgQueuer(await make_driver("asyncpg-pool", dsn))
    queries = Queries(await make_driver("asyncpg-pool", dsn))
    running = asyncio.Barrier(2)

    @pgq.entrypoint("quick")
    async def quick(job: Job) -> None:
        pass

    @pgq.entrypoint("failing")
    async def failing(job: Job) -> None:
        await asyncio.sleep(0)
        raise ValueError("broken")

    @pgq.entrypoint("again")
    async def again(job: Job) -> None:
        if job.attempts == 0:
            raise RetryRequested(timedelta(0))

    @pgq.entrypoint("waiting")
    async def waiting(job: Job, context: Context) -> None:
        with context.cancellation:
            if await running.wait() == 0:
                await queries.mark_job_as_cancelled(canceled)
            await asyncio.Event().wait()

    await queries.enqueue(
        ["quick"] * 5 + ["failing"] * 3 + ["again"] * 2, [b"payload"] * 10, [0] * 10
    )
    canceled = await queries.enqueue(["waiting"] * 2, [None] * 2, [0] * 2)
    return pgq


@pytest.mark.layouts
async def test_an_observer_hears_of_every_run(make_driver: MakeDriver, queue_dsn: str) -> None:
    pgq = await worker_with_every_outcome(make_driver, queue_dsn)
    notes = pgq.qm.observer = Notes()
    await pgq.run(mode=DRAIN)
    assert notes.runs == {
        ("quick", "successful"): 5,
        ("again", "retried"): 2,
        ("again", "successful"): 2,
        ("failing", "exception"): 3,
        ("waiting", "canceled"): 2,
    }
    assert sum(notes.claims) == notes.acknowledged_jobs == 14
    assert min(notes.waits) >= 0
    assert min(notes.seconds) >= 0


@pytest.mark.layouts
async def test_an_observer_is_called_by_the_batch(make_driver: MakeDriver, queue_dsn: str) -> None:
    pgq = PgQueuer(await make_driver("asyncpg-pool", queue_dsn))
    notes = pgq.qm.observer = Notes()

    @pgq.entrypoint("quick")
    async def quick(job: Job) -> None:
        pass

    count = 3000
    assert pgq.queries is not None
    await pgq.queries.enqueue(["quick"] * count, [None] * count, [0] * count)
    await pgq.run(mode=DRAIN, batch_size=500)
    assert notes.runs["quick", "successful"] == count
    assert sum(notes.claims) == count
    assert notes.calls_of_ran <= 20


async def test_jobs_that_are_given_back_are_told_of(
    make_driver: MakeDriver, queue_dsn: str
) -> None:
    pgq = PgQueuer(await make_driver("asyncpg-pool", queue_dsn))
    notes = pgq.qm.observer = Notes()
    started = asyncio.Event()

    @pgq.entrypoint("endless")
    async def endless(job: Job) -> None:
        started.set()
        await asyncio.Event().wait()

    assert pgq.queries is not None
    await pgq.queries.enqueue("endless", None)
    run = asyncio.create_task(pgq.qm.run())
    await started.wait()
    run.cancel()
    # The second one is for the jobs, once the first one has begun to close the worker.
    await eventually(
        lambda: any(task.get_name() == "pgq_fast close" for task in asyncio.all_tasks())
    )
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert notes.runs == {("endless", "released"): 1}
    assert notes.acknowledged_jobs == 0
    assert await pgq.queries.queued_work([QueueEntrypoint("endless")]) == 1


async def test_an_observer_that_fails_harms_nobody(
    make_driver: MakeDriver, queue_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    pgq = await worker_with_every_outcome(make_driver, queue_dsn)

    class Failing(Notes):
        def claimed(self, jobs: Sequence[Job], seconds: float) -> None:
            super().claimed(jobs, seconds)
            raise ZeroDivisionError("of the observer")

    notes = pgq.qm.observer = Failing()
    await pgq.run(mode=DRAIN)
    assert pgq.queries is not None
    assert await pgq.queries.queue_size() == []
    assert len(notes.claims) == 1
    assert not notes.runs
    assert [record.message for record in caplog.records if "Failing" in record.message] == [
        "Failing failed; it is not called again in this run of the worker"
    ]


@pytest.mark.layouts
async def test_a_scrape_of_a_worker(make_driver: MakeDriver, queue_dsn: str) -> None:
    pgq = await worker_with_every_outcome(make_driver, queue_dsn)
    registry = CollectorRegistry()
    pgq.qm.observer = WorkerMetrics(registry)
    async with serve_metrics(0, registry=registry) as port:
        assert (await scrape(port)).value("pgqueuer_worker_claim_seconds_count") == 0
        await pgq.run(mode=DRAIN)
        answer = await scrape(port)

    assert answer.types == {
        "pgqueuer_worker_queue_wait_seconds": "histogram",
        "pgqueuer_worker_run_seconds": "histogram",
        "pgqueuer_worker_batch_jobs": "histogram",
        "pgqueuer_worker_claim_seconds": "histogram",
        "pgqueuer_worker_ack_seconds": "histogram",
        "pgqueuer_worker_acknowledged_jobs": "counter",
    }
    runs = Counter[str]()
    for labels in answer.labels("pgqueuer_worker_run_seconds_count"):
        runs[labels["outcome"]] += int(answer.value("pgqueuer_worker_run_seconds_count", **labels))
        assert answer.value("pgqueuer_worker_run_seconds_sum", **labels) > 0
    assert runs == OUTCOMES
    waits = {"quick": 5, "failing": 3, "again": 4, "waiting": 2}
    assert {
        labels["entrypoint"]: answer.value("pgqueuer_worker_queue_wait_seconds_count", **labels)
        for labels in answer.labels("pgqueuer_worker_queue_wait_seconds_count")
    } == waits
    assert answer.value("pgqueuer_worker_batch_jobs_sum") == 14
    assert answer.value("pgqueuer_worker_acknowledged_jobs_total") == 14
    claims = answer.value("pgqueuer_worker_claim_seconds_count")
    assert claims == answer.value("pgqueuer_worker_batch_jobs_count") >= 2
    assert answer.value("pgqueuer_worker_claim_seconds_bucket", le="+Inf") == claims
    assert answer.value("pgqueuer_worker_ack_seconds_count") >= 2
    assert answer.value("pgqueuer_worker_batch_jobs_bucket", le="10.0") <= claims


@pytest.mark.layouts
async def test_a_scrape_of_a_queue_beside_its_worker(
    make_driver: MakeDriver, queue_dsn: str
) -> None:
    pgq = await worker_with_every_outcome(make_driver, queue_dsn)
    queries = Queries(await make_driver("asyncpg-pool", queue_dsn))
    registry = CollectorRegistry()
    QueueMetrics(queries, registry=registry)
    async with serve_metrics(0, registry=registry) as port:
        before = await scrape(port)
        await pgq.run(mode=DRAIN)

    def queued(entrypoint: str) -> float:
        return before.value(
            "pgqueuer_queue_count", aggregation="sum", entrypoint=entrypoint, status="queued"
        )

    assert [queued(name) for name in ("quick", "failing", "again", "waiting")] == [5, 3, 2, 2]
    registry = CollectorRegistry()
    QueueMetrics(queries, registry=registry)
    async with serve_metrics(0, registry=registry) as port:
        after = await scrape(port)
    assert after.labels("pgqueuer_queue_count") == []
    assert after.types == {"pgqueuer_queue_count": "gauge", "pgqueuer_logs_count": "gauge"}
    assert (
        after.value(
            "pgqueuer_logs_count", aggregation="sum", entrypoint="quick", status="successful"
        )
        == 5
    )


async def test_one_registry_takes_one_object() -> None:
    registry = CollectorRegistry()
    WorkerMetrics(registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        WorkerMetrics(registry)


async def test_a_queue_without_a_database_is_measured_too() -> None:
    pgq = PgQueuer.in_memory()
    notes = pgq.qm.observer = Notes()

    @pgq.entrypoint("quick")
    async def quick(job: Job) -> None:
        pass

    assert pgq.queries is not None
    await pgq.queries.enqueue(["quick"] * 3, [None] * 3, [0] * 3)
    await pgq.run(mode=DRAIN)
    assert notes.runs == {("quick", "successful"): 3}
    assert sum(notes.claims) == notes.acknowledged_jobs == len(notes.waits) == 3


async def test_the_loop_that_counts_cannot_scrape() -> None:
    pgq = PgQueuer.in_memory()
    assert pgq.queries is not None
    registry = CollectorRegistry()
    QueueMetrics(pgq.queries, registry=registry)
    with pytest.raises(RuntimeError, match="serve_metrics"):
        list(registry.collect())
    await asyncio.to_thread(lambda: list(registry.collect()))
