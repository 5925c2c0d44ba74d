"""Notices when this process stood still: stopped, or on a machine that had no time for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

STEP: Final = 1.0
"""Seconds between two questions that count at most: the rest is a pause of this process."""

LOOK: Final = 0.05
PAUSE: Final = 0.4
"""Seconds between two looks at the clock, and the gap that counts as a pause."""


class Patience:
    """Seconds to wait for something, in which this process has to be able to see it.

    Args:
        seconds: How many.
    """

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._last = time.monotonic()

    def ran_out(self) -> bool:
        """Whether they are over; to be asked several times a second."""
        now = time.monotonic()
        self._left -= min(now - self._last, STEP)
        self._last = now
        return self._left < 0


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
