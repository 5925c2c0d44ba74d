"""The state of a queue as text, and the routes that serve it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pgqueuer.metrics.prometheus as original
import prometheus_client
import pytest
import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from behaviour.helpers import eventually
from pgq_fast.cached import REST, Cached
from pgq_fast.memory import InMemoryDriver, InMemoryQueries
from pgq_fast.metrics import prometheus
from pgq_fast.metrics.fastapi import create_metrics_router
from pgq_fast.metrics.histogram import Histogram
from pgq_fast.models import LogStatistics, QueueStatistics
from pgq_fast.queries import Queries
from support.drivers import MakeDriver
from support.scrape import Scrape, scrape

NAMES = ("pgqueuer_queue_count", "pgqueuer_logs_count")


def some_statistics() -> tuple[list[QueueStatistics], list[LogStatistics]]:
    now = datetime.now(UTC)
    queue = [
        QueueStatistics(count=count, entrypoint=name, priority=priority, status=status)
        for name, status, priority, count in (
            ("b", "queued", 0, 3),
            ("a", "picked", 0, 1),
            ("b", "queued", 5, 4),
            ("a", "failed", 0, 2),
        )
    ]
    log = [
        LogStatistics(count=count, created=now, entrypoint=name, priority=0, status=status)
        for name, status, count in (
            ("a", "successful", 1),
            ("b", "exception", 2),
            ("a", "successful", 6),
        )
    ]
    return queue, log


def test_the_text_is_that_of_the_original() -> None:
    queue, log = some_statistics()
    for names in ({}, {"queue_count": "jobs", "log_count": "ended"}):
        ours: list[Any] = list(
            prometheus.aggregated_statistics(queue, log, prometheus.MetricNames(**names))
        )
        theirs = list(
            original.aggregated_statistics(queue, log, original.MetricNames(**names))  # type: ignore[arg-type]
        )
        assert ours == theirs
        assert len(ours) == 5
    assert prometheus.prometheus_format("m", {"l": "v"}, 1.5) == 'm{l="v"} 1.5'


def test_any_name_of_an_entrypoint_can_be_read_back() -> None:
    name = 'quoted "here", back\\slash,\nnew line {}=#'
    line = prometheus.prometheus_format("m", {"entrypoint": name}, 1)
    (family,) = text_string_to_metric_families(line + "\n")
    (sample,) = family.samples
    assert sample.labels == {"entrypoint": name}


@pytest.mark.layouts
async def test_collect_metrics(make_driver: MakeDriver, queue_dsn: str) -> None:
    queries = Queries(await make_driver("asyncpg", queue_dsn))
    assert (await prometheus.collect_metrics(queries)).splitlines() == []
    await queries.enqueue(["a", "b", "b"], [None] * 3, [0, 1, 2])
    lines = (await prometheus.collect_metrics(queries)).splitlines()
    assert lines[:2] == [
        'pgqueuer_queue_count{aggregation="sum",entrypoint="a",status="queued"} 1',
        'pgqueuer_queue_count{aggregation="sum",entrypoint="b",status="queued"} 2',
    ]
    assert (
        await prometheus.collect_metrics(queries, last=timedelta(microseconds=1))
    ).splitlines() == lines[:2]


@contextlib.asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[int]:
    """The port on which *app* answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        run = asyncio.create_task(server.serve(sockets=[listening]))
        await eventually(lambda: server.started)
        yield listening.getsockname()[1]
        server.should_exit = True
        await run


async def test_a_route_of_an_application() -> None:
    queries = InMemoryQueries(InMemoryDriver())
    app = FastAPI()
    app.include_router(create_metrics_router(queries))
    names = prometheus.MetricNames(queue_count="jobs")
    app.include_router(create_metrics_router(queries, metric_names=names, path="/own"))
    await queries.enqueue(["a", 'b"\\'], [None] * 2, [0, 0])
    async with served(app) as port:
        answer, own = await scrape(port), await scrape(port, "/own")
    for entrypoint in ("a", 'b"\\'):
        labels = {"aggregation": "sum", "entrypoint": entrypoint, "status": "queued"}
        assert answer.value("pgqueuer_queue_count", **labels) == 1
        assert own.value("jobs", **labels) == 1


