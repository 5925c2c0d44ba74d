"""The kernels one by one: compiled, pure, and pgqueuer's way of doing the same.

    pytest bench/test_kernels.py --benchmark-time-unit=ms --benchmark-columns=median,iqr,rounds

Each round handles ``ITEMS`` items, a thousand: milliseconds a round are microseconds an item. The
groups are headed by the target for the compiled kernel, in microseconds an item.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import pgqueuer
import pgqueuer.models
import pytest
import uvloop
from kernel_inputs import (
    ENTRYPOINT,
    EVENT,
    IDS,
    ITEMS,
    NUMBERS,
    OWNER,
    PAYLOAD,
    claim_answer,
    read_all,
)
from measure import Database, connect
from servers import new_database

import pgq_fast_ext.codec
import pgq_fast_ext.notify
from pgq_fast import Job
from pgq_fast._pure import codec as pure_codec, notify as pure_notify
from pgq_fast.models import parse_headers

NOW = datetime.now(UTC)

CODECS = {"compiled": pgq_fast_ext.codec, "pure": pure_codec}
NOTIFIES = {"compiled": pgq_fast_ext.notify, "pure": pure_notify}

AS_HANDLED = "a row to a Job as a handler gets it, the row being there"
COMPLETE = "a row to a complete Job, the row being there; target 0.5"
FETCHED = "client CPU from asking the server to a Job"


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> Any:
    """Each implementation of the codec."""
    return CODECS[request.param]


# ------------------------------------------------------------------------------ rows to jobs


def decoded_row() -> dict[str, Any]:
    """What pgqueuer gets for a job from asyncpg: 14 columns, decoded."""
    return {
        "id": 1,
        "priority": 0,
        "queue_manager_id": OWNER,
        "created": NOW,
        "updated": NOW,
        "heartbeat": NOW,
        "execute_after": NOW,
        "status": "picked",
        "entrypoint": ENTRYPOINT,
        "dedupe_key": None,
        "payload": PAYLOAD,
        "headers": None,
        "attempts": 0,
        "slot": None,
    }


def validated(items: Sequence[Any]) -> list[Any]:
    """Jobs as pgqueuer makes them of records: a dictionary of each, validated."""
    return [pgqueuer.Job.model_validate(dict(item)) for item in items]


@pytest.mark.benchmark(group=AS_HANDLED)
def test_build_jobs(benchmark: Any, codec: ModuleType) -> None:
    jobs, faults = benchmark(codec.build_jobs, Job, claim_answer(), OWNER, parse_headers)
    assert len(jobs) == ITEMS
    assert not faults


@pytest.mark.benchmark(group=AS_HANDLED)
def test_build_jobs_as_pgqueuer(benchmark: Any) -> None:
    """Without the decoding of the columns, 4 us or so; that is in the last group."""
    items = [list(decoded_row().items())] * ITEMS
    assert len(benchmark(validated, items)) == ITEMS


@pytest.mark.benchmark(group=COMPLETE)
def test_build_complete_jobs(benchmark: Any, codec: ModuleType) -> None:
    answer = claim_answer()

    def build() -> int:
        jobs, _ = codec.build_jobs(Job, answer, OWNER, parse_headers)
        return read_all(jobs)

    assert benchmark(build) == ITEMS


@pytest.mark.benchmark(group=COMPLETE)
def test_build_complete_jobs_as_pgqueuer(benchmark: Any) -> None:
    items = [list(decoded_row().items())] * ITEMS
    assert benchmark(lambda: read_all(validated(items))) == ITEMS


# ------------------------------------------------------------------------------ jobs to the server


class NoServer:
    """A driver that answers at once, and keeps what it was given."""

    def __init__(self, answer: list[dict[str, Any]]) -> None:
        self._answer = answer
        self.parameters: tuple[Any, ...] = ()

    async def fetch(self, _query: str, *parameters: Any) -> list[dict[str, Any]]:
        self.parameters = parameters
        return self._answer

    async def execute(self, _query: str, *parameters: Any) -> str:
        self.parameters = parameters
        return ""


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine that waits for nothing returns; without an event loop's share."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits for something")


@pytest.mark.benchmark(group="a job to binary COPY; target 0.05")
def test_encode_copy_jobs(benchmark: Any, codec: ModuleType) -> None:
    """What a list costs before the driver sends it. pgqueuer's way is in the next group."""
    nothing: list[bytes | None] = [None] * ITEMS
    data = benchmark(
        codec.encode_copy_jobs,
        IDS,
        [0] * ITEMS,
        [ENTRYPOINT] * ITEMS,
        [PAYLOAD] * ITEMS,
        nothing,
        None,
    )
    assert data.startswith(b"PGCOPY")


@pytest.mark.benchmark(group="a job as part of a few values; target 0.1")
def test_pack_jobs(benchmark: Any, codec: ModuleType) -> None:
    """What a short list costs before the driver sends it, in the lease layout."""
    packed = benchmark(codec.pack_jobs, [ENTRYPOINT] * ITEMS, [PAYLOAD] * ITEMS, [0] * ITEMS)
    assert packed[0] == [ENTRYPOINT]


@pytest.mark.benchmark(group="a job as part of a few values; target 0.1")
def test_enqueue_parameters_as_pgqueuer(benchmark: Any) -> None:
    """The call of ``enqueue`` with a list, up to the driver: what comes after is the driver's."""
    driver = NoServer([{"id": number} for number in range(ITEMS)])
    queries = pgqueuer.Queries(driver)
    arguments = [ENTRYPOINT] * ITEMS, [PAYLOAD] * ITEMS, [0] * ITEMS
    assert benchmark(lambda: at_once(queries.enqueue(*arguments))) == list(range(ITEMS))
    assert driver.parameters[2] == [PAYLOAD] * ITEMS


@pytest.mark.benchmark(group="an outcome to parameters")
def test_outcome_columns(benchmark: Any, codec: ModuleType) -> None:
    """What an acknowledgement costs before the driver sends it."""
    jobs, _ = codec.build_jobs(Job, claim_answer(), OWNER, parse_headers)
    ids, statuses, _ = benchmark(codec.outcome_columns, [(job, "successful", None) for job in jobs])
    assert ids == list(NUMBERS)
    assert statuses is None


@pytest.mark.benchmark(group="an outcome to parameters")
def test_outcome_columns_as_pgqueuer(benchmark: Any) -> None:
    """The call of ``log_jobs``, up to the driver."""
    driver = NoServer([])
    queries = pgqueuer.Queries(driver)
    outcomes = [(job, "successful", None) for job in validated([decoded_row()] * ITEMS)]
    benchmark(lambda: at_once(queries.log_jobs(outcomes)))
    assert driver.parameters[:2] == ([1] * ITEMS, ["successful"] * ITEMS)


# ------------------------------------------------------------------------------ notifications


@pytest.mark.benchmark(group="a NOTIFY to an event; target 0.3")
@pytest.mark.parametrize("implementation", NOTIFIES)
def test_parse_event(benchmark: Any, implementation: str) -> None:
    """A notification of the trigger."""
    parse = NOTIFIES[implementation].parse_event
    events = benchmark(lambda: [parse(EVENT) for _ in range(ITEMS)])
    assert events == [("table_changed_event", "insert")] * ITEMS


@pytest.mark.benchmark(group="a NOTIFY to an event; target 0.3")
def test_parse_event_as_pgqueuer(benchmark: Any) -> None:
    """The same, validated by pgqueuer's models."""
    parse = pgqueuer.models.AnyEvent.model_validate_json
    events = benchmark(lambda: [parse(EVENT) for _ in range(ITEMS)])
    assert {event.root.operation for event in events} == {"insert"}


# ------------------------------------------------------------------------------ with the fetch


class Queue:
    """A queue of ``ITEMS`` jobs on a server, and a way to claim them all."""

    def __init__(self, package: str, database: Database) -> None:
        self._loop = uvloop.new_event_loop()
        self._library = importlib.import_module(package)
        self._connection = self._wait(connect(database))
        self._queries = self._library.Queries(self._library.AsyncpgDriver(self._connection))
        self._wait(self._queries.install())
        self._wait(self._queries.enqueue([ENTRYPOINT] * ITEMS, [PAYLOAD] * ITEMS, [0] * ITEMS))
        queries = importlib.import_module(f"{package}.queries")
        self._entrypoints = {ENTRYPOINT: queries.EntrypointExecutionParameter(0)}

    def _wait(self, awaitable: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(awaitable)

    def reset(self) -> None:
        """Have all jobs queued."""
        table = self._queries.qbe.settings.queue_table
        self._wait(
            self._connection.execute(
                f"UPDATE {table} SET status = 'queued', queue_manager_id = NULL; ANALYZE {table}"
            )
        )

    def claim(self) -> list[Any]:
        """All jobs, through the public API."""
        jobs: list[Any] = self._wait(
            self._queries.dequeue(
                batch_size=ITEMS,
                entrypoints=self._entrypoints,
                queue_manager_id=OWNER,
                global_concurrency_limit=None,
                heartbeat_timeout=timedelta(seconds=30),
            )
        )
        return jobs

    def close(self) -> None:
        """Close the connection."""
        self._wait(self._connection.close())
        self._loop.close()


@pytest.fixture(params=["pgq_fast", "pgqueuer"])
def queue(request: pytest.FixtureRequest, pg_dsn: str) -> Iterator[Queue]:
    """The queue of each library, pgq_fast's with the implementation of this process."""
    with new_database(pg_dsn) as database:
        queue = Queue(request.param, database)
        yield queue
        queue.close()


@pytest.mark.benchmark(group=FETCHED, timer=time.process_time)
@pytest.mark.parametrize("read", [len, read_all], ids=["as handled", "complete"])
def test_dequeue(benchmark: Any, queue: Queue, read: Callable[[Sequence[Any]], int]) -> None:
    """``Queries.dequeue``: what this process computes, not how long it waits for the server."""
    found = benchmark.pedantic(
        lambda: read(queue.claim()), setup=queue.reset, rounds=50, warmup_rounds=5
    )
    assert found == ITEMS
