"""What ``compare.py`` measures, and what pgq_fast is meant to reach.

A scenario sets sides against each other. A side with several trials is that library *at its best*:
the trial with the highest median counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from measure import LIST, Trial

Side = Sequence[Trial]


@dataclass(frozen=True)
class Target:
    """A figure of one side, or its ratio to that of another, and the limit for it if any."""

    figure: str
    """``rate``, ``cpu``, ``p50`` and the like: what a measurement returns."""
    of: str
    over: str | None = None
    """None: the figure itself."""
    at_least: float | None = None
    at_most: float | None = None

    def limit(self) -> str:
        """The limit in words."""
        if self.at_least is not None:
            return f">= {self.at_least:.3g}"
        return "" if self.at_most is None else f"<= {self.at_most:.3g}"

    def met(self, value: float) -> bool | None:
        """Whether *value* is within the limit; None without one."""
        if self.at_least is not None:
            return value >= self.at_least
        return None if self.at_most is None else value <= self.at_most


@dataclass(frozen=True)
class Scenario:
    """One comparison."""

    name: str
    title: str
    sides: dict[str, Side]
    targets: Sequence[Target]

    def trials(self) -> Iterable[Trial]:
        """Those of all sides, in turn."""
        columns = itertools.zip_longest(*self.sides.values())
        return (trial for column in columns for trial in column if trial is not None)


# Jobs of a measurement, so that each takes a few seconds: less would measure the start of a run.
SLOW: Final = 15_000
MEDIUM: Final = 60_000
FAST: Final = 100_000
# Single enqueues wait for the disk, so these depend on it most.
SINGLE: Final = 8_000
SINGLE_TOGETHER: Final = 40_000
HUGE: Final = 1_000_000
# So many that 32 connections which begin cold, with small batches, are warm for most of it.
MANY: Final = 1_500_000
LONG_LIST: Final = 5_000
WAITS: Final = 300


def old(task: str, jobs: int, **settings: Any) -> Trial:
    """A trial of pgqueuer."""
    return Trial(task, "pgqueuer", jobs, **settings)


def new(task: str, jobs: int, **settings: Any) -> Trial:
    """A trial of pgq_fast."""
    return Trial(task, "pgq_fast", jobs, **settings)


# What may be a library's best: few workers in one process, and batches that are large for it.
TUNED: Final = [
    {"consumers": consumers, "batch_size": batch_size}
    for consumers in (1, 2)
    for batch_size in (200, 1000)
]

OLD_DEFAULT: Final = old("drain", SLOW)
NEW_DEFAULT: Final = new("drain", FAST)
OLD_BEST: Final = [*(old("drain", MEDIUM, **tuned) for tuned in TUNED), OLD_DEFAULT]
NEW_BEST: Final = [*(new("drain", FAST, **tuned) for tuned in TUNED), NEW_DEFAULT]


def lease(task: str, jobs: int, **settings: Any) -> Trial:
    """A trial of pgq_fast on the lease layout."""
    return Trial(task, "pgq_fast", jobs, layout="lease", **settings)


LEASE_DEFAULT: Final = lease("drain", 8 * FAST)
LEASE_TWO: Final = lease("drain", 8 * FAST, consumers=2)
LEASE_SLEEP: Final = lease("drain", 8 * FAST, handler="sleep(0)")
# Tuned alike: with a producer beside them, what is best may be something else.
OLD_SUSTAINED: Final = [old("sustained", MEDIUM, **tuned) for tuned in TUNED]


def rate(at_least: float | None = None) -> Target:
    """pgq_fast's rate against pgqueuer's."""
    return Target("rate", "pgq_fast", "pgqueuer", at_least=at_least)


# The trials of a group take turns, in this order, and scenarios of a group share them. Groups run
# one after the other. So what is compared lies close together in time: a machine is not equally
# fast for minutes.
GROUPS: Final[Sequence[Sequence[Scenario]]] = (
    (
        Scenario(
            "drain-defaults",
            "drain, no-op handler, everything at its defaults, one consumer",
            {"pgqueuer": [OLD_DEFAULT], "pgq_fast": [NEW_DEFAULT]},
            [rate(at_least=7)],
        ),
        Scenario(
            "cpu-noop",
            "client CPU a job, no-op handler, defaults",
            {"pgqueuer": [OLD_DEFAULT], "pgq_fast": [NEW_DEFAULT]},
            [
                Target("cpu", "pgq_fast", at_most=3),
                Target("cpu", "pgq_fast", "pgqueuer"),
            ],
        ),
        Scenario(
            "drain-bare",
            "pgq_fast's drain at its defaults against its bare SQL on one connection",
            {
                "bare SQL": [new("bare", FAST, batch_size=size) for size in (1000, 2000)],
                "pgq_fast": [NEW_DEFAULT],
            },
            [Target("rate", "pgq_fast", "bare SQL", at_least=0.85)],
        ),
        Scenario(
            "drain-psycopg",
            "drain, no-op handler, defaults: pgq_fast on psycopg against pgq_fast on asyncpg",
            {"asyncpg": [NEW_DEFAULT], "psycopg": [new("drain", FAST, driver="psycopg")]},
            [Target("rate", "psycopg", "asyncpg", at_least=0.70)],
        ),
        Scenario(
            "drain-best",
            "drain, no-op handler, each at its best",
            {"pgqueuer": OLD_BEST, "pgq_fast": NEW_BEST},
            [rate(at_least=2.3)],
        ),
        Scenario(
            "drain-pure",
            "drain, no-op handler: pgq_fast without its kernels at its defaults against pgqueuer "
            "at its best",
            {
                "pgqueuer": OLD_BEST,
                "pure Python": [new("drain", MEDIUM, implementation="python")],
            },
            [Target("rate", "pure Python", "pgqueuer", at_least=1.3)],
        ),
    ),
    (
        Scenario(
            "cpu-sleep0",
            "drain, handler that awaits asyncio.sleep(0), everything at its defaults",
            {
                "pgqueuer": [old("drain", SLOW, handler="sleep(0)")],
                "pgq_fast": [new("drain", FAST, handler="sleep(0)")],
            },
            [
                Target("cpu", "pgq_fast", at_most=6),
                Target("cpu", "pgq_fast", "pgqueuer"),
                rate(),
            ],
        ),
    ),
    (
        Scenario(
            "wait-20ms",
            "drain, handler that awaits 20 ms: pgq_fast at its defaults, pgqueuer at its best",
            {
                "pgqueuer": [
                    old("drain", MEDIUM, handler="sleep(20 ms)", **tuned) for tuned in TUNED
                ],
                "pgq_fast": [new("drain", FAST, handler="sleep(20 ms)")],
            },
            [rate(at_least=1)],
        ),
    ),
    (
        Scenario(
            "enqueue-32",
            "32 concurrent producers of single jobs on one driver",
            {
                "pgqueuer": [old("producers", SINGLE, producers=32)],
                "pgq_fast": [new("producers", SINGLE_TOGETHER, producers=32)],
            },
            [rate(at_least=8)],
        ),
        Scenario(
            "enqueue-1",
            "one producer of single jobs",
            {
                "pgqueuer": [old("producers", SINGLE)],
                "pgq_fast": [new("producers", SINGLE)],
            },
            [rate()],
        ),
    ),
    (
        Scenario(
            "enqueue-lists",
            f"one producer of lists of {LIST:,} jobs",
            {"pgqueuer": [old("lists", 2 * FAST)], "pgq_fast": [new("lists", 2 * FAST)]},
            [
                rate(at_least=1),
                Target("cpu", "pgq_fast", "pgqueuer", at_most=1 / 3),
            ],
        ),
    ),
    (
        Scenario(
            "latency",
            "from the call of enqueue to the handler's start, idle worker in another process",
            {"pgqueuer": [old("latency", WAITS)], "pgq_fast": [new("latency", WAITS)]},
            [
                Target("p50", "pgq_fast", "pgqueuer", at_most=0.5),
                Target("p99", "pgq_fast", "pgqueuer"),
            ],
        ),
    ),
    (
        Scenario(
            "lease-drain-defaults",
            "drain, no-op handler, everything at its defaults, one consumer, lease layout",
            {"pgqueuer": [OLD_DEFAULT], "lease": [LEASE_DEFAULT]},
            [
                Target("rate", "lease", "pgqueuer", at_least=30),
                Target("all_cpu", "lease", at_most=10),
                Target("all_cpu", "lease", "pgqueuer"),
                Target("wal", "lease", "pgqueuer", at_most=1 / 3),
                Target("log", "lease", "pgqueuer", at_most=1 / 10),
            ],
        ),
        Scenario(
            "lease-drain-best",
            "drain, no-op handler, one process: lease layout against pgqueuer at its best",
            {"pgqueuer": OLD_BEST, "lease": [LEASE_DEFAULT, LEASE_TWO]},
            [Target("rate", "lease", "pgqueuer", at_least=8)],
        ),
        Scenario(
            "lease-sleep0",
            "drain, lease layout: a handler that awaits asyncio.sleep(0) against a no-op",
            {"no-op": [LEASE_DEFAULT], "sleep(0)": [LEASE_SLEEP]},
            [Target("rate", "sleep(0)", "no-op", at_least=0.6)],
        ),
        Scenario(
            "lease-psycopg",
            "drain, no-op handler, lease layout: psycopg against asyncpg",
            {"asyncpg": [LEASE_DEFAULT], "psycopg": [lease("drain", 8 * FAST, driver="psycopg")]},
            [Target("rate", "psycopg", "asyncpg", at_least=0.70)],
        ),
        Scenario(
            "lease-workers",
            "drain, no-op handler, lease layout: 32 workers against 2 in one process",
            {
                "2": [lease("drain", MANY, consumers=2)],
                "32": [lease("drain", MANY, consumers=32)],
            },
            [
                Target("rate", "32", "2", at_least=0.7),
                Target("deadlocks", "32", at_most=0),
                Target("multixacts", "32", at_most=0.001),
            ],
        ),
    ),
    (
        Scenario(
            "lease-sustained",
            "one producer of lists and workers at the same time, each at its best",
            {
                "pgqueuer": OLD_SUSTAINED,
                "lease": [
                    lease("sustained", 3 * FAST),
                    lease("sustained", 3 * FAST, consumers=2),
                ],
            },
            [Target("rate", "lease", "pgqueuer", at_least=5)],
        ),
    ),
    (
        Scenario(
            "lease-lists",
            f"one producer of lists of {LONG_LIST:,} jobs",
            {
                "pgqueuer": [old("lists", 2 * FAST, list_size=LONG_LIST)],
                "lease": [lease("lists", 5 * FAST, list_size=LONG_LIST)],
            },
            [
                Target("rate", "lease", "pgqueuer", at_least=5),
                Target("cpu", "lease", "pgqueuer"),
            ],
        ),
        Scenario(
            "lease-singles",
            "32 producers of single jobs, a connection each, while a worker is busy",
            {
                "pgqueuer": [old("producers", SINGLE, producers=32, connections=True)],
                "lease": [lease("producers", 3 * SINGLE, producers=32, connections=True)],
            },
            [Target("rate", "lease", "pgqueuer", at_least=3)],
        ),
    ),
    (
        Scenario(
            "lease-old-transaction",
            f"drain of {HUGE:,} jobs, lease layout, while another transaction holds a snapshot",
            {
                "free": [lease("drain", HUGE)],
                "held": [lease("drain", HUGE, old_transaction=True)],
            },
            [
                Target("rate", "held", "free", at_least=0.7),
                Target("last", "held", at_least=0.5),
            ],
        ),
    ),
    (
        Scenario(
            "lease-latency",
            "from the call of enqueue to the handler's start, idle worker in another process",
            {"pgqueuer": [old("latency", WAITS)], "lease": [lease("latency", WAITS)]},
            [
                Target("p50", "lease", "pgqueuer"),
                Target("p99", "lease", "pgqueuer"),
            ],
        ),
    ),
)
