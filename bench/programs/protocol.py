"""What the programs of all libraries have in common: how ``peers.py`` speaks with them.

The request is a line of JSON on standard input. A program answers ``{"ready": true}`` once it has
imported and connected what it needs, and begins at the line that follows.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

PAYLOAD: Final = "x" * 32
# Seconds between two looks at how far a worker has come.
PAUSE: Final = 0.02


def answer(**values: Any) -> None:
    print(json.dumps(values), flush=True)


async def go() -> None:
    """Say that all is ready, and wait for the sign to begin."""
    answer(ready=True)
    await asyncio.to_thread(sys.stdin.readline)


async def timed(work: Callable[[], Awaitable[Any]]) -> None:
    await go()
    began = time.monotonic()
    await work()
    answer(seconds=time.monotonic() - began)


async def until_told(ran: list[int]) -> None:
    """Report how many jobs have run and when, until the sign to stop."""
    stop = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    told = 0
    while not stop.done():
        if len(ran) != told:
            told = len(ran)
            answer(count=told, at=time.monotonic())
        await asyncio.wait([stop], timeout=PAUSE)


def main(roles: dict[str, Callable[[dict[str, Any]], Awaitable[None]]]) -> None:
    import uvloop

    request = json.loads(sys.stdin.readline())
    uvloop.run(roles[request["role"]](request))
