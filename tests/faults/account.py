"""The account of a round: where every job is, how often it ran, and whether that may be.

The sources are independent of each other: producers' journals say what was enqueued, workers'
journals what ran, and the tables what has ended, is held or waits.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import psycopg

from faults.crew import Member, Strike

BEFORE: Final = 2.0
"""Seconds that the end of a job may take to become known to the server. What had ended longer
before a fault must not run again because of it."""

AFTER: Final = 5.0
"""Seconds after a fault in which its consequences may still show: connections that are made again,
leases that run out."""

CLOCK_ERROR: Final = 0.02
"""Seconds by which clocks may differ that are the same one."""

ENDS: Final = ("successful", "exception", "canceled", "deleted")
HELD: Final = "failed"

Run = tuple[int, int]
"""A job and its attempts: what has to run once, unless something happened to its worker."""


@dataclasses.dataclass
class Tables:
    """What the queue's tables say."""

    ends: Counter[int]
    """Entries of the log that end a job, by job."""
    statuses: dict[int, set[str]]
    """Of those entries."""
    ended_at: dict[int, float]
    """When the last of them was written, by the server's clock, in seconds since 1970."""
    present: dict[int, str]
    """Jobs that are in the queue, with their status."""
    tokens: dict[int, str]
    """The tokens of those."""

    @classmethod
    def read(cls, dsn: str) -> Tables:
        """Read them; the names are those of both layouts."""
        with psycopg.connect(dsn, autocommit=True) as connection:
            ends: Counter[int] = Counter()
            statuses: dict[int, set[str]] = defaultdict(set)
            ended_at: dict[int, float] = defaultdict(float)
            for job, status, count, at in connection.execute(
                "SELECT job_id, status::text, count(*), extract(epoch FROM max(created))"
                " FROM pgqueuer_log WHERE status::text = ANY(%s) GROUP BY 1, 2",
                [[*ENDS, HELD]],
            ):
                ends[job] += count
                statuses[job].add(status)
                ended_at[job] = max(ended_at[job], float(at))
            present, tokens = {}, {}
            for job, status, payload in connection.execute(
                "SELECT id, status::text, payload FROM pgqueuer"
            ):
                assert job not in present, f"job {job} is in the queue twice"
                present[job] = status
                tokens[job] = bytes(payload or b"").split(b" ", 1)[0].decode()
        return cls(ends, dict(statuses), dict(ended_at), present, tokens)


@dataclasses.dataclass(frozen=True)
class Clock:
    """The wall clock, which is the server's, seen from the monotonic one.

    Attributes:
        offset: What to add to a monotonic time.
        error: By how much that may be wrong, in seconds.
    """

    offset: float
    error: float

    @classmethod
    def measured(cls, began: float) -> Clock:
        """As it is now; *began* is the offset of a while ago."""
        offset = wall_offset()
        return cls(offset, CLOCK_ERROR + abs(offset - began))


def wall_offset() -> float:
    """Seconds by which the wall clock is ahead of the monotonic one."""
    return time.time() - time.monotonic()


@dataclasses.dataclass
class Started:
    """A run of a job."""

    worker: int
    token: str
    begin: float
    end: float | None = None


@dataclasses.dataclass
class Account:
    """What a round came to; ``problems`` is empty where all is well."""

    enqueued: int = 0
    finished: int = 0
    held: int = 0
    queued: int = 0
    unknown_calls: int = 0
    """Calls of producers whose outcome they did not get to know."""
    found_anyway: int = 0
    """Jobs of those calls that had been stored."""
    retries: int = 0
    """Runs that handlers had asked for."""
    reruns: int = 0
    """Runs of jobs that had run before, because of faults."""
    fenced: int = 0
    """Runs that ended after another worker had taken their job over."""
    problems: list[str] = dataclasses.field(default_factory=list)


def take(
    members: Sequence[Member],
    probes: Iterable[int],
    tables: Tables,
    pauses: Sequence[Strike] = (),
    clock: Clock | None = None,
) -> Account:
    """The account of all jobs, those of the probes included.

    Args:
        members: The processes.
        probes: Jobs that no producer enqueued.
        tables: What has become of the jobs.
        pauses: Times in which the machine stood still, which may happen to everybody.
        clock: How the server's clock goes; None: nobody knows, as it was stepped.
    """
    account = Account()
    calls, got, unknown = _producers(members)
    stood_still = {member.number: [*_pauses(member), *pauses] for member in members}
    runs = _runs(members, stood_still)
    strikes = {member.number: [*member.strikes, *stood_still[member.number]] for member in members}
    ids = set(got) | set(probes)
    tokens = dict(tables.tokens)
    for (job, _), started in runs.items():
        tokens[job] = started[0].token
    for job in {*tables.present, *tables.ends, *tokens} - ids:
        ids.add(job)
        account.found_anyway += 1
        call = tokens.get(job, "").rpartition(".")[0]
        if call not in unknown:
            account.problems.append(f"job {job} ({tokens.get(job)!r}) was enqueued by nobody")
    _check_calls(account, calls, unknown, tokens)
    account.unknown_calls = len(unknown)
    account.enqueued = len(ids)
    for job in sorted(ids):
        _place(account, tables, job)
    _check_ends(account, tables, runs)
    _check_runs(account, runs, strikes)
    if clock is not None:
        _check_fence(account, tables, runs, clock)
    return account


