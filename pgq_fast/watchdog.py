"""Heartbeats while the event loop is blocked, or the connection that they would take.

A handler that computes, or calls what blocks, keeps the loop from sending heartbeats, and others
would take its worker's jobs, or its scheduler's runs, for abandoned. The same happens where a
heartbeat, or the end of a job, waits for another statement on the only connection. So a thread
looks at a clock that the loop sets, and at what the server was asked and has not answered:

    watching -> (the clock stands still, or an answer is missing) -> renewing -> watching

While it watches it has no connection, and costs a look at two numbers a few times within a
heartbeat timeout. To renew, it opens a connection of its own, on an event loop of its own, and
vouches for all that is held here until things move again; it closes the connection a while later,
as what blocks once will often do so again. Nothing that the thread does can hold up the loop or its
end.

What it cannot help: code that holds the interpreter's lock all the time, such as an extension that
computes without releasing it. The thread is held up like the loop then.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Final, NamedTuple, Protocol, runtime_checkable

from pgq_fast.drivers.failures import described
from pgq_fast.layouts.base import Statement
from pgq_fast.logconfig import logger
from pgq_fast.tasks import wait_for_event

LOOKS: Final = 16
"""Looks at the clock within a heartbeat timeout; as often the loop sets it."""

BLOCKED_AFTER: Final = 3
"""Looks for which the clock stands still when the loop counts as blocked, or an answer is missing,
and between two renewals. A job has been vouched for within the last half of the timeout, so this
leaves a quarter of it to connect."""

CLOSE_AFTER: Final = 2 * LOOKS
"""Looks at a clock that moves after which the connection is closed."""

FAREWELL: Final = 1.0
"""Seconds that the end of a run waits for the thread at most."""


class Culprit(NamedTuple):
    """What keeps the loop from moving."""

    name: str
    facts: Mapping[str, object]
    """For the log, as ``extra``."""


@runtime_checkable
class Siblings(Protocol):
    """A driver that knows where it connects to."""

    def sibling(self) -> Siblings:
        """Another driver to the same database, with connections of its own."""
        ...

    async def execute(self, query: str, *args: object) -> str:
        """Run *query*."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class Unanswered:
    """What the server is asked about all that is held here, and has not answered yet."""

    def __init__(self) -> None:
        self._asked: dict[object, float] = {}

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """The length of a question."""
        question = object()
        self._asked[question] = time.monotonic()
        try:
            yield
        finally:
            del self._asked[question]

    def since(self) -> float:
        """When the oldest question was asked, on the monotonic clock; infinite if there is none.

        Other threads may ask.
        """
        # Copied in one step, which no other thread can interrupt.
        return min(list(self._asked.values()), default=float("inf"))


def start_watchdog(
    driver: object,
    renewal: Callable[[], Statement | None],
    timeout: float,
    unanswered: Unanswered,
    culprit: Callable[[asyncio.Task[object] | None], Culprit | None],
) -> Watchdog | None:
    """A watchdog on this loop; None where *driver* does not know where to connect to, or where no
    silence is too long. See :class:`Watchdog`.
    """
    if not isinstance(driver, Siblings) or timeout <= 0:
        return None
    watchdog = Watchdog(driver, renewal, timeout, unanswered, culprit)
    watchdog.start()
    return watchdog


