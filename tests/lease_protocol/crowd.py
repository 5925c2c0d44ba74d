"""Many members at once, and the account of what they have done to the jobs."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

import asyncpg

ALIVE = """
    SELECT id, 'ready' AS place FROM pgqueuer_ready
    UNION ALL SELECT id, 'deferred' FROM pgqueuer_deferred
    UNION ALL SELECT id, 'held' FROM pgqueuer_held
    UNION ALL
    SELECT job.id, 'lease'
    FROM pgqueuer_lease
    CROSS JOIN LATERAL unnest(ids) WITH ORDINALITY AS job (id, place)
    WHERE get_bit(done, job.place::int - 1) = 0
"""
ENDED = """
    SELECT job_id AS id, status::text AS status FROM pgqueuer_log
    WHERE status IN ('successful', 'exception', 'canceled', 'deleted')
"""
ACCOUNT = f"""
SELECT id, count(*) FILTER (WHERE alive) AS places, count(*) FILTER (WHERE NOT alive) AS ends,
    string_agg(detail, ', ') AS details
FROM (
    SELECT id, true AS alive, place AS detail FROM ({ALIVE}) AS alive
    UNION ALL
    SELECT id, false, status FROM ({ENDED}) AS ended
) AS job
GROUP BY id
"""
KEYS = """
SELECT coalesce(dedupe.key, job.dedupe_key) AS key, dedupe.job_id, job.id
FROM pgqueuer_dedupe AS dedupe
FULL JOIN (
    SELECT id, dedupe_key FROM pgqueuer WHERE dedupe_key IS NOT NULL AND status <> 'failed'
) AS job ON job.dedupe_key = dedupe.key AND job.id = dedupe.job_id
WHERE dedupe.key IS NULL OR job.id IS NULL
"""
PRIORITIES = """
SELECT dedupe.key, dedupe.priority, job.priority
FROM pgqueuer_dedupe AS dedupe
JOIN pgqueuer AS job ON job.id = dedupe.job_id
WHERE job.status = 'queued' AND job.priority <> dedupe.priority
"""
RUNNING = """
SELECT entrypoint, sum(length(done) - bit_count(done))::int AS jobs
FROM pgqueuer_lease
GROUP BY entrypoint
"""
COUNTED = """
SELECT entrypoint, status::text AS status, sum(count)::int AS count
FROM pgqueuer_statistics
GROUP BY entrypoint, status
"""
LOGGED = """
SELECT entrypoint, status::text AS status, count(*)::int AS count
FROM pgqueuer_log
WHERE id IS NOT NULL
GROUP BY entrypoint, status
"""


async def check_places(connection: asyncpg.Connection, ids: set[int]) -> None:
    """Fail unless each of *ids* is in one place, or has ended once; in one snapshot."""
    rows = await connection.fetch(ACCOUNT)
    wrong = [tuple(row) for row in rows if row["places"] + row["ends"] != 1]
    assert not wrong, f"not in one place nor ended once: {wrong}"
    missing = ids - {row["id"] for row in rows}
    assert not missing, f"lost: {missing}"


async def check_all(connection: asyncpg.Connection, ids: set[int]) -> None:
    """Fail unless everything adds up; nobody may be at work."""
    await check_places(connection, ids)
    assert {row["id"] for row in await connection.fetch(ACCOUNT)} == ids
    assert [tuple(row) for row in await connection.fetch(KEYS)] == []
    assert [tuple(row) for row in await connection.fetch(PRIORITIES)] == []


async def check_statistics(connection: asyncpg.Connection) -> None:
    """Fail unless the statistics, all aggregated, say what the log says."""
    counted = {(row[0], row[1]): row[2] for row in await connection.fetch(COUNTED)}
    assert counted == {(row[0], row[1]): row[2] for row in await connection.fetch(LOGGED)}


@contextlib.asynccontextmanager
async def monitored(
    connection: asyncpg.Connection, limits: Mapping[str, int]
) -> AsyncIterator[Counter[str]]:
    """Look at the leases over and over while the block runs: the most that ran at a time.

    Each look is one statement, and so one snapshot.
    """
    most: Counter[str] = Counter()
    stop = asyncio.Event()

    async def watch() -> None:
        while not stop.is_set():
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                for row in await connection.fetch(RUNNING):
                    most[row["entrypoint"]] = max(most[row["entrypoint"]], row["jobs"])

    watcher = asyncio.create_task(watch())
    try:
        yield most
    finally:
        stop.set()
        await watcher
    over = {name: (most[name], limit) for name, limit in limits.items() if most[name] > limit > 0}
    assert not over, f"more than allowed: {over}"


async def together(*calls: Any) -> list[Any]:
    """Run all of them at the same time, to their ends; the first error if there is one."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
