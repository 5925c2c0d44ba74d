"""A migration needs no session: it goes through PgBouncer in transaction mode."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from migrate.helpers import OTHER, contents, fill, left_overs
from pgbouncer.helpers import Ways
from pgq_fast.settings import Layout
from support.layouts import queries_of

pytestmark = pytest.mark.impl_agnostic


@pytest.mark.parametrize("source", list(Layout))
async def test_migrates(
    source: Layout, kind: str, empty: Ways, open_through: Callable[..., Awaitable[Any]]
) -> None:
    driver = await open_through(kind, empty.pooled)
    queries = queries_of(driver, source)
    await queries.install()
    await fill(queries)
    before = contents(empty.direct)
    await queries.migrate(OTHER[source], batch_size=5)
    assert contents(empty.direct) == before
    assert left_overs(empty.direct) == []
    assert await queries_of(driver, OTHER[source]).verify() == []
