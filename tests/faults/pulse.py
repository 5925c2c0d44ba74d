"""Notices when this process stood still: stopped, or on a machine that had no time for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

LOOK: Final = 0.05
PAUSE: Final = 0.4
"""Seconds between two looks at the clock, and the gap that counts as a pause."""


def watch(
    paused: Callable[[float, float], None], ended: Callable[[], bool] = lambda: False
) -> None:
    """Call *paused* with begin and end of each pause, from a thread, until *ended* says so."""

    def look() -> None:
        last = time.monotonic()
        while not ended():
            time.sleep(LOOK)
            now = time.monotonic()
            if now - last > PAUSE:
                paused(last, now)
            last = now

    threading.Thread(target=look, daemon=True).start()
