"""Claims over several entrypoints: in order, and without a look at all of their jobs."""

from __future__ import annotations

import random
import uuid
from collections import defaultdict

import pytest

from pgq_fast.layouts import lease, looks
from pgq_fast.layouts.base import WorkerLayout
from pgq_fast.layouts.looks import Looks
from pgq_fast.queries import Queries
from pgq_fast.types import QueueEntrypoint, QueueManagerId
from pgq_fast.worker.port import worker_layout

pytestmark = [pytest.mark.layouts, pytest.mark.pg_matrix, pytest.mark.impl_agnostic]

OWNER = QueueManagerId(uuid.UUID(int=1))
BYTES = 2**24


@pytest.fixture
def kind() -> str:
    """One kind of driver: what is claimed is decided by the server."""
    return "asyncpg"


@pytest.fixture(autouse=True)
def from_the_front(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is: in order is what is claimed from the front."""
    monkeypatch.setattr(lease, "SLOW_CLAIM", float("inf"))
    monkeypatch.setattr(lease, "ONWARD_FROM", 10**6)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Jobs of each entrypoint that the claims were to look at, at most."""
    numbers: list[int] = []
    at = Looks.at

    def noted(self: Looks, size: int, entrypoints: int) -> int:
        numbers.append(at(self, size, entrypoints))
        return numbers[-1]

    monkeypatch.setattr(Looks, "at", noted)
    return numbers


@pytest.fixture
def claims(queries: Queries) -> WorkerLayout:
    """The worker's side of the queue."""
    return worker_layout(queries)


def in_order(jobs: dict[int, tuple[str, int]]) -> list[int]:
    """*jobs*, by id with entrypoint and priority, as they are to be claimed."""
    turns: dict[tuple[str, int], int] = defaultdict(int)
    keys = {}
    for job_id, (name, priority) in sorted(jobs.items()):
        turns[name, priority] += 1
        keys[job_id] = (-priority, turns[name, priority], job_id)
    return sorted(jobs, key=lambda job_id: keys[job_id])


@pytest.mark.parametrize("limit", [0, 1_000])
@pytest.mark.parametrize("seed", range(4))
async def test_each_claim_takes_what_is_first_in_the_line(
    claims: WorkerLayout,
    queries: Queries,
    looked_at: list[int],
    seed: int,
    limit: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However few jobs of each entrypoint it looks at, and whatever the others have.

    One has a concurrency limit, which is never reached.
    """
    monkeypatch.setattr(looks, "LOOKS", 0)
    choose = random.Random(seed)
    names = [f"e{number}" for number in range(5)]
    weights = [choose.choice((1, 1, 5, 50)) for _ in names]
    limits = dict.fromkeys(map(QueueEntrypoint, names), 0)
    limits[QueueEntrypoint("e0")] = limit
    left: dict[int, tuple[str, int]] = {}
    number = 0

    async def more(count: int) -> None:
        chosen = choose.choices(names, weights, k=count)
        priorities = [choose.choice((0, 0, 0, 3, -2)) for _ in chosen]
        ids = await queries.enqueue(chosen, [None] * count, priorities)
        left.update(zip(ids, zip(chosen, priorities, strict=True), strict=True))

    await more(400)
    while left:
        size = choose.choice((1, 7, 20, 60))
        claim = await claims.claim(size, limits, OWNER, None, BYTES)
        jobs = [job.id for job in claim.jobs]
        assert 0 < len(jobs) <= size
        first = in_order(left)[: len(jobs)]
        assert sorted(jobs) == sorted(first)
        # None is kept back without a word.
        assert len(jobs) == min(size, len(left)) or claim.more
        for job_id in jobs:
            del left[job_id]
        number += 1
        if number in (5, 12):
            await more(100)
    assert min(looked_at) < 20


async def test_a_claim_over_many_entrypoints_locks_little_more_than_it_takes(
    claims: WorkerLayout, queries: Queries, looked_at: list[int]
) -> None:
    names = [QueueEntrypoint(f"e{number}") for number in range(50)]
    await queries.enqueue([names[n % 50] for n in range(5_000)], [None] * 5_000, [0] * 5_000)
    limits = dict.fromkeys(names, 0)
    for _ in range(4):
        assert (await claims.claim(500, limits, OWNER, None, BYTES)).found == 500
    # Ten jobs of each are taken.
    assert looked_at[0] == 500
    assert max(looked_at[1:]) <= 15


async def test_an_entrypoint_that_has_all_jobs_is_found_out(
    claims: WorkerLayout, queries: Queries
) -> None:
    """The others ran dry: a claim looks at too few of it once."""
    names = [QueueEntrypoint(f"e{number}") for number in range(20)]
    limits = dict.fromkeys(names, 0)
    await queries.enqueue([name for name in names for _ in range(10)], [None] * 200, [0] * 200)
    assert (await claims.claim(200, limits, OWNER, None, BYTES)).found == 200
    await queries.enqueue(["e7"] * 1_000, [None] * 1_000, [0] * 1_000)
    few = await claims.claim(200, limits, OWNER, None, BYTES)
    assert 0 < few.found < 200
    assert few.more
    assert not few.large
    assert (await claims.claim(200, limits, OWNER, None, BYTES)).found == 200


async def test_a_claim_says_when_jobs_were_left_for_their_size(
    claims: WorkerLayout, queries: Queries
) -> None:
    for names in (["e"], ["e", "f"]):
        await queries.enqueue(["e"] * 10, [b"x" * 1_000] * 10, [0] * 10)
        limits = dict.fromkeys(map(QueueEntrypoint, names), 0)
        claim = await claims.claim(10, limits, OWNER, None, 3_500)
        assert (claim.found, claim.more, claim.large) == (4, True, True)
        claim = await claims.claim(10, limits, OWNER, None, BYTES)
        assert (claim.found, claim.more, claim.large) == (6, False, False)
