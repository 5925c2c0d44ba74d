"""The plans of the worker's statements stay what they are meant to be, whatever the statistics say.

A queue is empty one moment and long the next, so the planner nearly always works with statistics of
another time. Each statement is executed as prepared: the first plans are made for its parameters,
the later ones for any.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from behaviour.explain import nodes, plans, subplan, types
from behaviour.helpers import Tables
from pgq_fast.layouts import compat
from pgq_fast.queries import Queries
from pgq_fast.settings import DBSettings
from pgq_fast.sql import statement
from pgq_fast.types import QueueEntrypoint, QueueManagerId

pytestmark = [pytest.mark.pg_matrix, pytest.mark.impl_agnostic]

OWNER = QueueManagerId(uuid.UUID(int=1))
LONG = 20_000
SETTINGS = DBSettings()


@pytest.fixture(params=["asyncpg"])
def kind(request: pytest.FixtureRequest) -> str:
    """One kind of driver: the plans are the server's."""
    name: str = request.param
    return name


async def fill(queries: Queries, entrypoint: str, count: int) -> None:
    await queries.enqueue([entrypoint] * count, [b"x" * 32] * count, [0] * count)


async def analyse(tables: Tables) -> None:
    await tables.rows("ANALYZE pgqueuer")


async def never_analysed(queries: Queries, tables: Tables) -> None:
    await fill(queries, "e", LONG)


async def analysed_empty(queries: Queries, tables: Tables) -> None:
    await analyse(tables)
    await fill(queries, "e", LONG)


async def analysed_with_others_picked(queries: Queries, tables: Tables) -> None:
    await fill(queries, "other", 5_000)
    await tables.rows("UPDATE pgqueuer SET status = 'picked', queue_manager_id = $1", OWNER)
    await analyse(tables)
    await fill(queries, "e", LONG)


async def analysed_with_others_queued(queries: Queries, tables: Tables) -> None:
    await fill(queries, "other", LONG)
    await analyse(tables)
    await fill(queries, "e", 1_000)


async def analysed_full(queries: Queries, tables: Tables) -> None:
    await fill(queries, "e", LONG)
    await analyse(tables)


async def analysed_full_then_emptied(queries: Queries, tables: Tables) -> None:
    await fill(queries, "e", LONG)
    await analyse(tables)
    await tables.rows("DELETE FROM pgqueuer WHERE id % 1000 <> 0")


async def analysed_deferred(queries: Queries, tables: Tables) -> None:
    await fill(queries, "e", LONG)
    await tables.rows("UPDATE pgqueuer SET execute_after = now() + interval '1 day'")
    await analyse(tables)
    await fill(queries, "e", 1_000)


HISTORIES: list[Callable[[Queries, Tables], Awaitable[None]]] = [
    never_analysed,
    analysed_empty,
    analysed_with_others_picked,
    analysed_with_others_queued,
    analysed_full,
    analysed_full_then_emptied,
    analysed_deferred,
]


def scans(plan: dict[str, Any]) -> set[str]:
    """How *plan* gets at the queue table: the indexes that it scans, and other kinds of scan."""
    return {
        node.get("Index Name", node["Node Type"])
        for node in nodes(plan)
        if node.get("Relation Name") == "pgqueuer" and node["Node Type"] != "ModifyTable"
    } | {node["Index Name"] for node in nodes(plan) if node["Node Type"] == "Bitmap Index Scan"}


LOOKS = 600
CLAIM = ["1000", "'{e,quiet}'", f"'{OWNER}'", "16777216"]


@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.__name__)
async def test_a_claim_reads_the_front_of_the_line_in_order(
    queries: Queries, tables: Tables, history: Callable[[Queries, Tables], Awaitable[None]]
) -> None:
    await history(queries, tables)
    for limits, ending, rescue in (
        ({"e": 0, "quiet": 0}, False, False),
        ({"e": 0, "quiet": 0}, True, False),
        ({"e": 0, "quiet": 0}, False, True),
        ({"e": 3, "quiet": 0}, False, True),
    ):
        wanted = compat.wanted({QueueEntrypoint(name): limit for name, limit in limits.items()})
        claim = compat.claim_statement(
            SETTINGS,
            1000,
            wanted,
            OWNER,
            timedelta(seconds=30) if rescue else None,
            2**24,
            ending=[1, 2] if ending else (),
            relaxed=not ending,
            looks=LOOKS,
        )
        literals = [*CLAIM, str(LOOKS)]
        if wanted.seats is not None:
            literals.append("'{3,0}'")
        if rescue:
            literals.append("'30 s'")
        if ending:
            literals.append("'{1,2}'")
        for plan in await plans(tables, claim.query, *literals):
            # From here on PostgreSQL compiles a statement, which takes longer than to run this one.
            assert plan["Total Cost"] < 100_000
            names = ["next"] if wanted.seats is None else ["unlimited", "limited"]
            for name in names:
                line = subplan(plan, name)
                assert "Sort" not in types(line)
                assert "pgqueuer_ep_prio_id_idx" in scans(line)
                assert scans(line) <= {"pgqueuer_ep_prio_id_idx", "pgqueuer_pkey"}
            if ending:
                assert scans(subplan(plan, "ended")) <= {"pgqueuer_pkey", "Bitmap Heap Scan"}


