"""The watchdog by itself: what holds it up holds up nobody."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable

import pytest

from pgq_fast.layouts.base import Statement
from pgq_fast.watchdog import BLOCKED_AFTER, LOOKS, Culprit, Unanswered, Watchdog

pytestmark = pytest.mark.impl_agnostic

TIMEOUT = 0.8
RENEWAL = Statement("renew", (1,))


class Server:
    """Stands in for the driver, and for those that the thread makes."""

    def __init__(self, answer: Callable[[], object] = lambda: None, hangs: bool = False) -> None:
        self.answer = answer
        self.hangs = hangs
        self.made = 0
        self.closed = 0
        self.sent: list[tuple[str, tuple[object, ...]]] = []
        self.threads: set[str] = set()

    def sibling(self) -> Server:
        self.made += 1
        return self

    async def execute(self, query: str, *args: object) -> str:
        self.threads.add(threading.current_thread().name)
        self.sent.append((query, args))
        self.answer()
        if self.hangs:
            await asyncio.sleep(600)
        return ""

    async def close(self) -> None:
        self.closed += 1


def always() -> Statement:
    return RENEWAL


def nobody(task: asyncio.Task[object] | None) -> Culprit | None:
    return None


def block(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not until():
        assert time.monotonic() < end
        time.sleep(0.005)


async def test_it_renews_while_the_loop_is_blocked_and_no_longer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server()
    # So long that a busy machine is not taken for a blocked loop.
    timeout = 4 * TIMEOUT
    watchdog = Watchdog(server, always, timeout, Unanswered(), nobody)
    watchdog.start()
    await asyncio.sleep(timeout / 4)
    assert server.made == 0
    block(lambda: len(server.sent) >= 3)
    await asyncio.sleep(2 * timeout / LOOKS)
    renewed = len(server.sent)
    await asyncio.sleep(timeout / 4)
    assert len(server.sent) == renewed
    assert server.made == 1
    assert set(server.sent) == {("renew", (1,))}
    assert server.threads == {"pgq_fast watchdog"}
    await watchdog.stop()
    assert server.closed == 1
    assert "The event loop was blocked for" in caplog.text


async def test_it_renews_while_an_answer_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    server, unanswered = Server(), Unanswered()
    timeout = 4 * TIMEOUT
    watchdog = Watchdog(server, always, timeout, unanswered, nobody)
    watchdog.start()
    with unanswered.asking():
        end = time.monotonic() + 20
        while len(server.sent) < 3 and time.monotonic() < end:
            # Others are answered meanwhile.
            with unanswered.asking():
                await asyncio.sleep(0.01)
    assert unanswered.since() == float("inf")
    await asyncio.sleep(2 * timeout / LOOKS)
    renewed = len(server.sent)
    assert renewed >= 3
    await asyncio.sleep(timeout / 4)
    assert len(server.sent) == renewed
    assert server.made == 1
    await watchdog.stop()
    assert "The server has not answered a heartbeat" in caplog.text
    assert "The event loop" not in caplog.text


async def test_answers_that_come_are_no_silence() -> None:
    server, unanswered = Server(), Unanswered()
    watchdog = Watchdog(server, always, TIMEOUT, unanswered, nobody)
    watchdog.start()
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        with contextlib.suppress(OSError), unanswered.asking():
            await asyncio.sleep(TIMEOUT / LOOKS)
            # Also an answer, or the end of a question.
            raise OSError("gone")
    await watchdog.stop()
    assert server.made == 0


async def test_a_short_block_is_none(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    watchdog = Watchdog(server, always, 40.0, Unanswered(), nobody)
    watchdog.start()
    time.sleep(0.2)  # noqa: ASYNC251
    await asyncio.sleep(0)
    await watchdog.stop()
    assert server.made == 0
    assert "blocked" not in caplog.text


async def test_what_nobody_holds_is_not_vouched_for(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    held: list[Statement] = []
    asked = 0

    def renewal() -> Statement | None:
        nonlocal asked
        asked += 1
        return held[0] if held else None

    watchdog = Watchdog(server, renewal, TIMEOUT, Unanswered(), nobody)
    watchdog.start()
    await asyncio.sleep(0)
    block(lambda: asked >= 3)
    await asyncio.sleep(2 * TIMEOUT / LOOKS)
    assert server.made == 0
    assert "blocked" not in caplog.text
    held.append(RENEWAL)
    block(lambda: len(server.sent) >= 1)
    await asyncio.sleep(2 * TIMEOUT / LOOKS)
    await watchdog.stop()
    assert set(server.sent) == {("renew", (1,))}
    assert "blocked" in caplog.text


async def test_the_task_that_blocks_is_asked_about(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[asyncio.Task[object] | None] = []
    server = Server()

    def culprit(task: asyncio.Task[object] | None) -> Culprit:
        asked.append(task)
        return Culprit("job 7 of mail", {"job_id": 7})

    watchdog = Watchdog(server, always, TIMEOUT, Unanswered(), culprit)
    watchdog.start()
    await asyncio.sleep(0)
    block(lambda: len(server.sent) >= 1)
    await asyncio.sleep(2 * TIMEOUT / LOOKS)
    await watchdog.stop()
    assert set(asked) == {asyncio.current_task()}
    assert "by job 7 of mail in block (" in caplog.text


async def test_a_job_that_cannot_be_named_is_kept_alive_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its handler may have done anything to it."""
    server = Server()

    def culprit(task: asyncio.Task[object] | None) -> Culprit:
        raise AttributeError("id")

    watchdog = Watchdog(server, always, TIMEOUT, Unanswered(), culprit)
    watchdog.start()
    await asyncio.sleep(0)
    block(lambda: len(server.sent) >= 2)
    await watchdog.stop()
    assert "by something that is no job in block (" in caplog.text


