"""Whatever a handler, its exception or its executor give for the end of a job: the job ends, and
the others of its batch are acknowledged.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from behaviour.helpers import Tables, drain, last_statuses
from pgq_fast.errors import RetryRequested
from pgq_fast.executors import AbstractEntrypointExecutor, DatabaseRetryEntrypointExecutor
from pgq_fast.models import Context, Job
from pgq_fast.qm import QueueManager
from pgq_fast.queries import Queries
from pgq_fast.tracebacks import MESSAGE_CHARACTERS, TRACEBACK_CHARACTERS

pytestmark = pytest.mark.layouts

Handler = Callable[[Job], Awaitable[None]]


class Bare(RetryRequested):
    """A request that was never given a delay."""

    def __init__(self) -> None:
        pass


class Unreadable(RetryRequested):
    """A request that fails when it is asked for its delay."""

    def __init__(self) -> None:
        pass

    @property
    def delay(self) -> timedelta:
        raise LookupError("no delay here")

    @delay.setter
    def delay(self, value: timedelta) -> None: ...


class Nameless(type):
    """The class of exceptions whose name is none."""

    __name__ = 5  # type: ignore[assignment]


class Unnamed(Exception, metaclass=Nameless):
    """Its name cannot be stored."""


def raising(error: Callable[[], Exception], pause: bool = False) -> Handler:
    async def handler(job: Job) -> None:
        if pause:
            await asyncio.sleep(0.001)
        raise error()

    return handler


DELAYS: dict[str, Any] = {
    "longest": timedelta.max,
    "shortest": timedelta.min,
    "beyond the year 9999": timedelta(days=365 * 9000),
    "text": "x",
    "number": 5,
    "none": None,
    "nan": float("nan"),
}


def grouped(*delays: Any) -> Exception:
    return ExceptionGroup("several", [RetryRequested(delay) for delay in delays])


async def outcomes(manager: QueueManager, tables: Tables, names: list[str]) -> dict[str, str]:
    """Run a batch with two jobs of each name, and others; how those of each name ended."""
    seen: list[int] = []

    @manager.entrypoint("good")
    async def good(job: Job) -> None:
        seen.append(job.id)

    @manager.entrypoint("broken")
    async def broken(job: Job) -> None:
        raise ValueError("as usual")

    @manager.entrypoint("again")
    async def again(job: Job) -> None:
        if not job.attempts:
            raise RetryRequested

    twice = [name for name in names for _ in range(2)]
    batch = ["good", "broken", "again", *twice, "again", "broken", "good"]
    ids: list[Any] = await manager.queries.enqueue(batch, [None] * len(batch), [0] * len(batch))
    # Nobody would take over what is not acknowledged.
    await drain(manager, batch_size=len(batch), heartbeat_timeout=timedelta(hours=1))
    by_job = dict(zip(ids, await last_statuses(tables, ids), strict=True))
    others = ["successful", "exception", "successful"]
    assert [by_job[job_id] for job_id in ids[:3]] == others
    assert [by_job[job_id] for job_id in reversed(ids[-3:])] == others
    assert sorted(seen) == [ids[0], ids[-1]]
    assert await tables.count("picked") == await tables.count("queued") == 0
    first, second = ids[3:-3:2], ids[4:-3:2]
    assert [by_job[job_id] for job_id in first] == [by_job[job_id] for job_id in second]
    return dict(zip(names, [by_job[job_id] for job_id in first], strict=True))


async def recorded(manager: QueueManager) -> dict[str, tuple[str, str]]:
    """The class and the message that the log has of each entrypoint's jobs that failed."""
    return {
        str(entry.entrypoint): (
            entry.traceback.exception_type,
            entry.traceback.exception_message,
        )
        for entry in await manager.queries.queue_log()
        if entry.traceback is not None and entry.status in ("exception", "failed")
    }


