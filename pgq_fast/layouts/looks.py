"""How many jobs of each entrypoint a claim looks at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

LOOKS: Final = 1_000
"""Jobs of all entrypoints together that a claim may look at without asking whether that is many."""

SPARE: Final = 1.25
"""How many times as many jobs of each entrypoint are looked at as the last claim took of the one
that it took most of."""


class Looks:
    """What the last claim tells the next one.

    To look is to lock. As many as are wanted in all of each of many entrypoints would cost many
    times what the claim brings, and hide them from other workers. If it are too few, the claim
    brings fewer, and the next one looks at more.
    """

    def __init__(self) -> None:
        # The part of a claim that its most frequent entrypoint had.
        self._largest_part = 1.0

    def at(self, size: int, entrypoints: int) -> int:
        """Jobs of each of so many *entrypoints* that a claim of *size* looks at."""
        if size * entrypoints <= LOOKS:
            return size
        return min(size, int(SPARE * size * self._largest_part) + 1)

    def brought(self, counts: Iterable[int]) -> None:
        """Take note of how many jobs of each entrypoint a claim has brought."""
        numbers = list(counts)
        self._largest_part = max(numbers) / sum(numbers) if numbers else 1.0
