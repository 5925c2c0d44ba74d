"""Queues with something of everything, what is in them, and migrations that go step by step."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

import psycopg

from pgq_fast import models
from pgq_fast.queries import Queries
from pgq_fast.repository import EntrypointExecutionParameter
from pgq_fast.schema.migrate import MigrationReport, migrate
from pgq_fast.schema.statements import Pause, Statement, Steps
from pgq_fast.settings import DBSettings, Layout

OTHER: Final = {Layout.compat: Layout.lease, Layout.lease: Layout.compat}

RAISED: Final = "raised"
"""The entrypoint of a job whose priority was raised after the enqueue. The lease layout derives the
entry of the enqueue from the job, so it has the new one."""

Step = Statement | Pause


def on(layout: Layout, **values: Any) -> DBSettings:
    """Settings for *layout*."""
    return DBSettings(layout=layout, **values)


def steps(
    settings: DBSettings,
    to: Layout,
    *,
    batch_size: int = 10_000,
    patience: float = 30,
    heartbeat_timeout: float = 30,
    requeue_picked: bool = False,
    on_progress: Any = None,
) -> Steps[MigrationReport]:
    """A migration to be driven by the test."""
    return migrate(
        settings,
        to,
        batch_size=batch_size,
        patience=timedelta(seconds=patience),
        heartbeat_timeout=timedelta(seconds=heartbeat_timeout),
        requeue_picked=requeue_picked,
        on_progress=on_progress,
    )


async def drive(
    driver: Any,
    migration: Steps[MigrationReport],
    before_each: Callable[[int, Step], Awaitable[None]] | None = None,
) -> MigrationReport:
    """Carry out *migration*, with a look in before each of its steps.

    What that raises is raised in the migration, as if the step had failed.
    """
    number = 0
    try:
        step = next(migration)
        while True:
            rows: Any = []
            try:
                if before_each is not None:
                    await before_each(number, step)
                number += 1
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                elif step.returns_rows:
                    rows = await driver.fetch(step.sql, *step.args)
                else:
                    await driver.execute(step.sql, *step.args)
            except Exception as error:
                step = migration.throw(error)
            else:
                step = migration.send(rows)
    except StopIteration as done:
        report: MigrationReport = done.value
        return report


async def pick(queries: Queries, entrypoint: str, count: int = 1, limit: int = 0) -> list[Any]:
    """Claim jobs for a worker of their own."""
    return await queries.dequeue(
        count,
        {entrypoint: EntrypointExecutionParameter(limit)},  # type: ignore[dict-item]
        uuid.uuid4(),  # type: ignore[arg-type]
        None,
        timedelta(seconds=30),
    )


def record(job: Any, words: str) -> models.TracebackRecord:
    """A traceback."""
    return models.TracebackRecord.from_exception(ValueError(words), job.id, {"a": 1})


async def fill(queries: Queries) -> None:
    """Jobs in every state that outlasts its worker, with everything that a job can have."""
    await queries.enqueue(["plain"] * 6, [None, b"", b"x", b"\0", b"y", b"z"], [0, 5, -3, 5, 0, 0])
    await queries.enqueue("big", bytes(range(256)) * 4000, headers={"größe": "1 MB"})
    await queries.enqueue("keyed", b"k", 3, dedupe_key="one", headers={"a": "b"})
    await queries.enqueue(RAISED, b"k", 3, dedupe_key="two")
    await queries.enqueue(RAISED, b"k", 7, dedupe_key="two", on_conflict="update_priority")
    await queries.enqueue(
        ["late"] * 3, [b"l"] * 3, [2, 1, 0], [timedelta(hours=h) for h in (1, 9, 1)]
    )
    await queries.enqueue("late", None, 0, timedelta(days=2), "late key", {"c": "d"})
    # Successes in batches, some of them with different priorities.
    await queries.enqueue(["done"] * 9, [b"d"] * 9, [0] * 5 + [1, 2, 3, 3])
    for count in (4, 5):
        await queries.log_jobs(
            [(job, "successful", None) for job in await pick(queries, "done", count)]
        )
    await queries.enqueue(["bad"] * 3, [b"b"] * 3, [1, 1, 1])
    for job, status in zip(
        await pick(queries, "bad", 3), ("exception", "canceled", "deleted"), strict=True
    ):
        await queries.log_jobs(
            [(job, status, record(job, "bad") if status == "exception" else None)]
        )
    await queries.enqueue(["again"] * 2, [b"r"] * 2, [4, 4])
    at_once, later = await pick(queries, "again", 2)
    await queries.retry_job(at_once, timedelta(0), record(at_once, "at once"))
    await queries.retry_job(later, timedelta(hours=3), None)
    await queries.aggregate_logs()
    # Held, also with a key that somebody else has taken since.
    await queries.enqueue("held", b"h", 1, dedupe_key="of held", headers={"h": "h"})
    await queries.enqueue(["held"] * 2, [b"h"] * 2, [2, 2])
    held = await pick(queries, "held", 3)
    await queries.log_jobs([(job, "failed", record(job, "held")) for job in held])
    await queries.enqueue("held", b"h", 1, dedupe_key="of held")
    await queries.requeue_jobs([held[0].id])
    gone = await queries.enqueue("gone", b"g")
    await queries.mark_job_as_cancelled(gone)
    await queries.enqueue(["cleared"] * 2, [b"c"] * 2, [0, 0])
    await queries.clear_queue("cleared")
    expression = models.CronExpressionEntrypoint("cron", "* * * * *")  # type: ignore[arg-type]
    await queries.insert_schedule({expression: timedelta(minutes=5)})


Contents = dict[str, list[Any]]

_QUEUE = """
SELECT id, priority, created, execute_after, status::text, entrypoint, dedupe_key, payload, headers,
    attempts, CASE WHEN status = 'failed' THEN updated END
