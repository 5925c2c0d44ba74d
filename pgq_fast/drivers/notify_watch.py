"""Delivery of NOTIFYs on an idle psycopg connection.

psycopg reads the socket only while a statement runs. Between statements the watch has the event
loop report when the socket gets readable, and then hands what arrived to the connection's notify
handlers: at once, without a lock held and without polling.

States:
  off      no reader; before ``start``, after ``stop``, and once the connection is lost
  armed    the event loop watches the socket
  paused   a statement of the driver runs and reads the socket itself
  behind   a statement of somebody else holds the connection; a task waits in line for its lock,
           takes in what the statement left, and arms again
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pgq_fast.drivers.listeners import log_callback_error

if TYPE_CHECKING:
    from psycopg import AsyncConnection


def _duplicate(descriptor: int) -> int:
    """Another descriptor of a socket.

    psycopg adds and removes readers for the original number while it waits; an event loop keeps
    one reader a number.
    """
    # Family and type do not matter: only the descriptor is kept.
    return socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM).detach()


class NotifyWatch:
    """Takes in the NOTIFYs of *connection* while nobody runs a statement on it.

    Args:
        connection: Has the notify handlers that get the NOTIFYs.
        on_lost: Called once when the connection turns out to be closed.
    """

    def __init__(self, connection: AsyncConnection[Any], on_lost: Callable[[], None]) -> None:
        self._connection = connection
        self._on_lost = on_lost
        self._paused = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._armed = False
        self._descriptor = -1
        self._close_descriptor: weakref.finalize[..., NotifyWatch] | None = None
        self._behind: asyncio.Task[None] | None = None

    @property
    def started(self) -> bool:
        """Whether the watch is in any state but *off*."""
        return self._close_descriptor is not None

    def start(self) -> None:
        """Watch the connection; it must be open."""
        if self.started:
            return
        self._loop = asyncio.get_running_loop()
        self._descriptor = _duplicate(self._connection.fileno())
        # The owner may forget the driver without leaving it.
        self._close_descriptor = weakref.finalize(self, socket.close, self._descriptor)
        if not self._paused:
            self._take_over()

    def stop(self) -> None:
        """Leave the connection alone."""
        self._disarm()
        if self._behind is not None:
            self._behind.cancel()
            self._behind = None
        if self._close_descriptor is not None:
            self._close_descriptor()
            self._close_descriptor = None

    def pause(self) -> None:
        """A statement of the driver begins."""
        self._paused = True
        self._disarm()

    def resume(self) -> None:
        """The driver's statement has ended."""
        self._paused = False
        if self.started and self._behind is None:
            self._take_over()

    def check(self) -> None:
        """Notice now whether the server closed the connection. Nobody may be using it."""
        # The server's last words first, then the end of the stream behind them.
        if self._take_in():
            self._take_in()

    def _take_over(self) -> None:
        # NOTIFYs that came in one packet with a statement's end are in libpq's buffer, where the
        # event loop does not see them.
        if self._connection.lock.locked():
            self._wait_in_line()
        elif self._take_in():
            self._arm()

    def _arm(self) -> None:
        if not self._armed and self._loop is not None:
            self._loop.add_reader(self._descriptor, self._readable)
            self._armed = True

    def _disarm(self) -> None:
        if self._armed and self._loop is not None:
            self._armed = False
            if not self._loop.is_closed():
                self._loop.remove_reader(self._descriptor)

    def _readable(self) -> None:
        if self._connection.lock.locked():
            # Its holder waits for this data. Taking it would leave the holder waiting, and
            # ignoring it would have the loop call here again and again.
            self._disarm()
            self._wait_in_line()
        else:
            self._take_in()

    def _wait_in_line(self) -> None:
        assert self._loop is not None
        self._behind = self._loop.create_task(
            self._after_somebody_else(), name="pgqueuer_notify_watch"
        )

    async def _after_somebody_else(self) -> None:
        async with self._connection.lock:
            alive = self._take_in()
        self._behind = None
        if alive and not self._paused:
            self._arm()

    def _take_in(self) -> bool:
        """Read without waiting and hand out the NOTIFYs; False if the connection is lost."""
        from psycopg import OperationalError

        pgconn = self._connection.pgconn
        try:
            pgconn.consume_input()
            while note := pgconn.notifies():
                if pgconn.notify_handler is None:
                    continue
                try:
                    pgconn.notify_handler(note)
                except Exception as error:
                    # Of a handler that somebody else put on the connection.
                    log_callback_error("notify handler", "a connection", error)
        except OperationalError:
            self._lost()
            return False
        return True

    def _lost(self) -> None:
        self.stop()
        self._on_lost()
