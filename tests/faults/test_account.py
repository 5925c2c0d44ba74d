"""The account of jobs finds what must not be: lost jobs, double ends, runs without a reason."""

from __future__ import annotations

import json
import signal
import subprocess
import types
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest

from faults.account import AFTER, BEFORE, Account, Clock, Tables, take
from faults.crew import Member, Strike

NOW = 1000.0


class Journal:
    """A member that was never started."""

    def __init__(self, role: str, number: int, strikes: list[Strike] | None = None) -> None:
        self.role = role
        self.number = number
        self.strikes = strikes or []
        self.lines: list[list[Any]] = []

    def note(self, what: str, at: float, *facts: object) -> Journal:
        self.lines.append(json.loads(json.dumps([what, at, *facts])))
        return self

    def ran(self, job: int, begin: float, end: float | None, attempts: int = 0) -> Journal:
        self.note("start", begin, job, attempts, "plain", f"3.1.{job - 1}")
        if end is not None:
            self.note("end", end, job, attempts)
        return self

    def events(self) -> list[list[Any]]:
        return self.lines


def account(
    *members: Journal,
    tables: Tables,
    pauses: list[Strike] | None = None,
    clock: Clock | None = None,
) -> Account:
    return take(cast("list[Member]", list(members)), [], tables, pauses or [], clock)


def tables(ended: dict[int, str] | None = None, present: dict[int, str] | None = None) -> Tables:
    ends = ended or {}
    return Tables(
        Counter(dict.fromkeys(ends, 1)),
        {job: {status} for job, status in ends.items()},
        dict.fromkeys(ends, 0.0),
        present or {},
        {job: f"3.1.{job - 1}" for job in present or {}},
    )


def producer(*ids: int, call: str = "3.1", known: bool = True, count: int = 0) -> Journal:
    journal = Journal("produce", 3).note("ask", NOW - 1, call, count or len(ids))
    if known:
        return journal.note("got", NOW, call, ids)
    return journal.note("unknown", NOW, call, "ConnectionLostError")


def test_all_is_well() -> None:
    worker = Journal("work", 1).ran(1, NOW, NOW + 1).ran(2, NOW, NOW + 1)
    found = account(
        producer(1, 2, 3),
        worker,
        tables=tables({1: "successful", 2: "failed"}, {2: "failed", 3: "queued"}),
    )
    assert found.problems == []
    assert (found.enqueued, found.finished, found.held, found.queued) == (3, 1, 1, 1)


def test_a_job_that_is_nowhere() -> None:
    found = account(producer(1), Journal("work", 1).ran(1, NOW, NOW + 1), tables=tables())
    assert found.problems == ["job 1 is lost"]


def test_a_job_that_ended_twice() -> None:
    worker = Journal("work", 1).ran(1, NOW, NOW + 1)
    twice = tables({1: "successful"})
    twice.ends[1] = 2
    assert account(producer(1), worker, tables=twice).problems == ["job 1 ended 2 times in the log"]


def test_a_job_that_ended_and_is_queued() -> None:
    worker = Journal("work", 1).ran(1, NOW, NOW + 1)
    found = account(producer(1), worker, tables=tables({1: "successful"}, {1: "queued"}))
    assert found.problems == ["job 1 is queued and has ended in the log"]


def test_a_job_that_is_left_behind() -> None:
    found = account(producer(1), tables=tables(present={1: "picked"}))
    assert found.problems == ["job 1 was left behind as picked"]


def test_an_end_without_a_run() -> None:
    worker = Journal("work", 1).ran(1, NOW, None)
    found = account(producer(1), worker, tables=tables({1: "successful"}))
    assert found.problems == ["job 1 has ended in the log, but no run of it has"]


def test_a_job_of_nobody() -> None:
    found = account(producer(1), tables=tables(present={1: "queued", 7: "queued"}))
    assert found.problems == ["job 7 ('3.1.6') was enqueued by nobody"]


@pytest.mark.parametrize(("stored", "problems"), [(0, []), (2, []), (1, ["3.1 stored 1 of its 2"])])
def test_a_call_of_unknown_outcome(stored: int, problems: list[str]) -> None:
    found = account(
        producer(known=False, count=2),
        tables=tables(present=dict.fromkeys(range(1, stored + 1), "queued")),
    )
    assert [problem.removeprefix("call ") for problem in found.problems] == [
        f"{problem} jobs" for problem in problems
    ]
    assert (found.unknown_calls, found.found_anyway) == (1, stored)


def again(first: Journal, pauses: list[Strike] | None = None) -> Account:
    """A job that *first* ran a second ago, and another worker runs now."""
    second = Journal("work", 2).ran(1, NOW, NOW + 0.1)
    return account(producer(1), first, second, tables=tables({1: "successful"}), pauses=pauses)


