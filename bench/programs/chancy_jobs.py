"""The jobs of ``chancy_app.py``, which its executors import, some in processes of their own."""

from __future__ import annotations

from functools import cache

from protocol import Shared

ran = cache(Shared)


def blocking(number: int, text: str) -> None:
    """For processes."""
    ran().append(number)


async def waiting(number: int, text: str) -> None:
    """For an event loop."""
    ran().append(number)
