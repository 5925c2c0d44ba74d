"""The network between workers and server: cut, stalled, slow, in pieces."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

from faults.proxy import Proxy
from faults.server import HOST
from faults.stage import HEARTBEAT, Kind, Setting, Stage

CUT_WITHIN: Final = 3000
"""Bytes within which connections are cut: some statements and answers."""

CUT_TIMEOUT: Final = 5.0
"""Seconds after which a connection on which nothing passes is cut without more ado."""

DELAY: Final = (0.005, 0.05)
"""Seconds by which chunks are late."""


@contextlib.asynccontextmanager
async def behind_proxy(stage: Stage) -> AsyncIterator[Setting]:
    proxy = Proxy(HOST, stage.server.port, stage.random)
    async with proxy as port:
        yield Setting(stage.server.tcp_dsn(stage.name, port), handle=proxy)


def proxy_of(stage: Stage) -> Proxy:
    assert isinstance(stage.handle, Proxy)
    return stage.handle


async def cut(stage: Stage) -> None:
    """One or more connections, each at some byte."""
    links = list(await stage.until("connections", lambda: proxy_of(stage).links))
    strikes = stage.crew.all_struck()
    chosen = stage.random.sample(links, stage.random.randint(1, len(links)))
    for link in chosen:
        link.cut_after = stage.random.randint(1, CUT_WITHIN)
    waits = [asyncio.create_task(link.was_cut.wait()) for link in chosen]
    _, pending = await asyncio.wait(waits, timeout=CUT_TIMEOUT)
    for task in pending:
        task.cancel()
    for link in chosen:
        if not link.was_cut.is_set():
            link.cut(reset=True)
    for one in strikes:
        one.end = time.monotonic()


async def stall(stage: Stage) -> None:
    """Nothing passes, for less or more than the heartbeat timeout."""
    strikes = stage.crew.all_struck()
    proxy_of(stage).stall()
    try:
        await stage.moment(0.3 * HEARTBEAT, 1.8 * HEARTBEAT)
    finally:
        proxy_of(stage).flow()
    for one in strikes:
        one.end = time.monotonic()


async def delay(stage: Stage) -> None:
    """Many round trips in a row may take an acknowledgement longer than the heartbeat timeout."""
    strikes = stage.crew.all_struck()
    proxy = proxy_of(stage)
    proxy.delay = stage.random.uniform(*DELAY)
    try:
        await stage.moment(1.0, 2.0)
    finally:
        proxy.delay = 0.0
    for one in strikes:
        one.end = time.monotonic()


async def split(stage: Stage) -> None:
    proxy = proxy_of(stage)
    proxy.splits = True
    try:
        await stage.moment(1.0, 2.0)
    finally:
        proxy.splits = False


KINDS = (
    Kind("cut", "The network cuts connections, at any byte.", cut, setting=behind_proxy),
    Kind(
        "stall",
        "The network passes nothing on for up to 1.8 heartbeat timeouts.",
        stall,
        setting=behind_proxy,
        ends="nobody",
    ),
    Kind(
        "delay", "Every packet comes up to 50 ms late.", delay, setting=behind_proxy, ends="nobody"
    ),
    Kind(
        "split",
        "Packets come in pieces of a few bytes.",
        split,
        setting=behind_proxy,
        ends="nobody",
    ),
)
