"""An answer that is dear to make, made at most so often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, Generic, TypeVar

T = TypeVar("T")

REST: Final = 10
"""An answer is kept this many times as long as it took to make: then scrapes without a pause cost
the server no more than a tenth of a connection."""


class Cached(Generic[T]):
    """The answer of *make*, kept for a while; those who ask at the same time share one.

    A quick answer is as good as fresh: one that took 5 ms is kept for 50.

    Args:
        make: Makes the answer. An error is raised to those who wait, and not kept.
        keep_for: How long an answer is kept, if that is longer than ten times what it took to make.
    """

    def __init__(
        self, make: Callable[[], Awaitable[T]], keep_for: timedelta = timedelta(0)
    ) -> None:
        self._make = make
        self._keep_for = keep_for.total_seconds()
        self._lock = asyncio.Lock()
        self._answer: tuple[T, float] | None = None

    async def get(self) -> T:
        """The answer."""
        async with self._lock:
            began = time.monotonic()
            if self._answer is not None and began < self._answer[1]:
                return self._answer[0]
            answer = await self._make()
            now = time.monotonic()
            self._answer = answer, now + max(self._keep_for, REST * (now - began))
            return answer