async def test_a_log_that_is_blocked_holds_up_no_heartbeat() -> None:
    """As by a pipe that nobody reads, while the loop waits for the same."""
    server = Server()
    free = threading.Event()

    class Stuck(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            free.wait(20)

    stuck = Stuck()
    log = logging.getLogger("pgqueuer")
    log.addHandler(stuck)
    watchdog = Watchdog(server, always, TIMEOUT, Unanswered(), nobody)
    try:
        watchdog.start()
        await asyncio.sleep(0)
        block(lambda: len(server.sent) >= 3)
    finally:
        free.set()
        log.removeHandler(stuck)
        await watchdog.stop()


async def test_its_end_waits_for_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(hangs=True)
    # It notices at once, and would wait for more than a minute.
    monkeypatch.setattr("pgq_fast.watchdog.LOOKS", 3200)
    watchdog = Watchdog(server, always, 160.0, Unanswered(), nobody)
    watchdog.start()
    await asyncio.sleep(0)
    block(lambda: len(server.sent) >= 1)
    await watchdog.stop()
    assert not watchdog._thread.is_alive()
    assert server.closed == 1


async def test_a_failure_is_no_end(caplog: pytest.LogCaptureFixture) -> None:
    failures = iter(range(2))

    def fail() -> None:
        if next(failures, None) is not None:
            raise OSError("no route")

    server = Server(fail)
    watchdog = Watchdog(server, always, TIMEOUT, Unanswered(), nobody)
    watchdog.start()
    await asyncio.sleep(0)
    block(lambda: len(server.sent) >= 3)
    await asyncio.sleep(2 * TIMEOUT / LOOKS)
    await watchdog.stop()
    assert server.made == 3
    assert server.closed == 3
    assert caplog.text.count("Could not send heartbeats from outside the event loop") == 2
    assert "OSError: no route" in caplog.text


def test_the_loop_may_end_first() -> None:
    """A run that was not left in good order, as by SystemExit, leaves a thread that vouches for
    nobody, ends by itself, and raises no error.
    """
    server = Server()
    failures: list[object] = []
    before = threading.excepthook

    async def main() -> Watchdog:
        watchdog = Watchdog(server, always, TIMEOUT, Unanswered(), nobody)
        watchdog.start()
        return watchdog

    threading.excepthook = failures.append
    try:
        watchdog = asyncio.run(main())
        watchdog._thread.join(20)
    finally:
        threading.excepthook = before
    assert not watchdog._thread.is_alive()
    assert server.made == 0
    assert failures == []


def test_a_loop_that_nobody_runs_is_not_blocked() -> None:
    server = Server()
    loop = asyncio.new_event_loop()

    async def begin() -> Watchdog:
        watchdog = Watchdog(server, always, TIMEOUT, Unanswered(), nobody)
        watchdog.start()
        return watchdog

    watchdog = loop.run_until_complete(begin())
    time.sleep(TIMEOUT)
    assert server.made == 0
    loop.run_until_complete(watchdog.stop())
    loop.close()
    assert not watchdog._thread.is_alive()


async def test_a_block_that_goes_on_is_reported_again(caplog: pytest.LogCaptureFixture) -> None:
    """Ever more rarely."""
    server = Server()
    watchdog = Watchdog(server, always, TIMEOUT / 4, Unanswered(), nobody)
    watchdog.start()
    await asyncio.sleep(0)

    def reports() -> int:
        return caplog.text.count("has been blocked for")

    block(lambda: reports() >= 4)
    await watchdog.stop()
    seconds = [
        float(record.args[0])
        for record in caplog.records
        if "has been blocked for" in record.message and isinstance(record.args, tuple)
    ]
    assert all(later >= 2 * earlier for earlier, later in itertools.pairwise(seconds))


def test_a_quarter_of_the_timeout_is_left_to_connect() -> None:
    """Half of it may have passed when the block begins, and a look is late by up to another."""
    assert 0.5 + (BLOCKED_AFTER + 1) / LOOKS <= 0.75
