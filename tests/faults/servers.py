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

LOOK_FOR: Final = 1.0
"""Seconds to look for a session that does what is wanted, before any is taken."""

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
            if needed is None or stage.random.random() < 0.5:
                await end_one(stage, connection, statement, waits=False)
                return
            strikes = stage.crew.all_struck()
            with connection.transaction():
                connection.execute(f"LOCK TABLE {needed}")
                await end_one(stage, connection, statement, waits=True)
            for one in strikes:
                one.end = time.monotonic()

    return strike


async def end_one(
    stage: Stage, connection: psycopg.Connection[Any], statement: str, *, waits: bool
) -> None:
    began = time.monotonic()

    def look() -> tuple[int, str] | None:
        sessions = connection.execute(
            "SELECT pid, application_name, query FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'worker-%%'"
            " AND (NOT %s OR wait_event_type = 'Lock') ORDER BY pid",
            [waits],
        ).fetchall()
        found = [one for one in sessions if re.search(statement, one[2], re.DOTALL)]
        if not found and time.monotonic() > began + LOOK_FOR:
            # A claim may end jobs, and then waits where an acknowledgement does. A connection of
            # the user's is the only one, and does not listen only.
            found = sessions
        if not found:
            return None
        pid, name, _ = stage.random.choice(found)
        return pid, name

    pid, name = await stage.until("a session to end", look)
    for member in stage.crew.workers:
        if name == f"worker-{member.number}":
            member.struck(0)
    connection.execute("SELECT pg_terminate_backend(%s)", [pid])


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