@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.__name__)
async def test_jobs_are_found_by_due_time_without_those_that_are_not_due(
    queries: Queries, tables: Tables, history: Callable[[Queries, Tables], Awaitable[None]]
) -> None:
    await history(queries, tables)
    wanted = compat.wanted({QueueEntrypoint("e"): 0, QueueEntrypoint("quiet"): 0})
    claim = compat.claim_statement(
        SETTINGS, 1000, wanted, OWNER, None, 2**24, relaxed=True, by_due_time=True
    )
    for plan in await plans(tables, claim.query, *CLAIM, "1000"):
        assert scans(subplan(plan, "next")) == {"pgqueuer_ep_ea_idx"}
    for plan in await plans(tables, statement("compat/next_due", SETTINGS), "'{e,quiet}'"):
        assert scans(plan) == {"pgqueuer_ep_ea_idx"}
        assert "Sort" not in types(plan)


@pytest.mark.parametrize("name", ["finish", "heartbeat"])
async def test_a_job_is_reached_by_its_id_however_many_its_owner_holds(
    queries: Queries, tables: Tables, name: str
) -> None:
    await fill(queries, "e", LONG)
    await analyse(tables)
    await tables.rows("UPDATE pgqueuer SET status = 'picked', queue_manager_id = $1", OWNER)
    query = statement(f"compat/{name}", SETTINGS)
    for plan in await plans(tables, query, "'{1,2,3}'", f"'{OWNER}'"):
        assert scans(plan) <= {"pgqueuer_pkey", "Bitmap Heap Scan"}
        assert "pgqueuer_pkey" in scans(plan)


async def test_a_claim_is_not_planned_anew_each_time(driver: Any, queries: Queries) -> None:
    """PostgreSQL counts, of each prepared statement, the plans that it made for the parameters."""
    layout = compat.CompatLayout(driver, SETTINGS)
    limits = {QueueEntrypoint("e"): 0, QueueEntrypoint("quiet"): 0}
    limited = {QueueEntrypoint("e"): 3, QueueEntrypoint("quiet"): 0}
    rounds = 20
    for _ in range(rounds):
        await fill(queries, "e", 3)
        for some in (limits, limited):
            claim = await layout.claim(2, some, OWNER, timedelta(seconds=30), 2**24)
            claim = await layout.claim(2, some, OWNER, None, 2**24, [job.id for job in claim.jobs])
            await layout.rest(list(some), OWNER, False)
            await layout.finish([job.id for job in claim.jobs], OWNER)
    counted = await driver.fetch(
        "SELECT statement, generic_plans, custom_plans FROM pg_prepared_statements"
        " WHERE generic_plans + custom_plans >= $1",
        rounds,
    )
    assert len(counted) >= 5
    assert [row["statement"] for row in counted if row["generic_plans"] < rounds - 5] == []


async def counted(tables: Tables) -> None:
    await tables.rows(
        "UPDATE pgqueuer_log SET aggregated = true, created = created - interval '1 h'"
    )


async def analysed_counted(queries: Queries, tables: Tables) -> None:
    await fill(queries, "e", LONG)
    await counted(tables)
    await tables.rows("ANALYZE pgqueuer_log")
    await fill(queries, "e", LONG)


async def analysed_while_much_was_not_counted(queries: Queries, tables: Tables) -> None:
    await fill(queries, "e", LONG)
    await tables.rows("ANALYZE pgqueuer_log")
    await counted(tables)
    await fill(queries, "e", LONG)


@pytest.mark.parametrize(
    "history", [analysed_counted, analysed_while_much_was_not_counted, never_analysed]
)
async def test_log_entries_are_counted_from_where_the_last_count_ended(
    queries: Queries, tables: Tables, history: Callable[[Queries, Tables], Awaitable[None]]
) -> None:
    """Neither are all read that are not counted, nor the log before them."""
    await history(queries, tables)
    query = statement("compat/aggregate_logs", SETTINGS, "locked")
    span = ("now() - interval '1 minute'", "now()", "2000")
    for plan in await plans(tables, query, *span):
        assert "Sort" not in types(subplan(plan, "next"))
        indexes = {node["Index Name"] for node in nodes(plan) if "Index Name" in node}
        assert {"pgqueuer_log_created"} < indexes
        assert "pgqueuer_log_not_aggregated" not in indexes
        assert "Seq Scan" not in types(plan)
