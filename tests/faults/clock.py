"""The server's clock steps, which heartbeats and leases go by.

libfaketime makes PostgreSQL see another time, which a file says. Workers measure by the monotonic
clock, which cannot be stepped; and Python's threads, under libfaketime, hardly get their turns.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from faults.stage import HEARTBEAT, Kind, RoundFailed, Stage

STEP: Final = 3 * HEARTBEAT
"""Seconds: enough for every lease to look abandoned."""


def library() -> str:
    """Path of libfaketime.

    Raises:
        RoundFailed: It is not installed.
    """
    for place in ("/usr/lib/*/faketime", "/usr/lib/faketime", "/usr/local/lib/faketime"):
        if found := glob.glob(f"{place}/libfaketime.so.1"):
            return found[0]
    raise RoundFailed("libfaketime is not installed (Debian: apt-get install libfaketime)")


def environment(file: Path) -> dict[str, str]:
    """Variables of a process that sees the time that *file* says."""
    set_clock(file, 0)
    return {
        "LD_PRELOAD": library(),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DISABLE_SHM": "1",
    }


def set_clock(file: Path, seconds: float) -> None:
    """Have who sees *file*'s time be so far ahead."""
    new = file.with_suffix(".new")
    new.write_text(f"{seconds:+.1f}\n")
    new.chmod(0o644)
    os.replace(new, file)


def step(sign: int) -> Callable[[Stage], Awaitable[None]]:
    """Step the server's clock, and a while later back to the right time."""

    async def strike(stage: Stage) -> None:
        strikes = stage.crew.all_struck()
        file = stage.server.clock
        assert file is not None
        set_clock(file, sign * stage.random.uniform(1, STEP))
        await stage.moment(1.0, 2.0)
        set_clock(file, 0)
        for one in strikes:
            one.end = time.monotonic()

    return strike


KINDS = (
    Kind(
        "clock-forward",
        "The server's clock steps ahead by up to three heartbeat timeouts, and back.",
        step(1),
        ends="nobody",
        faked_clock=True,
    ),
    Kind(
        "clock-back",
        "The server's clock steps back as far, and ahead again.",
        step(-1),
        ends="nobody",
        faked_clock=True,
    ),
)
