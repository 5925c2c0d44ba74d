"""The clock steps: the server's, which leases go by, and that of the workers' machine.

libfaketime makes a process see another time, which a file says; the monotonic clock stays.
"""

from __future__ import annotations

import contextlib
import glob
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

from faults.stage import HEARTBEAT, Kind, RoundFailed, Setting, Stage

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


@contextlib.asynccontextmanager
async def under_faked_clocks(stage: Stage) -> AsyncIterator[Setting]:
    file = stage.folder / "clock"
    yield Setting(stage.server.tcp_dsn(stage.name), environment=environment(file), handle=file)


def set_clock(file: Path, seconds: float) -> None:
    """Have who sees *file*'s time be so far ahead."""
    new = file.with_suffix(".new")
    new.write_text(f"{seconds:+.1f}\n")
    new.chmod(0o644)
    os.replace(new, file)


def step(sign: int) -> Callable[[Stage], Awaitable[None]]:
    """Step the server's clock, or the workers', and back with the next blow."""

    async def strike(stage: Stage) -> None:
        strikes = stage.crew.all_struck()
        file = stage.random.choice([stage.handle, stage.server.clock])
        set_clock(file, sign * stage.random.uniform(1, STEP))
        await stage.moment(1.0, 2.0)
        set_clock(file, 0)
        for one in strikes:
            one.end = time.monotonic()

    return strike


KINDS = (
    Kind(
        "clock-forward",
        "The server's clock, or the workers', steps ahead, and back.",
        step(1),
        ends="nobody",
        setting=under_faked_clocks,
        faked_clock=True,
    ),
    Kind(
        "clock-back",
        "The server's clock, or the workers', steps back, and ahead again.",
        step(-1),
        ends="nobody",
        setting=under_faked_clocks,
        faked_clock=True,
    ),
)
