"""Payloads, headers and passwords: nowhere but where they belong, whatever fails."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Any, Final

import asyncpg
import psycopg
import pytest
import pytest_asyncio

from behaviour.helpers import Tables, drain
from pgq_fast import PgQueuer
from pgq_fast.errors import PgqException, RetryRequested
from pgq_fast.metrics.prometheus import collect_metrics
from pgq_fast.metrics.worker import WorkerMetrics
from pgq_fast.models import Job
from pgq_fast.qm import QueueManager
from pgq_fast.queries import Queries
from pgq_fast.settings import DBSettings, Layout
from support.drivers import KINDS, MakeDriver
from support.layouts import queries_of
from support.server import with_database

PAYLOAD: Final = "payload-to-hide"
HEADER: Final = "header-to-hide"
PASSWORD: Final = "password-to-hide"
SECRETS: Final = (PAYLOAD, HEADER, PASSWORD, PAYLOAD.encode().hex())

pytestmark = [pytest.mark.impl_agnostic, pytest.mark.layouts]


def told(text: str) -> list[str]:
    """The secrets that *text* tells."""
    return [secret for secret in SECRETS if secret in text]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest_asyncio.fixture
async def queries(
    kind: str, make_driver: MakeDriver, queue_dsn: str, queue_settings: DBSettings
) -> Queries:
    return queries_of(await make_driver(kind, queue_dsn), queue_settings)


@pytest_asyncio.fixture
async def tables(queue_dsn: str, layout: Layout) -> AsyncIterator[Tables]:
    async with await psycopg.AsyncConnection.connect(queue_dsn, autocommit=True) as connection:
        yield Tables(connection, layout=layout)


async def test_jobs_that_fail_in_every_way(
    queries: Queries,
    tables: Tables,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    outputs: list[str] = []
    metrics = WorkerMetrics(registry=None)
    manager = QueueManager(queries)
    manager.observer = metrics
    seen: list[Job] = []

    @manager.entrypoint("good")
    async def good(job: Job) -> None:
        seen.append(job)

    @manager.entrypoint("bad")
    async def bad(job: Job) -> None:
        raise ValueError("broken")

    @manager.entrypoint("held", on_failure="hold")
    async def held(job: Job) -> None:
        raise KeyError("broken")

    @manager.entrypoint("again")
    async def again(job: Job) -> None:
        if not job.attempts:
            raise RetryRequested(timedelta(0), "not yet")

    @manager.entrypoint("cancelled")
    async def cancelled(job: Job) -> None:
        raise asyncio.CancelledError

    names = ["good", "bad", "held", "again", "cancelled"] * 3
    data: list[Any] = [PAYLOAD.encode()] * len(names)
    headers: list[Any] = [{"h": HEADER}] * len(names)
    ids = await queries.enqueue(names, data, [0] * len(names), headers=headers)
    # Headers that cannot be read.
    await tables.edit(ids[0], f"headers = '[\"{HEADER}\"]'")
    with suppress(asyncio.CancelledError):
        await drain(manager)

    calls: list[Any] = [
        lambda: queries.enqueue("e", data, 0, headers={"h": HEADER}),  # type: ignore[call-overload]
        lambda: queries.enqueue("e\0", data[0], headers={"h": HEADER}),
        lambda: queries.enqueue("e", PAYLOAD),  # type: ignore[call-overload]
        lambda: queries.enqueue("e", {PAYLOAD: 1}),  # type: ignore[call-overload]
        lambda: queries.enqueue("e", data[0], headers={"h": (HEADER, object())}),  # type: ignore
        lambda: queries.enqueue("e", data[0], headers={"h": HEADER + "\0"}),
        lambda: queries.enqueue("e", data[0], headers=[HEADER]),  # type: ignore[call-overload]
    ]
    for call in calls:
        with pytest.raises(PgqException) as caught:
            await call()
        outputs += [str(caught.value), repr(caught.value)]
    # What the server refuses, with the values of the statement in the session's hands.
    await tables.rows(f"ALTER TABLE {tables.new_jobs} ADD CHECK (entrypoint <> 'refused')")
    for refused in (["refused"], ["refused"] * 3, ["refused"] * 2500):
        count = len(refused)
        arguments: tuple[Any, ...] = (refused, [data[0]] * count, [0] * count)
        with pytest.raises((asyncpg.PostgresError, psycopg.Error)) as failed:
            await queries.enqueue(*arguments, headers=[{"h": HEADER}] * count)
        assert failed.value.sqlstate == "23514"
        # Its detail is the server's, which shows the row to whoever sent it; what is logged is not.
        outputs.append(repr(queries))

    outputs += [
        await collect_metrics(queries),
        str([sample for family in metrics.collect() for sample in family.samples]),
        *(str(entry.traceback) for entry in await queries.exception_logs()),
        repr(manager),
        repr(PgQueuer(queries.driver)),
        repr(queries),
        repr(queries.driver),
        repr(queries.qbq.settings),
        caplog.text,
        *capfd.readouterr(),
    ]
    assert len(seen) == 3
    assert "broken" in caplog.text
    assert [told(output) for output in outputs] == [[]] * len(outputs)


async def test_a_password_that_is_wrong_or_right(
    databases: Any,
    queue_dsn: str,
    layout: Layout,
    kind: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    outputs: list[str] = []
    dsn = queue_dsn.replace("postgresql://postgres", f"postgresql://postgres:{PASSWORD}", 1)
    assert PASSWORD in dsn
    async with AsyncExitStack() as stack:
        pgq = await stack.enter_async_context(PgQueuer.from_dsn(dsn))
        await pgq.qm.queries.enqueue("e", None)
        outputs += [repr(pgq), str(pgq), repr(pgq.qm.queries.driver), str(pgq.qm.queries.driver)]
    for bad in (
        with_database(dsn, "there_is_none"),
        dsn.replace("postgres:", "nobody:", 1),
        f"postgresql://u:{PASSWORD}@127.0.0.1:1/x",
        f"postgresql://u:{PASSWORD}@[:::]/x",
        f"host=nowhere.invalid password={PASSWORD} nonsense=1",
    ):
        try:
            async with asyncio.timeout(20):
                async with PgQueuer.from_dsn(bad) as failing:
                    outputs.append(repr(failing))
                    await failing.qm.queries.enqueue("e", None)
        except Exception as error:
            outputs += [str(error), repr(error), "".join(traceback.format_exception(error))]
    outputs.append(caplog.text)
    assert [told(output) for output in outputs] == [[]] * len(outputs)