@pytest.mark.parametrize("end", [None, NOW - 20, NOW - 9])
def test_a_run_again_without_a_reason(end: float | None) -> None:
    found = again(Journal("work", 1).ran(1, NOW - 21, end))
    assert len(found.problems) == 1
    assert "job 1 ran again on worker 2" in found.problems[0]
    assert found.reruns == 1


def test_a_run_again_after_a_fault() -> None:
    struck = Journal("work", 1, [Strike(NOW - 15, NOW - 10)])
    assert again(struck.ran(1, NOW - 21, None)).problems == []


def test_a_run_again_that_had_ended_long_before_the_fault() -> None:
    struck = Journal("work", 1, [Strike(NOW - 10)])
    assert again(struck.ran(1, NOW - 21, NOW - 10 - BEFORE - 0.1)).problems != []


def test_a_run_again_that_began_long_after_the_fault() -> None:
    struck = Journal("work", 1, [Strike(NOW - 20, NOW - 10)])
    assert again(struck.ran(1, NOW - 10 + AFTER + 0.1, None)).problems != []


def test_a_run_again_after_a_pause_of_the_machine() -> None:
    first = Journal("work", 1).ran(1, NOW - 21, None)
    assert again(first, [Strike(NOW - 20, NOW - 18)]).problems == []


def test_a_run_again_after_a_pause_of_the_worker() -> None:
    first = Journal("work", 1).ran(1, NOW - 21, None).note("pause", NOW - 18, NOW - 20, NOW - 18)
    assert again(first).problems == []


def test_a_late_end_of_a_job_that_was_taken_over() -> None:
    struck = Journal("work", 1, [Strike(NOW - 15, NOW)]).ran(1, NOW - 16, NOW + 0.2)
    found = again(struck)
    assert (found.problems, found.fenced) == ([], 1)


@pytest.mark.parametrize(("at", "by_the_last"), [(0.15, True), (-1.0, False), (0.05, False)])
def test_an_end_by_a_worker_that_had_lost_the_job(at: float, by_the_last: bool) -> None:
    struck = Journal("work", 1, [Strike(NOW - 15, NOW)]).ran(1, NOW - 16, NOW - 1)
    second = Journal("work", 2).ran(1, NOW, NOW + 0.1)
    ended = tables({1: "successful"})
    ended.ended_at[1] = NOW + at + 5000
    found = account(producer(1), struck, second, tables=ended, clock=Clock(5000.0, 0.01))
    assert (found.problems == []) is by_the_last


@pytest.mark.parametrize("stopped", [True, False])
def test_a_run_that_began_after_another_had_ended_the_job(stopped: bool) -> None:
    """Only by a worker that was stopped between its claim and the handler."""
    late = Journal("work", 1).ran(1, NOW - 18, NOW - 17.9)
    if stopped:
        late.note("pause", NOW - 17.8, NOW - 21, NOW - 17.8)
    second = Journal("work", 2).ran(1, NOW - 19, NOW - 18.9)
    ended = tables({1: "successful"})
    ended.ended_at[1] = NOW - 18.8 + 5000
    found = account(producer(1), late, second, tables=ended, clock=Clock(5000.0, 0.01))
    assert (found.problems == []) is stopped
    assert (found.reruns, found.fenced) == (1, int(stopped))


def test_a_retry_is_no_run_again() -> None:
    worker = Journal("work", 1).ran(1, NOW, NOW + 0.1).ran(1, NOW + 1, NOW + 1.1, attempts=1)
    found = account(producer(1), worker, tables=tables({1: "successful"}))
    assert (found.problems, found.retries, found.reruns) == ([], 1, 0)


def test_a_journal_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "work-1.jsonl"
    path.write_bytes(b'["start",1.0,1,0,"plain","3.1.0"]\n["end",1.5,1')
    member = object.__new__(Member)
    member.journal = path
    assert list(member.events()) == [["start", 1.0, 1, 0, "plain", "3.1.0"]]


def test_the_error_that_a_process_ended_with(tmp_path: Path) -> None:
    member = object.__new__(Member)
    member.log = tmp_path / "log"
    member.process = cast("subprocess.Popen[bytes]", types.SimpleNamespace(returncode=1))
    member.log.write_text(
        "2026-01-01 [pgqueuer] ERROR: Job 1 failed\nTraceback (most recent call last):\n"
        '  File "a.py", line 1, in run\n    raise ValueError\nValueError: as it was told to\n'
    )
    assert member.error() == "ValueError"
    with member.log.open("a") as log:
        log.write(
            'Traceback (most recent call last):\n  File "b.py", line 2, in run\n    claim()\n'
            "asyncpg.exceptions.DiskFullError: could not extend file\nHINT:  Check free space.\n"
        )
    assert member.error() == "DiskFullError"
    member.log.write_text("2026-01-01 [pgqueuer] INFO: all is well\n")
    assert member.error() == "no error"
    member.process.returncode = -signal.SIGABRT
    assert member.error() == "SIGABRT"