async def test_delays_that_no_job_can_have(
    manager: QueueManager, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    for name, delay in DELAYS.items():
        manager.entrypoint(name)(raising(lambda delay=delay: RetryRequested(delay)))  # type: ignore[misc]
        manager.entrypoint(f"{name}, later")(
            raising(lambda delay=delay: RetryRequested(delay), pause=True)  # type: ignore[misc]
        )
        manager.entrypoint(f"{name}, in a group")(
            raising(lambda delay=delay: grouped(timedelta(0), delay))  # type: ignore[misc]
        )
    manager.entrypoint("bare")(raising(Bare))
    names = [
        *(f"{name}{where}" for name in DELAYS for where in ("", ", later", ", in a group")),
        "bare",
    ]
    assert set((await outcomes(manager, tables, names)).values()) == {"exception"}
    found = await recorded(manager)
    assert {found[name][0] for name in names} == {"InvalidRetryError"}
    for name in names:
        kind = name.partition(",")[0]
        if kind in ("longest", "shortest", "beyond the year 9999"):
            assert "outside the years 1 to 9999" in found[name][1]
        else:
            assert "pass a timedelta" in found[name][1]
    # What the handler raised is in the traceback.
    (entry,) = [
        entry
        for entry in await manager.queries.queue_log()
        if entry.traceback is not None and entry.entrypoint == "text" and entry.job_id % 2
    ]
    assert entry.traceback is not None
    assert "RetryRequested" in entry.traceback.traceback
    assert __file__ in entry.traceback.traceback
    assert "cannot be stored" not in caplog.text


async def test_a_failure_that_cannot_be_retried_is_held_where_that_is_wanted(
    manager: QueueManager, tables: Tables
) -> None:
    manager.entrypoint("held", on_failure="hold")(raising(lambda: RetryRequested(timedelta.max)))
    assert await outcomes(manager, tables, ["held"]) == {"held": "failed"}
    assert (await recorded(manager))["held"][0] == "InvalidRetryError"


async def test_delays_of_an_executor(manager: QueueManager, tables: Tables) -> None:
    """Those of the executor are limited by it; what it is told may be nonsense, too."""

    def with_(**arguments: Any) -> Callable[..., AbstractEntrypointExecutor]:
        def make(parameters: Any) -> AbstractEntrypointExecutor:
            return DatabaseRetryEntrypointExecutor(parameters, **arguments)

        return make

    broken = raising(lambda: ValueError("broken"))
    executors = {
        "too long": with_(max_attempts=1, initial_delay=timedelta.max, max_delay=timedelta.max),
        "no number": with_(max_attempts=1, backoff_multiplier=float("nan")),
        "text": with_(max_attempts=1, initial_delay="soon"),
    }
    for name, factory in executors.items():
        manager.entrypoint(name, executor_factory=factory)(broken)
    assert set((await outcomes(manager, tables, list(executors))).values()) == {"exception"}


async def test_what_exceptions_say(
    manager: QueueManager, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    class Endless(Exception):
        def __str__(self) -> str:
            return "start" + "m" * 3_000_000 + "end"

    errors: dict[str, Callable[[], Exception]] = {
        "nul": lambda: ValueError("a\0b"),
        "surrogate": lambda: ValueError("a\ud800b"),
        "reason": lambda: RetryRequested(reason={"a": "\0\udfff"}),  # type: ignore[arg-type]
        "endless": Endless,
        "unreadable delay": Unreadable,
        "unnamed": Unnamed,
    }

    @manager.entrypoint("reason")
    async def reason(job: Job) -> None:
        if not job.attempts:
            raise errors["reason"]()

    for name, error in errors.items():
        if name != "reason":
            manager.entrypoint(name)(raising(error))
    assert await outcomes(manager, tables, list(errors)) == {
        name: "successful" if name == "reason" else "exception" for name in errors
    }
    found = await recorded(manager)
    assert found["nul"] == ("ValueError", "a\\x00b")
    assert found["surrogate"] == ("ValueError", "a\\ud800b")
    assert found["unnamed"][0] == found["unreadable delay"][0] == "UnrecordableOutcomeError"
    assert "LookupError" in found["unreadable delay"][1]
    message = found["endless"][1]
    assert message.startswith("start")
    assert message.endswith("end")
    assert MESSAGE_CHARACTERS < len(message) < MESSAGE_CHARACTERS + 100
    log = await manager.queries.queue_log()
    (retry, *_) = [
        entry.traceback
        for entry in log
        if entry.entrypoint == "reason" and entry.traceback is not None
    ]
    assert retry.additional_context is not None
    assert "udfff" in str(retry.additional_context["reason"])
    assert max(len(entry.traceback.traceback) for entry in log if entry.traceback) < (
        TRACEBACK_CHARACTERS + 100
    )


async def test_jobs_that_their_handlers_changed(manager: QueueManager, tables: Tables) -> None:
    """A job is the handler's to use as it likes; its identity is not."""
    changes: dict[str, dict[str, Any]] = {
        "id": {"id": "x"},
        "no id": {"id": None},
        "another id": {"id": 2**70},
        "owner": {"queue_manager_id": "x"},
        "attempts": {"attempts": "x"},
        "many attempts": {"attempts": 2**40},
        "payload": {"payload": 5},
        "parsed payload": {"payload": {"a": 1}},
        "entrypoint": {"entrypoint": []},
    }

    def changing(
        change: dict[str, Any], pause: bool, error: Callable[[], Exception] | None
    ) -> Handler:
        async def handler(job: Job) -> None:
            first = not job.attempts
            for name, value in change.items():
                setattr(job, name, value)
            if pause:
                await asyncio.sleep(0.001)
            if error is not None and first:
                raise error()

        return handler

    expected = {}
    for name, change in changes.items():
        for pause in (False, True):
            for kind, error in {"well": None, "badly": ValueError}.items():
                full = f"{name} {kind} {pause}"
                manager.entrypoint(full)(changing(change, pause, error))
                expected[full] = "successful" if error is None else "exception"
    for name in ("id", "owner", "entrypoint", "payload"):
        manager.entrypoint(f"{name} again")(changing(changes[name], False, RetryRequested))
        expected[f"{name} again"] = "successful"
    assert await outcomes(manager, tables, list(expected)) == expected


async def test_executors_that_return_or_raise_anything(
    manager: QueueManager, tables: Tables
) -> None:
    @dataclasses.dataclass
    class Returning(AbstractEntrypointExecutor):
        value: Any

        async def execute(self, job: Job, context: Context) -> None:
            result: None = self.value
            return result

    class NotAwaitable(AbstractEntrypointExecutor):
        def execute(self, job: Job, context: Context) -> Any:
            return 5

    class WithoutParameters(AbstractEntrypointExecutor):
        async def execute(self, job: Job, context: Context) -> None:
            # What on_failure is read from.
            self.parameters = None  # type: ignore[assignment]
            raise ValueError("broken")

    factories: dict[str, Callable[..., AbstractEntrypointExecutor]] = {
        "retry returned": lambda p: Returning(p, RetryRequested(timedelta.max)),
        "error returned": lambda p: Returning(p, ValueError("x")),
        "text returned": lambda p: Returning(p, "\0"),
        "not awaitable": NotAwaitable,
        "without parameters": WithoutParameters,
    }

    async def unused(job: Job) -> None: ...

    for name, factory in factories.items():
        manager.entrypoint(name, executor_factory=factory)(unused)
    found = await outcomes(manager, tables, list(factories))
    assert found == {
        name: "successful" if name.endswith("returned") else "exception" for name in factories
    }
    assert (await recorded(manager))["without parameters"][0] == "UnrecordableOutcomeError"


async def test_what_log_failure_reports(queries: Queries, tables: Tables) -> None:
    class Reporting(QueueManager):
        async def log_failure(self, job: Job, executor: Any, exc: Exception, jbuff: Any) -> None:
            report = reports.get(job.entrypoint, (job, "exception", None))
            if report is not None:
                await jbuff.add(report(job) if callable(report) else report)

    reports: dict[str, Any] = {
        "status": lambda job: (job, "no such status", None),
        "status of no kind": lambda job: (job, 5, None),
        "record of no kind": lambda job: (job, "exception", "a record"),
        "too few": lambda job: (job,),
        "job of no kind": lambda job: ("job", "exception", None),
        "nothing": None,
    }
    manager = Reporting(queries)
    for name in reports:
        manager.entrypoint(name)(raising(ValueError))
    found = await outcomes(manager, tables, list(reports))
    assert set(found.values()) == {"exception"}
    log = await recorded(manager)
    for name in ("status", "status of no kind", "too few", "nothing"):
        assert log[name][0] == "UnrecordableOutcomeError"
