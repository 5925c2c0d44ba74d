"""PgBouncer, between the workers and the server, is restarted."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from faults.stage import Kind, RoundFailed, Setting, Stage
from support.pgbouncer import PgBouncer, find_pgbouncer, running_pgbouncer


@contextlib.asynccontextmanager
async def behind_pgbouncer(stage: Stage) -> AsyncIterator[Setting]:
    program = find_pgbouncer()
    if program is None:
        raise RoundFailed("PgBouncer is not installed (Debian: apt-get install pgbouncer)")
    with running_pgbouncer(program, stage.server.dsn) as pgbouncer:
        yield Setting(pgbouncer.dsn(stage.dsn), stage.server.tcp_dsn(stage.name), handle=pgbouncer)


async def restart(stage: Stage) -> None:
    assert isinstance(stage.handle, PgBouncer)
    strikes = stage.crew.all_struck()
    await asyncio.to_thread(stage.handle.restart)
    for one in strikes:
        one.end = time.monotonic()


KINDS = (
    Kind(
        "pgbouncer",
        "PgBouncer, in transaction mode, is killed and started again.",
        restart,
        setting=behind_pgbouncer,
        # What PgBouncer says where it, or the server behind it, goes.
        errors=frozenset({"ProtocolViolationError", "ProtocolViolation"}),
    ),
)
