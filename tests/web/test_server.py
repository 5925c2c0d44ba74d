"""``serve`` as a process, the stream of events, and the application with its lifespan."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

import pgq_fast
from pgq_fast import models
from pgq_fast.queries import Queries
from pgq_fast.types import Channel
from pgq_fast.web import create_web_app
from pgq_fast.web.settings import WebSettings
from pgq_fast.web.sse import Broadcaster
from support.command_line import CommandLine
from support.doc_blocks import write_blocks
from web.conftest import MakeClient
from web.helpers import text

DEADLINE = 30.0
REPOSITORY = Path(pgq_fast.__file__).parents[1]


async def line_with(stream: asyncio.StreamReader, pattern: str) -> re.Match[str]:
    """The first line that matches."""
    async with asyncio.timeout(DEADLINE):
        async for line in stream:
            if found := re.search(pattern, line.decode()):
                return found
    raise AssertionError(f"it ended without {pattern}")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
async def test_serve_ends_at_once_and_quietly(queue_dsn: str, end: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pgq_fast.adapters.web"),
        env={
            **os.environ,
            "PGQUEUER_DSN": queue_dsn,
            "PGQUEUER_WEB_PORT": "0",
            "PGQUEUER_WEB_TOKEN": "t",
            "PYTHONPATH": str(Path(pgq_fast.__file__).parents[1]),
        },
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        address = (await line_with(process.stderr, r"http://127\.0\.0\.1:\d+"))[0]
        login = {"Authorization": "Bearer t"}
        async with (
            httpx.AsyncClient(base_url=address, headers=login, timeout=DEADLINE) as client,
            client.stream("GET", "/events") as events,
        ):
            lines = events.aiter_lines()
            assert await anext(lines) == "retry: 3000"
            assert "server" not in events.headers
            process.send_signal(end)
            # The stream is ended by the server: it is not cut off.
            assert [line async for line in lines if line] == []
        async with asyncio.timeout(DEADLINE):
            said = (await process.stderr.read()).decode()
            code = await process.wait()
        assert "Traceback" not in said
        assert "ERROR" not in said
        assert code in ((0,) if end is signal.SIGINT else (0, -end))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"PGQUEUER_WEB_HOST": "0.0.0.0"}, r"\Apgq_fast: .*PGQUEUER_WEB_USER.*\Z"),
        ({"PGQUEUER_WEB_USER": "ada"}, r"\Apgq_fast: .*PGQUEUER_WEB_PASSWORD.*\Z"),
        ({"PGQUEUER_DSN": "postgresql://u:hushhush@127.0.0.1:1/x"}, "refused|Connect call failed"),
    ],
)
def test_serve_says_why_it_does_not_start(environment: dict[str, str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pgq_fast.adapters.web"],
        env={
            **os.environ,
            **environment,
            "PGQUEUER_WEB_PORT": "0",
            "PYTHONPATH": str(Path(pgq_fast.__file__).parents[1]),
        },
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 1
    assert re.search(said, done.stderr.strip()), done.stderr
    assert "hushhush" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["web", "--host", "0.0.0.0"], "PGQUEUER_WEB_USER"),
        (["--pg-dsn", "postgresql://u:hushhush@127.0.0.1:1/x", "web"], "PGDSN|connect"),
    ],
)
def test_the_command_says_so_in_a_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = CommandLine(tmp_path)(*arguments)
    assert done.returncode == 1
    assert re.search(said, done.stderr)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "hushhush" not in done.stderr


async def test_the_programs_of_the_guide(
    queue_dsn: str, make_client: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert write_blocks("docs/guides/dashboard.md", tmp_path) == {"show.py", "admin.py"}
    monkeypatch.setenv("PGQUEUER_DSN", queue_dsn)
    monkeypatch.syspath_prepend(tmp_path)
    admin, show = importlib.import_module("admin"), importlib.import_module("show")
    assert show.serve is importlib.import_module("pgq_fast.web").serve
    client = make_client(admin.app, address="192.0.2.1", base_url="http://queue.example")
    async with admin.app.router.lifespan_context(admin.app):
        assert (await client.get("/admin/queue/")).status_code == 401
        page = await text(client, "/admin/queue/", headers={"X-Role": "admin"})
        assert 'data-events="/admin/queue/events"' in page


async def test_the_commands_of_the_guide(queue_dsn: str, queries: Queries) -> None:
    page = (REPOSITORY / "docs/guides/dashboard.md").read_text()
    start, login, actions = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert start.splitlines()[-1].split("#")[0].strip() == "pgq web"
    await queries.driver.execute(
        "INSERT INTO pgqueuer (id, priority, status, entrypoint, execute_after)"
        " VALUES (42, 0, 'failed', 'e', now()), (43, 0, 'failed', 'e', now())"
    )
    environment = {
        **os.environ,
        "PGQUEUER_DSN": queue_dsn,
        "PGQUEUER_WEB_PORT": "0",
        "PGQUEUER_WEB_TOKEN": "t",
        "TOKEN": "t",
        "PYTHONPATH": str(REPOSITORY),
    }
    # What is there already stays: the packages, the database.
    command = f"{login}\nexec {sys.executable} -m pgq_fast web"
    server = await asyncio.create_subprocess_exec(
        "sh", "-ec", command, env=environment, stderr=asyncio.subprocess.PIPE
    )
    assert server.stderr is not None
    try:
        address = (await line_with(server.stderr, r"http://127\.0\.0\.1:\d+"))[0]
        async with httpx.AsyncClient() as client:
            assert (await client.get(address)).status_code == 401
            assert (await client.get(address, auth=("ada", "..."))).status_code == 200
        for line in actions.replace("http://127.0.0.1:8080", address).splitlines():
            curl = await asyncio.create_subprocess_exec(
                "sh", "-ec", f"{line} --fail --silent --output /dev/null", env=environment
            )
            assert await curl.wait() == 0, line
    finally:
        server.terminate()
        await server.wait()
    ((left,),) = await queries.driver.fetch_rows("SELECT array_agg(id) FROM pgqueuer")
    assert left == [43]


async def test_the_application_brings_all_it_needs(
    queue_dsn: str, queries: Queries, make_client: MakeClient
) -> None:
    app = create_web_app(queue_dsn, settings=WebSettings(token="t"))  # type: ignore[arg-type]
    client = make_client(app, address="192.0.2.1", headers={"Authorization": "Bearer t"})
    async with app.router.lifespan_context(app):
        page = await text(client, "/")
        assert 'data-events="/events"' in page
        for path in ("/docs", "/redoc", "/openapi.json"):
            assert (await client.get(path)).status_code == 404


async def next_event(stream: AsyncIterator[str]) -> str:
    async with asyncio.timeout(DEADLINE):
        return await anext(stream)


async def test_changes_become_events(queries: Queries) -> None:
    broadcaster = Broadcaster(queries.driver, Channel("ch_pgqueuer"), timedelta(milliseconds=20))
    await broadcaster.start()
    stream = broadcaster.stream()
    assert await next_event(stream) == "retry: 3000\n\n"
    assert len(broadcaster.subscribers) == 1
    for change in (
        lambda: queries.enqueue("a", None),
        lambda: queries.mark_job_as_cancelled([models.JobId(1)]),
    ):
        await change()
        assert await next_event(stream) == "event: queue-change\ndata: {}\n\n"
    # Nonsense on the channel is nobody's business.
    await queries.driver.notify("ch_pgqueuer", "nonsense")
    await queries.enqueue("a", None)
    assert (await next_event(stream)).startswith("event: queue-change")
    broadcaster.end_streams()
    assert [event async for event in stream] in ([], ["event: queue-change\ndata: {}\n\n"])
    assert not broadcaster.subscribers
    await broadcaster.stop()
    assert broadcaster.flush_task is None


async def test_a_slow_reader_misses_nothing_that_matters(queries: Queries) -> None:
    broadcaster = Broadcaster(queries.driver, Channel("c"), timedelta(0))
    stream = broadcaster.stream()
    await next_event(stream)
    for _ in range(50):
        await broadcaster.flush_after_debounce()
    (queue,) = broadcaster.subscribers
    assert queue.qsize() <= 8
    assert (await next_event(stream)).startswith("event: queue-change")
    broadcaster.end_streams()
    rest = [event async for event in stream]
    assert len(rest) < 8


async def test_events_that_say_nothing_are_not_passed_on(queries: Queries) -> None:
    broadcaster = Broadcaster(queries.driver, Channel("c"))
    check = models.AnyEvent.model_validate(
        {
            "channel": "c",
            "id": "00000000-0000-0000-0000-000000000000",
            "sent_at": models.utc_now(),
            "type": "health_check_event",
        }
    )
    broadcaster.route_event(check)
    assert broadcaster.flush_task is None
