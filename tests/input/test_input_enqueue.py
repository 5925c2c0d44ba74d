"""Jobs that are too long, too large or too far away: stored, or refused before they are sent."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from input.conftest import Enqueue

from pgq_fast import enqueue as enqueueing
from pgq_fast.arguments import MAX_NAME_BYTES, MAX_SCHEDULE_BYTES
from pgq_fast.enqueue import MAX_HEADERS_BYTES, MAX_PAYLOAD_BYTES
from pgq_fast.errors import InvalidArgumentError, InvalidJobError
from pgq_fast.layouts import inserting
from pgq_fast.models import CronExpressionEntrypoint
from pgq_fast.repository import EntrypointExecutionParameter
from pgq_fast.sm import SchedulerManager
from pgq_fast.types import CronEntrypoint, CronExpression, QueueManagerId

MANY: Final = 2100
"""A list that every layout sends by COPY."""

Noise = Callable[[int], str]


async def stored(queries: Any) -> int:
    return sum(group.count for group in await queries.queue_size())


@pytest.mark.parametrize("count", [1, 3, MANY])
async def test_the_longest_names(enqueue: Enqueue, queries: Any, noise: Noise, count: int) -> None:
    """Each index that has an entrypoint takes them, those of later times included."""
    name, key = noise(MAX_NAME_BYTES), noise(MAX_NAME_BYTES)
    await enqueue([name] * count, [None] * count, [0] * count)
    await enqueue(name, None, dedupe_key=key, execute_after=timedelta(hours=1))
    owner = QueueManagerId(uuid.uuid4())
    limited = {name: EntrypointExecutionParameter(3)}
    jobs = await queries.dequeue(count, limited, owner, None, timedelta(minutes=1))
    assert [job.entrypoint for job in jobs] == [name] * min(count, 3)
    await queries.log_jobs([(job, "successful", None) for job in jobs])
    assert {row.entrypoint for row in await queries.log_statistics(None)} == {name}
    assert {row.entrypoint for row in await queries.throughput_summary()} == {name}
    again = await enqueue(name, None, dedupe_key=key, on_conflict="skip")
    assert again == [None]


TOO_LONG: Final = [
    "x" * (MAX_NAME_BYTES + 1),
    "\u00fc" * (MAX_NAME_BYTES // 2) + "x",
    "y" * 100_000,
]


@pytest.mark.parametrize("count", [1, MANY])
async def test_names_that_are_too_long(enqueue: Enqueue, queries: Any, count: int) -> None:
    """Also those that PostgreSQL could compress: whether one is stored must not depend on that."""
    good: dict[str, Any] = {
        "entrypoint": ["e"] * count,
        "payload": [None] * count,
        "priority": [0] * count,
        "dedupe_key": [None] * count,
    }
    for longer, parameter in itertools.product(TOO_LONG, ("entrypoint", "dedupe_key")):
        arguments = good | {parameter: [*good[parameter][1:], longer]}
        if count == 1:
            arguments = {name: values[0] for name, values in arguments.items()}
        with pytest.raises(InvalidJobError, match=rf"^{parameter}\[{count - 1}\] has \d+ bytes"):
            await enqueue(**arguments)
    await enqueue("e", None)
    assert await stored(queries) == 1


@pytest.mark.parametrize("count", [1, 3, MANY])
async def test_a_payload_that_is_too_large(enqueue: Enqueue, queries: Any, count: int) -> None:
    payloads: list[Any] = [None] * count
    # Never touched, so that it takes no memory.
    payloads[-1] = bytes(MAX_PAYLOAD_BYTES + 1)
    with pytest.raises(InvalidJobError, match=rf"^payload\[{count - 1}\] has 500000001 bytes"):
        await enqueue(["e"] * count, payloads, [0] * count)
    if count == 1:
        with pytest.raises(InvalidJobError, match=r"^payload\[0\] has 500000001 bytes"):
            await enqueue("e", payloads[0])
    await enqueue("e", b"")
    assert await stored(queries) == 1


async def test_a_list_that_is_too_much_for_one_statement(
    enqueue: Enqueue, queries: Any, place: str
) -> None:
    large = bytes(400_000_000)
    # What goes nowhere needs no statement.
    if place != "memory":
        with pytest.raises(InvalidJobError, match=r"these 3 jobs have 12\d+ bytes.*several lists"):
            await enqueue(["e"] * 3, [large] * 3, [0] * 3, dedupe_key=["a", "b", "c"])
    await enqueue(["e"] * 2, [b""] * 2, [0] * 2, dedupe_key=["a", "b"])
    assert await stored(queries) == 2


async def test_a_large_list_goes_in_parts(
    enqueue: Enqueue, queries: Any, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list may have more in all than PostgreSQL takes at a time."""
    sizes: list[int] = []
    for layout in ("compat", "lease"):
        if place.startswith(layout):
            module = __import__(f"pgq_fast.layouts.{layout}_enqueue", fromlist=["codec"])
            encode = module.codec.encode_copy_jobs

            def counted(*args: Any, _encode: Any = encode, **named: Any) -> bytes:
                data: bytes = _encode(*args, **named)
                sizes.append(len(data))
                return data

            monkeypatch.setattr(module.codec, "encode_copy_jobs", counted)
            monkeypatch.setattr(module, "COPY_FROM_BYTES", 1_000_000)
    monkeypatch.setattr(inserting, "COPY_CHUNK_BYTES", 300_000)
    payloads = [bytes([number]) * 200_000 for number in range(20)]
    headers = [{"h": "x" * 1000}] * 20
    ids = await enqueue(["e"] * 20, payloads, [0] * 20, headers=headers)
    assert len(set(ids)) == 20
    if place != "memory":
        assert len(sizes) == 20
        assert max(sizes) < 300_000
    for number in (0, 7, 19):
        job = await queries.queue_job_by_id(ids[number])
        assert job.payload == payloads[number]


