"""The plans of the lease layout's statements stay what they are meant to be.

As in test_plans: whatever the statistics say, and for the first execution as for the later ones.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from behaviour.explain import nodes, plans, subplan, types
from behaviour.helpers import Tables
from pgq_fast.layouts.lease import LeaseLayout
from pgq_fast.queries import Queries
from pgq_fast.settings import DBSettings
from pgq_fast.sql import statement
from pgq_fast.types import QueueEntrypoint, QueueManagerId

pytestmark = [pytest.mark.pg_matrix, pytest.mark.impl_agnostic, pytest.mark.layouts("lease")]

OWNER = QueueManagerId(uuid.UUID(int=1))
LONG = 100_000
COMPILED_FROM = 100_000
"""The cost from which on PostgreSQL compiles a statement, which takes longer than any of these."""


@pytest.fixture
def kind() -> str:
    """One kind of driver: the plans are the server's."""
    return "asyncpg"


async def fill(tables: Tables, table: str, count: int = LONG, name: str = "e") -> None:
    when = "now() + interval '1 day' + number * interval '1 ms'"
    await tables.rows(
        f"INSERT INTO pgqueuer_{table} (priority, entrypoint, payload, execute_after)"
        f" SELECT number % 3, $1, repeat('x', 32)::bytea, {when}"
        " FROM generate_series(1, $2::int) AS number",
        name,
        count,
    )


async def lease(tables: Tables, count: int, jobs: int, seated: bool = False) -> None:
    await tables.rows(
        "INSERT INTO pgqueuer_lease (worker, entrypoint, slot, done, ids, priorities, attempts,"
        " created, execute_after, payloads)"
        " SELECT md5((number % 20)::text)::uuid, 'e', CASE WHEN $3 THEN number END,"
        " repeat('0', $2::int)::varbit, array_fill(number, ARRAY[$2::int]),"
        " array_fill(0, ARRAY[$2::int]), array_fill(0, ARRAY[$2::int]),"
        " array_fill(now(), ARRAY[$2::int]), array_fill(now(), ARRAY[$2::int]),"
        " array_fill('x'::bytea, ARRAY[$2::int])"
        " FROM generate_series(1, $1::bigint) AS number",
        count,
        jobs,
        seated,
    )


async def fill_all(tables: Tables, name: str = "e") -> None:
    """Queued and deferred jobs, and keys as if both had some."""
    for table in ("ready", "deferred"):
        await fill(tables, table, name=name)
    await tables.rows(
        "INSERT INTO pgqueuer_dedupe (key, job_id, entrypoint, priority)"
        " SELECT 'key ' || number, number, $1, 0 FROM generate_series(1, $2::int) AS number",
        name,
        LONG,
    )


async def analyse(tables: Tables) -> None:
    await tables.rows("ANALYZE")


async def analysed_empty(tables: Tables) -> None:
    await analyse(tables)
    await fill_all(tables)
    await lease(tables, 500, 100)


async def analysed_full(tables: Tables) -> None:
    await fill_all(tables)
    await lease(tables, 500, 100)
    await analyse(tables)


async def analysed_full_then_emptied(tables: Tables) -> None:
    await analysed_full(tables)
    for table, column in (("ready", "id"), ("deferred", "id"), ("dedupe", "job_id")):
        await tables.rows(f"DELETE FROM pgqueuer_{table} WHERE {column} % 1000 <> 0")
    await tables.rows("DELETE FROM pgqueuer_lease WHERE id > 3")


async def analysed_with_others(tables: Tables) -> None:
    await fill_all(tables, "other")
    await lease(tables, 5000, 1, seated=True)
    await analyse(tables)
    await fill(tables, "ready", 1_000)
    await fill(tables, "deferred", 1_000)


HISTORIES: list[Callable[[Tables], Awaitable[None]]] = [
    analysed_empty,
    analysed_full,
    analysed_full_then_emptied,
    analysed_with_others,
]


def scans(plan: dict[str, Any], table: str) -> set[str]:
    """How *plan* gets at the rows of *table*: the indexes, and other kinds of scan."""
    return {
        node.get("Index Name", node["Node Type"])
        for node in nodes(plan)
        if node.get("Relation Name") == f"pgqueuer_{table}" and node["Node Type"] != "ModifyTable"
    }


def looked_up(plan: dict[str, Any]) -> set[str]:
    """The indexes through which *plan* finds rows of leases, with or without a bitmap."""
    found = scans(plan, "lease") - {"Bitmap Heap Scan"}
    return found | {
        node["Index Name"] for node in nodes(plan) if node["Node Type"] == "Bitmap Index Scan"
    }


class Explain:
    """The plans of a statement of the lease layout, each looked at for what holds for all."""

    def __init__(self, tables: Tables, settings: DBSettings) -> None:
        self._tables = tables
        self._settings = settings

    async def __call__(self, name: str, flags: tuple[str, ...], *literals: str) -> list[Any]:
        query = statement(f"lease/{name}", self._settings, *flags)
        found = await plans(self._tables, query, *literals)
        for plan in found:
            assert plan["Total Cost"] < COMPILED_FROM, name
            # Never a look at every job, nor at all jobs of an entrypoint to put them in order.
            assert scans(plan, "ready") <= {"pgqueuer_ready_order_idx", "Tid Scan"}, name
            assert scans(plan, "deferred") <= {"pgqueuer_deferred_due_idx", "Tid Scan"}, name
            assert scans(plan, "dedupe") <= {"pgqueuer_dedupe_pkey", "Bitmap Heap Scan"}, name
        return found