def _producers(members: Sequence[Member]) -> tuple[dict[str, int], list[int], set[str]]:
    """The calls with their numbers of jobs, the ids that were handed out, the unknown calls."""
    calls: dict[str, int] = {}
    ids: list[int] = []
    known: set[str] = set()
    for member in members:
        for what, _, *facts in member.events():
            if what == "ask":
                calls[facts[0]] = facts[1]
            elif what == "got":
                known.add(facts[0])
                ids += facts[1]
    assert len(ids) == len(set(ids)), "an id was handed out twice"
    return calls, ids, calls.keys() - known


def _runs(
    members: Sequence[Member], stood_still: Mapping[int, Sequence[Strike]]
) -> dict[Run, list[Started]]:
    """The runs by job and attempts, in the order in which workers set about them."""
    runs: dict[Run, list[Started]] = defaultdict(list)
    for member in members:
        for what, at, *facts in member.events():
            if what == "start":
                job, attempts, _, token = facts
                runs[job, attempts].append(Started(member.number, token, at))
            elif what == "end":
                last = next(
                    run
                    for run in reversed(runs[facts[0], facts[1]])
                    if run.worker == member.number and run.end is None
                )
                last.end = at
    for started in runs.values():
        started.sort(key=lambda run: _set_about(run, stood_still[run.worker]))
    return runs


def _pauses(member: Member) -> list[Strike]:
    """Where *member* noted that it had stood still."""
    return [Strike(*facts) for what, _, *facts in member.events() if what == "pause"]


def _set_about(run: Started, stood_still: Sequence[Strike]) -> float:
    """When the worker had last seen that *run* was its to begin.

    One that is stopped after that begins as it wakes up, whoever has run the job meanwhile.
    """
    return min(
        (pause.begin for pause in stood_still if pause.begin <= run.begin <= pause.end),
        default=run.begin,
    )


def _check_calls(
    account: Account, calls: Mapping[str, int], unknown: set[str], tokens: Mapping[int, str]
) -> None:
    """A call stores all of its jobs or none."""
    stored = Counter(token.rpartition(".")[0] for token in tokens.values())
    for call in unknown:
        if stored[call] not in (0, calls[call]):
            account.problems.append(f"call {call} stored {stored[call]} of its {calls[call]} jobs")


def _place(account: Account, tables: Tables, job: int) -> None:
    """A job is in one place, and has ended once if it has ended."""
    status = tables.present.get(job)
    ends = tables.ends[job]
    if status == HELD:
        account.held += 1
        # The log has an entry that it was held.
        if ends > 1:
            account.problems.append(f"job {job} is held and ended {ends} times in the log")
    elif status is not None:
        account.queued += 1
        if status != "queued":
            account.problems.append(f"job {job} was left behind as {status}")
        if ends:
            account.problems.append(f"job {job} is {status} and has ended in the log")
    elif ends:
        account.finished += 1
        if ends > 1:
            account.problems.append(f"job {job} ended {ends} times in the log")
    else:
        account.problems.append(f"job {job} is lost")


def _check_ends(account: Account, tables: Tables, runs: Mapping[Run, list[Started]]) -> None:
    """What the log calls successful, a handler has run to its end."""
    ended = {job for (job, _), started in runs.items() if any(run.end for run in started)}
    for job, statuses in tables.statuses.items():
        if job not in ended and statuses & {"successful", "exception", HELD}:
            account.problems.append(f"job {job} has ended in the log, but no run of it has")


def _check_runs(
    account: Account, runs: Mapping[Run, list[Started]], strikes: Mapping[int, list[Strike]]
) -> None:
    """A job runs again only where something happened to the worker that ran it before."""
    for (job, attempts), started in runs.items():
        if attempts > 0:
            account.retries += 1
        for run, after in itertools.pairwise(started):
            account.reruns += 1
            if run.end is not None and run.end > after.begin:
                account.fenced += 1
            if not any(_excuses(strike, run) for strike in strikes[run.worker]):
                account.problems.append(
                    f"job {job} ran again on worker {after.worker} at {after.begin:.3f}, though"
                    f" nothing had happened to worker {run.worker}, which ran it from"
                    f" {run.begin:.3f} to {run.end or 0:.3f}"
                )


def _check_fence(
    account: Account, tables: Tables, runs: Mapping[Run, list[Started]], clock: Clock
) -> None:
    """A job ends by the last run of it: a worker that lost it can end it no more."""
    last: dict[int, Started] = {}
    for (job, _), started in sorted(runs.items()):
        last[job] = started[-1]
    for job, at in tables.ended_at.items():
        run = last.get(job)
        if run is None or not tables.statuses[job] & {"successful", "exception", HELD}:
            continue
        if run.end is None or at < run.end + clock.offset - clock.error:
            account.problems.append(
                f"job {job} ended in the log at {at - clock.offset:.3f}, but its last run, on"
                f" worker {run.worker}, at {run.end or 0:.3f}: not by that one"
            )


def _excuses(strike: Strike, run: Started) -> bool:
    """Whether *run* was under way, or its end still on the way, during *strike*."""
    ended = run.end is not None and run.end < strike.begin - BEFORE
    return run.begin <= strike.end + AFTER and not ended


def counts(account: Account) -> dict[str, Any]:
    """The figures, without the problems."""
    figures = dataclasses.asdict(account)
    del figures["problems"]
    return figures
