"""Callbacks of NOTIFY channels."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Protocol, TypeAlias, runtime_checkable

from pgq_fast.drivers.base import NotifyCallback
from pgq_fast.logconfig import logger

ReconnectCallback: TypeAlias = Callable[[], None]
"""Called on the event loop after a listener was deaf for a while; must not block."""


@runtime_checkable
class ReconnectNotifier(Protocol):
    """A driver that replaces a lost LISTEN connection by itself, and tells about it."""

    def add_reconnect_callback(self, callback: ReconnectCallback) -> None:
        """Have *callback* called when NOTIFYs flow again; those in between are lost."""
        ...

    def remove_reconnect_callback(self, callback: ReconnectCallback) -> None:
        """Stop calling *callback*."""
        ...


class Listeners:
    """Callbacks by channel.

    A callback that was added twice is called twice, and has to be removed twice.
    """

    def __init__(self) -> None:
        self._callbacks: dict[str, list[NotifyCallback]] = {}

    def __contains__(self, channel: object) -> bool:
        return channel in self._callbacks

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def channels(self) -> list[str]:
        """The channels that have a callback."""
        return list(self._callbacks)

    def add(self, channel: str, callback: NotifyCallback) -> None:
        """Have *callback* called for *channel*."""
        self._callbacks.setdefault(channel, []).append(callback)

    def remove(self, channel: str, callback: NotifyCallback) -> bool:
        """Take *callback* off *channel*; False if it was not on it."""
        callbacks = self._callbacks.get(channel, [])
        if callback not in callbacks:
            return False
        callbacks.remove(callback)
        if not callbacks:
            del self._callbacks[channel]
        return True

    def clear(self) -> None:
        """Forget all callbacks."""
        self._callbacks.clear()

    def dispatch(self, channel: str, payload: str | bytes | bytearray) -> None:
        """Call the callbacks of *channel*, each of them whatever the others do."""
        for callback in tuple(self._callbacks.get(channel, ())):
            try:
                callback(payload)
            except Exception as error:
                log_callback_error("NOTIFY callback", channel, error)


class ReconnectCallbacks:
    """Callbacks that wake workers after a gap in the NOTIFYs."""

    def __init__(self) -> None:
        self._callbacks: list[ReconnectCallback] = []

    def add(self, callback: ReconnectCallback) -> None:
        """Have *callback* called from now on."""
        self._callbacks.append(callback)

    def remove(self, callback: ReconnectCallback) -> None:
        """Take *callback* off; nothing happens where it was not on."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def call(self) -> None:
        """Call them all, each of them whatever the others do."""
        for callback in tuple(self._callbacks):
            try:
                callback()
            except Exception as error:
                log_callback_error("reconnect callback", "all channels", error)


def log_callback_error(what: str, channel: str, error: BaseException) -> None:
    """Log where a callback failed, but not its message: that may quote the payload."""
    logger.error(
        "A %s of %s raised %s\n%s",
        what,
        channel,
        type(error).__qualname__,
        "".join(traceback.format_tb(error.__traceback__)),
    )