@pytest.fixture
def explain(tables: Tables, queue_settings: DBSettings) -> Explain:
    return Explain(tables, queue_settings)


NAMES = "'{e,quiet}'"
CLAIM = ("1000", NAMES, f"'{OWNER}'", "16777216", "'{-2147483648,-3}'", "'{0,50}'", "true", "300")
ACK = ("'{1,2}'", f"'{OWNER}'")


@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.__name__)
async def test_statements_reach_what_they_want_by_their_indexes(
    explain: Explain, tables: Tables, history: Callable[[Tables], Awaitable[None]]
) -> None:
    await history(tables)
    for flags, more in (
        (("unlimited", "several", "fixed", "relaxed"), ()),
        (("unlimited", "several", "fixed"), ()),
        (("limited", "several", "budget"), ("'{0,0}'", "100")),
        (("unlimited", "several", "fixed", "ending", "unselective"), ("'{1,2}'",)),
        (("limited", "several", "fixed", "relaxed"), ("'{3,0}'",)),
    ):
        for plan in await explain("claim", flags, *CLAIM, *more):
            for name in ("next", "seated") if "limited" in flags else ("next",):
                line = subplan(plan, name)
                assert "Sort" not in types(line)
                assert "pgqueuer_ready_order_idx" in scans(line, "ready")
            # The latest leases, from the end of the index.
            latest = subplan(plan, "wanted")
            assert "Sort" not in types(latest)
            assert scans(latest, "lease") == {"pgqueuer_lease_pkey"}
            if "ending" in flags:
                assert looked_up(subplan(plan, "ended")) == {"pgqueuer_lease_pkey"}
    for plan in await explain(
        "claim", ("unlimited", "single", "fixed"), "1000", "'{e}'", *CLAIM[2:4], "'{-1}'", "'{7}'",
        "false", "1000",
    ):  # fmt: skip
        assert "pgqueuer_ready_order_idx" in scans(plan, "ready")
    for plan in await explain("promote", (), NAMES, "5000"):
        due = subplan(plan, "due")
        assert "Sort" not in types(due)
        assert "pgqueuer_deferred_due_idx" in scans(due, "deferred")
    for look in ("first", "again"):
        for plan in await explain("next_due", (look,), NAMES):
            assert "Sort" not in types(plan)
            assert scans(plan, "ready") == {"pgqueuer_ready_order_idx"}
            assert scans(plan, "deferred") == {"pgqueuer_deferred_due_idx"}
    for name in ("any_due", "next_deferred"):
        for plan in await explain(name, (), NAMES):
            assert "Sort" not in types(plan)
            assert scans(plan, "deferred") == {"pgqueuer_deferred_due_idx"}


@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.__name__)
async def test_leases_are_reached_by_their_ids(
    explain: Explain, tables: Tables, history: Callable[[Tables], Awaitable[None]]
) -> None:
    """However many the worker holds."""
    await history(tables)
    settle = (
        "'{1,2}'", "'{1,1}'", f"'{OWNER}'", "'{exception,queued}'", "'{NULL,NULL}'", "'{0 s,1 s}'",
    )  # fmt: skip
    for name, flags, literals in (
        ("finish", ("unselective", "relaxed"), ACK),
        ("finish_some", ("unselective",), ("'{1,2}'", "'{1000,0100}'", f"'{OWNER}'")),
        ("settle", ("unselective", "payloads"), settle),
        ("heartbeat", ("relaxed",), ACK),
    ):
        for plan in await explain(name, flags, *literals):
            assert looked_up(plan) <= {"pgqueuer_lease_pkey", "pgqueuer_dedupe_pkey"}, name
    # By the worker, or all of them: there are few leases, and their arrays stay where they are.
    for name, flags, literals in (
        ("release", ("unselective",), (f"'{OWNER}'", "'{1,2}'")),
        ("any_stale", (), ("'30 s'", NAMES)),
        ("rescue", ("unselective",), ("'30 s'", NAMES)),
    ):
        await explain(name, flags, *literals)


async def test_statements_are_not_planned_anew_each_time(
    driver: Any, queries: Queries, queue_settings: DBSettings
) -> None:
    """PostgreSQL counts, of each prepared statement, the plans that it made for the parameters."""
    layout = LeaseLayout(driver, queue_settings)
    limits = {QueueEntrypoint("e"): 0, QueueEntrypoint("quiet"): 0}
    limited = {QueueEntrypoint("e"): 3, QueueEntrypoint("quiet"): 0}
    rounds = 20
    for number in range(rounds):
        await queries.enqueue(["e"] * 9, [b"x"] * 9, [number] * 9)
        for some in (limits, limited):
            claim = await layout.claim(3, some, OWNER, timedelta(seconds=30), 2**24)
            ids = [job.id for job in claim.jobs]
            await layout.heartbeat(ids, OWNER)
            await layout.finish(ids[:1], OWNER)
            await layout.finish(ids[1:], OWNER)
            claim = await layout.claim(1, some, OWNER, None, 2**24)
            claim = await layout.claim(1, some, OWNER, None, 2**24, [claim.jobs[0].id])
            await layout.rest(list(some), OWNER, False)
            await layout.finish([job.id for job in claim.jobs], OWNER)
    counted = await driver.fetch(
        "SELECT statement, generic_plans, custom_plans FROM pg_prepared_statements"
        " WHERE generic_plans + custom_plans >= $1",
        rounds,
    )
    assert len(counted) >= 7
    assert [row["statement"] for row in counted if row["generic_plans"] < rounds - 5] == []
