"""What a worker holds in memory depends on what it does, not on what is queued."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from behaviour.helpers import ClaimNote, LayoutSpy, Tables, drain
from pgq_fast.models import Job
from pgq_fast.qm import QueueManager

pytestmark = pytest.mark.layouts

MB = 1_000_000
BOUND = 4 * 1024 * 1024


@pytest.fixture
def kind() -> str:
    """What is claimed does not depend on the driver: one kind will do."""
    return "asyncpg"


class Counting:
    """A handler that keeps nothing but numbers."""

    def __init__(self) -> None:
        self.ended = 0
        self.ended_bytes = 0

    async def __call__(self, job: Job) -> None:
        self.ended += 1
        self.ended_bytes += len(job.payload or b"")


# -- Payloads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"batch_size": 40}], ids=["no size", "batches of 40"])
async def test_claims_are_bounded_by_the_bytes_that_they_bring(
    manager: QueueManager, tables: Tables, spy: LayoutSpy, arguments: dict[str, Any]
) -> None:
    assert manager.claim_bytes == 2 * 1024 * 1024
    manager.claim_bytes = BOUND
    handler = Counting()
    manager.entrypoint("e")(handler)
    claimed = 0
    held: list[int] = []

    def note_held(note: ClaimNote) -> None:
        nonlocal claimed
        claimed += note.payload_bytes
        held.append(claimed - handler.ended_bytes)

    spy.on_claim = note_held
    # The table holds these compressed, the worker does not.
    ids = await manager.queries.enqueue(["e"] * 40, [b"x" * MB] * 40, [0] * 40)
    await drain(manager, **arguments)
    assert await tables.ended() == ids
    assert max(note.payload_bytes for note in spy.claims) <= BOUND + MB
    # One batch is being worked on while the next one comes.
    assert max(held) <= 2 * (BOUND + MB)
    # The bound is made use of: several jobs a claim.
    assert len([note for note in spy.claims if note.ids]) <= 20


async def test_a_job_beyond_the_bound_runs_all_the_same(
    manager: QueueManager, tables: Tables, spy: LayoutSpy
) -> None:
    manager.claim_bytes = MB
    handler = Counting()
    manager.entrypoint("e")(handler)
    sizes = [10, 3 * MB, 3 * MB, 10, 0, MB, 10]
    ids = await manager.queries.enqueue(["e"] * 7, [b"x" * size for size in sizes], [0] * 7)
    await drain(manager)
    assert await tables.ended() == ids
    assert handler.ended_bytes == sum(sizes)
    assert max(note.payload_bytes for note in spy.claims) <= MB + 3 * MB


# -- A backlog --------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def traced() -> AsyncIterator[None]:
    """Python counts what it allocates, which makes it several times slower."""
    tracemalloc.start(1)
    try:
        yield
    finally:
        tracemalloc.stop()


async def peak_of(manager: QueueManager, handler: Counting, count: int) -> int:
    """The most bytes held while *count* jobs are run, beyond those held before."""
    await manager.queries.enqueue(["e"] * count, [b"x" * 100] * count, [0] * count)
    manager.shutdown.clear()
    handler.ended = 0
    gc.collect()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    await drain(manager)
    _, peak = tracemalloc.get_traced_memory()
    assert handler.ended == count
    return peak - before


@pytest.mark.usefixtures("traced")
async def test_a_long_backlog_needs_no_more_memory(manager: QueueManager) -> None:
    # The size that the worker would find by itself depends on how fast the machine is.
    manager.max_jobs_in_flight = 1000
    handler = Counting()
    manager.entrypoint("e")(handler)
    # The first run fills caches.
    await peak_of(manager, handler, 2000)
    # A run whose batches happen not to overlap needs half of what others do.
    short = max([await peak_of(manager, handler, 5_000) for _ in range(3)])
    long = await peak_of(manager, handler, 50_000)
    # A tenth of the backlog would be several MB more.
    assert long <= 1.3 * short + MB / 2
