from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import pgq_fast
from pgq_fast import supervisor
from pgq_fast.applications import PgQueuer
from pgq_fast.memory import InMemoryDriver, InMemoryQueries
from pgq_fast.models import Job, Schedule
from pgq_fast.qm import QueueManager
from pgq_fast.sm import SchedulerManager
from pgq_fast.types import QueueExecutionMode

if TYPE_CHECKING:
    from scheduler.conftest import Eventually

pytestmark = pytest.mark.impl_agnostic

ROOT = Path(pgq_fast.__file__).parents[1]
DRAIN = QueueExecutionMode.drain


class Workers:
    """A factory that remembers its workers. *outcome* is called when a job runs."""

    def __init__(self, outcome: Callable[[int], None] = lambda number: None) -> None:
        self.outcome = outcome
        self.made = 0
        self.left = 0
        self.jobs: list[int] = []

    @contextlib.asynccontextmanager
    async def __call__(self) -> AsyncIterator[PgQueuer]:
        self.made += 1
        number = self.made
        pgq = PgQueuer.in_memory()

        @pgq.entrypoint("work")
        async def work(job: Job) -> None:
            self.jobs.append(number)

        assert pgq.queries is not None
        await pgq.queries.enqueue("work", None)
        self.outcome(number)
        try:
            yield pgq
        finally:
            self.left += 1


def fail_until(good: int) -> Callable[[int], None]:
    def outcome(number: int) -> None:
        if number < good:
            raise ConnectionError(f"worker {number} found no server")

    return outcome


async def test_a_worker_runs_and_is_cleaned_up() -> None:
    workers = Workers()
    await pgq_fast.run(workers, mode=DRAIN)
    assert (workers.made, workers.left, workers.jobs) == (1, 1, [1])


async def test_a_factory_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "named_worker.py").write_text(
        textwrap.dedent(
            """
            import contextlib
            from pgq_fast import PgQueuer

            made = []

            @contextlib.asynccontextmanager
            async def create():
                made.append(1)
                yield PgQueuer.in_memory()
            """
        )
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    await pgq_fast.run("named_worker:create", mode=DRAIN)
    assert sys.modules.pop("named_worker").made == [1]


async def test_a_failure_is_raised() -> None:
    workers = Workers(fail_until(2))
    with pytest.raises(ConnectionError, match="worker 1"):
        await pgq_fast.run(workers, mode=DRAIN)
    assert workers.made == 1


async def test_a_failed_worker_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    workers = Workers(fail_until(3))
    with caplog.at_level(logging.ERROR, "pgqueuer"):
        await pgq_fast.run(workers, mode=DRAIN, restart_on_failure=True, restart_delay=timedelta(0))
    assert (workers.made, workers.jobs) == (3, [3])
    assert "worker 1 found no server" in caplog.text
    assert "worker 2 found no server" in caplog.text


async def test_a_worker_that_fails_while_it_runs_is_left_before_the_next_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers = Workers()
    left: list[int] = []
    run = PgQueuer.run

    async def failing_once(self: PgQueuer, **arguments: Any) -> None:
        left.append(workers.left)
        if workers.made == 1:
            # Workers set their own event however they end; only the process's event counts.
            self.shutdown.set()
            raise ConnectionError("lost")
        await run(self, **arguments)

    monkeypatch.setattr(PgQueuer, "run", failing_once)
    await pgq_fast.run(workers, mode=DRAIN, restart_on_failure=True, restart_delay=timedelta(0))
    assert left == [0, 1]
    assert workers.jobs == [2]


async def test_a_worker_that_ends_well_is_not_replaced() -> None:
    workers = Workers()
    await pgq_fast.run(workers, mode=DRAIN, restart_on_failure=True)
    assert workers.made == 1


async def test_cancellation_is_no_reason_for_a_new_worker(eventually: Eventually) -> None:
    workers = Workers()
    run = asyncio.create_task(
        pgq_fast.run(workers, restart_on_failure=True, restart_delay=timedelta(0))
    )
    await eventually(lambda: bool(workers.jobs))
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert (workers.made, workers.left) == (1, 1)


async def test_shutdown_by_event(eventually: Eventually) -> None:
    workers, shutdown = Workers(), asyncio.Event()
    run = asyncio.create_task(pgq_fast.run(workers, shutdown=shutdown))
    await eventually(lambda: bool(workers.jobs))
    assert not run.done()
    shutdown.set()
    await run
    assert workers.left == 1


async def test_an_event_set_before_makes_no_worker() -> None:
    workers, shutdown = Workers(), asyncio.Event()
    shutdown.set()
    await pgq_fast.run(workers, shutdown=shutdown)
    assert workers.made == 0


async def test_shutdown_between_two_workers(eventually: Eventually) -> None:
    workers, shutdown = Workers(fail_until(10**6)), asyncio.Event()
    run = asyncio.create_task(
        pgq_fast.run(
            workers, restart_on_failure=True, restart_delay=timedelta(hours=1), shutdown=shutdown
        )
    )
    await eventually(lambda: workers.made == 1)
    shutdown.set()
    await run
    assert workers.made == 1


async def test_a_negative_delay_is_refused() -> None:
    workers = Workers()
    with pytest.raises(ValueError, match="restart_delay"):
        await pgq_fast.run(workers, restart_on_failure=True, restart_delay=timedelta(seconds=-1))
    assert workers.made == 0


async def test_what_cannot_be_run_is_refused() -> None:
    @contextlib.asynccontextmanager
    async def factory() -> AsyncIterator[object]:
        yield {}

    with pytest.raises(NotImplementedError, match="yielded a dict"):
        await pgq_fast.run(factory)
    with pytest.raises(TypeError, match="returned a dict"):
        await pgq_fast.run(dict)


async def test_a_queue_manager_alone_gets_every_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, object] = {
        "dequeue_timeout": timedelta(seconds=7),
        "batch_size": 3,
        "mode": DRAIN,
        "max_concurrent_tasks": 11,
        "shutdown_on_listener_failure": True,
        "heartbeat_timeout": timedelta(seconds=19),
    }
    seen: list[dict[str, object]] = []

    async def run(self: object, **arguments: object) -> None:
        seen.append(arguments)

    for cls in (QueueManager, PgQueuer):
        assert set(arguments) <= set(inspect.signature(cls.run).parameters)
        monkeypatch.setattr(cls, "run", run)

    @contextlib.asynccontextmanager
    async def managed() -> AsyncIterator[QueueManager]:
        yield QueueManager(InMemoryQueries(InMemoryDriver()))

    for factory in (managed, Workers()):
        await pgq_fast.run(factory, **arguments)  # type: ignore[arg-type]
    assert seen == [arguments, arguments]


