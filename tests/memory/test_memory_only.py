"""What the queue in memory does beyond, or short of, the one on PostgreSQL."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from pgq_fast.errors import DuplicateJobError
from pgq_fast.memory import InMemoryDriver, InMemoryQueries
from pgq_fast.models import CronExpressionEntrypoint, Job, TracebackRecord
from pgq_fast.queries import Queries
from pgq_fast.repository import (
    EntrypointExecutionParameter,
    InsightsRepositoryPort,
    RepositoryPort,
)
from pgq_fast.tracing import TRACER
from pgq_fast.types import (
    CronEntrypoint,
    CronExpression,
    JobId,
    QueueEntrypoint,
    QueueManagerId,
)

pytestmark = pytest.mark.impl_agnostic

ME = QueueManagerId(uuid.UUID(int=1))
NEVER = timedelta(days=1)
PARAMETERS = {QueueEntrypoint("ep"): EntrypointExecutionParameter(0)}


@pytest.fixture
def queries() -> InMemoryQueries:
    return InMemoryQueries(InMemoryDriver())


async def claim(queries: InMemoryQueries, size: int = 100) -> list[Job]:
    return await queries.dequeue(size, PARAMETERS, ME, None, NEVER)


async def hold(queries: InMemoryQueries) -> list[JobId]:
    jobs = await claim(queries)
    await queries.log_jobs([(job, "failed", None) for job in jobs])
    return [job.id for job in jobs]


@pytest.mark.parametrize("port", [RepositoryPort, InsightsRepositoryPort])
def test_it_has_the_methods_of_a_repository(port: type) -> None:
    methods = dict(inspect.getmembers(port, inspect.isfunction))
    public = {name: value for name, value in methods.items() if not name.startswith("_")}
    assert len(public) > 10
    for name, method in public.items():
        ours = [*inspect.signature(getattr(InMemoryQueries, name)).parameters.values()]
        theirs = inspect.signature(method).parameters.values()
        assert [(p.name, p.kind, p.default) for p in ours[: len(theirs)]] == [
            (p.name, p.kind, p.default) for p in theirs
        ], name
        assert all(p.default is not p.empty for p in ours[len(theirs) :]), name


def test_it_has_what_queries_have_but_for_the_database() -> None:
    """Code that is written for a database runs on it unchanged."""
    about_the_database = {
        # How to connect.
        "from_asyncpg_connection",
        "from_asyncpg_pool",
        "from_psycopg_connection",
        # Tables, and which ones there are.
        "alter_durability",
        "apply_upgrade",
        "first_missing",
        "installed_layout",
        "migrate",
        "optimize_autovacuum",
        "optimize_autovacuum_rollback",
        "plan_upgrade",
        "require_layout",
        "schema_is_installed",
        "schema_lock",
        "verify",
        "worker_layout",
        # Of the completion watcher, which does without them here.
        "watch_ends",
        "unwatch_ends",
    }
    public = {name for name in dir(Queries) if not name.startswith("_")}
    assert public - set(dir(InMemoryQueries)) == about_the_database
    for name in public - about_the_database:
        method, ours = getattr(Queries, name), getattr(InMemoryQueries, name)
        if not callable(method):
            continue
        parameters, of_ours = (inspect.signature(each).parameters for each in (method, ours))
        assert [(p.name, p.kind, p.default) for p in of_ours.values()] == [
            (p.name, p.kind, p.default) for p in parameters.values()
        ], name
        assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(method), name


async def test_there_is_always_a_schema(queries: InMemoryQueries) -> None:
    await queries.install()
    await queries.install(create_schema=False)
    await queries.upgrade()
    assert await queries.has_table("pgqueuer")
    assert await queries.table_has_column("pgqueuer", "id")
    assert await queries.table_has_index("pgqueuer", "any")
    assert await queries.has_user_defined_enum("queued", "pgqueuer_status")
    assert await queries.has_function("any")
    assert await queries.has_trigger("any")
    assert {table.persistence for table in await queries.schema_info()} == {"IN-MEMORY"}


async def test_uninstalling_forgets_everything(queries: InMemoryQueries) -> None:
    await queries.enqueue("ep", b"", dedupe_key="k")
    key = CronExpressionEntrypoint(CronEntrypoint("a"), CronExpression("* * * * *"))
    await queries.insert_schedule({key: NEVER})
    await queries.aggregate_logs()
    await queries.uninstall()
    assert {table.estimated_rows for table in await queries.schema_info()} == {0}
    await queries.enqueue("ep", b"", dedupe_key="k")
    assert len(await claim(queries)) == 1


async def test_a_requeued_job_has_its_key_back(queries: InMemoryQueries) -> None:
    await queries.enqueue("ep", b"", dedupe_key="k")
    await queries.requeue_jobs(await hold(queries))
    with pytest.raises(DuplicateJobError):
        await queries.enqueue("ep", b"", dedupe_key="k")


async def test_a_job_whose_key_is_taken_stays_held(queries: InMemoryQueries) -> None:
    await queries.enqueue(["ep", "ep"], [b""] * 2, [0, 0], None, ["k", None])
    held = await hold(queries)
    await queries.enqueue("ep", b"", dedupe_key="k")
    with pytest.raises(DuplicateJobError) as caught:
        await queries.requeue_jobs(held)
    assert caught.value.dedupe_key == ["k"]
    failed = await queries.list_failed_jobs()
    assert sorted(job.id for job in failed) == held
    with pytest.raises(DuplicateJobError):
        await queries.retry_job(failed[-1], timedelta(0), None)
    assert len(await queries.list_failed_jobs()) == 2


async def test_two_held_jobs_of_one_key_cannot_both_come_back(queries: InMemoryQueries) -> None:
    for _ in range(2):
        await queries.enqueue("ep", b"", dedupe_key="k")
        await hold(queries)
    held = [job.id for job in await queries.list_failed_jobs()]
    with pytest.raises(DuplicateJobError):
        await queries.requeue_jobs(held)
    await queries.requeue_jobs(held[:1])
    # The one that stays held does not own the key, so its end must not free it.
    await queries.mark_job_as_cancelled(held[1:])
    with pytest.raises(DuplicateJobError):
        await queries.enqueue("ep", b"", dedupe_key="k")


async def test_a_record_that_has_no_json_form_changes_nothing(queries: InMemoryQueries) -> None:
    await queries.enqueue(["ep", "ep"], [b""] * 2, [0, 0])
    jobs = await claim(queries)
    record = TracebackRecord.from_exception(ValueError(), jobs[1].id, {"it": object()})
    with pytest.raises(ValueError, match="serialize"):
        await queries.log_jobs([(jobs[0], "successful", None), (jobs[1], "exception", record)])
    with pytest.raises(ValueError, match="serialize"):
        await queries.retry_job(jobs[1], timedelta(0), record)
    assert [(group.status, group.count) for group in await queries.queue_size()] == [("picked", 2)]


async def test_a_cancelled_claim_takes_no_job(queries: InMemoryQueries) -> None:
    await queries.enqueue("ep", b"")
    task = asyncio.create_task(claim(queries))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert [group.status for group in await queries.queue_size()] == ["queued"]


async def test_a_worker_that_only_claims_lets_others_run(queries: InMemoryQueries) -> None:
    ran = asyncio.Event()
    asyncio.get_running_loop().call_soon(ran.set)
    while not ran.is_set():
        await claim(queries)
    assert ran.is_set()


async def test_a_job_that_was_handed_out_is_a_copy(queries: InMemoryQueries) -> None:
    await queries.enqueue("ep", b"", headers={"a": "b"})
    (job,) = await claim(queries)
    assert job.headers is not None
    job.headers["a"] = "changed"
    job.priority = 99
    (seen,) = await queries.browse_queue()
    assert seen.headers == {"a": "b"}
    assert seen.priority == 0


async def test_a_job_has_the_fields_of_its_model_in_order(queries: InMemoryQueries) -> None:
    await queries.enqueue("ep", b"x", 3, dedupe_key="k", headers={"a": {"b": [1]}})  # type: ignore[dict-item]
    (job,) = await claim(queries)
    assert list(vars(job)) == list(Job.model_fields)
    assert Job.model_validate(job.model_dump()) == job
    assert Job.model_validate_json(job.model_dump_json()) == job
    assert job.model_copy() == job


async def test_a_timeout_beyond_the_calendar_abandons_nothing(queries: InMemoryQueries) -> None:
    await queries.enqueue("ep", b"")
    await claim(queries)
    assert await queries.dequeue(1, PARAMETERS, ME, None, timedelta.max) == []
    assert await queries.stale_jobs(timedelta.max) == []
    assert len(await queries.throughput_summary(timedelta.max)) == 2


class Tracer:
    """Puts *name* into the headers of each job."""

    def __init__(self, name: str) -> None:
        self.name = name

    def trace_publish(self, entrypoints: list[str]) -> Generator[dict[str, object], None, None]:
        for entrypoint in entrypoints:
            yield {self.name: entrypoint}

    @asynccontextmanager
    async def trace_process(self, job: Job) -> AsyncIterator[None]:
        yield


async def test_the_tracer_of_the_process_or_its_own_adds_headers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(TRACER, "tracer", Tracer("process"))
    headers: list[Any] = []
    for tracer in (None, Tracer("own")):
        queries = InMemoryQueries(InMemoryDriver(), tracer=tracer)
        await queries.enqueue(["ep", "ep"], [b""] * 2, [0, 0], headers=[None, {"a": "b"}])
        headers.extend(job.headers for job in await claim(queries))
    assert headers == [
        {"process": "ep"},
        {"a": "b", "process": "ep"},
        {"own": "ep"},
        {"a": "b", "own": "ep"},
    ]


async def test_a_retry_and_a_requeue_wake_idle_workers(queries: InMemoryQueries) -> None:
    heard: list[str] = []
    await queries.enqueue("ep", b"")
    (job,) = await claim(queries)
    await queries.driver.add_listener(queries.qbq.settings.channel, heard.append)
    await queries.retry_job(job, timedelta(0), None)
    assert len(heard) == 1
    held = await hold(queries)
    heard.clear()
    await queries.requeue_jobs(held)
    await queries.requeue_jobs(held)
    assert len(heard) == 1
    assert '"operation":"update"' in heard[0]


async def test_work_is_counted_exactly(queries: InMemoryQueries) -> None:
    names = [QueueEntrypoint("a"), QueueEntrypoint("b"), QueueEntrypoint("a")]
    await queries.enqueue(["a", "a", "b"], [b""] * 3, [0] * 3, [None, NEVER, None])
    assert await queries.queued_work(names) == 3
    assert await queries.eligible_queued_work(names) == 2
