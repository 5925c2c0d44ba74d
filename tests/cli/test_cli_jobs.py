"""The commands about jobs and schedules: contents, exit codes, and the same as pgqueuer's."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta

import psycopg
import pytest
import pytest_asyncio

from pgq_fast.models import CronExpressionEntrypoint, Job
from pgq_fast.queries import EntrypointExecutionParameter, Queries
from pgq_fast.settings import DBSettings, Layout
from pgq_fast.types import CronEntrypoint, CronExpression, QueueEntrypoint, QueueManagerId
from support.command_line import CommandLine, Done, failed_with_one_line, succeeded
from support.drivers import MakeDriver
from support.layouts import queries_of

Run = Callable[..., Awaitable[Done]]

WORKER = QueueManagerId(uuid.UUID(int=7))


@pytest_asyncio.fixture
async def queries(make_driver: MakeDriver, queue_dsn: str, queue_settings: DBSettings) -> Queries:
    return queries_of(await make_driver("asyncpg", queue_dsn), queue_settings)


async def claim(queries: Queries, *entrypoints: str) -> list[Job]:
    wanted = {QueueEntrypoint(name): EntrypointExecutionParameter(0) for name in entrypoints}
    return await queries.dequeue(10, wanted, WORKER, None, timedelta(minutes=1))


def rows(table: str) -> list[list[str]]:
    """Cells of a table in the default format, without the header."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


@pytest.mark.layouts
async def test_queue(pgq_here: Run, queries: Queries) -> None:
    done = succeeded(await pgq_here("queue", "mail", "to: jürgen"))
    (number,) = re.findall(r"^Enqueued job (\d+)\.$", done.stdout.rstrip("\n"))
    assert done.stderr == ""
    succeeded(await pgq_here("queue", "mail", "--dedupe-key", "k"))
    skipped = succeeded(
        await pgq_here("queue", "mail", "--dedupe-key", "k", "--on-conflict", "skip")
    )
    assert skipped.stdout == "Skipped: duplicate dedupe_key 'k'.\n"
    for options in ((), ("--on-conflict", "raise")):
        refused = await pgq_here("queue", "mail", "--dedupe-key", "k", *options)
        assert "--on-conflict skip" in failed_with_one_line(refused)
    first, second = await claim(queries, "mail")
    assert (first.id, first.payload, second.payload) == (int(number), "to: jürgen".encode(), None)
    assert (await pgq_here("queue", "")).returncode == 2


@pytest.mark.layouts
async def test_held_jobs_are_listed_and_requeued(pgq_here: Run, queries: Queries) -> None:
    assert succeeded(await pgq_here("failed")).stdout == "No failed jobs.\n"
    assert succeeded(await pgq_here("failed", "--json")).stdout == "[]\n"
    secret = b"s3cret"
    await queries.enqueue(["mail"] * 3, [secret, None, None], [0] * 3)
    jobs = await claim(queries, "mail")
    await queries.log_jobs([(job, "failed", None) for job in jobs])

    table = succeeded(await pgq_here("failed")).stdout
    assert sorted(rows(table))[0][:3] == [str(jobs[0].id), "mail", "0"]
    assert {row[4] for row in rows(table)} == {"6", "0"}
    assert len(rows(succeeded(await pgq_here("failed", "-n", "2")).stdout)) == 2
    text = succeeded(await pgq_here("failed", "--json", "--limit", "5")).stdout
    assert "payload_bytes" in text
    assert "s3cret" not in table + text
    assert {job["id"]: job["payload_bytes"] for job in json.loads(text)} == {
        jobs[0].id: 6,
        jobs[1].id: 0,
        jobs[2].id: 0,
    }
    assert (await pgq_here("failed", "-n", "-1")).returncode == 2

    done = succeeded(await pgq_here("requeue", str(jobs[0].id), str(jobs[2].id)))
    assert done.stdout == "Re-queued 2 job(s).\n"
    assert [job.id for job in await claim(queries, "mail")] == [jobs[0].id, jobs[2].id]
    assert [row[0] for row in rows((await pgq_here("failed")).stdout)] == [str(jobs[1].id)]
    for wrong in ((), ("x",)):
        assert (await pgq_here("requeue", *wrong)).returncode == 2


@pytest.mark.layouts
async def test_workers_and_their_stale_jobs(
    pgq_here: Run, queries: Queries, queue_settings: DBSettings
) -> None:
    assert succeeded(await pgq_here("workers")).stdout == "No workers are holding picked jobs.\n"
    assert succeeded(await pgq_here("workers", "--json")).stdout == "[]\n"
    await queries.enqueue(["mail", "report"], [b"s3cret", None], [0, 0])
    jobs = await claim(queries, "mail", "report")

    (row,) = rows(succeeded(await pgq_here("workers")).stdout)
    assert row[:2] == [str(WORKER), "2"]
    assert row[4] == "mail, report"
    (worker,) = json.loads(succeeded(await pgq_here("workers", "--json")).stdout)
    assert (worker["queue_manager_id"], worker["active_jobs"]) == (str(WORKER), 2)

    assert succeeded(await pgq_here("stale")).stdout == "No stale jobs.\n"
    assert succeeded(await pgq_here("stale", "--json")).stdout == "[]\n"
    table = (
        queue_settings.lease_names.lease_table
        if queue_settings.layout is Layout.lease
        else queue_settings.qualified.queue_table
    )
    await queries.driver.execute(f"UPDATE {table} SET heartbeat = now() - interval '10 minutes'")
    found = rows(succeeded(await pgq_here("stale")).stdout)
    assert sorted(row[:3] for row in found) == sorted(
        [str(job.id), job.entrypoint, str(WORKER)] for job in jobs
    )
    assert all(600 <= int(row[4]) < 700 for row in found)
    assert len(rows((await pgq_here("stale", "-t", "500", "-n", "1")).stdout)) == 1
    assert (await pgq_here("stale", "--threshold", "900")).stdout == "No stale jobs.\n"
    printed = json.loads(succeeded(await pgq_here("stale", "--json", "--limit", "1")).stdout)
    assert printed[0]["seconds_since_heartbeat"] >= 600
    assert "s3cret" not in json.dumps(printed)