REFUSED: Final[list[tuple[dict[str, Any], str]]] = [
    ({"priority": 10**5000}, r"priority\[0\] is an integer of 16610 bits: the column holds"),
    ({"priority": -(10**5000)}, r"priority\[0\] is an integer of 16610 bits"),
    ({"priority": 2**31}, r"priority\[0\] is 2147483648"),
    ({"priority": -(2**31) - 1}, r"priority\[0\] is -2147483649"),
    ({"headers": {"n": 10**140_000}}, r"headers\[0\] .*no worker could read"),
    ({"headers": {"n": 10**4300}}, r"headers\[0\] .*no worker could read"),
    ({"headers": {"t": "x" * MAX_HEADERS_BYTES}}, r"headers\[0\] have 8000008 bytes"),
    ({"execute_after": datetime(2030, 1, 1)}, r"execute_after\[0\] is a datetime: pass a time"),
    (
        {"execute_after": datetime(2030, 1, 1, tzinfo=UTC)},
        r"execute_after\[0\] is a datetime: pass a timedelta",
    ),
    ({"execute_after": timedelta.max}, r"execute_after\[0\] ends outside"),
    ({"execute_after": timedelta.min}, r"execute_after\[0\] ends outside"),
    ({"headers": {"t": "\ud800"}}, r"headers\[0\] cannot be stored as JSON"),
    ({"headers": {"t": b"\xff\xfe"}}, r"headers\[0\] cannot be stored as JSON"),
    ({"payload": "text"}, r"payload\[0\] is a str"),
]


async def test_what_is_refused(enqueue: Enqueue, queries: Any) -> None:
    good: dict[str, Any] = {"entrypoint": "e", "payload": None, "priority": 0}
    for arguments, message in REFUSED:
        bad = good | arguments
        with pytest.raises(InvalidJobError, match=message):
            await enqueue(**bad)
        with pytest.raises(InvalidJobError, match=message):
            await enqueue(**{name: [value] * 3 for name, value in bad.items()})
    await enqueue(**good)
    assert await stored(queries) == 1


