"""Heartbeats, rescue, fencing: a job is lost by nobody and ended by one."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

from behaviour.helpers import (
    QUIET,
    Gate,
    LayoutSpy,
    Recorder,
    Tables,
    drain,
    eventually,
    layout_of,
    working,
)
from pgq_fast.errors import FailingListenerError, OpenTransactionError, RetryRequested
from pgq_fast.layouts.base import Claim
from pgq_fast.models import Job
from pgq_fast.qm import QueueManager
from pgq_fast.settings import DBSettings
from pgq_fast.sql import statement
from pgq_fast.types import QueueExecutionMode, QueueManagerId
from pgq_fast.worker.loop import Worker

# The kernel that reads notifications has tests of its own.
pytestmark = [pytest.mark.layouts, pytest.mark.impl_agnostic]

Another = Callable[[], Awaitable[QueueManager]]
SECOND = timedelta(seconds=1)


@pytest.mark.pg_matrix
async def test_long_jobs_are_kept_alive_with_few_statements(
    another: Another, tables: Tables, spy: LayoutSpy
) -> None:
    """Three timeouts long, with a second worker that would rescue them at any moment."""
    first, second = await another(), await another()
    slow, thief = Recorder(pause=3.0), Recorder()
    first.entrypoint("e")(slow)
    second.entrypoint("e")(thief)
    ids = await first.queries.enqueue(["e"] * 8, [None] * 8, [0] * 8)
    async with working(first, heartbeat_timeout=SECOND):
        await eventually(lambda: len(slow.jobs) == 8)
        async with working(
            second, heartbeat_timeout=SECOND, dequeue_timeout=timedelta(milliseconds=50)
        ):
            await eventually(lambda: slow.running == 0)
    assert thief.jobs == []
    assert await tables.ended() == ids
    assert await tables.ended("picked") == ids
    # All jobs in one statement, at least once and not much more than twice a timeout.
    assert all(beat == (first.queue_manager_id, ids) for beat in spy.beats)
    assert 3 <= len(spy.beats) <= 9


@pytest.mark.pg_matrix
async def test_stale_jobs_are_rescued_by_an_idle_worker(another: Another, tables: Tables) -> None:
    manager = await another()
    handler = Recorder()
    manager.entrypoint("e")(handler)
    ids = await manager.queries.enqueue(["e"] * 3, [None] * 3, [0] * 3)
    await tables.pick(*ids)
    async with working(manager, heartbeat_timeout=timedelta(seconds=0.4)):
        await eventually(lambda: len(handler.jobs) == 3)
    assert await tables.ended() == ids


async def test_a_busy_worker_finds_stale_jobs_too(another: Another, tables: Tables) -> None:
    """However much is queued, what a dead worker held has its turn."""
    manager = await another()
    seen: list[int] = []
    enough = asyncio.Event()

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        seen.append(job.id)
        if job.id == stale or len(seen) > 20_000:
            enough.set()
        elif not enough.is_set():
            await manager.queries.enqueue(["e"] * 2, [None] * 2, [1] * 2)

    (stale,) = await manager.queries.enqueue("e", None, 5)
    await tables.pick(stale, silent=timedelta(seconds=10))
    await manager.queries.enqueue("e", None, 9)
    async with working(manager, heartbeat_timeout=SECOND):
        await asyncio.wait_for(enough.wait(), 20)
    assert stale in seen


async def test_a_worker_that_always_has_a_little_to_do_finds_stale_jobs(
    another: Another, tables: Tables
) -> None:
    """Each claim brings a job and leaves room for others: it never comes back empty or full."""
    manager = await another()
    seen: list[int] = []
    enough = asyncio.Event()

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        seen.append(job.id)
        if job.id in stale or len(seen) > 5_000:
            enough.set()
        elif not enough.is_set():
            await manager.queries.enqueue("e", None)

    stale = await manager.queries.enqueue(["e"] * 2, [None] * 2, [0] * 2)
    await manager.queries.enqueue("e", None)
    # Not stale yet when the worker starts.
    await tables.pick(*stale)
    async with working(manager, heartbeat_timeout=timedelta(seconds=0.5)):
        await asyncio.wait_for(enough.wait(), 20)
    assert set(stale) & set(seen)


async def test_a_drain_runs_stale_jobs_beside_others(another: Another, tables: Tables) -> None:
    manager = await another()
    handler = Recorder()
    manager.entrypoint("e")(handler)
    ids = await manager.queries.enqueue(["e"] * 5, [None] * 5, [0] * 5)
    await tables.pick(*ids[:2], silent=timedelta(hours=1))
    await drain(manager)
    assert sorted(handler.ids) == ids
    assert await tables.ended() == ids


@pytest.mark.parametrize("end", ["success", "failure", "hold", "retry", "cancel"])
async def test_a_worker_that_lost_its_jobs_changes_nothing(
    another: Another,
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    end: str,
) -> None:
    """Its heartbeats do not get through, the others take it for dead, and then it comes back."""
    dead, heir = await another(), await another()
    gates = {"dead": Gate(), "heir": Gate()}
    runs: list[str] = []

    def register(manager: QueueManager, name: str) -> None:
        async def handler(job: Job) -> None:
            await gates[name](job)
            runs.append(name)
            if name == "dead":
                if end in ("failure", "hold"):
                    raise ValueError("late")
                if end == "retry":
                    raise RetryRequested(timedelta(0))
                if end == "cancel":
                    raise asyncio.CancelledError

        on_failure: Any = "hold" if end == "hold" else "delete"
        manager.entrypoint("e", on_failure=on_failure, concurrency_limit=2)(handler)

    register(dead, "dead")
    register(heir, "heir")
    (job_id,) = await dead.queries.enqueue("e", None)
    layout_type = layout_of(dead)
    heartbeat = layout_type.heartbeat

    async def suppressed(self: Any, ids: Any, owner: QueueManagerId) -> Any:
        if owner == dead.queue_manager_id:
            return set(ids)
        return await heartbeat(self, ids, owner)

    claim = layout_type.claim

    async def cut_off(self: Any, size: int, limits: Any, owner: Any, *more: Any) -> Any:
        if owner == dead.queue_manager_id and gates["dead"].started:
            return Claim([])
        return await claim(self, size, limits, owner, *more)

    monkeypatch.setattr(layout_type, "heartbeat", suppressed)
    # It would get its own job back, be it by its own rescue or by the other one's.
    monkeypatch.setattr(layout_type, "claim", cut_off)
    timeout = timedelta(seconds=0.4)
    async with working(dead, heartbeat_timeout=timedelta(hours=1)):
        await eventually(lambda: gates["dead"].started)
        async with working(heir, heartbeat_timeout=timeout):
            await eventually(lambda: gates["heir"].started)
            gates["dead"].open.set()
            await eventually(lambda: runs == ["dead"])
            # Until its outcome has been sent, and has changed nothing.
            await eventually(lambda: not dead.job_context)
            await asyncio.sleep(0.2)
            assert await tables.rows(
                "SELECT id, status::text, queue_manager_id, attempts, slot FROM pgqueuer"
            ) == [(job_id, "picked", heir.queue_manager_id, 0, 0)]
            gates["heir"].open.set()
    assert runs == ["dead", "heir"]
    assert await tables.statuses(job_id) == ["queued", "picked", "picked", "successful"]
    assert await tables.count() == 0


async def test_a_job_taken_over_is_reported_once(
    another: Another, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    manager = await another()
    gate = Gate()
    manager.entrypoint("e")(gate)
    (job_id,) = await manager.queries.enqueue("e", b"secret payload")
    async with working(manager, heartbeat_timeout=timedelta(seconds=0.2)):
        await eventually(lambda: gate.started)
        await tables.take_over()
        await eventually(lambda: "no longer this worker's" in caplog.text)
        await asyncio.sleep(0.4)
        gate.open.set()
    assert caplog.text.count(f"Job {job_id} is no longer this worker's") == 1
    assert "secret" not in caplog.text
    assert await tables.count("picked") == 1


async def test_a_job_that_comes_back_to_its_worker_is_kept_alive_again(
    another: Another, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    """Taken over by a worker that dies in turn, while the first one still runs it."""
    manager = await another()
    gate = Gate()
    manager.entrypoint("e")(gate)
    ids = await manager.queries.enqueue("e", None)
    async with working(manager, heartbeat_timeout=timedelta(seconds=0.4)):
        await eventually(lambda: gate.started)
        await tables.take_over(alive=timedelta(0))
        await eventually(lambda: "no longer this worker's" in caplog.text)

        async def back() -> bool:
            owners = await tables.rows("SELECT queue_manager_id FROM pgqueuer")
            return owners == [manager.queue_manager_id]

        await eventually(back)
        (since,) = await tables.rows("SELECT updated FROM pgqueuer")
        await eventually(
            lambda: tables.rows(
                "SELECT id FROM pgqueuer WHERE heartbeat > updated + interval '1 second'"
            )
        )
        # By heartbeats, and not by one rescue after the other.
        assert await tables.rows("SELECT updated FROM pgqueuer") == [since]
        gate.open.set()
    assert gate.started == ids
    assert await tables.ended() == ids


async def test_a_worker_does_not_run_its_own_late_jobs_twice(
    another: Another, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = await another()
    gate = Gate()
    manager.entrypoint("e")(gate)
    layout = layout_of(manager)
    heartbeat = layout.heartbeat

    async def suppressed(self: Any, ids: Any, owner: QueueManagerId) -> Any:
        return set(ids)

    async def taken_again(since: list[Any]) -> bool:
        rows = await tables.rows("SELECT updated FROM pgqueuer WHERE status = 'picked'")
        return len(rows) == 3 and all(row > since[0] for row in rows)

    monkeypatch.setattr(layout, "heartbeat", suppressed)
    ids = await manager.queries.enqueue(["e"] * 3, [None] * 3, [0] * 3)
    async with working(
        manager,
        heartbeat_timeout=timedelta(seconds=0.5),
        dequeue_timeout=timedelta(milliseconds=20),
    ):
        await eventually(lambda: len(gate.started) == 3)
        for _ in range(2):
            since = await tables.rows("SELECT max(updated) FROM pgqueuer")
            await eventually(partial(taken_again, since))
        # What ends between being given up and being taken again runs once more: not so here.
        monkeypatch.setattr(layout, "heartbeat", heartbeat)
        gate.open.set()
    assert sorted(gate.started) == ids
    assert await tables.ended() == ids


# In the other one, who rescues a job has it.
@pytest.mark.layouts("lease")
async def test_jobs_that_somebody_put_back_into_the_queue_do_not_run_twice(
    another: Another, queue_dsn: str, tables: Tables, queue_settings: DBSettings
) -> None:
    """A worker that has no time to look for stale jobs itself gets its own ones back."""
    manager = await another()
    gate = Gate()
    quick: list[int] = []
    manager.entrypoint("slow")(gate)

    @manager.entrypoint("quick")
    async def handler(job: Job) -> None:
        quick.append(job.id)
        if len(quick) == 150:
            with psycopg.connect(queue_dsn, autocommit=True) as rescuer:
                # Of whoever has not been heard of in the coming hour.
                rescued = psycopg.RawCursor(rescuer).execute(
                    statement("lease/rescue", queue_settings, "unselective"),
                    [timedelta(hours=-1), ["slow"]],
                )
                assert rescued.fetchall()[0][0] == 3

    ids = await manager.queries.enqueue(["slow"] * 3, [None] * 3, [9] * 3)
    await manager.queries.enqueue(["quick"] * 1000, [None] * 1000, [0] * 1000)
    async with working(manager, batch_size=100, heartbeat_timeout=timedelta(hours=1)):
        await eventually(lambda: len(quick) == 1000)
        gate.open.set()
        await eventually(lambda: len(gate.ended) == 3)
    assert sorted(gate.started) == ids
    assert len(await tables.ended()) == 1003
    for job_id in ids:
        assert await tables.statuses(job_id) == ["queued", "picked", "picked", "successful"]


@pytest.mark.pg_matrix
async def test_claims_whose_answer_got_lost_are_given_back(
    another: Another, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim commits, and its caller is cancelled before it hears of it."""
    manager = await another()
    handler = Recorder()
    manager.entrypoint("e", concurrency_limit=50)(handler)
    ids = await manager.queries.enqueue(["e"] * 10, [None] * 10, [0] * 10)
    layout_type = layout_of(manager)
    claim = layout_type.claim
    committed = asyncio.Event()

    async def losing(self: Any, *args: Any, **more: Any) -> Any:
        result = await claim(self, *args, **more)
        if result.jobs:
            committed.set()
            await asyncio.sleep(60)
        return result

    monkeypatch.setattr(layout_type, "claim", losing)
    task = asyncio.create_task(manager.run(**QUIET))
    await asyncio.wait_for(committed.wait(), 20)
    assert await tables.count("picked") == 10
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 20)
    assert handler.jobs == []
    assert (
        await tables.rows(
            "SELECT id FROM pgqueuer WHERE status = 'queued' AND queue_manager_id IS NULL"
            " AND slot IS NULL AND attempts = 0 ORDER BY id"
        )
        == ids
    )