async def test_a_scheduler_alone_is_run_until_shutdown(eventually: Eventually) -> None:
    ticks: list[Schedule] = []
    shutdown = asyncio.Event()

    @contextlib.asynccontextmanager
    async def factory() -> AsyncIterator[SchedulerManager]:
        manager = SchedulerManager(InMemoryQueries(InMemoryDriver()))

        @manager.schedule("tick", "* * * * * *")
        async def tick(schedule: Schedule) -> None:
            ticks.append(schedule)

        yield manager

    run = asyncio.create_task(pgq_fast.run(factory, shutdown=shutdown))
    await eventually(lambda: bool(ticks))
    shutdown.set()
    await run


async def test_signals_are_handled_while_it_runs_and_only_then(eventually: Eventually) -> None:
    workers = Workers()
    run = asyncio.create_task(pgq_fast.run(workers))
    await eventually(lambda: bool(workers.jobs))
    os.kill(os.getpid(), signal.SIGTERM)
    await run
    assert workers.left == 1
    loop = asyncio.get_running_loop()
    assert not any(loop.remove_signal_handler(each) for each in supervisor.STOP_SIGNALS)


async def test_with_an_event_signals_are_the_callers_business(eventually: Eventually) -> None:
    workers, shutdown = Workers(), asyncio.Event()
    run = asyncio.create_task(pgq_fast.run(workers, shutdown=shutdown))
    await eventually(lambda: bool(workers.jobs))
    loop = asyncio.get_running_loop()
    assert not any(loop.remove_signal_handler(each) for each in supervisor.STOP_SIGNALS)
    shutdown.set()
    await run


def test_a_thread_without_signals_runs_a_worker_too(caplog: pytest.LogCaptureFixture) -> None:
    workers = Workers()
    thread = threading.Thread(target=lambda: asyncio.run(pgq_fast.run(workers, mode=DRAIN)))
    thread.start()
    thread.join()
    assert workers.jobs == [1]
    assert "Signals cannot be handled here" in caplog.text


PROCESS = """
import asyncio, contextlib
import pgq_fast
from pgq_fast import PgQueuer

@contextlib.asynccontextmanager
async def create():
    pgq = PgQueuer.in_memory()
    finish = asyncio.Event()

    @pgq.entrypoint("work")
    async def work(job):
        print("started", flush=True)
        while not pgq.qm.shutdown.is_set():
            await asyncio.sleep(0.01)
        print("finished", flush=True)

    await pgq.queries.enqueue("work", None)
    try:
        yield pgq
    finally:
        print("cleaned up", flush=True)

asyncio.run(pgq_fast.run(create, restart_on_failure=True))
print("ended", flush=True)
"""


@pytest.mark.parametrize("signum", supervisor.STOP_SIGNALS)
def test_a_process_ends_gracefully_on_a_signal(signum: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            process.send_signal(signum)
            output, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert output.splitlines() == ["finished", "cleaned up", "ended"]
    assert process.returncode == 0
