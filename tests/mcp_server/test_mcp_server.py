"""The MCP server as clients see it: in this process, and over stdio in one of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.server.mcpserver import MCPServer

import pgq_fast
from pgq_fast import PgQueuer
from pgq_fast.adapters.mcp.server import create_mcp_server
from pgq_fast.mcp.rows import MAX_PAYLOAD, MAX_ROWS
from pgq_fast.models import Job
from pgq_fast.queries import Queries
from pgq_fast.settings import Layout
from pgq_fast.types import QueueExecutionMode
from support.drivers import MakeDriver

ROOT = Path(pgq_fast.__file__).parents[1]

PARAMETERS: dict[str, dict[str, Any]] = {
    "queue_size": {},
    "queue_table_info": {"limit": 100, "offset": 0},
    "queue_stats": {"period": None, "limit": 50},
    "throughput_summary": {"period": None},
    "failed_jobs": {"limit": 50},
    "queue_log": {"limit": 100},
    "schedules": {},
    "stale_jobs": {"threshold": "PT5M", "limit": 50},
    "active_workers": {},
    "queue_age": {},
    "schema_info": {},
}
"""The tools of pgqueuer 1.6.0, with the defaults of their parameters."""

SECRET = b"secret"


async def ask(client: Client, tool: str, **arguments: Any) -> list[dict[str, Any]]:
    """The rows that *tool* answers with."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    rows: list[dict[str, Any]] = result.structured_content["result"]
    return rows


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    """What *tool* says why it did not do it."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return "\n".join(getattr(part, "text", "") for part in result.content)


def server_on(dsn: str) -> MCPServer[Any]:
    return create_mcp_server(dsn)


async def run_some(pgq: PgQueuer) -> list[Any]:
    """Two jobs that end well, one that fails, one that is held, one that stays."""

    @pgq.entrypoint("quick")
    async def quick(job: Job) -> None:
        pass

    @pgq.entrypoint("failing")
    async def failing(job: Job) -> None:
        raise ValueError("broken")

    @pgq.entrypoint("held", on_failure="hold")
    async def held(job: Job) -> None:
        raise ValueError("held back")

    assert pgq.queries is not None
    ids = await pgq.queries.enqueue(
        ["quick", "quick", "failing", "held"], [SECRET] * 4, [0] * 4, headers=[{"k": "v"}] * 4
    )
    await pgq.run(mode=QueueExecutionMode.drain)
    return [
        *ids,
        *await pgq.queries.enqueue(["other"], [SECRET], [7], headers=[{"token": "secret"}]),
    ]


@pytest.mark.layouts
async def test_every_tool(make_driver: MakeDriver, queue_dsn: str, layout: Layout) -> None:
    pgq = PgQueuer(await make_driver("asyncpg-pool", queue_dsn))
    first, second, failed, held, other = await run_some(pgq)
    # Over stdio, with a process of its own, where the page of the guide does not do it.
    program = StdioServerParameters(
        command=sys.executable,
        args=["-m", "pgq_fast.adapters.mcp"],
        env={
            **os.environ,
            "PGQUEUER_DSN": queue_dsn,
            "PGQUEUER_LAYOUT": layout.value,
            "PYTHONPATH": str(ROOT),
        },
    )
    server = stdio_client(program) if layout is Layout.lease else server_on(queue_dsn)
    async with Client(server, read_timeout_seconds=30) as client:
        assert client.server_info.name == "pgqueuer"
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert {
            name: {
                parameter: facts.get("default")
                for parameter, facts in tool.input_schema["properties"].items()
            }
            for name, tool in tools.items()
        } == PARAMETERS
        for tool in tools.values():
            assert tool.annotations is not None
            assert tool.annotations.read_only_hint
        answers = {name: await ask(client, name) for name in tools}

    sizes = {(row["entrypoint"], row["status"]): row for row in answers["queue_size"]}
    assert {key: (row["count"], row["priority"]) for key, row in sizes.items()} == {
        ("held", "failed"): (1, 0),
        ("other", "queued"): (1, 7),
    }
    by_id = {row["id"]: row for row in answers["queue_table_info"]}
    assert [row["id"] for row in answers["queue_table_info"]] == [other, held]
    for row in by_id.values():
        assert row["payload"] is None
        assert row["headers"] is None
        assert row["payload_size"] == len(SECRET)
    assert by_id[other]["dedupe_key"] is None
    totals = {
        (row["entrypoint"], row["status"]): row["total_count"]
        for row in answers["throughput_summary"]
    }
    assert totals["quick", "successful"] == 2
    assert totals["failing", "exception"] == 1
    assert {
        row["count"]
        for row in answers["queue_stats"]
        if (row["entrypoint"], row["status"]) == ("failing", "exception")
    } == {1}
    (failure,) = answers["failed_jobs"]
    assert (failure["job_id"], failure["status"]) == (failed, "exception")
    assert failure["traceback"]["exception_message"] == "broken"
    assert "raise ValueError" in failure["traceback"]["traceback"]
    log = [(row["job_id"], row["status"]) for row in answers["queue_log"]]
    for job in (first, second):
        own = [status for id_, status in log if id_ == job]
        assert own == ["successful", "picked", "queued"]
    (age,) = answers["queue_age"]
    assert (age["entrypoint"], age["queued_count"]) == ("other", 1)
    assert age["oldest_age_seconds"] >= 0
    assert answers["schedules"] == answers["stale_jobs"] == answers["active_workers"] == []
    persistence = {row["table_name"]: row["persistence"] for row in answers["schema_info"]}
    jobs = "pgqueuer" if layout is Layout.compat else "pgqueuer_ready"
    assert persistence[jobs] == persistence["pgqueuer_statistics"] == "LOGGED"
    assert "secret" not in repr(answers)


@pytest.mark.layouts
async def test_workers_and_what_they_hold(make_driver: MakeDriver, queue_dsn: str) -> None:
    pgq = PgQueuer(await make_driver("asyncpg-pool", queue_dsn))
    started = asyncio.Event()

    @pgq.entrypoint("slow")
    async def slow(job: Job) -> None:
        started.set()
        await asyncio.Event().wait()

    @pgq.schedule("hourly", "0 * * * *")
    async def hourly(schedule: object) -> None:
        pass

    assert pgq.queries is not None
    (id_,) = await pgq.queries.enqueue(["slow"], [None], [0])
    run = asyncio.create_task(pgq.run(heartbeat_timeout=timedelta(days=1)))
    await started.wait()
    async with Client(server_on(queue_dsn)) as client:
        (worker,) = await ask(client, "active_workers")
        assert worker["queue_manager_id"] == str(pgq.qm.queue_manager_id)
        assert (worker["active_jobs"], worker["entrypoints"]) == (1, ["slow"])
        assert await ask(client, "stale_jobs", threshold="PT1H") == []
        (stale,) = await ask(client, "stale_jobs", threshold="PT0.000001S")
        assert (stale["id"], stale["entrypoint"]) == (id_, "slow")
        (schedule,) = await ask(client, "schedules")
        assert (schedule["entrypoint"], schedule["expression"]) == ("hourly", "0 * * * *")
    for _ in range(2):
        run.cancel()
        await asyncio.sleep(0)
    for context in pgq.qm.job_context.values():
        assert context.task is not None
        context.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run


@pytest.mark.layouts
async def test_changes_only_where_they_are_allowed(
    make_driver: MakeDriver, queue_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pgq = PgQueuer(await make_driver("asyncpg-pool", queue_dsn))
    *_, held, other = await run_some(pgq)
    async with Client(server_on(queue_dsn)) as client:
        assert "Unknown tool" in await refusal(client, "cancel_jobs", ids=[other])
        assert "Unknown tool" in await refusal(client, "requeue_jobs", ids=[held])

    monkeypatch.setenv("PGQUEUER_MCP_ALLOW_WRITES", "true")
    async with Client(server_on(queue_dsn)) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools.keys() == {*PARAMETERS, "requeue_jobs", "cancel_jobs"}
        for name, destroys in (("requeue_jobs", False), ("cancel_jobs", True)):
            annotations = tools[name].annotations
            assert annotations is not None
            assert annotations.read_only_hint is False
            assert annotations.destructive_hint is destroys
        assert await ask(client, "requeue_jobs", ids=[held]) == [
            {"job_id": held, "status": "queued"}
        ]
        assert await ask(client, "cancel_jobs", ids=[other]) == [
            {"job_id": other, "status": "canceled"}
        ]
        assert "must be from 1 to" in await refusal(client, "cancel_jobs", ids=[])
    assert pgq.queries is not None
    left = {(row.entrypoint, row.status): row.count for row in await pgq.queries.queue_size()}
    assert left == {("held", "queued"): 1}


async def test_payloads_only_where_they_are_allowed(
    make_driver: MakeDriver, queue_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGQUEUER_MCP_SHOW_PAYLOADS", "1")
    queries = Queries(await make_driver("asyncpg", queue_dsn))
    payloads = [b"text", b"\xff\x00", None, b"", ("ä" * MAX_PAYLOAD).encode()]
    await queries.enqueue(
        ["e"] * 5, payloads, [9, 8, 7, 6, 5], headers=[{"k": 1}, None, None, None, None]
    )
    async with Client(server_on(queue_dsn)) as client:
        rows = await ask(client, "queue_table_info")
    shown = [(row["payload"], row.get("payload_encoding"), row["payload_size"]) for row in rows]
    assert shown == [
        ("text", "utf-8", 4),
        ("/wA=", "base64", 2),
        (None, None, None),
        ("", "utf-8", 0),
        ("ä" * (MAX_PAYLOAD // 2), "utf-8", 2 * MAX_PAYLOAD),
    ]
    assert [row["headers"] for row in rows] == [{"k": 1}, None, None, None, None]


@pytest.mark.layouts
async def test_answers_are_bounded(make_driver: MakeDriver, queue_dsn: str) -> None:
    queries = Queries(await make_driver("asyncpg", queue_dsn))
    count = MAX_ROWS + 50
    await queries.enqueue(["e"] * count, [None] * count, [0] * count)
    pgq = PgQueuer(await make_driver("asyncpg-pool", queue_dsn))

    @pgq.entrypoint("e")
    async def run(job: Job) -> None:
        pass

    await pgq.run(mode=QueueExecutionMode.drain)
    await queries.enqueue(["e"] * count, [None] * count, [0] * count)
    async with Client(server_on(queue_dsn)) as client:
        for tool in ("queue_table_info", "queue_log"):
            assert len(await ask(client, tool, limit=10**6)) == MAX_ROWS
            assert len(await ask(client, tool, limit=3)) == 3
            assert "at least 1" in await refusal(client, tool, limit=0)
        page = await ask(client, "queue_table_info", limit=5, offset=2)
        assert page == (await ask(client, "queue_table_info", limit=7))[2:]
        assert "offset" in await refusal(client, "queue_table_info", offset=10**6)
        assert "PT1H" in await refusal(client, "queue_stats", period="an hour")
        assert "positive" in await refusal(client, "stale_jobs", threshold="PT0S")


async def test_a_role_that_may_only_read_is_enough(make_driver: MakeDriver, queue_dsn: str) -> None:
    pgq = PgQueuer(await make_driver("asyncpg-pool", queue_dsn))
    await run_some(pgq)
    assert pgq.queries is not None
    await pgq.queries.aggregate_logs()
    driver = pgq.connection
    role = "mcp_reader"
    await driver.execute(f"DROP ROLE IF EXISTS {role}")
    await driver.execute(f"CREATE ROLE {role}")
    await driver.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    # asyncpg passes what it does not know on to the server.
    as_reader = f"{queue_dsn}{'&' if '?' in queue_dsn else '?'}role={role}"
    async with Client(server_on(as_reader)) as client:
        for tool in PARAMETERS:
            await ask(client, tool)
        assert len(await ask(client, "queue_stats", limit=1)) == 1
    await driver.execute(f"DROP OWNED BY {role}")
    await driver.execute(f"DROP ROLE {role}")


async def test_what_cannot_be_done_is_explained(
    dsn: str, queue_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Client(server_on(dsn)) as client:
        assert "pgq install" in await refusal(client, "queue_size")
    monkeypatch.setenv("PGQUEUER_MCP_STATEMENT_TIMEOUT", "0.05")
    import asyncpg

    connection = await asyncpg.connect(queue_dsn)
    async with Client(server_on(queue_dsn)) as client, connection.transaction():
        await connection.execute("LOCK TABLE pgqueuer")
        assert "took too long" in await refusal(client, "queue_table_info")
    # What is only held up by others is shown as it is.
    async with Client(server_on(queue_dsn)) as client, connection.transaction():
        await connection.execute("LOCK TABLE pgqueuer_log IN SHARE MODE")
        assert await ask(client, "throughput_summary") == []
    await connection.close()


async def test_the_guide_is_a_prompt(queue_dsn: str) -> None:
    async with Client(server_on(queue_dsn)) as client:
        (prompt,) = (await client.list_prompts()).prompts
        assert prompt.name == "pgqueuer_guide"
        text = repr((await client.get_prompt("pgqueuer_guide")).messages)
        assert all(name in text for name in PARAMETERS)