@pytest.mark.layouts
async def test_backlog(pgq_here: Run, queries: Queries) -> None:
    assert succeeded(await pgq_here("backlog")).stdout == "No queued jobs.\n"
    assert succeeded(await pgq_here("backlog", "--json")).stdout == "[]\n"
    later = [None, None, timedelta(hours=1)]
    await queries.enqueue(["mail", "mail", "report"], [None] * 3, [0, 1, 0], later)
    counts = [row[:2] for row in rows(succeeded(await pgq_here("backlog")).stdout)]
    assert counts == [["mail", "2"], ["report", "1"]]
    printed = json.loads(succeeded(await pgq_here("backlog", "--json")).stdout)
    assert [(age["entrypoint"], age["queued_count"]) for age in printed] == [
        ("mail", 2),
        ("report", 1),
    ]


@pytest.mark.layouts
async def test_schedules(pgq_here: Run, queries: Queries) -> None:
    names = ("fetch", "clean", "report")
    await queries.insert_schedule(
        {
            CronExpressionEntrypoint(CronEntrypoint(name), CronExpression("* * * * *")): timedelta(
                minutes=1
            )
            for name in names
        }
    )
    shown = {row[8]: row[0] for row in rows(succeeded(await pgq_here("schedules")).stdout)}
    assert shown.keys() == set(names)
    left = succeeded(await pgq_here("schedules", "--remove", "fetch", "-r", shown["clean"])).stdout
    assert [row[8] for row in rows(left)] == ["report"]
    assert [schedule.entrypoint for schedule in await queries.peek_schedule()] == ["report"]


async def test_table_format(pgq_here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABLEFMT", "plain")
    assert not (await pgq_here("schedules")).stdout.startswith("+")
    monkeypatch.setenv("PGQUEUER_TABLEFMT", "github")
    assert (await pgq_here("schedules")).stdout.startswith("| id")


@pytest.mark.layouts
async def test_dashboard_prints_once(pgq_here: Run, queries: Queries) -> None:
    await queries.enqueue(["mail"] * 2, [None] * 2, [0, 3])
    table = rows(succeeded(await pgq_here("dashboard")).stdout)
    assert sorted(row[1:] for row in table) == [
        ["1", "mail", "queued", "0"],
        ["1", "mail", "queued", "3"],
    ]
    assert len(rows((await pgq_here("dashboard", "-n", "1")).stdout)) == 1


@pytest.fixture
def pgqueuers_queue(queue_dsn: str) -> str:
    """A queue with a job in each state that the commands show."""
    with psycopg.connect(queue_dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO pgqueuer (priority, status, entrypoint, payload, headers, heartbeat,"
            " created, queue_manager_id) VALUES"
            " (0, 'queued', 'mail', 'x', '{\"a\": 1}', now(), now() - interval '1 hour', NULL),"
            " (2, 'failed', 'mail', 'xyz', NULL, now(), now(), NULL),"
            " (1, 'picked', 'report', NULL, NULL, now() - interval '1 day', now(), %s)",
            [uuid.UUID(int=9)],
        )
        connection.execute(
            "INSERT INTO pgqueuer_schedules (expression, entrypoint) VALUES ('* * * * *', 'clean')"
        )
        connection.execute(
            "INSERT INTO pgqueuer_log (job_id, status, priority, entrypoint)"
            " VALUES (1, 'queued', 0, 'mail')"
        )
    return queue_dsn


def test_same_output_as_pgqueuer(pgq: CommandLine, pgqueuers_queue: str) -> None:
    def shown(package: str) -> list[tuple[int, str]]:
        variables = {"PGDSN": pgqueuers_queue}
        each = [line.split() for line in commands]
        return [
            (done.returncode, steady(done.stdout))
            for done in pgq.each(each, package=package, environment=variables)
        ]

    commands = [
        "dashboard",
        "dashboard -n 0",
        "failed",
        "failed --json",
        "stale",
        "stale --json",
        "workers",
        "workers --json",
        "backlog",
        "backlog --json",
        "schedules",
        "schedules --remove no --remove 77",
        "requeue 999",
        "requeue",
        "queue",
        "queue a --on-conflict maybe",
        "failed --limit x",
    ]
    ours, theirs = shown("pgq_fast"), shown("pgqueuer")
    for command, our, their in zip(commands, ours, theirs, strict=True):
        assert our == their, command


def steady(text: str) -> str:
    """*text* without what differs from call to call: ages, and the clearing of the screen that
    pgqueuer's dashboard sends to files and pipes too."""
    return re.sub(r"\b(36\d\d|864\d\d)(\.\d+)?\b", "S", text.replace("\033[2J\033[H", ""))