async def test_headers_that_nest(enqueue: Enqueue, queries: Any) -> None:
    """They are refused exactly where no worker could read them."""

    def nested(depth: int) -> Any:
        return [nested(depth - 1)] if depth else 1

    for depth in (200, 260, 900):
        with pytest.raises(InvalidJobError, match=r"^headers\[0\]"):
            await enqueue("e", None, headers={"a": nested(depth)})
    ids = [(await enqueue("e", None, headers={"a": nested(depth)}))[0] for depth in (198, 199)]
    owner = QueueManagerId(uuid.uuid4())
    entrypoints = {"e": EntrypointExecutionParameter(0)}
    jobs = await queries.dequeue(2, entrypoints, owner, None, timedelta(minutes=1))
    assert [(job.id, job.headers) for job in jobs] == [
        (job_id, {"a": nested(depth)}) for job_id, depth in zip(ids, (198, 199), strict=True)
    ]


async def test_the_ends_of_the_ranges(enqueue: Enqueue, queries: Any) -> None:
    ids = await enqueue(
        ["e"] * 4,
        [b"", None, b"\0", b"\xff"],
        [-(2**31), 2**31 - 1, 0, -1],
        headers=[{"n": 10**4299}, {"": ""}, {}, None],
    )
    owner = QueueManagerId(uuid.uuid4())
    entrypoints = {"e": EntrypointExecutionParameter(0)}
    jobs = await queries.dequeue(4, entrypoints, owner, None, timedelta(minutes=1))
    assert [(job.id, job.payload, job.headers) for job in jobs] == [
        (ids[1], None, {"": ""}),
        (ids[2], b"\0", {}),
        (ids[3], b"\xff", None),
        (ids[0], b"", {"n": 10**4299}),
    ]


# -- Schedules --------------------------------------------------------------------------------


def key(entrypoint: str, expression: str) -> CronExpressionEntrypoint:
    return CronExpressionEntrypoint(CronEntrypoint(entrypoint), CronExpression(expression))


async def test_the_longest_schedules(queries: Any, noise: Noise) -> None:
    minute = timedelta(minutes=1)
    longest = [
        key(noise(MAX_NAME_BYTES), "* * * * *"),
        *(key(noise(MAX_SCHEDULE_BYTES - rest), noise(rest)) for rest in (12, 13, 126, 127, 1300)),
    ]
    await queries.insert_schedule(dict.fromkeys(longest, minute))
    assert {(row.entrypoint, row.expression) for row in await queries.peek_schedule()} == {*longest}
    for refused in (
        key(noise(MAX_NAME_BYTES + 1), "* * * * *"),
        key(noise(MAX_SCHEDULE_BYTES - 12), noise(13)),
        key("a\0", "* * * * *"),
        key("\ud800", "* * * * *"),
    ):
        with pytest.raises(InvalidArgumentError):
            await queries.insert_schedule({key("good", "* * * * *"): minute, refused: minute})
    with pytest.raises(InvalidArgumentError, match="ends outside the years"):
        await queries.insert_schedule({key("good", "* * * * *"): timedelta.max})
    assert len(await queries.peek_schedule()) == len(longest)


async def test_a_schedule_that_cannot_be_stored_is_refused_when_it_is_registered(
    queries: Any,
) -> None:
    manager = SchedulerManager(queries)
    for name in ("x" * (MAX_NAME_BYTES + 1), "a\0", "\udfff"):
        with pytest.raises(InvalidArgumentError, match="entrypoint "):
            manager.schedule(name, "* * * * *")
    assert not manager.registry


def test_the_limit_of_headers_leaves_room_for_those_that_are_surely_read() -> None:
    """The shortest that the parser gives up on is longer than what is not looked at."""
    assert len('{"a":' + "[" * 200 + "]" * 200 + "}") > enqueueing._SURELY_READ
