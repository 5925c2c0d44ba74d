"""What a migration keeps: everything."""

from __future__ import annotations

import pytest

from migrate.helpers import OTHER, contents, left_overs
from pgq_fast.settings import Layout
from support.drivers import KINDS, MakeDriver
from support.layouts import queries_of
from support.pg_programs import schema_dump

pytestmark = pytest.mark.pg_matrix


@pytest.mark.parametrize("batch_size", [3, 10_000])
@pytest.mark.parametrize("kind", KINDS)
async def test_there_and_back(
    kind: str,
    batch_size: int,
    source: Layout,
    filled_dsn: str,
    fresh_dumps: dict[Layout, str],
    make_driver: MakeDriver,
) -> None:
    driver = await make_driver(kind, filled_dsn)
    before = contents(filled_dsn)
    assert {row[4] for row in before["jobs"]} == {"queued", "failed"}
    layout = source
    for _ in range(2):
        target = OTHER[layout]
        report = await queries_of(driver, layout).migrate(target, batch_size=batch_size)
        assert (report.source, report.target) == (layout, target)
        assert report.jobs == len(before["jobs"])
        assert (report.requeued, report.notes) == (0, ())
        assert contents(filled_dsn) == before
        assert await queries_of(driver, target).verify() == []
        assert schema_dump(filled_dsn) == fresh_dumps[target]
        assert left_overs(filled_dsn) == []
        layout = target


async def test_works_afterwards(source: Layout, filled_dsn: str, make_driver: MakeDriver) -> None:
    driver = await make_driver("asyncpg", filled_dsn)
    await queries_of(driver, source).migrate(OTHER[source].value)
    queries = queries_of(driver, OTHER[source])
    before = {row[0] for row in contents(filled_dsn)["log"]}
    (new,) = await queries.enqueue("new", b"n")
    assert new > max(before)
