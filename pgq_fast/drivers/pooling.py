"""What a driver does instead where its own connection is no place for a session's state.

A pooler in transaction mode (PgBouncer with ``pool_mode = transaction``) gives each transaction
any of its sessions. What a session keeps is then somebody else's a moment later: prepared
statements, advisory locks of the session, LISTEN. So statements are not prepared by name, session
locks are refused, and another driver listens, or nobody does and workers poll.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from pgq_fast.choices import POLL_INTERVAL
from pgq_fast.drivers.base import Driver, ListenerRemover, NotifyCallback, SessionLockKey
from pgq_fast.drivers.listeners import ReconnectCallback, ReconnectNotifier
from pgq_fast.errors import SessionStateError
from pgq_fast.logconfig import logger

__all__ = [
    "DEFAULT_POLL_INTERVAL",
    "Elsewhere",
    "MayListenElsewhere",
    "elsewhere",
    "poll_interval_of",
    "refuse_session_state",
    "report_polling",
]

DEFAULT_POLL_INTERVAL: Final = timedelta(seconds=POLL_INTERVAL)


def refuse_session_state(args: tuple[object, ...]) -> None:
    """Refuse a statement with *args* where they say that its effect belongs to the session.

    Raises:
        SessionStateError: They do.
    """
    if any(isinstance(arg, SessionLockKey) for arg in args):
        raise SessionStateError("A lock that outlasts its transaction")


def poll_interval_of(driver: object) -> timedelta | None:
    """How often a worker on *driver* has to look at the queue; None where NOTIFYs arrive."""
    interval = getattr(driver, "poll_interval", None)
    return interval if isinstance(interval, timedelta) else None


def report_polling(interval: timedelta) -> None:
    """Say that listeners were registered to which nothing will ever be delivered."""
    logger.info(
        "Nothing listens for NOTIFYs behind the pooler: the queue is looked at every %.3g s. "
        "With a connection past the pooler (listen_dsn, listen_on) jobs start at once",
        interval.total_seconds(),
    )


class Elsewhere:
    """Listens in a driver's place: on another driver, or not at all.

    Args:
        listen_on: Whose ``add_listener`` is used; None: callbacks are never called.
        poll_interval: What a worker does about the latter.
    """

    def __init__(self, listen_on: Driver | None, poll_interval: timedelta) -> None:
        self._listen_on = listen_on
        self._poll_interval = poll_interval
        self._added: list[tuple[str, NotifyCallback]] = []
        self._reported = False

    @property
    def poll_interval(self) -> timedelta | None:
        """How often workers have to look at the queue; None where NOTIFYs arrive."""
        if self._listen_on is None:
            return self._poll_interval
        return poll_interval_of(self._listen_on)

    async def add(self, channel: str, callback: NotifyCallback) -> None:
        """Have *callback* called for *channel*, if anybody listens."""
        if self._listen_on is not None:
            await self._listen_on.add_listener(channel, callback)
        elif not self._reported:
            self._reported = True
            report_polling(self._poll_interval)
        self._added.append((channel, callback))

    async def remove(self, channel: str, callback: NotifyCallback) -> None:
        """Undo ``add``; nothing happens where it was not added here."""
        if (channel, callback) in self._added:
            self._added.remove((channel, callback))
            if isinstance(self._listen_on, ListenerRemover):
                await self._listen_on.remove_listener(channel, callback)

    def add_reconnect_callback(self, callback: ReconnectCallback) -> None:
        """Have *callback* called after a gap in the NOTIFYs, if the other driver tells."""
        if isinstance(self._listen_on, ReconnectNotifier):
            self._listen_on.add_reconnect_callback(callback)

    def remove_reconnect_callback(self, callback: ReconnectCallback) -> None:
        """Stop calling *callback*."""
        if isinstance(self._listen_on, ReconnectNotifier):
            self._listen_on.remove_reconnect_callback(callback)

    async def enter(self) -> None:
        """Enter the other driver."""
        if self._listen_on is not None:
            await self._listen_on.__aenter__()

    async def leave(self) -> None:
        """Take the callbacks off the other driver, and leave it."""
        try:
            for channel, callback in tuple(self._added):
                try:
                    await self.remove(channel, callback)
                except Exception as error:
                    # Its connection is lost: the callback is gone in any case.
                    logger.debug("Removing a listener failed: %s", type(error).__qualname__)
        finally:
            if self._listen_on is not None:
                await self._listen_on.__aexit__(None, None, None)


def elsewhere(
    transaction_pooling: bool, listen_on: Driver | None, poll_interval: timedelta
) -> Elsewhere | None:
    """Who listens for a driver with these arguments; None: its own connection does.

    Raises:
        ValueError: *poll_interval* is not positive.
    """
    if poll_interval <= timedelta(0):
        raise ValueError(f"poll_interval is {poll_interval}, must be more than zero")
    if transaction_pooling or listen_on is not None:
        return Elsewhere(listen_on, poll_interval)
    return None


class MayListenElsewhere:
    """What drivers with such an arrangement tell workers about it."""

    _elsewhere: Elsewhere | None
    _entered: int

    async def _enter_elsewhere(self) -> None:
        """Count an entry; the first one enters the other driver too."""
        self._entered += 1
        if self._elsewhere is not None and self._entered == 1:
            try:
                await self._elsewhere.enter()
            except BaseException:
                self._entered -= 1
                raise

    @property
    def poll_interval(self) -> timedelta | None:
        """How often a worker has to look at the queue; None where NOTIFYs arrive."""
        return None if self._elsewhere is None else self._elsewhere.poll_interval

    def add_reconnect_callback(self, callback: ReconnectCallback) -> None:
        """Have *callback* called after a gap in the NOTIFYs, where they come from elsewhere."""
        if self._elsewhere is not None:
            self._elsewhere.add_reconnect_callback(callback)

    def remove_reconnect_callback(self, callback: ReconnectCallback) -> None:
        """Stop calling *callback*."""
        if self._elsewhere is not None:
            self._elsewhere.remove_reconnect_callback(callback)
