"""The commands that go on until they are stopped: dashboard, listen, top, web."""

from __future__ import annotations

import json
import signal
import sys
import types
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pgq_fast.queries import Queries
from pgq_fast.settings import DBSettings
from support.command_line import CommandLine, Done, failed_with_one_line, succeeded
from support.drivers import MakeDriver
from support.layouts import LAYOUT_VARIABLE, queries_of

Run = Callable[..., Awaitable[Done]]

# A shell may have started the tests with SIGINT ignored, and children inherit that.
PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from pgq_fast.__main__ import main; main()"
)
CTRL_C = 130


def shown(name: str, value: int) -> str:
    """A pattern for a fact on the screen, whatever colours it has."""
    return rf"{name}(?:\s|\x1b\[[0-9;]*m)*{value}\b"


@pytest.fixture
async def queries(make_driver: MakeDriver, queue_dsn: str, queue_settings: DBSettings) -> Queries:
    return queries_of(await make_driver("asyncpg", queue_dsn), queue_settings)


async def test_dashboard_refreshes(pgq: CommandLine, queue_dsn: str, queries: Queries) -> None:
    await queries.enqueue("mail", None)
    options = ("dashboard", "--interval", "0.1", "--limit", "10")
    with pgq.start(*options, dsn=queue_dsn, program=PROGRAM) as running:
        running.wait_for(r"\| +mail +\| queued", 2)
        await queries.enqueue("report", None)
        running.wait_for(r"\| +report +\| queued")
        running.signal(signal.SIGINT)
        assert running.end() == CTRL_C
    # To a file or a pipe it writes no control codes.
    assert "\033" not in running.output


async def test_dashboard_on_a_terminal(pgq: CommandLine, queue_dsn: str, queries: Queries) -> None:
    await queries.enqueue("mail", None)
    with pgq.start(
        "dashboard", "-i", "0.1", dsn=queue_dsn, program=PROGRAM, terminal=True
    ) as running:
        running.wait_for("mail.*queued")
        assert "\033[?1049h" in running.output
        await queries.enqueue("[bold]report", None)
        # Names are no markup.
        running.wait_for(r"\[bold\]report")
        running.signal(signal.SIGINT)
        assert running.end() == CTRL_C
    # The terminal is as it was.
    assert "\033[?1049l" in running.output


@pytest.mark.layouts
async def test_listen(
    pgq: CommandLine, queue_dsn: str, queries: Queries, queue_settings: DBSettings
) -> None:
    variables = {LAYOUT_VARIABLE: queue_settings.layout.value}
    with pgq.start("listen", dsn=queue_dsn, program=PROGRAM, environment=variables) as running:
        running.wait_for("Listening on ch_pgqueuer; Ctrl-C ends")
        await queries.driver.notify("ch_pgqueuer", "s3cret, from somebody else")
        running.wait_for("not an event of the queue: 26 characters")
        (job_id,) = await queries.enqueue("mail", None)
        await queries.mark_job_as_cancelled([job_id])
        running.wait_for(rf"CancellationEvent\(channel='ch_pgqueuer', .*ids=\[{job_id}\]\)")
        running.signal(signal.SIGINT)
        assert running.end() == CTRL_C
    assert "s3cret" not in running.output


async def test_listen_on_other_channels(pgq: CommandLine, queue_dsn: str, queries: Queries) -> None:
    health = '{"channel": "c", "sent_at": "2030-01-01T00:00:00Z", "type": "health_check_event",'
    health += ' "id": "00000000-0000-0000-0000-000000000001"}'
    for options, channel in {
        ("listen", "--channel", "other"): "other",
        # The workers of this queue listen there, not where those without a prefix do.
        ("--prefix", "acme_", "listen"): "acme_ch_pgqueuer",
    }.items():
        with pgq.start(*options, dsn=queue_dsn) as running:
            running.wait_for(f"Listening on {channel};")
            await queries.driver.notify(channel, health)
            running.wait_for("HealthCheckEvent")