async def test_outcomes_wait_while_the_server_takes_none(
    another: Another,
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    manager = await another()
    handler = Recorder()
    manager.entrypoint("e")(handler)
    ids = await manager.queries.enqueue(["e"] * 5, [b"secret"] * 5, [0] * 5)
    layout_type = layout_of(manager)
    finish = layout_type.finish
    failures = 3

    async def failing(self: Any, ids: Any, owner: QueueManagerId) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError("the network is down")
        await finish(self, ids, owner)

    monkeypatch.setattr(layout_type, "finish", failing)
    await drain(manager)
    assert await tables.ended() == ids
    assert await tables.count() == 0
    assert sorted(handler.ids) == ids
    assert "the network is down" in caplog.text
    assert "secret" not in caplog.text


# -- Listener ---------------------------------------------------------------------------------


async def test_listener_healthy(manager: QueueManager) -> None:
    manager.entrypoint("e")(Recorder())
    with pytest.raises(FailingListenerError, match="did not come back"):
        await manager.listener_healthy(timedelta(seconds=0.1))
    async with working(manager):

        async def healthy() -> bool:
            try:
                event = await manager.listener_healthy(timedelta(seconds=0.5))
            except FailingListenerError:
                return False
            assert event.type == "health_check_event"
            return True

        await eventually(healthy)
    assert manager.pending_health_check == {}


@pytest.mark.parametrize("fatal", [True, False])
async def test_a_deaf_worker(
    manager: QueueManager,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fatal: bool,
) -> None:
    """With shutdown_on_listener_failure it ends, else it goes on by polling."""
    handler = Recorder()
    manager.entrypoint("e")(handler)
    monkeypatch.setattr("pgq_fast.worker.loop.LISTENER_CHECK", timedelta(seconds=0.2))
    monkeypatch.setattr(Worker, "heard", lambda self, payload: None)
    arguments: dict[str, Any] = {
        "shutdown_on_listener_failure": fatal,
        "dequeue_timeout": timedelta(milliseconds=50),
    }
    if fatal:
        with pytest.raises(FailingListenerError):
            await asyncio.wait_for(manager.run(**QUIET, **arguments), 20)
        assert manager.shutdown.is_set()
        return
    async with working(manager, **arguments):
        await eventually(lambda: "goes on by polling" in caplog.text)
        await manager.queries.enqueue("e", None)
        await eventually(lambda: handler.jobs)


async def test_drain_does_not_need_a_listener(
    manager: QueueManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = Recorder()
    manager.entrypoint("e")(handler)
    monkeypatch.setattr(Worker, "heard", lambda self, payload: None)
    await manager.queries.enqueue(["e"] * 30, [None] * 30, [0] * 30)
    await drain(manager, shutdown_on_listener_failure=True)
    assert len(handler.jobs) == 30


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "no JSON: secret",
        '["secret"]',
        '{"type": "unheard_of", "secret": 1}',
        '{"type": "table_changed_event", "operation": "secret", "table": "t"}',
        '{"type": "cancellation_event", "ids": "secret"}',
        '{"type": "cancellation_event", "ids": [1, null]}',
        '{"type": "health_check_event", "id": "secret"}',
        '{"type": "health_check_event", "id": "00000000-0000-0000-0000-000000000001"}',
        "[" * 7000,
    ],
)
@pytest.mark.parametrize("kind", ["asyncpg", "psycopg"], indirect=True)
async def test_notifications_that_make_no_sense(
    manager: QueueManager, tables: Tables, caplog: pytest.LogCaptureFixture, payload: str
) -> None:
    handler = Recorder()
    manager.entrypoint("e")(handler)
    async with working(manager, dequeue_timeout=timedelta(hours=1)):
        await manager.queries.enqueue("e", None)
        await eventually(lambda: len(handler.jobs) == 1)
        await tables.rows("SELECT pg_notify('ch_pgqueuer', $1)", payload)
        if payload:
            await eventually(lambda: "Ignored 1 notification" in caplog.text)
        await manager.queries.enqueue("e", None)
        await eventually(lambda: len(handler.jobs) == 2)
    assert "secret" not in caplog.text


