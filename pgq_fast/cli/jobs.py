"""The commands about jobs: queue, failed, requeue, stale, workers, backlog.

Payloads are never printed, only how large they are.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from enum import Enum
from typing import Annotated, TypeVar

import typer

from pgq_fast.cli.context import open_queries
from pgq_fast.cli.errors import CliError
from pgq_fast.cli.output import instant, print_json, print_table
from pgq_fast.insights import InsightsService
from pgq_fast.loops import run_in_loop
from pgq_fast.models import Job
from pgq_fast.queries import Queries
from pgq_fast.settings import db_settings
from pgq_fast.types import JobId

__all__ = ["register"]

T = TypeVar("T")

LimitOption = Annotated[int, typer.Option("-n", "--limit", min=0, help="Show so many at most.")]

JsonOption = Annotated[bool, typer.Option("--json", help="Print a JSON array instead of a table.")]


class Conflict(Enum):
    """What a taken dedupe key does."""

    RAISE = "raise"
    SKIP = "skip"


def register(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    app.command(help="Enqueue a job.")(queue)
    app.command(help="List the jobs that failed and are held for somebody to look at.")(failed)
    app.command(help="Have held jobs run again, as if they were new.")(requeue)
    app.command(help="List running jobs whose worker has been silent for a while.")(stale)
    app.command(help="List the workers that hold jobs.")(workers)
    app.command(
        help=(
            "Show how many jobs of each entrypoint wait, and for how long they have. "
            "Counts every one of them: on a very long queue, 'top' is cheaper."
        )
    )(backlog)


def _ask(context: typer.Context, question: Callable[[Queries], Awaitable[T]]) -> T:
    """The answer to *question* over a connection that is open just for it."""

    async def asking() -> T:
        async with open_queries(context, db_settings()) as queries:
            return await question(queries)

    return run_in_loop(asking())


def _show(
    found: Sequence[T],
    as_json: bool,
    headers: Sequence[str],
    row: Callable[[T], Sequence[object]],
    *,
    nothing: str,
) -> None:
    """Print *found* as JSON or as a table, or that there is *nothing*."""
    if as_json:
        print_json(found)
    elif found:
        print_table(headers, map(row, found))
    else:
        typer.echo(nothing)


def queue(
    context: typer.Context,
    entrypoint: Annotated[str, typer.Argument(help="Which handler is to run it.")],
    payload: Annotated[
        str | None, typer.Argument(help="What the handler gets, as UTF-8; by default nothing.")
    ] = None,
    dedupe_key: Annotated[
        str | None,
        typer.Option(
            "--dedupe-key", help="Refuse the job while a queued or running one has the same key."
        ),
    ] = None,
    on_conflict: Annotated[
        Conflict,
        typer.Option(
            "--on-conflict",
            help="If the key is taken: raise fails with exit code 1, skip succeeds.",
        ),
    ] = Conflict.RAISE,
) -> None:
    """Print the job's id."""
    if not entrypoint:
        raise typer.BadParameter("the entrypoint is empty: give the name of a handler")
    (job_id,) = _ask(
        context,
        lambda queries: queries.enqueue(
            entrypoint,
            None if payload is None else payload.encode(errors="surrogateescape"),
            dedupe_key=dedupe_key,
            on_conflict="skip",
        ),
    )
    if job_id is not None:
        typer.echo(f"Enqueued job {job_id}.")
    elif on_conflict is Conflict.SKIP:
        typer.echo(f"Skipped: duplicate dedupe_key {dedupe_key!r}.")
    else:
        raise CliError(
            f"duplicate dedupe_key {dedupe_key!r}: a queued or running job has it. Wait for that "
            "job, or accept it with --on-conflict skip"
        )


def _payload_bytes(job: Job) -> int:
    return len(job.payload) if job.payload else 0


def failed(context: typer.Context, limit: LimitOption = 25, as_json: JsonOption = False) -> None:
    """The newest first."""
    jobs = _ask(context, lambda queries: InsightsService(queries).failed_jobs(limit))
    if as_json:
        # Spaced as by json.dumps, which scripts have seen so far.
        typer.echo(
            json.dumps(
                [
                    job.model_dump(mode="json", exclude={"payload"})
                    | {"payload_bytes": _payload_bytes(job)}
                    for job in jobs
                ]
            )
        )
    elif jobs:
        print_table(
            ["ID", "Entrypoint", "Attempts", "Created", "Payload bytes"],
            [
                (job.id, job.entrypoint, job.attempts, instant(job.created), _payload_bytes(job))
                for job in jobs
            ],
        )
    else:
        typer.echo("No failed jobs.")


def requeue(
    context: typer.Context,
    ids: Annotated[list[int], typer.Argument(help="Ids of the jobs, as 'failed' lists them.")],
) -> None:
    """Jobs that are not held stay as they are."""
    jobs = [JobId(number) for number in ids]
    _ask(context, lambda queries: queries.requeue_jobs(jobs))
    typer.echo(f"Re-queued {len(jobs)} job(s).")


def stale(
    context: typer.Context,
    threshold: Annotated[
        float,
        typer.Option("-t", "--threshold", help="Silence in seconds that is worth a look."),
    ] = 300,
    limit: LimitOption = 25,
    as_json: JsonOption = False,
) -> None:
    """The longest silent first."""
    silence = timedelta(seconds=threshold)
    jobs = _ask(context, lambda queries: InsightsService(queries).stale_jobs(silence, limit))
    _show(
        jobs,
        as_json,
        ["ID", "Entrypoint", "Queue manager", "Heartbeat", "Seconds since heartbeat"],
        lambda job: (
            job.id,
            job.entrypoint,
            job.queue_manager_id,
            instant(job.heartbeat),
            round(job.seconds_since_heartbeat),
        ),
        nothing="No stale jobs.",
    )


def workers(context: typer.Context, as_json: JsonOption = False) -> None:
    """One row a worker."""
    active = _ask(context, lambda queries: InsightsService(queries).active_workers())
    _show(
        active,
        as_json,
        ["Queue manager", "Picked jobs", "Oldest heartbeat", "Newest heartbeat", "Entrypoints"],
        lambda worker: (
            worker.queue_manager_id,
            worker.active_jobs,
            instant(worker.oldest_heartbeat),
            instant(worker.newest_heartbeat),
            ", ".join(worker.entrypoints),
        ),
        nothing="No workers are holding picked jobs.",
    )


def backlog(context: typer.Context, as_json: JsonOption = False) -> None:
    """One row an entrypoint."""
    ages = _ask(context, lambda queries: InsightsService(queries).queue_age())
    _show(
        ages,
        as_json,
        ["Entrypoint", "Queued", "Oldest created", "Oldest age (s)", "Average age (s)"],
        lambda age: (
            age.entrypoint,
            age.queued_count,
            instant(age.oldest_created),
            round(age.oldest_age_seconds),
            round(age.avg_age_seconds),
        ),
        nothing="No queued jobs.",
    )
