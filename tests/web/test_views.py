"""What pages are computed with: percentiles, charts, words, and reads that viewers share."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from fastapi import FastAPI

from behaviour.helpers import Tables, eventually
from pgq_fast.db import AsyncpgDriver
from pgq_fast.errors import InvalidCursorError
from pgq_fast.models import JobId
from pgq_fast.queries import Queries
from pgq_fast.types import Channel
from pgq_fast.web import charts, create_web_router, formats, routes
from pgq_fast.web.cursors import Cursor
from pgq_fast.web.reads import Count, Reads
from pgq_fast.web.sse import Broadcaster
from pgq_fast.web.views import Sampler, Views, percentile
from support.drivers import MakeDriver
from support.layouts import queries_of
from web.conftest import MakeClient, dashboard
from web.helpers import run, text

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("runs", "half", "most"),
    [
        ([], None, None),
        ([(2.0, 1)], 2.0, 2.0),
        ([(float(n), 1) for n in range(1, 101)], 50.0, 95.0),
        # A batch counts as often as it has jobs.
        ([(1.0, 90), (5.0, 10)], 1.0, 5.0),
        ([(9.0, 1), (1.0, 99)], 1.0, 1.0),
    ],
)
def test_percentiles(runs: list[tuple[float, int]], half: float | None, most: float | None) -> None:
    assert (percentile(runs, 0.5), percentile(runs, 0.95)) == (half, most)


def test_charts_are_drawn_to_scale_and_say_what_they_show() -> None:
    drawn = charts.bars(
        [
            charts.Bar(NOON, [("successful", 30), ("failed", 10)]),
            charts.Bar(NOON + timedelta(minutes=1), [("successful", 0), ("failed", 0)]),
        ],
        NOON + timedelta(minutes=2),
        '"<ended>"',
    )
    assert "<title>12:00:00 UTC: 30 successful, 10 failed</title>" in drawn
    assert drawn.count("<rect") == 2
    assert 'aria-label="&#34;&lt;ended&gt;&#34;"' in drawn
    assert ">50</text>" in drawn
    line = charts.lines(
        [charts.Line("<p>", "p50", [(NOON, 1.0), (NOON, None), (NOON, 2.0), (NOON, 2.0)])],
        NOON,
        NOON + timedelta(hours=1),
        "times",
        seconds=True,
    )
    # A gap parts a line.
    assert (line.count("<polyline"), line.count("<circle")) == (1, 1)
    assert "<title>&lt;p&gt;</title>" in line
    assert ">2 s</text>" in line
    assert charts.sparkline([0, 5, 10], "x").count("<rect") == 2
    # Nothing to show is a chart too.
    for empty in (charts.bars([], NOON, "x"), charts.lines([], NOON, NOON, "x")):
        assert empty.startswith("<svg")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        *((None, formats.NOTHING), (0.0004, "0.4 ms"), (0.25, "250 ms"), (1.25, "1.2 s")),
        *((59, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (90_061, "1 d 1 h")),
        (-5, "0.0 ms"),
    ],
)
def test_lengths_of_time(seconds: float | None, said: str) -> None:
    assert formats.duration(seconds) == said


def test_payloads_as_people_read_them() -> None:
    assert formats.payload(None) == ("empty", "")
    assert formats.payload(b'{"a":1}') == ("JSON", '{\n  "a": 1\n}')
    assert formats.payload(b"plain") == ("text", "plain")
    assert formats.payload(b"\xff\x01") == ("binary", "ff 01")
    assert formats.payload(b"[" * 60_000)[0] == "text"
    assert len(formats.payload(b"\xff" * 9_999)[1]) < 2_000


def test_cursors_come_back_as_they_went() -> None:
    cursor = Cursor.of("a & b", 2**63 - 1, None, NOON)
    back = Cursor.parse(str(cursor))
    assert back == cursor
    assert back is not None
    assert (back.text(0), back.integer(1), back.time(2), back.time(3)) == (
        *("a & b", 2**63 - 1),
        *(None, NOON),
    )
    assert Cursor.parse("") is None
    for ask in (
        *(lambda: Cursor.parse("!"), lambda: Cursor.parse("x" * 5000), lambda: back.integer(0)),
        *(
            lambda: back.integer(9),
            lambda: back.text(1),
            lambda: back.time(0),
            lambda: back.time(1),
        ),
        *(lambda: Cursor.of(True).integer(0), lambda: Cursor.of(2**63).integer(0)),
        *(lambda: Cursor.of("a\0").text(0), lambda: Cursor.of("2030-01-01").time(0)),
    ):
        with pytest.raises(InvalidCursorError):
            ask()


def test_counts_say_where_counting_ended() -> None:
    assert [str(Count.upto(10_000, n)) for n in (7, 10_000, 10_001)] == ["7", "10,000", "10,000+"]


class Calls:
    """Reads that can be counted and held up."""

    def __init__(self, reads: Reads) -> None:
        self.queries = reads.queries
        self.number = 0
        self.fails = False
        self._reads = reads

    async def overview(self) -> Any:
        self.number += 1
        await asyncio.sleep(0)
        if self.fails:
            raise ConnectionError
        return await self._reads.overview()


async def test_viewers_share_what_was_read_a_moment_ago(queries: Queries) -> None:
    views, calls = Views(), Calls(Reads(queries))
    reads: Any = calls
    await asyncio.gather(*(views.numbers(reads) for _ in range(20)))
    assert calls.number == 1


async def test_what_failed_is_read_again(queries: Queries) -> None:
    views, calls = Views(), Calls(Reads(queries))
    reads: Any = calls
    calls.fails = True
    results = await asyncio.gather(
        *(views.numbers(reads) for _ in range(5)), return_exceptions=True
    )
    assert all(isinstance(result, ConnectionError) for result in results)
    failed = calls.number
    calls.fails = False
    assert (await views.numbers(reads)).counts["queued"].value == 0
    assert calls.number == failed + 1


async def test_a_viewer_who_leaves_takes_nothing_from_the_others(queries: Queries) -> None:
    views, calls = Views(), Calls(Reads(queries))
    reads: Any = calls
    first, second = (asyncio.create_task(views.numbers(reads)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).counts["queued"].value == 0


async def test_samples_go_on_after_a_failure(queries: Queries) -> None:
    views, calls = Views(), Calls(Reads(queries))
    reads: Any = calls
    calls.fails = True
    failed: list[Exception] = []

    def note(error: Exception) -> None:
        failed.append(error)
        calls.fails = False

    sampler = asyncio.create_task(Sampler(views, reads, interval=0).run(note))
    await eventually(lambda: calls.number >= 2)
    sampler.cancel()
    await asyncio.gather(sampler, return_exceptions=True)
    assert len(failed) == 1


async def test_streams_are_bounded(
    queries: Queries, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = FastAPI()
    app.state.pgq_queries = queries
    app.include_router(create_web_router())
    client = make_client(app)
    # Nothing listens: pages look for news at intervals.
    assert "data-events" not in await text(client, "/")
    assert (await client.get("/events")).status_code == 404
    app.state.pgq_broadcaster = Broadcaster(queries.driver, Channel("c"))
    assert 'data-events="/events"' in await text(client, "/")
    monkeypatch.setattr(routes, "MOST_STREAMS", 0)
    assert (await client.get("/events")).status_code == 503


@pytest.mark.parametrize("kind", ["psycopg"])
async def test_over_another_driver(
    kind: str, queue_dsn: str, make_driver: MakeDriver, make_client: MakeClient, layout: Any
) -> None:
    queries = queries_of(await make_driver(kind, queue_dsn), layout)
    client = make_client(dashboard(queries))
    (held,) = await run(queries, "a", "failed")
    await run(queries, "b", "exception")
    await queries.enqueue(["a"] * 60, [None] * 60, [0] * 60)
    for path in ("/", "/jobs", "/failures", "/workers", "/entrypoints", "/schedules", "/system"):
        await text(client, path)
    for place in ("queued", "deferred", "picked", "failed"):
        await text(client, f"/jobs?status={place}")
    assert "ConnectionError" in await text(client, f"/jobs/{held}")


async def test_a_transaction_of_the_users_is_left_alone(
    queue_dsn: str, layout: Any, tables: Tables
) -> None:
    connection = await asyncpg.connect(queue_dsn)
    queries = queries_of(AsyncpgDriver(connection), layout)
    try:
        async with connection.transaction():
            (job,) = await queries.enqueue("a", None)
            overview = await Reads(queries).overview()
            assert overview.counts["queued"].value == 1
            # Neither read-only nor of another plan than the user's own.
            await queries.mark_job_as_cancelled([JobId(job)])
    finally:
        await connection.close()
    assert await tables.ended("canceled") == [job]