# -- Refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["asyncpg", "psycopg"], indirect=True)
async def test_a_worker_in_an_open_transaction(manager: QueueManager, tables: Tables) -> None:
    manager.entrypoint("e")(Recorder())
    await manager.queries.enqueue("e", None)
    await manager.queries.driver.execute("BEGIN")
    with pytest.raises(OpenTransactionError):
        await manager.run()
    await manager.queries.driver.execute("ROLLBACK")
    assert await tables.count("queued") == 1


MISSING = {
    "DROP TABLE pgqueuer": "required table 'pgqueuer' is missing",
    "DROP TABLE pgqueuer_statistics": "required table 'pgqueuer_statistics' is missing",
    "DROP TABLE pgqueuer_log": "pgqueuer_log table is missing",
    "ALTER TABLE pgqueuer DROP headers": "column 'headers' is missing in the 'pgqueuer' table",
    "ALTER TABLE pgqueuer DROP slot": "column 'slot' is missing",
    "ALTER TABLE pgqueuer_log DROP traceback": "column 'traceback' is missing",
    "DROP INDEX pgqueuer_picked_slot_idx": "index 'pgqueuer_picked_slot_idx' is missing",
    "DROP INDEX pgqueuer_log_job_id_status": "index 'pgqueuer_log_job_id_status' is missing",
    "ALTER TYPE pgqueuer_status RENAME VALUE 'failed' TO 'f'": "no label 'failed'",
}


