"""``pgq migrate`` and ``pgq prune``: effects, output, exit codes."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from pgq_fast.queries import EntrypointExecutionParameter, Queries
from pgq_fast.settings import DBSettings, Layout
from pgq_fast.types import QueueEntrypoint, QueueManagerId
from support.command_line import CommandLine, Done, succeeded
from support.drivers import MakeDriver
from support.layouts import queries_of

Run = Callable[..., Awaitable[Done]]

# A shell may have started the tests with SIGINT ignored, and children inherit that.
PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from pgq_fast.__main__ import main; main()"
)

OTHER = {Layout.compat: Layout.lease, Layout.lease: Layout.compat}


@pytest.fixture
async def queries(make_driver: MakeDriver, queue_dsn: str, queue_settings: DBSettings) -> Queries:
    return queries_of(await make_driver("asyncpg", queue_dsn), queue_settings)


async def claim_one(queries: Queries) -> None:
    wanted = {QueueEntrypoint("mail"): EntrypointExecutionParameter(0)}
    worker = QueueManagerId(uuid.uuid4())
    assert len(await queries.dequeue(1, wanted, worker, None, timedelta(minutes=1))) == 1


@pytest.mark.layouts
async def test_migrate(pgq_here: Run, queries: Queries, layout: Layout) -> None:
    await queries.enqueue(["mail"] * 25, [None] * 25, [0] * 25)
    target = OTHER[layout]
    done = succeeded(await pgq_here("migrate", "--to", target.value, "--batch-size", "10"))
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("copy: jobs copied: ")][-1].endswith(
        "25 of 25"
    )
    assert lines[-1].startswith(f"Migrated from {layout.value} to {target.value}: 25 jobs; none")
    assert f"PGQUEUER_LAYOUT={target.value}" in lines[-1]
    (size,) = await queries_of(queries.driver, target).queue_size()
    assert (size.count, size.status) == (25, "queued")

    again = succeeded(await pgq_here("migrate", "--to", target.value))
    assert again.stderr == f"The layout is {target.value} already.\n"
    # Whoever has the old layout in the settings is told what to do.
    stale = await pgq_here("queue", "mail")
    assert stale.returncode == 1
    assert f"set PGQUEUER_LAYOUT or --layout to {target.value}" in stale.stderr
    assert f"'pgq migrate --to {layout.value}'" in stale.stderr


async def test_migrate_past_running_jobs(pgq_here: Run, queries: Queries) -> None:
    await queries.enqueue(["mail"] * 3, [None] * 3, [0] * 3)
    await claim_one(queries)
    options = ("migrate", "--to", "lease", "--patience", "0.1", "--heartbeat-timeout", "60")
    blocked = await pgq_here(*options)
    assert (blocked.returncode, blocked.stdout) == (1, "")
    line = blocked.stderr.splitlines()[-1]
    assert line.startswith("error: workers still hold 1 jobs")
    assert "more --patience; or with --requeue-picked" in line
    assert "Traceback" not in blocked.stderr
    assert await queries.installed_layout() is Layout.compat

    done = succeeded(await pgq_here(*options, "--requeue-picked"))
    assert "3 jobs, 1 of which run again;" in done.stderr
    assert await queries.installed_layout() is Layout.lease


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_migration_gives_the_queue_back(
    pgq: CommandLine, queue_dsn: str, queries: Queries, number: signal.Signals
) -> None:
    await queries.enqueue(["mail"] * 3, [None] * 3, [0] * 3)
    await claim_one(queries)
    with pgq.start("migrate", "--to", "lease", dsn=queue_dsn, program=PROGRAM) as running:
        running.wait_for("drain: running jobs ended: 0 of 1")
        running.signal(number)
        assert running.end() == 128 + number
    assert "Traceback" not in running.output
    assert await queries.installed_layout() is Layout.compat
    # At once, not only when the migration counts as dead.
    await claim_one(queries)
    assert not await queries.has_table("pgqueuer_migration")


async def test_migrate_refuses_and_wrong_usage(pgq_here: Run, queries: Queries) -> None:
    assert (await pgq_here("migrate")).returncode == 2
    assert (await pgq_here("migrate", "--to", "other")).returncode == 2
    assert (await pgq_here("migrate", "--to", "lease", "--batch-size", "0")).returncode == 2
    absent = await pgq_here("--prefix", "no_", "migrate", "--to", "lease")
    assert absent.returncode == 1
    assert absent.stderr.startswith("error: ")
    assert "there is no installation by these names" in absent.stderr


async def test_progress_is_a_bar_on_a_terminal(
    pgq: CommandLine, queue_dsn: str, queries: Queries
) -> None:
    await queries.enqueue(["mail"] * 3, [None] * 3, [0] * 3)
    with pgq.start("migrate", "--to", "lease", dsn=queue_dsn, terminal=True) as running:
        assert running.end() == 0
    assert "━" in running.output
    assert "3/3" in running.output
    assert "Migrated from compat to lease: 3 jobs" in running.output


@pytest.mark.layouts
async def test_prune(pgq_here: Run, queries: Queries) -> None:
    await queries.enqueue(["mail"] * 3, [None] * 3, [0] * 3)
    wanted = {QueueEntrypoint("mail"): EntrypointExecutionParameter(0)}
    worker = QueueManagerId(uuid.uuid4())
    jobs = await queries.dequeue(3, wanted, worker, None, timedelta(minutes=1))
    await queries.log_jobs([(job, "exception", None) for job in jobs])
    entries = len(await queries.queue_log())
    assert entries == 9

    young = succeeded(await pgq_here("prune", "log", "statistics", "--older-than", "1h30m"))
    assert young.stdout == "Deleted 0 entries of the log.\nDeleted 0 rows of the statistics.\n"
    assert len(await queries.queue_log()) == entries

    options = ("--older-than", "0s", "--batch-size", "2")
    done = succeeded(await pgq_here("prune", "log", *options))
    assert done.stdout == f"Deleted {entries} entries of the log.\n"
    assert done.stderr.startswith("log: deleted: ")
    assert await queries.queue_log() == []
    # The statistics keep what the log said.
    assert sum(row.count for row in await queries.log_statistics(None)) == entries
    done = succeeded(await pgq_here("prune", "statistics", *options))
    assert done.stdout.startswith("Deleted ")
    assert await queries.log_statistics(None) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--older-than", "1d"),
        ("log",),
        ("jobs", "--older-than", "1d"),
        ("log", "--older-than", "30"),
        ("log", "--older-than", "-1d"),
        ("log", "--older-than", "a while"),
        ("log", "--older-than", "9999999999w"),
        ("log", "--older-than", "1d", "--batch-size", "0"),
    ],
    ids=" ".join,
)
async def test_prune_wrong_usage(pgq_here: Run, arguments: tuple[str, ...]) -> None:
    done = await pgq_here("prune", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
