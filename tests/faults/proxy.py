"""A TCP proxy that can cut connections at any byte, stall, delay and split what it passes on."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from typing import Final

from faults.server import HOST

CHUNK: Final = 65536

PIECES: Final = 64
"""Pieces that a chunk is split into at most: more would be a delay, which is a fault of its own."""

# Close with a reset instead of an orderly end.
_RESET: Final = struct.pack("ii", 1, 0)


class Link:
    """A connection through the proxy.

    Attributes:
        cut_after: Bytes that still pass before it is cut, in whatever direction; None: all.
        was_cut: Set once it was.
    """

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._sides = (near, far)
        self.cut_after: int | None = None
        self.was_cut = asyncio.Event()

    def cut(self, *, reset: bool) -> None:
        """Cut it now."""
        for side in self._sides:
            if reset:
                with contextlib.suppress(OSError):
                    side.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, _RESET
                    )
            side.transport.abort()
        self.was_cut.set()


class Proxy:
    """Listens while it is entered, which gives its port.

    Attributes:
        links: The open connections.
        delay: Seconds by which each chunk is late.
        splits: Whether chunks arrive in pieces, most of them of a few bytes.
    """

    def __init__(self, host: str, port: int, chance: random.Random) -> None:
        self._target = (host, port)
        self._random = chance
        self._flows = asyncio.Event()
        self._flows.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.links: set[Link] = set()
        self.delay = 0.0
        self.splits = False

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._connected, HOST, 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for link in list(self.links):
            link.cut(reset=False)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stall(self) -> None:
        """Pass nothing on."""
        self._flows.clear()

    def flow(self) -> None:
        """Pass everything on, first what came meanwhile."""
        self._flows.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            # The server is away; the client sees a connection that ends at once.
            writer.transport.abort()
            return
        link = Link(writer, far_writer)
        self.links.add(link)
        pumps = [
            asyncio.create_task(self._pump(link, reader, far_writer)),
            asyncio.create_task(self._pump(link, far_reader, writer)),
        ]
        self._tasks.update(pumps)
        # Where one direction has ended the connection is of no use.
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        self._tasks.difference_update(pumps)
        self.links.discard(link)
        for side in (writer, far_writer):
            side.close()

    async def _pump(
        self, link: Link, source: asyncio.StreamReader, target: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(CHUNK):
                await self._flows.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                if link.cut_after is not None:
                    if len(data) >= link.cut_after:
                        target.write(data[: link.cut_after])
                        # On its way before the end, or the end would come a few bytes early.
                        await asyncio.sleep(0)
                        link.cut(reset=self._random.random() < 0.5)
                        return
                    link.cut_after -= len(data)
                for piece in self._pieces(data):
                    target.write(piece)
                    await target.drain()
                    if self.splits:
                        # A packet of its own, as asyncio sets TCP_NODELAY.
                        await asyncio.sleep(0)

    def _pieces(self, data: bytes) -> list[bytes]:
        if not self.splits:
            return [data]
        pieces: list[bytes] = []
        place = 0
        while place < len(data):
            size = self._random.randint(1, 9) if len(pieces) < PIECES else len(data)
            pieces.append(data[place : place + size])
            place += size
        return pieces