# Of lease, tests/schema has the same.
@pytest.mark.layouts("compat")
@pytest.mark.parametrize("change", MISSING)
@pytest.mark.parametrize("kind", ["asyncpg"], indirect=True)
async def test_an_incomplete_installation(
    manager: QueueManager, tables: Tables, change: str
) -> None:
    await tables.rows(change)
    for call in (manager.verify_structure, manager.run):
        with pytest.raises(RuntimeError, match=MISSING[change]) as caught:
            await call()
        assert "pgq " in str(caught.value)


async def test_worker_ids_are_unique(another: Another) -> None:
    managers = [await another() for _ in range(3)]
    assert len({manager.queue_manager_id for manager in managers}) == 3
    assert all(isinstance(manager.queue_manager_id, uuid.UUID) for manager in managers)
    assert QueueExecutionMode("drain") is QueueExecutionMode.drain
    assert logging.getLogger("pgqueuer").name == "pgqueuer"


@pytest.mark.pg_matrix
async def test_jobs_taken_over_while_they_waited_are_not_started(
    manager: QueueManager, queue_dsn: str, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    """The first handler of a batch blocks the loop until the others count as abandoned."""
    ran: list[int] = []

    @manager.entrypoint("e")
    async def block(job: Job) -> None:
        ran.append(job.id)
        if len(ran) == 1:
            with psycopg.connect(queue_dsn, autocommit=True) as rescuer:
                rescuer.execute(tables.taking_over)
            time.sleep(0.3)  # noqa: ASYNC251

    ids = await manager.queries.enqueue(["e"] * 3, [None] * 3, [0] * 3)
    async with working(manager, heartbeat_timeout=SECOND):
        await eventually(lambda: "waited here to be started" in caplog.text)
    assert ran == ids[:1]
    # As the other worker has them, the first one too.
    assert await tables.count("picked") == 3
    assert await tables.ended() == []
