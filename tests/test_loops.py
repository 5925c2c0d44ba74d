"""Signals while a program's event loop runs, begins and ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pgq_fast import loops
from pgq_fast.signals import sigterm_as_exit

# Nothing of this is in a kernel, or in a server.
pytestmark = pytest.mark.impl_agnostic

ENDS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}


@pytest.fixture(params=["asyncio", "uvloop"], autouse=True)
def loop_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "asyncio":
        monkeypatch.setitem(sys.modules, "uvloop", None)
    return str(request.param)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Those that a program starts with, and ends with."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    }
    try:
        yield
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.fixture(params=ENDS, ids=lambda number: number.name)
def number(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    with sigterm_as_exit():
        yield request.param


def made_loops(monkeypatch: pytest.MonkeyPatch, made: Callable[[], None]) -> list[Any]:
    """The loops that are made from now on; *made* is called once each exists."""
    found: list[Any] = []
    factory = loops._loop_factory() or asyncio.new_event_loop

    def make() -> asyncio.AbstractEventLoop:
        found.append(factory())
        made()
        return found[-1]  # type: ignore[no-any-return]

    monkeypatch.setattr(loops, "_loop_factory", lambda: make)
    return found


def test_the_kind_of_loop(loop_kind: str) -> None:
    async def running() -> str:
        return type(asyncio.get_running_loop()).__module__.partition(".")[0]

    assert loops.run_in_loop(running()) == loop_kind


def test_a_signal_while_the_coroutine_waits(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaned: list[str] = []
    made = made_loops(monkeypatch, lambda: None)

    async def wait() -> None:
        # From a thread, so that the loop is asleep.
        sender = threading.Timer(0.1, signal.pthread_kill, (threading.main_thread().ident, number))
        sender.start()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            cleaned.append("up")

    began = time.monotonic()
    with pytest.raises(ENDS[number]):
        loops.run_in_loop(wait())
    assert time.monotonic() - began < 30
    assert cleaned == ["up"]
    assert made[0].is_closed()


def test_a_signal_before_the_coroutine_has_begun(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[str] = []
    made = made_loops(monkeypatch, lambda: signal.raise_signal(number))

    async def begin() -> None:
        began.append("it")

    with pytest.raises(ENDS[number]):
        loops.run_in_loop(begin())
    assert began == []
    assert made[0].is_closed()


def test_a_signal_as_the_coroutine_is_about_to_begin(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[str] = []
    current_task = asyncio.current_task

    def current() -> asyncio.Task[Any] | None:
        signal.raise_signal(number)
        return current_task()

    monkeypatch.setattr(asyncio, "current_task", current)

    async def begin() -> None:
        began.append("it")

    with pytest.raises(ENDS[number]):
        loops.run_in_loop(begin())
    assert began == []


def test_a_signal_while_the_loop_stops(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both loops close their sockets in Python, where a handler may run."""
    made = made_loops(monkeypatch, lambda: None)
    raised: list[str] = []
    ended = False
    close = socket.socket.close

    def closing(self: socket.socket) -> None:
        if ended and not raised:
            raised.append("here")
            signal.raise_signal(number)
        close(self)

    monkeypatch.setattr(socket.socket, "close", closing)

    async def end() -> None:
        nonlocal ended
        ended = True

    with pytest.raises(ENDS[number]):
        loops.run_in_loop(end())
    assert raised == ["here"]
    assert made[0].is_closed()


def test_what_fails_once_it_is_interrupted_is_the_context(number: signal.Signals) -> None:
    async def fail() -> None:
        signal.raise_signal(number)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("cut off") from None

    with pytest.raises(ENDS[number]) as caught:
        loops.run_in_loop(fail())
    assert isinstance(caught.value.__context__, ValueError)


def test_a_second_interrupt_does_not_wait_for_the_first() -> None:
    async def stubborn() -> None:
        signal.raise_signal(signal.SIGINT)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            signal.raise_signal(signal.SIGINT)
            pytest.fail("went on")

    with pytest.raises(KeyboardInterrupt):
        loops.run_in_loop(stubborn())


def test_a_second_sigterm_cuts_nothing_off() -> None:
    cleaned: list[str] = []

    async def clean() -> None:
        signal.raise_signal(signal.SIGTERM)
        try:
            await asyncio.sleep(60)
        finally:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0)
            cleaned.append("up")

    with sigterm_as_exit(), pytest.raises(SystemExit) as caught:
        loops.run_in_loop(clean())
    assert caught.value.code == 128 + signal.SIGTERM
    assert cleaned == ["up"]


def test_a_handler_of_the_users_is_left_alone() -> None:
    seen: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: seen.append(number))

    async def work() -> str:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0)
        return "done"

    try:
        assert loops.run_in_loop(work()) == "done"
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert seen == [signal.SIGINT]


def test_another_thread_runs_a_loop_too() -> None:
    results: list[str] = []

    async def work() -> str:
        return "done"

    thread = threading.Thread(target=lambda: results.append(loops.run_in_loop(work())))
    thread.start()
    thread.join(30)
    assert results == ["done"]
