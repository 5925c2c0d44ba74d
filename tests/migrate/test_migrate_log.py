"""The log and the statistics count every job once, in whatever layout it was enqueued and ended."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from migrate.helpers import OTHER, contents, drive, fill, on, pick, steps
from pgq_fast.queries import Queries
from pgq_fast.settings import Layout
from support.drivers import MakeDriver
from support.layouts import queries_of


async def totals(queries: Queries) -> Counter[tuple[str, str]]:
    """What the statistics say by now, by entrypoint and status."""
    found: Counter[tuple[str, str]] = Counter()
    for row in await queries.throughput_summary():
        found[row.entrypoint, row.status] += row.total_count
    return found


async def test_jobs_that_end_in_the_other_layout(
    source: Layout, filled_dsn: str, make_driver: MakeDriver
) -> None:
    driver = await make_driver("asyncpg", filled_dsn)
    before = await totals(queries_of(driver, source))
    await queries_of(driver, source).migrate(OTHER[source])
    moved = queries_of(driver, OTHER[source])
    assert await totals(moved) == before
    jobs = await pick(moved, "plain", 9)
    ended, failed, held = jobs[:-2], jobs[-2], jobs[-1]
    await moved.log_jobs(
        [(job, "successful", None) for job in ended]
        + [(failed, "exception", None), (held, "failed", None)]
    )
    after = before + Counter(
        {
            ("plain", "picked"): len(jobs),
            ("plain", "successful"): len(ended),
            ("plain", "exception"): 1,
            ("plain", "failed"): 1,
        }
    )
    assert await totals(moved) == after
    histories = {
        ended[0].id: ["queued", "picked", "successful"],
        failed.id: ["queued", "picked", "exception"],
        held.id: ["queued", "picked", "failed"],
    }
    for job_id, expected in histories.items():
        assert [entry.status for entry in await moved.job_log_history(job_id)] == expected
    await moved.migrate(source)
    back = queries_of(driver, source)
    assert await totals(back) == after
    for job_id, expected in histories.items():
        assert [entry.status for entry in await back.job_log_history(job_id)] == expected


async def test_jobs_that_end_while_it_settles(
    source: Layout, filled_dsn: str, make_driver: MakeDriver
) -> None:
    driver = await make_driver("asyncpg", filled_dsn)
    moved = queries_of(await make_driver("asyncpg", filled_dsn), OTHER[source])
    before = await totals(queries_of(driver, source))
    ended: list[int] = []

    async def look_in(number: int, step: Any) -> None:
        if settles(step) and (jobs := await pick(moved, "plain", 2)):
            await moved.log_jobs([(job, "successful", None) for job in jobs])
            ended.extend(job.id for job in jobs)
            if len(ended) == 4:
                await moved.aggregate_logs()

    await drive(driver, steps(on(source), OTHER[source], batch_size=4), look_in)
    assert len(ended) == 6
    for job_id in ended:
        history = [entry.status for entry in await moved.job_log_history(job_id)]
        assert history == ["queued", "picked", "successful"]
    assert await totals(moved) == before + Counter(
        {("plain", "picked"): 6, ("plain", "successful"): 6}
    )


def settles(step: Any) -> bool:
    """Whether it is a batch of what follows the switch."""
    text = getattr(step, "sql", "")
    return "_moved" in text and "turn AS" in text


async def test_counted_while_it_settles(
    source: Layout, filled_dsn: str, make_driver: MakeDriver
) -> None:
    driver = await make_driver("asyncpg", filled_dsn)
    others = {
        layout: queries_of(await make_driver("asyncpg", filled_dsn), layout) for layout in Layout
    }
    settled = 0

    async def look_in(number: int, step: Any) -> None:
        nonlocal settled
        if settles(step):
            settled += 1
            if settled % 3 == 2:
                await others[OTHER[source]].aggregate_logs()

    before = contents(filled_dsn)
    await drive(driver, steps(on(source), OTHER[source], batch_size=4), look_in)
    assert settled > 5
    assert contents(filled_dsn) == before
    expected = Counter((row[1], row[3]) for row in before["counts"] for _ in range(row[4]))
    assert await totals(others[OTHER[source]]) == expected


@pytest.mark.parametrize("source", [Layout.compat])
async def test_entries_that_were_pruned(
    filled_dsn: str, source: Layout, make_driver: MakeDriver
) -> None:
    """They had been counted, so what is derived from the jobs must not be added to that."""
    driver = await make_driver("asyncpg", filled_dsn)
    queries = queries_of(driver, source)
    before = await totals(queries)
    await queries.clear_queue_log()
    await queries.migrate("lease")
    moved = queries_of(driver, Layout.lease)
    # Raised since, the bucket of its enqueue is not found any more.
    raised = ("raised", "queued")
    after = await totals(moved)
    assert after.pop(raised) == 2
    assert before.pop(raised) == 1
    assert after == before
    assert await driver.fetch("SELECT FROM pgqueuer_statistics WHERE count <= 0") == []


@pytest.mark.parametrize("mode", ["failures", "none"])
@pytest.mark.parametrize("counted", [False, True], ids=["not counted", "counted"])
async def test_what_was_kept_for_the_statistics_only(
    mode: str, counted: bool, dsn: str, make_driver: MakeDriver
) -> None:
    driver = await make_driver("asyncpg", dsn)
    settings = on(Layout.lease, job_log=mode)
    queries = queries_of(driver, settings)
    await queries.install()
    await fill(queries)
    # Ends that nobody has counted.
    for status in ("successful", "exception", "failed"):
        await queries.enqueue(["more"] * 3, [b""] * 3, [0, 0, 1])
        await queries.log_jobs([(job, status, None) for job in await pick(queries, "more", 3)])  # type: ignore[list-item]
    (job,) = await pick(queries, "late key") or await pick(queries, "keyed")
    await queries.retry_job(job, timedelta(0), None)
    if counted:
        before = await totals(queries)
    await queries.migrate("compat", batch_size=3)
    compat = queries_of(driver, Layout.compat)
    after = await totals(compat)
    if counted:
        assert after == before
    assert after["more", "queued"] == after["more", "picked"] == 9
    assert after["more", "successful"] == after["more", "exception"] == after["more", "failed"] == 3
    assert after["done", "successful"] == after["done", "picked"] == after["done", "queued"] == 9
    assert after["again", "queued"] == 4
    successful = await driver.fetch("SELECT FROM pgqueuer_log WHERE status = 'successful'")
    assert successful == []
