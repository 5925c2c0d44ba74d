"""Statements on every driver: types, parameters, concurrency, cancellation."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import asyncpg.connect_utils
import psycopg
import psycopg.types.string
import pytest

from drivers.helpers import Administrator, eventually
from pgq_fast.db import Driver
from pgq_fast.drivers.base import Int8Array, ListenerRemover, RowDriver, rows_of
from pgq_fast.drivers.failures import constraint_of, is_connection_lost, sqlstate_of

SOME_UUID = UUID("12345678-1234-5678-1234-567812345678")

VALUES = [
    ("1::int2", 1),
    ("(-2147483648)::int4", -(2**31)),
    ("9223372036854775807::int8", 2**63 - 1),
    ("'Grüße'::text", "Grüße"),
    ("''::text", ""),
    (r"'\x00ff'::bytea", b"\x00\xff"),
    ("''::bytea", b""),
    ("true", True),
    ("false", False),
    (f"'{SOME_UUID}'::uuid", SOME_UUID),
    ("'1 day 2 hours 0.5 seconds'::interval", timedelta(days=1, hours=2, seconds=0.5)),
    ("'-3 seconds'::interval", timedelta(seconds=-3)),
    ("NULL::text", None),
    ("NULL::int8", None),
]

PARAMETERS: list[tuple[str, Any, Any]] = [
    ("int", 7, "7"),
    ("bigint", 2**62, str(2**62)),
    ("text", 'it\'s "quoted" \\ {,} NULL', 'it\'s "quoted" \\ {,} NULL'),
    ("bytea", b"\x00\x01\xff", r"\x0001ff"),
    ("boolean", True, "true"),
    ("uuid", SOME_UUID, str(SOME_UUID)),
    ("interval", timedelta(hours=30), "30:00:00"),
    ("text", None, None),
    ("bigint[]", Int8Array([1, -1, 2**63 - 1, -(2**63)]), f"{{1,-1,{2**63 - 1},{-(2**63)}}}"),
    ("bigint[]", Int8Array(), "{}"),
    ("bigint[]", [], "{}"),
    ("bigint[]", [1, 2**40], f"{{1,{2**40}}}"),
    ("int[]", [1, 2], "{1,2}"),
    ("text[]", ["a", "", "NULL", 'q"\\', "{x,y}", " "], r'{a,"","NULL","q\"\\","{x,y}"," "}'),
    ("text[]", ["a", None], "{a,NULL}"),
    ("text[]", [None, None], "{NULL,NULL}"),
    ("text[]", [], "{}"),
    ("bytea[]", [b"\x00", None, b"", b'"\\'], r'{"\\x00",NULL,"\\x","\\x225c"}'),
    ("bytea[]", [None], "{NULL}"),
    ("boolean[]", [True, False], "{t,f}"),
    ("uuid[]", [SOME_UUID], f"{{{SOME_UUID}}}"),
    ("interval[]", [timedelta(seconds=1), timedelta(days=2)], '{00:00:01,"48:00:00"}'),
]


async def test_is_what_the_rest_of_the_package_expects(driver: Any, kind: str) -> None:
    assert Driver in type(driver).__mro__
    assert driver.owns_connections is kind.startswith("owned")
    assert not driver.shutdown.is_set()
    assert driver.tm.tasks == set()
    assert isinstance(driver, RowDriver)
    assert isinstance(driver, ListenerRemover)


async def test_types_by_position(driver: Any) -> None:
    query = f"SELECT {', '.join(sql for sql, _ in VALUES)}"
    (row,) = await driver.fetch_rows(query)
    assert [row[position] for position in range(len(VALUES))] == [value for _, value in VALUES]
    # Exactly, but for asyncpg's own subclass of UUID.
    types = [UUID if isinstance(value, UUID) else type(value) for value in row]
    assert types == [type(value) for _, value in VALUES]


async def test_rows_of_uses_the_rows_and_not_dictionaries(driver: Any) -> None:
    (row,) = await rows_of(driver, "SELECT 1 AS same, 2 AS same")
    assert tuple(row) == (1, 2)


@pytest.mark.parametrize(
    ("cast", "value", "text"), PARAMETERS, ids=[f"{p[0]} {p[1]!r}"[:40] for p in PARAMETERS]
)
async def test_parameters_by_cast(driver: Any, cast: str, value: Any, text: str | None) -> None:
    if cast == "interval":
        query = "SELECT justify_interval($1::interval)::text IS NOT NULL, $1::interval = '30 hours'"
        assert [tuple(row) for row in await driver.fetch_rows(query, value)] == [(True, True)]
        return
    if cast == "interval[]":
        query = "SELECT extract(epoch FROM i)::int8 FROM unnest($1::interval[]) AS i"
        assert [row[0] for row in await driver.fetch_rows(query, value)] == [1, 172800]
        return
    assert [row[0] for row in await driver.fetch_rows(f"SELECT $1::{cast}::text", value)] == [text]


async def test_json_and_enums_go_through_text(driver: Any) -> None:
    # A caller may have registered a jsonb codec, which would encode the text once more.
    await driver.execute("CREATE TYPE mood AS ENUM ('glad', 'sad')")
    rows = await driver.fetch_rows(
        "SELECT j->>'k', m::text, jsonb_typeof(j) FROM"
        " unnest($1::text[]::jsonb[], $2::text[]::mood[]) AS t (j, m)",
        ['{"k": "v"}', None, "[1]"],
        ["sad", "glad", "sad"],
    )
    assert [tuple(row) for row in rows] == [
        ("v", "sad", "object"),
        (None, "glad", None),
        (None, "sad", "array"),
    ]
    (row,) = await driver.fetch_rows("SELECT $1::mood::text, $2::mood[]::text", "sad", ["glad"])
    assert tuple(row) == ("sad", "{glad}")
    (row,) = await driver.fetch_rows("SELECT ($1::text::jsonb)->>'a'", json.dumps({"a": "ü"}))
    assert tuple(row) == ("ü",)


async def test_the_size_of_a_number_does_not_change_the_statement(driver: Any) -> None:
    for number in (1, 2**20, 2**40, -(2**63)):
        (row,) = await driver.fetch_rows("SELECT $1::bigint, $2::bigint[]", number, [number])
        assert row[0] == number


async def test_fetch_gives_dictionaries_in_column_order(driver: Any) -> None:
    rows = await driver.fetch("SELECT $1::int AS b, 'x' AS a", 1)
    assert rows == [{"b": 1, "a": "x"}]
    assert list(rows[0]) == ["b", "a"]
    assert type(rows[0]) is dict


async def test_statements_without_rows(driver: Any) -> None:
    assert await driver.execute("CREATE TABLE t (n int)") == "CREATE TABLE"
    assert list(await driver.fetch_rows("INSERT INTO t VALUES (1), (2)")) == []
    assert await driver.fetch("UPDATE t SET n = n + $1::int", 1) == []
    assert list(await driver.fetch_rows("SELECT n FROM t WHERE false")) == []
    assert await driver.execute("DELETE FROM t WHERE n = $1::int", 2) == "DELETE 1"


async def test_execute_runs_several_statements_and_tells_of_the_last(driver: Any) -> None:
    tag = await driver.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1), (2), (3)")
    assert tag == "INSERT 0 3"
    assert [row[0] for row in await driver.fetch_rows("SELECT n FROM t ORDER BY n")] == [1, 2, 3]


async def test_each_call_commits(driver: Any, admin: Administrator) -> None:
    await driver.execute("CREATE TABLE t (n int)")
    await driver.fetch_rows("INSERT INTO t VALUES (1)")
    await driver.fetch("INSERT INTO t VALUES (2) RETURNING n")
    assert await admin.values("SELECT n FROM t ORDER BY n") == [1, 2]


async def test_errors_tell_their_code_and_constraint(driver: Any) -> None:
    await driver.execute("CREATE TABLE t (n int CONSTRAINT only_one UNIQUE)")
    await driver.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(Exception, match="only_one") as caught:
        await driver.fetch_rows("INSERT INTO t VALUES ($1::int)", 1)
    assert sqlstate_of(caught.value) == "23505"
    assert constraint_of(caught.value) == "only_one"
    assert not is_connection_lost(caught.value)
    with pytest.raises(Exception, match="syntax") as caught:
        await driver.execute("SELEKT")
    assert sqlstate_of(caught.value) == "42601"
    assert constraint_of(caught.value) is None
    assert await driver.fetch("SELECT 1 AS n") == [{"n": 1}]


async def test_many_tasks_at_once(driver: Any) -> None:
    async def one(number: int) -> None:
        method = driver.fetch_rows if number % 2 else driver.fetch
        (row,) = await method("SELECT $1::int AS n, pg_sleep(0.001)::text", number)
        assert (row[0] if number % 2 else row["n"]) == number

    await asyncio.gather(*(one(number) for number in range(60)))


@pytest.mark.parametrize("method", ["fetch", "fetch_rows", "execute"])
async def test_a_cancelled_statement_ends(driver: Any, admin: Administrator, method: str) -> None:
    task = asyncio.create_task(getattr(driver, method)("SELECT pg_sleep(600)"))
    await eventually(lambda: admin.running("SELECT pg_sleep(600)"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        assert await driver.fetch("SELECT 1 AS n") == [{"n": 1}]
    await eventually(lambda: _not(admin.running("SELECT pg_sleep(600)")))


async def _not(result: Any) -> bool:
    return not await result


async def test_a_statement_cancelled_while_it_waits_its_turn(
    driver: Any, admin: Administrator
) -> None:
    first = asyncio.create_task(driver.fetch_rows("SELECT 1, pg_sleep(0.3)::text"))
    await eventually(lambda: admin.running("SELECT 1, pg_sleep(0.3)%"))
    second = asyncio.create_task(driver.fetch_rows("SELECT 2"))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert [row[0] for row in await first] == [1]
    assert [row[0] for row in await driver.fetch_rows("SELECT 3")] == [3]


async def test_cancelled_again_while_the_cancellation_is_under_way(
    driver: Any, admin: Administrator
) -> None:
    task = asyncio.create_task(driver.execute("SELECT pg_sleep(600)"))
    await eventually(lambda: admin.running("SELECT pg_sleep(600)"))
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(15):
        assert await driver.fetch("SELECT 1 AS n") == [{"n": 1}]


@pytest.mark.parametrize("kind", ["asyncpg", "asyncpg-pool", "owned-asyncpg"])
@pytest.mark.parametrize("where", ["statement", "transaction"])
async def test_a_cancel_request_that_overtakes_its_statement(
    driver: Any, admin: Administrator, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """asyncpg asks once; where that was too early, the server is asked again."""
    original: Any = vars(asyncpg.connect_utils)["_cancel"]
    requests = 0

    async def loses_the_first(**arguments: Any) -> None:
        nonlocal requests
        requests += 1
        if requests > 1:
            await original(**arguments)

    monkeypatch.setattr(asyncpg.connect_utils, "_cancel", loses_the_first)

    async def run() -> None:
        if where == "statement":
            await driver.execute("SELECT pg_sleep(600)")
        async with driver.transaction() as transaction:
            await transaction.fetch_rows("SELECT pg_sleep(600)::text")

    task = asyncio.create_task(run())
    await eventually(lambda: admin.sleeping("SELECT pg_sleep(600)%"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        assert await driver.fetch("SELECT 1 AS n") == [{"n": 1}]
    assert not await admin.running("SELECT pg_sleep(600)%")
    assert requests >= 2


async def test_a_statement_that_times_out_is_no_loss(driver: Any) -> None:
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.05):
            await driver.execute("SELECT pg_sleep(600)")
    assert not is_connection_lost(caught.value)
    assert await driver.fetch("SELECT 1 AS n") == [{"n": 1}]


async def test_adapters_of_the_user_do_not_reach_rows(dsn: str) -> None:
    """psycopg: neither those of the connection nor the global ones change what comes out."""
    from pgq_fast.db import PsycopgDriver

    class Shouting(psycopg.types.string.TextBinaryLoader):
        def load(self, data: Any) -> Any:
            return str(super().load(data)).upper()

    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        for name in ("text", "uuid"):
            connection.adapters.register_loader(name, Shouting)
        driver = PsycopgDriver(connection)
        (row,) = await driver.fetch_rows(f"SELECT 'a'::text, '{SOME_UUID}'::uuid")
        assert row == ("a", SOME_UUID)
        connection.row_factory = psycopg.rows.dict_row  # type: ignore[assignment]
        assert await driver.fetch_rows("SELECT 1, 2") == [(1, 2)]
        assert await driver.fetch("SELECT 1 AS n") == [{"n": 1}]


async def test_json_is_parsed_by_fetch_on_psycopg_and_text_on_asyncpg(
    driver: Any, kind: str
) -> None:
    (row,) = await driver.fetch("""SELECT '{"a": [1]}'::jsonb AS j""")
    assert row["j"] == ({"a": [1]} if "psycopg" in kind else '{"a": [1]}')
