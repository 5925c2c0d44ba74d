"""The server restarts, and ends sessions in the middle of what they do."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import psycopg

from faults.server import RestartMode
from faults.stage import Kind, Stage
from pgq_fast.settings import Layout

LOOK_FOR: Final = 5.0
"""Seconds to look for a session that does what is wanted; each worker claims more often."""

# How statements begin, and the table that each needs.
CLAIM: Final = r"\A\s*(--[^\n]*\n\s*)*WITH\b.*\bSKIP LOCKED\b"
ACK: Final = r"\A(?!.*SKIP LOCKED).*\b(INSERT INTO|DELETE FROM)\b"
LISTEN: Final = r"(?i)\A\s*(LISTEN|SELECT 1|SELECT pg_notify)"
ANY: Final = r"."
NEEDED: Final = {
    Layout.compat: {CLAIM: "pgqueuer", ACK: "pgqueuer_log"},
    Layout.lease: {CLAIM: "pgqueuer_ready", ACK: "pgqueuer_log_batches"},
}


def restart(mode: RestartMode) -> Callable[[Stage], Awaitable[None]]:
    async def strike(stage: Stage) -> None:
        strikes = stage.crew.all_struck()
        await asyncio.to_thread(stage.server.restart, mode)
        for one in strikes:
            one.end = time.monotonic()

    return strike


def end_session(statement: str) -> Callable[[Stage], Awaitable[None]]:
    """End one session that is running such a statement, or has run it last."""

    async def strike(stage: Stage) -> None:
        with stage.connect() as connection:
            needed = NEEDED[stage.layout].get(statement)
            # In the middle of it: it waits for the table, where it needs one. Half of the time it
            # is left to chance where it is.
            if needed is not None and stage.random.random() < 0.5:
                with connection.transaction():
                    connection.execute(f"LOCK TABLE {needed}")
                    await end_one(stage, connection, statement, waits=True)
            else:
                await end_one(stage, connection, statement, waits=False)

    return strike


async def end_one(
    stage: Stage, connection: psycopg.Connection[Any], statement: str, *, waits: bool
) -> None:
    strikes = stage.crew.all_struck()
    began = time.monotonic()
    ended = False
    sessions: list[tuple[int, str]] = []
    while not ended and time.monotonic() < began + LOOK_FOR:
        sessions = connection.execute(
            "SELECT pid, query FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'worker' AND (NOT %s OR wait_event_type = 'Lock')",
            [waits],
        ).fetchall()
        found = [pid for pid, query in sessions if re.search(statement, query, re.DOTALL)]
        if waits and time.monotonic() > began + LOOK_FOR / 5:
            # A claim may end jobs, and then waits where an acknowledgement does.
            found = [pid for pid, _ in sessions]
        if found:
            connection.execute(
                "SELECT pg_terminate_backend(%s)", [stage.random.choice(sorted(found))]
            )
            ended = True
        else:
            await asyncio.sleep(0.002)
    for one in strikes:
        one.end = time.monotonic()
    if not ended:
        seen = "; ".join(sorted({" ".join(query.split())[:80] for _, query in sessions}))
        stage.problems.append(f"no session ran what was to be cut off, but: {seen or 'nothing'}")


KINDS = (
    Kind("restart-fast", "`pg_ctl restart -m fast`.", restart("fast")),
    Kind("restart-immediate", "`pg_ctl restart -m immediate`.", restart("immediate")),
    Kind("end-claim", "`pg_terminate_backend` of a session that claims jobs.", end_session(CLAIM)),
    Kind(
        "end-ack",
        "`pg_terminate_backend` of a session that acknowledges jobs.",
        end_session(ACK),
    ),
    Kind(
        "end-listen",
        "`pg_terminate_backend` of a session that only listens, or else of any.",
        end_session(LISTEN),
    ),
)
