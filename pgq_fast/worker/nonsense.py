"""Notifications that make no sense: anybody who can connect may send them, and any number."""

from __future__ import annotations

import time
from typing import Final

from pgq_fast.logconfig import logger

INTERVAL: Final = 10.0
"""Seconds between two lines of the log at least."""


class Nonsense:
    """Reports them: the first one at once, and what a flood brings in a line every ``INTERVAL``.

    Args:
        channel: Where they arrived.
    """

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._unsaid = 0
        self._next_line = 0.0
        self._last = (0, "")

    def take(self, payload: str | bytes | bytearray, error: Exception) -> None:
        """Take note of *payload*, which *error* is about. Its text is not logged."""
        self._unsaid += 1
        self._last = (len(payload), type(error).__name__)
        now = time.monotonic()
        if now >= self._next_line:
            self._next_line = now + INTERVAL
            self.close()

    def close(self) -> None:
        """Report what has not been reported yet."""
        if self._unsaid:
            logger.warning(
                "Ignored %d notification(s) on channel %s that make no sense, the last of "
                "%d characters: %s",
                self._unsaid,
                self._channel,
                *self._last,
            )
            self._unsaid = 0