class Watchdog:
    """Sends heartbeats while the loop does not; made on that loop.

    Args:
        driver: Whose siblings reach the server.
        renewal: The statement that vouches for all that is held here, None while nothing is; called
            in the thread, too.
        timeout: Seconds of silence after which others take for abandoned what is held here.
        unanswered: Heartbeats that are being sent, and ends.
        culprit: What is running right now in the task, if it is ours; called in the thread.
    """

    def __init__(
        self,
        driver: Siblings,
        renewal: Callable[[], Statement | None],
        timeout: float,
        unanswered: Unanswered,
        culprit: Callable[[asyncio.Task[object] | None], Culprit | None],
    ) -> None:
        self._driver = driver
        self._renewal = renewal
        self._look = timeout / LOOKS
        self._unanswered = unanswered
        self._culprit_of = culprit
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._moved = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        # Of the present block; the thread writes them, and the loop reads and clears them.
        self._blocked_by: Culprit | None = None
        self._blocked_at = ""
        self._stopped = threading.Event()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="pgq_fast watchdog", daemon=True)
        # Of the thread: from how many seconds on to report again, and what it renews with, where it
        # has a connection.
        self._report_after = 0.0
        self._own: _Connection | None = None

    # -- On the worker's loop -----------------------------------------------------------------

    def start(self) -> None:
        """Begin to watch."""
        try:
            self._thread.start()
        except RuntimeError as error:
            logger.warning(
                "No heartbeats will be sent while the event loop is blocked: %s", described(error)
            )
        self._tick()

    async def stop(self) -> None:
        """End the thread, and wait a moment for it to close its connection."""
        if self._timer is not None:
            self._timer.cancel()
        self._stopped.set()
        own = self._own
        if own is not None:
            own.interrupt()
        if self._thread.is_alive() and await wait_for_event(self._ended, FAREWELL):
            # That was its last step.
            self._thread.join(FAREWELL)

    def _tick(self) -> None:
        now = time.monotonic()
        stood = now - self._moved
        self._moved = now
        self._timer = self._loop.call_later(self._look, self._tick)
        # The thread may have been late, or not have had its turn at all.
        enough = (BLOCKED_AFTER if self._blocked_at else BLOCKED_AFTER + 1) * self._look
        if stood >= enough and self._renewal() is not None:
            logger.warning(
                "The event loop was blocked for %.1f s by %s%s: nothing else on it could go on; "
                "move such work to a thread or a process",
                stood,
                _named(self._blocked_by),
                self._blocked_at,
                extra=_facts(self._blocked_by),
            )
        self._blocked_by, self._blocked_at = None, ""

    # -- In the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        idle = 0
        beaten = 0.0
        try:
            while not self._stopped.wait(self._look):
                if self._loop.is_closed():
                    return
                moved, asked = self._moved, self._unanswered.since()
                now = time.monotonic()
                blocked = now - moved >= BLOCKED_AFTER * self._look
                silent = now - asked >= BLOCKED_AFTER * self._look
                # A loop that nobody runs is not blocked, and its worker is as good as dead.
                if not (blocked or silent) or not self._loop.is_running():
                    self._report_after = 0.0
                    idle += 1
                    if idle >= CLOSE_AFTER:
                        self._disconnect()
                    continue
                idle = 0
                if now - beaten >= BLOCKED_AFTER * self._look:
                    renewal = self._renewal()
                    if renewal is None:
                        continue
                    if blocked:
                        self._identify(moved)
                    else:
                        self._report_silence(now - asked)
                    if self._renew(renewal):
                        beaten = now
        finally:
            self._disconnect()
            # The loop may have been closed by now.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ended.set)

    def _renew(self, renewal: Statement) -> bool:
        try:
            if self._own is None:
                self._own = _Connection(self._driver.sibling())
            # For longer than half a timeout it would be too late, and another connection may be
            # luckier.
            self._own.send(renewal, LOOKS / 2 * self._look)
        except asyncio.CancelledError:
            return False
        except Exception as error:
            self._disconnect()
            if not self._stopped.is_set():
                self._say(
                    "Could not send heartbeats from outside the event loop, next attempt in "
                    "%.1f s: %s",
                    self._look,
                    described(error),
                )
            return False
        return True

    def _disconnect(self) -> None:
        own, self._own = self._own, None
        if own is not None:
            own.close()

    def _identify(self, moved: float) -> None:
        """See what blocks the loop, and say so."""
        try:
            culprit = self._culprit_of(asyncio.current_task(self._loop))
        except Exception as error:
            # A job is its handler's to change. The heartbeats are what counts.
            logger.debug("Could not see what blocks the event loop: %s", described(error))
            culprit = None
        frame = sys._current_frames().get(self._loop_thread)
        at = "" if frame is None else f" in {frame.f_code.co_qualname} ({_place(frame)})"
        if self._moved != moved:
            # It went on meanwhile: what was seen may be innocent.
            return
        self._blocked_by, self._blocked_at = culprit, at or " "
        stood = time.monotonic() - moved
        if self._is_news(stood):
            self._say(
                "The event loop has been blocked for %.1f s by %s%s: heartbeats are sent from "
                "outside until it goes on",
                stood,
                _named(culprit),
                at,
                facts=_facts(culprit),
            )

    def _report_silence(self, seconds: float) -> None:
        if self._is_news(seconds):
            self._say(
                "The server has not answered a heartbeat, or the end of a job, for %.1f s: "
                "heartbeats are sent on another connection until it does; what else uses the "
                "worker's connection had better have one of its own",
                seconds,
            )

    def _is_news(self, seconds: float) -> bool:
        """Whether to report what has lasted for *seconds*: at once, and whenever it has doubled."""
        if seconds < self._report_after:
            return False
        self._report_after = 2 * seconds
        return True

    @staticmethod
    def _say(message: str, *args: object, facts: dict[str, object] | None = None) -> None:
        """Log a warning, in a thread of its own: a handler of the log may be what is blocked."""
        facts = facts or {}
        speaker = threading.Thread(
            target=logger.warning, args=(message, *args), kwargs={"extra": facts}, daemon=True
        )
        try:
            speaker.start()
        except RuntimeError:
            # There are too many threads.
            logger.warning(message, *args, extra=facts)


class _Connection:
    """*driver*, used by a thread that has no event loop.

    Its loop only runs during a call: nothing is lost by that, as nobody else talks to the server.
    """

    def __init__(self, driver: Siblings) -> None:
        self._driver = driver
        # Not of the policy: it may be one that must not be used in a thread.
        self._runner = asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)
        self._sending: asyncio.Task[None] | None = None

    def send(self, statement: Statement, patience: float) -> None:
        """Run *statement*, which may take *patience* seconds.

        Raises:
            TimeoutError: It took longer.
            Exception: What the driver raised.
        """

        async def sending() -> None:
            self._sending = asyncio.current_task()
            async with asyncio.timeout(patience):
                await self._driver.execute(statement.query, *statement.args)

        try:
            self._runner.run(sending())
        finally:
            self._sending = None

    def interrupt(self) -> None:
        """Cut ``send`` short; called in another thread."""
        sending = self._sending
        if sending is not None:
            # Closed by now, its loop takes no call.
            with contextlib.suppress(RuntimeError):
                sending.get_loop().call_soon_threadsafe(sending.cancel)

    def close(self) -> None:
        """Close the connection. Its loss harms nobody, so a failure is none."""

        async def closing() -> None:
            async with asyncio.timeout(FAREWELL):
                await self._driver.close()

        try:
            self._runner.run(closing())
        except Exception as error:
            logger.debug("Closing the watchdog's connection failed: %s", described(error))
        finally:
            self._runner.close()


def _named(culprit: Culprit | None) -> str:
    return "something that is no job" if culprit is None else culprit.name


def _facts(culprit: Culprit | None) -> dict[str, object]:
    return {} if culprit is None else dict(culprit.facts)


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
