"""What the kernels write and read, on a real server; all other kernel tests need none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from psycopg.adapt import Dumper
from psycopg.pq import Format

from kernels.test_codec_encode import columns, jobs, raw_ids
from kernels.twins import TWINS, Twin, agreed, int32s, int64s, names

pytestmark = pytest.mark.impl_agnostic

# The connection is rolled back after each example.
on_server = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class BinaryArray(NamedTuple):
    data: bytes


class BinaryArrayDumper(Dumper):
    """Sends a ``bigint[]`` that is encoded already."""

    format = Format.BINARY
    oid = 1016

    def dump(self, obj: BinaryArray) -> bytes:
        return obj.data


@pytest.fixture
def connection(queue_dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(queue_dsn) as connection:
        connection.adapters.register_dumper(BinaryArray, BinaryArrayDumper)
        yield connection
        connection.rollback()


# -- bigint[] ---------------------------------------------------------------------------------


@on_server
@given(ids=st.lists(int64s, max_size=40))
def test_the_server_reads_the_text(connection: psycopg.Connection, ids: list[int]) -> None:
    for twin in TWINS:
        answer = connection.execute(
            "SELECT %s::text::bigint[]", [twin.codec.encode_ids(ids)]
        ).fetchone()
        assert answer == (ids,)


@on_server
@given(ids=st.lists(int64s, max_size=40))
def test_the_server_reads_the_array(connection: psycopg.Connection, ids: list[int]) -> None:
    for twin in TWINS:
        array = BinaryArray(twin.codec.encode_int8_array(ids))
        answer = connection.execute("SELECT %b", [array]).fetchone()
        assert answer == (ids,)


# -- COPY -------------------------------------------------------------------------------------


def copy_in(connection: psycopg.Connection, table: str, names: str, data: bytes) -> None:
    with connection.cursor().copy(f"COPY {table} ({names}) FROM STDIN (FORMAT binary)") as copy:
        copy.write(data)


JOB_COLUMNS = "id, priority, status, entrypoint, payload, headers"
LOG_COLUMNS = "job_id, status, priority, entrypoint"
# What any microseconds may be for the server to accept them; 1900 to 2150 here.
moments = st.integers(-(10**15) * 3, 10**15 * 4)


@on_server
@given(batch=jobs, data=st.data())
def test_jobs_survive_a_real_copy(
    connection: psycopg.Connection, batch: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    ids = list(range(5, 5 + len(batch)))
    due = data.draw(st.none() | st.lists(moments, min_size=len(batch), max_size=len(batch)))
    priorities, entrypoints, payloads, extras = columns(batch)
    kind, stream = agreed(
        "codec",
        "encode_copy_jobs",
        raw_ids(ids),
        priorities,
        entrypoints,
        payloads,
        extras,
        due,
    )
    assert kind == "returned"
    column_names = JOB_COLUMNS if due is None else f"{JOB_COLUMNS}, execute_after"
    try:
        copy_in(connection, "pgqueuer", column_names, stream)
        stored = connection.execute(
            "SELECT id, priority, entrypoint, payload, headers, execute_after,"
            " execute_after = now(), status::text, attempts FROM pgqueuer ORDER BY id"
        ).fetchall()
    finally:
        connection.rollback()
    assert [entry[:4] for entry in stored] == list(
        zip(ids, priorities, entrypoints, payloads, strict=True)
    )
    assert [entry[4] for entry in stored] == [
        None if text is None else json.loads(text) for text in extras
    ]
    if due is None:
        assert all(entry[6] for entry in stored)
    else:
        assert [entry[5] for entry in stored] == [
            EPOCH + timedelta(microseconds=moment) for moment in due
        ]
    assert all(entry[7:] == ("queued", 0) for entry in stored)


@on_server
@given(batch=jobs)
def test_jobs_without_a_status(
    connection: psycopg.Connection, batch: list[tuple[Any, ...]]
) -> None:
    ids = list(range(len(batch)))
    kind, stream = agreed("codec", "encode_copy_jobs", raw_ids(ids), *columns(batch), ids, False)
    assert kind == "returned"
    try:
        connection.execute(
            "CREATE TEMPORARY TABLE jobs (id bigint, priority int, entrypoint text, payload bytea,"
            " headers jsonb, execute_after timestamptz)"
        )
        copy_in(
            connection, "jobs", "id, priority, entrypoint, payload, headers, execute_after", stream
        )
        stored = connection.execute(
            "SELECT priority, entrypoint, payload, headers, id, execute_after FROM jobs ORDER BY id"
        ).fetchall()
    finally:
        connection.rollback()
    assert stored == [
        (
            *job[:3],
            None if job[3] is None else json.loads(job[3]),
            job_id,
            EPOCH + timedelta(microseconds=job_id),
        )
        for job_id, job in enumerate(batch)
    ]


@on_server
@given(batch=st.lists(st.tuples(int64s, int32s, names), max_size=12))
def test_log_entries_survive_a_real_copy(
    connection: psycopg.Connection, batch: list[tuple[Any, ...]]
) -> None:
    ids, priorities, entrypoints = (
        list(column) for column in (zip(*batch, strict=True) if batch else ([], [], []))
    )
    kind, stream = agreed("codec", "encode_copy_log", raw_ids(ids), priorities, entrypoints)
    assert kind == "returned"
    try:
        copy_in(connection, "pgqueuer_log", LOG_COLUMNS, stream)
        stored = connection.execute(
            "SELECT job_id, priority, entrypoint, status::text, aggregated FROM pgqueuer_log"
            " ORDER BY id"
        ).fetchall()
    finally:
        connection.rollback()
    assert stored == [(*entry, "queued", False) for entry in batch]


# -- Jobs as a few values ---------------------------------------------------------------------


@on_server
@given(
    batch=st.lists(
        st.tuples(st.sampled_from(["a", "b"]) | names, st.none() | st.binary(max_size=300), int32s),
        max_size=40,
    )
)
def test_the_server_unpacks_jobs(
    connection: psycopg.Connection, batch: list[tuple[Any, ...]]
) -> None:
    entrypoints, payloads, priorities = (
        list(column) for column in (zip(*batch, strict=True) if batch else ([], [], []))
    )
    kind, packed = agreed("codec", "pack_jobs", entrypoints, payloads, priorities)
    assert kind == "returned"
    assert packed[0] == list(dict.fromkeys(entrypoints))
    unpacked = connection.execute(
        "SELECT (%s::text[])[name], substr(%b::bytea, start, length), priority"
        " FROM unnest(%s::int[], %s::int[], %s::int[], %s::int[])"
        " WITH ORDINALITY AS job (name, priority, start, length, place) ORDER BY place",
        [packed[0], packed[5], *packed[1:5]],
    ).fetchall()
    assert unpacked == batch


# -- NOTIFY -----------------------------------------------------------------------------------


def test_the_shape_that_a_real_trigger_sends(twin: Twin, queue_dsn: str) -> None:
    with (
        psycopg.connect(queue_dsn, autocommit=True) as listening,
        psycopg.connect(queue_dsn, autocommit=True) as writing,
    ):
        listening.execute("LISTEN ch_pgqueuer")
        writing.execute(
            "INSERT INTO pgqueuer (priority, status, entrypoint) VALUES (0, 'queued', 'e')"
        )
        writing.execute("DELETE FROM pgqueuer")
        writing.execute("TRUNCATE pgqueuer")
        heard = [
            notification.payload for notification in listening.notifies(timeout=30, stop_after=3)
        ]
    assert [twin.notify.parse_event(payload) for payload in heard] == [
        ("table_changed_event", "insert"),
        ("table_changed_event", "delete"),
        ("table_changed_event", "truncate"),
    ]
