"""A queue of a million jobs: no page reads much more of it than it shows, whatever is asked.

Rows are counted, not time: each statement of a page is explained as it runs.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import pytest

from behaviour.explain import nodes
from behaviour.helpers import Tables
from pgq_fast.queries import Queries
from pgq_fast.settings import Layout
from pgq_fast.web import reads
from web.conftest import MakeClient, dashboard
from web.helpers import claim, ids, link, run, text

pytestmark = [pytest.mark.layouts(), pytest.mark.timeout(240)]

JOBS: Final = 1_000_000
FOUR_IN_FIVE: Final = 800_000

MOST_ROWS: Final = 150_000
"""Rows that one statement may read: several times what a page looks at, since it looks at several
places, and far from what the queue has."""

# A million jobs of a few entrypoints, of which a fifth is deferred to the same instant; and a log.
FILL: Final = {
    Layout.compat: [
        "INSERT INTO pgqueuer (priority, status, entrypoint, payload, execute_after)"
        " SELECT n % 5, 'queued', 'e' || n % 3, 'secret',"
        f" CASE WHEN n > {FOUR_IN_FIVE} THEN now() + interval '1 day' ELSE now() END"
        f" FROM generate_series(1, {JOBS}) AS n",
        "INSERT INTO pgqueuer_log (job_id, status, priority, entrypoint, created)"
        " SELECT n / 3, (ARRAY['queued', 'picked', 'successful'])[n % 3 + 1]::pgqueuer_status, 0,"
        " 'e0', now() - interval '1 h' * (n / 300000.0) FROM generate_series(1, 300000) AS n",
    ],
    Layout.lease: [
        "INSERT INTO pgqueuer_ready (priority, entrypoint, payload)"
        f" SELECT n % 5, 'e' || n % 3, 'secret' FROM generate_series(1, {FOUR_IN_FIVE}) AS n",
        "INSERT INTO pgqueuer_deferred (priority, entrypoint, payload, execute_after)"
        " SELECT n % 5, 'e' || n % 3, 'secret', now() + interval '1 day'"
        f" FROM generate_series({FOUR_IN_FIVE} + 1, {JOBS}) AS n",
        "INSERT INTO pgqueuer_log_entries (job_id, status, priority, entrypoint, created)"
        " SELECT n / 3, (ARRAY['queued', 'picked', 'successful'])[n % 3 + 1]::pgqueuer_status, 0,"
        " 'e0', now() - interval '1 h' * (n / 300000.0) FROM generate_series(1, 300000) AS n",
    ],
}
STATISTICS: Final = (
    "INSERT INTO pgqueuer_statistics (count, created, priority, status, entrypoint)"
    " SELECT 1, now() - interval '1 s' * n, 0, 'successful', 'e0'"
    " FROM generate_series(200000, 1, -1) AS n"
)


class Explained:
    """Notes how many rows each statement of the transactions of *driver* reads."""

    def __init__(self, driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: dict[str, int] = {}
        begin = driver.transaction

        @asynccontextmanager
        async def transaction() -> AsyncIterator[Any]:
            async with begin() as begun:
                yield _ExplainedTransaction(self, begun)

        monkeypatch.setattr(driver, "transaction", transaction)


class _ExplainedTransaction:
    def __init__(self, owner: Explained, transaction: Any) -> None:
        self._owner = owner
        self._transaction = transaction

    async def fetch(self, query: str, *args: object) -> Any:
        analyse = "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON)"
        (row,) = await self._transaction.fetch(f"{analyse} {query}", *args)
        plan = row["QUERY PLAN"]
        plan = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
        read = sum(
            round(
                (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            )
            for node in nodes(plan)
            if "Relation Name" in node
        )
        assert read <= MOST_ROWS, f"{read} rows are read by {query}"
        self._owner.rows[query] = max(read, self._owner.rows.get(query, 0))
        return await self._transaction.fetch(query, *args)


async def fill(tables: Tables, layout: Layout) -> None:
    """With statistics of the time when there was nothing, which is when a plan goes wrong."""
    await tables.rows("ANALYZE")
    # The notifications and syncs of a million jobs are nobody's business here.
    await tables.rows("SET session_replication_role = replica")
    # Indexes are quicker to build than to keep.
    indexes = await tables.rows(
        "SELECT indexname, indexdef FROM pg_indexes"
        " WHERE schemaname = 'public' AND indexname !~ '_pkey$|_key$'"
    )
    for name, _ in indexes:
        await tables.rows(f"DROP INDEX {name}")
    for query in [*FILL[layout], STATISTICS, *(definition for _, definition in indexes)]:
        await tables.rows(query)


async def test_a_million_jobs_are_looked_at_a_few_at_a_time(
    queries: Queries,
    tables: Tables,
    layout: Layout,
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = await run(queries, "held", "failed", "failed", "exception")
    await queries.enqueue(["busy"] * 3, [None] * 3, [0] * 3)
    await claim(queries, "busy", 3)
    await fill(tables, layout)
    explained = Explained(queries.driver, monkeypatch)
    client = make_client(dashboard(queries))

    for path in (
        *("/", "/?window=24h", "/entrypoints", "/entrypoints?window=24h", "/workers", "/schedules"),
        *("/system", "/failures", "/healthz", f"/jobs/{held[0]}", "/jobs/500000"),
        *("/jobs/999999999", "/jobs?status=queued&older=7d"),
    ):
        await client.get(path)
    for place in ("queued", "deferred", "picked", "failed"):
        for more in ("", "&entrypoint=e1&lowest=4", "&lowest=9&older=6h"):
            page = await text(client, f"/jobs?status={place}{more}")
            for words in ("Next page", "Search on"):
                if following := link(page, words):
                    page = await text(client, following)
                    assert ids(page) or link(page, "Search on") or "lowest=9" in more
                    break
    # All of them, and none of them otherwise.
    assert len(explained.rows) >= 15

    page = await text(client, "/")
    assert "10,000+ queued, 3 running, 2 held" in page
    await tables.rows("ANALYZE")
    client = make_client(dashboard(queries))
    assert "estimated" in await text(client, "/")
    assert ids(await text(client, "/failures")) == [held[1], held[0]]
    assert len(ids(await text(client, "/jobs?status=queued&lowest=4"))) == reads.PAGE
    await _sees_a_deferred_job(client)


async def _sees_a_deferred_job(client: httpx.AsyncClient) -> None:
    page = await text(client, "/jobs?status=deferred&entrypoint=e2")
    job = ids(page)[7]
    assert "May run from" in await text(client, link(page, str(job)) or "")


async def test_the_session_keeps_nothing_of_a_look(queries: Queries, tables: Tables) -> None:
    names = "'statement_timeout', 'enable_seqscan', 'transaction_read_only', 'jit'"
    asked = f"SELECT name, setting FROM pg_settings WHERE name IN ({names}) ORDER BY name"
    before = await queries.driver.fetch(asked)
    look = reads.Reads(queries)
    async with look._look() as fetch:
        await fetch("alive")
    # A pool gives its connections out in turn: the same one, since none was in use.
    assert await queries.driver.fetch(asked) == before


async def test_a_look_that_takes_too_long_ends(
    queries: Queries, tables: Tables, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    monkeypatch.setattr(reads, "TIMEOUT", timedelta(milliseconds=50))
    await tables.rows("BEGIN")
    await tables.rows("LOCK TABLE pgqueuer_schedules IN ACCESS EXCLUSIVE MODE")
    response = await make_client(dashboard(queries)).get("/schedules")
    await tables.rows("ROLLBACK")
    assert response.status_code == 503
    assert "did not answer within 0.05 seconds" in response.text


async def test_a_look_writes_nothing(queries: Queries, monkeypatch: pytest.MonkeyPatch) -> None:
    statement = reads.layout_statement

    def evil(name: str, *more: Any) -> str:
        return (
            "DELETE FROM pgqueuer_schedules WHERE id = $1"
            if "schedules" in name
            else statement(name, *more)
        )

    monkeypatch.setattr(reads, "layout_statement", evil)
    with pytest.raises(Exception, match="in a read-only transaction"):
        await reads.Reads(queries).schedules()