async def test_behind_a_pooler(
    pgq: CommandLine,
    pgq_here: Run,
    queue_dsn: str,
    queries: Queries,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGQUEUER_TRANSACTION_POOLING", "true")
    assert "PGQUEUER_LISTEN_DSN" in failed_with_one_line(await pgq_here("listen"))
    once = succeeded(await pgq_here("top", "--once", "-i", "0.1"))
    assert "notifications: unknown: the pooler passes none on" in once.stdout
    # Past the pooler.
    variables = {"PGQUEUER_TRANSACTION_POOLING": "true", "PGQUEUER_LISTEN_DSN": queue_dsn}
    with pgq.start("listen", dsn=queue_dsn, environment=variables) as running:
        running.wait_for("Listening on")
        await queries.enqueue("mail", None)
        running.wait_for("TableChangedEvent")
    monkeypatch.setenv("PGQUEUER_LISTEN_DSN", queue_dsn)
    assert "notifications: none" in (await pgq_here("top", "--once", "-i", "0.1")).stdout
    monkeypatch.setenv("PGQUEUER_LISTEN_DSN", "postgresql://me:s3cret@127.0.0.1:1/none")
    line = failed_with_one_line(await pgq_here("listen"))
    assert "cannot connect to PostgreSQL" in line
    assert "s3cret" not in line


async def test_listen_ends_with_its_connection(
    pgq: CommandLine, queue_dsn: str, queries: Queries
) -> None:
    program = f"from pgq_fast.cli import watch; watch.ALIVE = 0.05; {PROGRAM}"
    with pgq.start("listen", dsn=queue_dsn, program=program) as running:
        running.wait_for("Listening on")
        await queries.driver.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
        assert running.end() == 1
    assert running.output.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in running.output


@pytest.mark.layouts
async def test_top_once(pgq_here: Run, queries: Queries, queue_settings: DBSettings) -> None:
    await queries.enqueue(["mail"] * 3, [b"s3cret"] * 3, [0] * 3)
    text = succeeded(await pgq_here("top", "--once", "--interval", "0.1")).stdout
    for line in (f"layout: {queue_settings.layout.value}", "waiting: 3", "notifications: none"):
        assert line in text
    assert "| mail " in text.replace("|    mail ", "| mail ")
    done = succeeded(await pgq_here("top", "--once", "--json", "-i", "0.1"))
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["depth"]["waiting"] == {"count": 3, "exact": True}
    assert found["oldest_seconds"] >= 0
    assert "s3cret" not in text + line


async def test_top_streams_json_to_scripts(
    pgq: CommandLine, queue_dsn: str, queries: Queries
) -> None:
    with pgq.start("top", "--json", "-i", "0.1", dsn=queue_dsn) as running:
        running.wait_for(r'"waiting":{"count":0,"exact":true}')
        await queries.enqueue("mail", None)
        running.wait_for(r'"waiting":{"count":1,"exact":true}')
        # From the connection that listens.
        running.wait_for(r'"notifications":{"insert":\d')


async def test_top_on_a_terminal(pgq: CommandLine, queue_dsn: str, queries: Queries) -> None:
    with pgq.start("top", "-i", "0.1", dsn=queue_dsn, program=PROGRAM, terminal=True) as running:
        running.wait_for(shown("waiting", 0))
        await queries.enqueue(["[red]mail", "report"], [None] * 2, [0] * 2)
        running.wait_for(shown("waiting", 2))
        running.wait_for(r"\[red\]mail")
        running.signal(signal.SIGINT)
        assert running.end() == CTRL_C
    assert "\033[?1049h" in running.output
    assert "\033[?1049l" in running.output


async def test_top_refuses(pgq_here: Run, queue_dsn: str) -> None:
    assert (await pgq_here("top", "--interval", "0")).returncode == 2
    wrong = failed_with_one_line(await pgq_here("--layout", "lease", "top", "--once"))
    assert "has the layout compat" in wrong
    absent = failed_with_one_line(await pgq_here("--prefix", "no_", "top", "--once"))
    assert "pgq install" in absent


async def test_web(pgq_here: Run, queue_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[dict[str, Any]] = []
    module = types.ModuleType("pgq_fast.web")
    module.serve = lambda **options: served.append(options)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pgq_fast.web", module)
    succeeded(await pgq_here("web"))
    succeeded(await pgq_here("web", "--host", "0.0.0.0", "--port", "81"))
    monkeypatch.setenv("PGQUEUER_WEB_HOST", "::1")
    monkeypatch.setenv("PGQUEUER_WEB_PORT", "82")
    succeeded(await pgq_here("web"))
    assert served == [
        {"host": host, "port": port, "dsn": queue_dsn}
        for host, port in (("127.0.0.1", 8080), ("0.0.0.0", 81), ("::1", 82))
    ]
    monkeypatch.setenv("PGQUEUER_WEB_PORT", "many")
    assert (await pgq_here("web")).returncode == 2


@pytest.mark.parametrize("part", ["fastapi", "jinja2", "uvicorn"])
async def test_web_without_the_extra(
    pgq_here: Run, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(**_: object) -> None:
        raise ModuleNotFoundError(f"No module named {part!r}", name=part)

    module = types.ModuleType("pgq_fast.web")
    module.serve = serve  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pgq_fast.web", module)
    line = failed_with_one_line(await pgq_here("web"))
    assert f"{part} is missing: pip install 'pgq-fast[web]'" in line