FROM {queue} WHERE status <> 'picked' ORDER BY id"""

_LOG = """
SELECT job_id, created, status::text, CASE WHEN entrypoint <> 'raised' THEN priority END,
    entrypoint, traceback::text
FROM {log} ORDER BY job_id, created, status"""

_COUNTS = """
SELECT created, entrypoint, CASE WHEN entrypoint <> 'raised' THEN priority END, status,
    sum(count)::bigint
FROM (
    SELECT created, entrypoint, priority, status::text, count FROM {statistics}
    UNION ALL
    SELECT date_trunc('sec', created), entrypoint, priority, status::text, 1
    FROM {log} WHERE NOT aggregated
) AS counted
GROUP BY 1, 2, 3, 4 HAVING sum(count) <> 0
ORDER BY 1, 2, 3, 4"""

_SCHEDULES = "SELECT * FROM {schedules} ORDER BY id"


def contents(dsn: str, **values: Any) -> Contents:
    """What anybody can see of a queue, whatever its layout: jobs, log, numbers, schedules.

    The numbers are those of the statistics together with what is still to be counted.
    """
    names = DBSettings(**values).qualified
    texts = {"jobs": _QUEUE, "log": _LOG, "counts": _COUNTS, "schedules": _SCHEDULES}
    with psycopg.connect(dsn, autocommit=True) as connection:
        # One snapshot, as others may be at work.
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        return {
            part: connection.execute(
                text.format(  # type: ignore[arg-type]
                    queue=names.queue_table,
                    log=names.queue_table_log,
                    statistics=names.statistics_table,
                    schedules=names.schedules_table,
                )
            ).fetchall()
            for part, text in texts.items()
        }


def left_overs(dsn: str) -> list[str]:
    """Tables, functions and triggers of a migration that are there."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return [
            row[0]
            for row in connection.execute(
                "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relname ~ "
                "'_(migration|changes|staged|moved)' UNION ALL "
                "SELECT proname::text FROM pg_proc WHERE proname ~ '_(capture|gate)$' UNION ALL "
                "SELECT tgname::text FROM pg_trigger WHERE tgname ~ '^pgq_' ORDER BY 1"
            )
        ]


def let_lapse(dsn: str, migration_table: str = "pgqueuer_migration") -> None:
    """Have the time pass after which a migration that was killed counts as dead."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        if connection.execute("SELECT to_regclass(%s)", [migration_table]).fetchone() != (None,):
            connection.execute(
                f"UPDATE {migration_table} SET alive_until = '-infinity', "  # type: ignore[arg-type]
                "gate_until = gate_until - interval '1 minute'"
            )
