"""Handlers that do to their own worker what they must not."""

from __future__ import annotations

import time
from typing import Final

from faults.stage import OWNED, Kind, Stage


async def block(stage: Stage) -> None:
    """Heartbeats go on meanwhile, from connections of their own; the user's connection has none."""
    strikes = [] if stage.driver in OWNED else stage.crew.all_struck()
    job = await stage.enqueue("blocking")
    await stage.until("the blocking job", lambda: job in stage.running("blocking").values())
    # A minute, in the long rounds.
    await stage.until(
        "its end", lambda: job not in stage.running("blocking").values(), stage.block + 30
    )
    for one in strikes:
        one.end = time.monotonic()


async def exhaust(stage: Stage) -> None:
    strikes = stage.crew.all_struck()
    job = await stage.enqueue("hungry")
    await stage.until("the hungry job's run", lambda: job in stage.started("hungry"))
    await stage.until("its end", lambda: job not in stage.running("hungry").values())
    for one in strikes:
        one.end = time.monotonic()


# What Python, libpq and libraries in Rust do where there is no memory.
NO_MEMORY: Final = frozenset({"MemoryError", "SystemError", "DatabaseError", "SIGABRT"})

KINDS = (
    Kind(
        "block",
        "A handler blocks the event loop for several heartbeat timeouts.",
        block,
        blows=1,
        ends="nobody",
    ),
    Kind(
        "memory",
        "A handler takes all memory that its process may have.",
        exhaust,
        blows=2,
        ends="anybody",
        errors=NO_MEMORY,
    ),
)