async def test_scrapes_that_meet_share_one_count() -> None:
    counts = 0
    go_on = asyncio.Event()

    async def count() -> int:
        nonlocal counts
        counts += 1
        await go_on.wait()
        return counts

    cached = Cached(count, timedelta(hours=1))
    waiting = [asyncio.create_task(cached.get()) for _ in range(5)]
    await eventually(lambda: counts)
    go_on.set()
    assert await asyncio.gather(*waiting) == [1] * 5
    assert await cached.get() == 1


async def test_an_answer_is_kept_as_long_as_it_was_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("pgq_fast.cached.time", clock)
    counts = 0

    async def count() -> int:
        nonlocal counts
        counts += 1
        clock.now += 2
        return counts

    cached = Cached(count)
    assert await cached.get() == 1
    clock.now += 2 * REST - 0.1
    assert await cached.get() == 1
    clock.now += 0.2
    assert await cached.get() == 2


async def test_an_error_is_not_kept() -> None:
    answers: list[Any] = [OSError("away"), 5]

    async def count() -> int:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return int(answer)

    cached = Cached(count, timedelta(hours=1))
    with pytest.raises(OSError, match="away"):
        await cached.get()
    assert await cached.get() == 5


def test_batches_are_counted_as_the_client_library_counts_values() -> None:
    source = random.Random(7)
    bounds = (0, 0.5, 1, 2.5)
    ours = Histogram(bounds)
    registry = CollectorRegistry()
    theirs = prometheus_client.Histogram("h", "h", buckets=bounds, registry=registry)
    for size in (0, 1, 2, 50):
        values = [source.choice((*bounds, source.uniform(-1, 4))) for _ in range(size)]
        for value in values:
            theirs.observe(value)
        ours.add(values)
    expected = Scrape(prometheus_client.generate_latest(registry).decode())
    buckets, total = ours.cumulative()
    assert total == pytest.approx(expected.value("h_sum"))
    for bound, count in buckets:
        assert count == expected.value("h_bucket", le=bound)


def test_a_missing_library_is_named_by_its_extra() -> None:
    needs = {
        "pgq_fast.metrics.fastapi": ("fastapi", "fastapi"),
        "pgq_fast.metrics.worker": ("prometheus_client", "prometheus"),
        "pgq_fast.metrics.server": ("prometheus_client", "prometheus"),
        "pgq_fast.adapters.tracing.opentelemetry": ("opentelemetry", "opentelemetry"),
        "pgq_fast.adapters.tracing.sentry": ("sentry_sdk", "sentry"),
        "pgq_fast.adapters.tracing.logfire": ("logfire", "logfire"),
        "pgq_fast.adapters.mcp.server": ("mcp", "mcp"),
    }
    code = f"""
import importlib, sys
for module, (library, _) in {needs}.items():
    sys.modules[library] = None
    try:
        importlib.import_module(module)
    except ImportError as error:
        print(module, type(error).__name__, error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    lines = result.stdout.splitlines()
    assert len(lines) == len(needs), result.stderr
    for line, (module, (_, extra)) in zip(lines, needs.items(), strict=True):
        assert line.startswith(f"{module} MissingExtraError ")
        assert line.endswith(f"pip install 'pgq-fast[{extra}]'")


def test_nothing_of_it_is_imported_with_the_package() -> None:
    code = (
        "import sys, pgq_fast, pgq_fast.qm; print(sorted(name for name in sys.modules if name in "
        "{'prometheus_client', 'opentelemetry', 'sentry_sdk', 'logfire', 'mcp', 'fastapi'} or "
        "name.startswith(('pgq_fast.metrics', 'pgq_fast.tracing.', 'pgq_fast.mcp'))))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr
