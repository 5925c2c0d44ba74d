"""Batches come and go; what they were made of goes with them."""

from __future__ import annotations

import contextlib
import gc
import struct
import sys
import tracemalloc
import uuid
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kernels.test_jobs_from_leases import arrays
from kernels.twins import Bare, Twin, record
from pgq_fast.models import Job, parse_headers

pytestmark = pytest.mark.impl_agnostic

OWNER = uuid.UUID(int=5)
IDS = list(range(10**10, 10**10 + 50))
LEASE = arrays(
    [(10**9 + number, 0, 0, 10**15, number, bytes([number]) * 99, b"{}") for number in range(50)]
)
RAW_IDS = struct.pack("!50q", *IDS)


def leased(twin: Twin, columns: Sequence[Any]) -> list[Any]:
    """The jobs of a lease with these columns."""
    jobs, _ = twin.codec.build_leased_jobs(
        Job, OWNER, parse_headers, b"e", None, bytes(8), *columns
    )
    return list(jobs)


def batch(twin: Twin) -> None:
    """One pass through everything, in ways that succeed and in ways that fail."""
    codec = twin.codec
    good = [
        record(id=10**9 + number, payload=bytes([number]), headers="{}") for number in range(50)
    ]
    bad = [record(entrypoint=None), *[record(entrypoint=b"\xff", slot=10**9)] * 4]
    raw = b"".join([*good, *bad])
    for model in (Bare, Job):
        jobs, faults = codec.build_jobs(model, raw, OWNER, parse_headers)
        assert (len(jobs), len(faults)) == (50, 5)
    for job in jobs:
        assert job.headers == {}
        assert job.created
    assert leased(twin, LEASE)[-1].headers == {}
    codec.outcome_columns([(job, "exception", "{}") for job in jobs])
    codec.decode_ids(RAW_IDS)
    codec.encode_int8_array(IDS)
    codec.encode_ids(IDS)
    names = [f"name {number}" for number in range(50)]
    payloads = [bytearray(b"x" * 3000)] * 50
    codec.encode_copy_jobs(RAW_IDS, [1] * 50, names, payloads, [b"{}"] * 50, IDS)
    codec.encode_copy_log(RAW_IDS, [1] * 50, names)
    codec.pack_jobs(names, payloads, [1] * 50)
    codec.plain_columns(names, payloads, [1] * 50, 99, 99)
    codec.plain_columns([*names, "\0"], [], [], 99, 99)
    failing: list[Callable[[], Any]] = [
        lambda: codec.build_jobs(Job, raw[:-1], OWNER, parse_headers),
        lambda: codec.build_jobs(Job, bytearray(raw), OWNER, parse_headers),
        *[
            lambda bad=bad, place=place: leased(twin, [*LEASE[:place], bad, *LEASE[place + 1 :]])
            for place, column in enumerate(LEASE)
            for bad in (column[:-1], column + b"x", bytearray(column))
        ],
        lambda: codec.decode_ids(b"x"),
        lambda: codec.encode_int8_array([*IDS, 2**64]),
        lambda: codec.encode_int8_array([*IDS, "x"]),
        lambda: codec.encode_ids([*IDS, 2**64]),
        lambda: codec.encode_ids([*IDS, "x"]),
        lambda: codec.outcome_columns([(jobs[0], "successful", None), ()]),
        lambda: codec.encode_copy_jobs(
            RAW_IDS, [1] * 50, names, [*payloads[:49], "x"], [None] * 50, None
        ),
        lambda: codec.encode_copy_log(RAW_IDS, [1] * 50, [*names[:49], "\0"]),
        lambda: codec.pack_jobs(names, [*payloads[:49], "x"], [1] * 50),
        lambda: twin.notify.parse_event("nothing"),
        lambda: twin.notify.parse_event(b"\xff"),
    ]
    for call in failing:
        with contextlib.suppress(ValueError, TypeError):
            call()
            pytest.fail("the call was to fail")
    for payload in (
        '{"type": "table_changed_event", "operation": "insert", "table": "t"}',
        '{"type": "cancellation_event", "ids": [1, 2]}',
        f'{{"type": "health_check_event", "id": "{OWNER}"}}',
    ):
        twin.notify.parse_event(payload)


def live_objects() -> Counter[str]:
    gc.collect()
    return Counter(type(value).__name__ for value in gc.get_objects())


def test_objects_do_not_pile_up(twin: Twin) -> None:
    for _ in range(3):
        batch(twin)
    # What something else in the process leaves behind is in one of these; a leak is in all.
    kinds: set[str] | None = None
    for _ in range(3):
        before = live_objects()
        for _ in range(20):
            batch(twin)
        grown = live_objects() - before
        # The counting itself leaves a handful behind; a leak is at least 20 of a kind.
        found = {kind for kind, count in grown.items() if count >= 20}
        kinds = found if kinds is None else kinds & found
    assert kinds == set()


def test_memory_does_not_grow(twin: Twin) -> None:
    for _ in range(3):
        batch(twin)
    tracemalloc.start()
    try:
        sizes = []
        for _ in range(4):
            for _ in range(10):
                batch(twin)
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # One leaked integer a batch would be 320 bytes a round, one leaked buffer far more.
    assert sizes[-1] - sizes[1] < 320, sizes


class Keeper:
    """Something that a handler puts where a payload was."""

    def __init__(self, job: Job) -> None:
        self.job = job


def test_a_cycle_through_the_fields_of_a_job_is_collected(twin: Twin) -> None:
    """The compiled twin hides fields from the collector as long as none can be part of a cycle."""
    raw = record(id=1, payload=b"x", headers=None)
    makers: list[Callable[[], list[Any]]] = [
        lambda: twin.codec.build_jobs(Job, raw, OWNER, parse_headers)[0],
        lambda: leased(twin, arrays([(1, 0, 0, 0, 0, b"", None)])),
    ]
    for make in makers:
        (job,) = make()
        job.payload = Keeper(job)
        kept = weakref.ref(job.payload)
        del job
        assert kept() is not None
        gc.collect()
        assert kept() is None


def test_reference_counts_of_what_comes_in_are_as_before(twin: Twin) -> None:
    text, data, marker, headers = "entry" + "point" * 2, bytes(bytearray(b"xy")), 10**12, b'{"a":1}'
    raw = record(id=marker, entrypoint=text, payload=data, headers=headers, slot=marker) * 10
    lease = arrays([(marker, 0, 0, 10**15, 10**15, data, headers)] * 10)
    watched = (text, data, marker, headers, raw, OWNER, *lease)

    def counts() -> list[int]:
        return [sys.getrefcount(value) for value in watched]

    def run() -> None:
        jobs, _ = twin.codec.build_jobs(Bare, raw, OWNER, parse_headers)
        with pytest.raises(ValueError, match="breaks off"):
            twin.codec.build_jobs(Bare, raw[:-1], OWNER, parse_headers)
        name, picked = text.encode(), bytes(8)
        twin.codec.build_leased_jobs(Bare, OWNER, parse_headers, name, marker, picked, *lease)
        with pytest.raises(ValueError, match="headers"):
            twin.codec.build_leased_jobs(
                Bare, OWNER, parse_headers, name, marker, picked, *lease[:-1], lease[-1][:-1]
            )
        twin.codec.outcome_columns([(job, text, text) for job in jobs])
        twin.codec.encode_int8_array([marker] * 5)
        twin.codec.encode_ids([marker] * 5)
        twin.codec.encode_copy_jobs(bytes(8), [1], [text], [data], [headers], [marker])
        with pytest.raises(TypeError):
            twin.codec.encode_copy_jobs(bytes(8), [1], [text], [data], [text], [marker])
        twin.codec.encode_copy_log(bytes(8), [1], [text])
        twin.codec.pack_jobs([text, text], [data, None], [1, 2])
        with pytest.raises(TypeError):
            twin.codec.pack_jobs([text, text], [data, text], [1, 2])

    run()
    before = counts()
    for _ in range(50):
        run()
    assert counts() == before
