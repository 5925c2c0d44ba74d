"""The tools: what a model may ask of a queue. Their docstrings are what it reads about them."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from mcp.server.mcpserver import Context, MCPServer
from mcp.types import ToolAnnotations
from pydantic import Field

from pgq_fast.insights import InsightsService, QueueManagementService
from pgq_fast.mcp.database import PgQueuerDatabase
from pgq_fast.mcp.rows import (
    MAX_OFFSET,
    MAX_ROWS,
    Row,
    bounded,
    bounded_offset,
    checked_ids,
    duration,
    log_row,
    plain_row,
    queue_row,
    rows_of,
)
from pgq_fast.types import JobId

Ctx: TypeAlias = Context[PgQueuerDatabase, object]

Limit: TypeAlias = Annotated[int, Field(description=f"Most rows to return; {MAX_ROWS} at most.")]
Period: TypeAlias = Annotated[
    str | None,
    Field(description="How far to look back, an ISO 8601 duration such as PT1H or P7D."),
]

READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
REQUEUES = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)
CANCELS = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
)


def database(context: Ctx) -> PgQueuerDatabase:
    """What the server opened when it started."""
    return context.request_context.lifespan_context


async def queue_size(ctx: Ctx) -> list[Row]:
    """Number of jobs now on the queue, by entrypoint, status and priority.

    A good first look. 'queued' jobs wait, 'picked' ones are with a worker, 'failed' ones are held
    for somebody to look at. Many queued and none picked: no worker runs for that entrypoint.
    No rows: the queue is empty. On a long queue the numbers may be some seconds old.
    """
    return rows_of(await database(ctx).queue_size.get())


async def queue_table_info(
    ctx: Ctx,
    limit: Limit = 100,
    offset: Annotated[int, Field(description=f"Rows to skip; {MAX_OFFSET} at most.")] = 0,
) -> list[Row]:
    """The jobs on the queue one by one, highest priority first, then oldest.

    With id, priority, worker (queue_manager_id), times, status, entrypoint, attempts, dedupe_key
    and payload_size. Payload and headers are null unless the server was told to show them. Jobs
    that have ended are in queue_log.
    """
    db = database(ctx)
    rows = await db.fetch("browse_queue", bounded(limit), bounded_offset(offset), None, None)
    return [queue_row(row, db.options.show_payloads) for row in rows]


async def queue_stats(ctx: Ctx, period: Period = None, limit: Limit = 50) -> list[Row]:
    """How many jobs came to which status in which second, newest first.

    For the course of a rate over time; throughput_summary has totals.
    """
    db = database(ctx)
    last, rows = duration(period), bounded(limit)
    await db.bring_statistics_up_to_date()
    return [plain_row(row) for row in await db.fetch("log_statistics", rows, last)]


async def throughput_summary(ctx: Ctx, period: Period = None) -> list[Row]:
    """How many jobs came to which status in the period, or ever, by entrypoint.

    Compare 'successful' with 'exception' for the rate of failures.
    """
    db = database(ctx)
    last = duration(period)
    await db.bring_statistics_up_to_date()
    rows = await db.fetch("throughput_summary", last)
    return [plain_row(row) for row in rows[:MAX_ROWS]]


async def failed_jobs(ctx: Ctx, limit: Limit = 50) -> list[Row]:
    """The latest jobs that ended with an exception, with their tracebacks, newest first.

    Jobs that are held after a failure have status 'failed' and are in queue_table_info.
    """
    return [log_row(row) for row in await database(ctx).fetch("exception_logs", bounded(limit))]


async def queue_log(ctx: Ctx, limit: Limit = 100) -> list[Row]:
    """The latest changes of jobs' statuses, newest first.

    In the lease layout a job's changes are written when it ends, all at once.
    """
    return [log_row(row) for row in await database(ctx).fetch("recent_log", bounded(limit))]


async def schedules(ctx: Ctx) -> list[Row]:
    """The recurring tasks, with cron expression, last and next run.

    A next_run in the past with status 'queued': no scheduler is running. Status 'picked' with an
    old heartbeat: the scheduler that runs it hangs or died.
    """
    async with database(ctx).reading() as queries:
        return rows_of(await InsightsService(queries).schedules())


async def stale_jobs(
    ctx: Ctx,
    threshold: Annotated[
        str, Field(description="Silence that counts, an ISO 8601 duration.")
    ] = "PT5M",
    limit: Limit = 50,
) -> list[Row]:
    """Jobs whose worker has not been heard of for longer than the threshold.

    Their worker died, hangs, or lost the database; others take them over by themselves. Compare
    queue_manager_id with active_workers.
    """
    silence, rows = duration(threshold), bounded(limit)
    async with database(ctx).reading() as queries:
        return rows_of(await InsightsService(queries).stale_jobs(silence, rows))


async def active_workers(ctx: Ctx) -> list[Row]:
    """The workers that hold jobs, with how many, of which entrypoints, and their heartbeats.

    A worker without jobs is not among them.
    """
    async with database(ctx).reading() as queries:
        return rows_of(await InsightsService(queries).active_workers())


async def queue_age(ctx: Ctx) -> list[Row]:
    """How long the queued jobs of each entrypoint have waited, in seconds.

    A growing oldest_age_seconds: workers do not keep up. On a long queue the answer may be some
    seconds old.
    """
    return rows_of(await database(ctx).queue_age.get())


async def schema_info(ctx: Ctx) -> list[Row]:
    """The queue's tables: whether a crash may empty them (UNLOGGED), rows by estimate, size."""
    async with database(ctx).reading() as queries:
        return rows_of(await InsightsService(queries).schema_info())


async def requeue_jobs(ctx: Ctx, ids: list[int]) -> list[Row]:
    """Queue held jobs (status 'failed') again, at once; other jobs are left alone.

    Returns what the log says of each job now.
    """
    return await _change(ctx, ids, requeue=True)


async def cancel_jobs(ctx: Ctx, ids: list[int]) -> list[Row]:
    """Take jobs off the queue for good, and ask the workers that run them to stop.

    Returns what the log says of each job now.
    """
    return await _change(ctx, ids, requeue=False)


async def _change(ctx: Ctx, ids: list[int], *, requeue: bool) -> list[Row]:
    wanted = [JobId(id_) for id_ in checked_ids(ids)]
    async with database(ctx).writing() as queries:
        service = QueueManagementService(queries)
        await (service.requeue(wanted) if requeue else service.cancel(wanted))
        return [
            {"job_id": job_id, "status": status}
            for job_id, status in await queries.job_status(wanted)
        ]


READ_TOOLS = (
    queue_size,
    queue_table_info,
    queue_stats,
    throughput_summary,
    failed_jobs,
    queue_log,
    schedules,
    stale_jobs,
    active_workers,
    queue_age,
    schema_info,
)


def register(server: MCPServer[PgQueuerDatabase], *, allow_writes: bool) -> None:
    """Give *server* the tools; those that change jobs only if *allow_writes* says so."""
    for tool in READ_TOOLS:
        server.add_tool(tool, annotations=READS)
    if allow_writes:
        server.add_tool(requeue_jobs, annotations=REQUEUES)
        server.add_tool(cancel_jobs, annotations=CANCELS)
