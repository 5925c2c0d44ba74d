"""What the programs of all libraries have in common: how ``peers.py`` speaks with them.

The request is a line of JSON on standard input. A program answers ``{"ready": true}`` once it has
imported and connected what it needs, and begins at the line that follows. What a library's program
has to say is how its tables come to be, how jobs are enqueued, and how a worker runs; the roles are
made of that here.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

PAYLOAD: Final = "x" * 32
# Seconds between two looks at how far a worker has come.
PAUSE: Final = 0.02
# Where handlers in other processes note what ran.
SHARED: Final = "PEER_RAN"


@dataclass(frozen=True)
class Producer:
    """How jobs are enqueued, each with its number in it."""

    one: Callable[[int], Awaitable[Any]]
    many: Callable[[range], Awaitable[Any]]
    longest: int
    """Numbers that ``many`` takes at once."""


class Ran(list[int]):
    """The numbers of the jobs that have run, in this process."""


class Timed(Ran):
    """The same, and when each began."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def append(self, number: int) -> None:
        self.times.append(time.monotonic())
        super().append(number)


class Shared:
    """The same where handlers run in processes of their own: a file to which each adds a record."""

    RECORD: Final = struct.Struct("=qd")

    def __init__(self) -> None:
        # So short a record is added whole, whoever else adds one.
        self._file = os.open(os.environ[SHARED], os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)

    def append(self, number: int) -> None:
        os.write(self._file, self.RECORD.pack(number, time.monotonic()))

    def __len__(self) -> int:
        return os.fstat(self._file).st_size // self.RECORD.size

    def _records(self) -> list[tuple[int, float]]:
        data = os.pread(self._file, len(self) * self.RECORD.size, 0)
        return list(self.RECORD.iter_unpack(data))

    def __iter__(self) -> Iterator[int]:
        return iter([number for number, _ in self._records()])

    @property
    def times(self) -> list[float]:
        return [when for _, when in self._records()]


def answer(**values: Any) -> None:
    # A pipe may take a long line in parts, and an unbuffered stream would lose all but the first.
    rest = memoryview(json.dumps(values).encode() + b"\n")
    while rest:
        rest = rest[os.write(sys.stdout.fileno(), rest) :]


async def go() -> None:
    """Say that all is ready, and wait for the sign to begin."""
    await asyncio.to_thread(go_blocking)


def go_blocking() -> None:
    answer(ready=True)
    sys.stdin.readline()


async def until_told(ran: Ran | Shared) -> None:
    """Report how many jobs have run and when, until the sign to stop."""
    stop = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    told = 0
    while not stop.done():
        if (count := len(ran)) != told:
            told = count
            answer(count=told, at=time.monotonic())
        await asyncio.wait([stop], timeout=PAUSE)


# ------------------------------------------------------------------------------ roles


async def bulk(request: dict[str, Any], producer: Producer) -> None:
    """Enqueue as many jobs as are asked for, in lists."""
    await go()
    began = time.monotonic()
    for start in range(0, request["jobs"], producer.longest):
        await producer.many(range(start, min(request["jobs"], start + producer.longest)))
    answer(seconds=time.monotonic() - began)


async def single(request: dict[str, Any], producer: Producer) -> None:
    """Enqueue one by one, several at the same time."""

    async def each(first: int) -> None:
        for number in range(first, request["jobs"], request["at_once"]):
            await producer.one(number)

    await go()
    began = time.monotonic()
    await asyncio.gather(*map(each, range(request["at_once"])))
    answer(seconds=time.monotonic() - began)


async def paced(request: dict[str, Any], producer: Producer) -> None:
    """Enqueue one job whenever told to, and say when the call began."""
    await go()
    for number in range(request["jobs"]):
        began = time.monotonic()
        await producer.one(number)
        answer(at=began)
        await asyncio.to_thread(sys.stdin.readline)


ENQUEUE: Final = {"bulk": bulk, "single": single, "paced": paced}


def main(
    install: Callable[[dict[str, Any]], Awaitable[None]],
    producer: Callable[[dict[str, Any]], AbstractAsyncContextManager[Producer]],
    work: Callable[[dict[str, Any], Any], Any],
    *,
    shared: bool = False,
) -> None:
    """Read the request, and do what it asks for.

    *work* calls ``go``, and ``until_told`` with what it was given, around its worker's run. It may
    be no coroutine function, and then has the main thread. *shared* is for handlers in other
    processes.
    """
    import uvloop

    async def enqueue(role: Callable[[dict[str, Any], Producer], Awaitable[None]]) -> None:
        async with producer(request) as opened:
            await role(request, opened)

    request = json.loads(sys.stdin.readline())
    role = request["role"]
    if role == "install":
        uvloop.run(install(request))
        answer(installed=True)
    elif role in ENQUEUE:
        uvloop.run(enqueue(ENQUEUE[role]))
    else:
        ran = Shared() if shared else Timed() if request["timed"] else Ran()
        if inspect.iscoroutinefunction(work):
            uvloop.run(work(request, ran))
        else:
            work(request, ran)
        answer(ran=list(ran), times=ran.times if request["timed"] else [])
