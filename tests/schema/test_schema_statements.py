"""The runners that drive database operations."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pgq_fast.schema.statements import Statement, Steps, query, run_async, run_sync

pytestmark = pytest.mark.impl_agnostic


class Recorder:
    """A driver, asynchronous or blocking, that answers from a list and notes what it got."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.calls: list[tuple[str, str, tuple[object, ...]]] = []

    def answer(self, method: str, sql: str, args: tuple[object, ...]) -> Any:
        self.calls.append((method, sql, args))
        answer = self.answers.get(sql, [])
        if isinstance(answer, BaseException):
            raise answer
        return answer


class AsyncRecorder(Recorder):
    async def fetch(self, sql: str, *args: object) -> Any:
        return self.answer("fetch", sql, args)

    async def execute(self, sql: str, *args: object) -> Any:
        return self.answer("execute", sql, args)


class SyncRecorder(Recorder):
    def fetch(self, sql: str, *args: object) -> Any:
        return self.answer("fetch", sql, args)

    def execute(self, sql: str, *args: object) -> Any:
        return self.answer("execute", sql, args)


class FetchOnly(Recorder):
    def fetch(self, sql: str, *args: object) -> Any:
        return self.answer("fetch", sql, args)


def steps() -> Steps[int]:
    rows = yield query("read", 1)
    try:
        assert (yield Statement("write", (2, 3))) == []
    finally:
        yield Statement("clean up")
    return int(rows[0]["n"])


def run(recorder: Any) -> int:
    if isinstance(recorder, AsyncRecorder):
        return asyncio.run(run_async(recorder, steps()))  # type: ignore[arg-type]
    return run_sync(recorder, steps())


@pytest.mark.parametrize("kind", [AsyncRecorder, SyncRecorder])
def test_statements_are_sent_in_turn(kind: type[Recorder]) -> None:
    recorder = kind({"read": [{"n": 5}]})
    assert run(recorder) == 5
    assert recorder.calls == [
        ("fetch", "read", (1,)),
        ("execute", "write", (2, 3)),
        ("execute", "clean up", ()),
    ]


def test_driver_with_nothing_but_fetch() -> None:
    recorder = FetchOnly({"read": [{"n": 5}]})
    assert run(recorder) == 5
    assert [method for method, _, _ in recorder.calls] == ["fetch"] * 3


@pytest.mark.parametrize("kind", [AsyncRecorder, SyncRecorder])
def test_failure_reaches_the_steps_and_the_caller(kind: type[Recorder]) -> None:
    failure = RuntimeError("no")
    recorder = kind({"read": [{"n": 5}], "write": failure})
    with pytest.raises(RuntimeError) as caught:
        run(recorder)
    assert caught.value is failure
    assert recorder.calls[-1] == ("execute", "clean up", ())


@pytest.mark.parametrize("kind", [AsyncRecorder, SyncRecorder])
def test_failure_of_the_first_statement(kind: type[Recorder]) -> None:
    recorder = kind({"read": RuntimeError("no")})
    with pytest.raises(RuntimeError, match="no"):
        run(recorder)
    assert len(recorder.calls) == 1
