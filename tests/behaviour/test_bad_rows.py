"""Rows and headers that somebody else wrote badly: the rest of the batch runs, and nobody sees the
payload in the log of the process.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from behaviour.helpers import Recorder, Tables, drain
from pgq_fast.errors import MalformedRowError
from pgq_fast.models import Job
from pgq_fast.qm import QueueManager
from pgq_fast.queries import Queries

pytestmark = pytest.mark.layouts

SECRET = "payload-that-nobody-may-see"


@pytest.mark.parametrize(
    "headers",
    [
        json.dumps([SECRET]),
        json.dumps(SECRET),
        "17",
        "true",
        '{"a": ' + "[" * 900 + "]" * 900 + "}",
        '{"a": ' + "7" * 6000 + "}",
    ],
    ids=["array", "string", "number", "boolean", "deep", "huge"],
)
async def test_headers_that_are_no_object(
    manager: QueueManager, tables: Tables, caplog: pytest.LogCaptureFixture, headers: str
) -> None:
    seen: dict[int, Any] = {}

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        seen[job.id] = (job.headers, job.logfire_headers(), job.model_dump()["headers"])

    ids = await manager.queries.enqueue(
        ["e"] * 3, [SECRET.encode()] * 3, [0] * 3, headers=[{"a": "1"}, None, {"a": "3"}]
    )
    await tables.edit(ids[1], "headers = $2::jsonb", headers)
    with caplog.at_level(logging.DEBUG, logger="pgqueuer"):
        await drain(manager)
    assert seen == {
        ids[0]: ({"a": "1"}, None, {"a": "1"}),
        ids[1]: (None, None, None),
        ids[2]: ({"a": "3"}, None, {"a": "3"}),
    }
    assert await tables.ended() == ids
    assert f"Job {ids[1]} has headers" in caplog.text
    assert SECRET not in caplog.text


async def test_times_beyond_what_datetime_holds(manager: QueueManager, tables: Tables) -> None:
    dumps: list[dict[str, Any]] = []

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        dumps.append(job.model_dump())

    ids = await manager.queries.enqueue(["e"] * 3, [None] * 3, [0] * 3)
    await tables.edit(ids[0], "created = 'infinity'")
    await tables.edit(ids[1], "execute_after = '-infinity', created = '4000-01-01 BC'")
    await drain(manager)
    assert await tables.ended() == ids
    by_id = {dump["id"]: dump for dump in dumps}
    assert by_id[ids[0]]["created"].year == 9999
    assert by_id[ids[1]]["execute_after"].year == by_id[ids[1]]["created"].year == 1


# There a claim is read as arrays, whose entrypoint is one of those that the worker asked for.
@pytest.mark.layouts("compat")
async def test_a_row_that_is_no_job_ends_as_an_exception(
    manager: QueueManager,
    driver: Any,
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As from a database whose text is in no encoding, where a name can be any bytes."""
    handler = Recorder()
    manager.entrypoint("entry")(handler)
    ids = await manager.queries.enqueue(["entry"] * 4, [SECRET.encode()] * 4, [0] * 4)
    fetch_rows = driver.fetch_rows

    async def spoil(query: str, *args: object) -> Any:
        rows = await fetch_rows(query, *args)
        if "record_send" not in query or rows[0][0] is None:
            return rows
        raw, more = rows[0]
        place = raw.index(b"entry", raw.index(ids[1].to_bytes(8, "big")))
        return [(raw[:place] + b"\xff" + raw[place + 1 :], more)]

    monkeypatch.setattr(driver, "fetch_rows", spoil)
    await drain(manager)
    assert sorted(handler.ids) == [ids[0], ids[2], ids[3]]
    assert await tables.count() == 0
    assert (await tables.statuses(ids[1]))[-1] == "exception"
    entry = (await Queries(driver).job_log_history(ids[1]))[-1]
    assert entry.traceback is not None
    assert entry.traceback.exception_type == "MalformedRowError"
    assert SECRET not in entry.traceback.model_dump_json()
    assert f"Job {ids[1]} cannot be read" in caplog.text
    assert SECRET not in caplog.text


async def test_an_answer_that_is_none_ends_the_run_and_loses_nothing(
    manager: QueueManager, driver: Any, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As through a driver that changes what the server sent."""
    handler = Recorder()
    manager.entrypoint("e")(handler)
    ids = await manager.queries.enqueue(["e"] * 3, [SECRET.encode()] * 3, [0] * 3)
    fetch_rows = driver.fetch_rows

    async def cut(query: str, *args: object) -> Any:
        rows = await fetch_rows(query, *args)
        if "record_send" not in query and "array_send" not in query:
            return rows
        # The last field that is bytes: the jobs, or their payloads.
        row = list(rows[0])
        place = max(place for place, value in enumerate(row) if isinstance(value, bytes))
        row[place] = row[place][:-1]
        return [tuple(row)]

    monkeypatch.setattr(driver, "fetch_rows", cut)
    with pytest.raises(MalformedRowError, match=r"breaks off|element of length") as caught:
        await drain(manager)
    assert SECRET not in str(caught.value)
    assert handler.ids == []
    assert await tables.rows("SELECT id, status::text FROM pgqueuer ORDER BY id") == [
        (job_id, "queued") for job_id in ids
    ]


async def test_payloads_are_not_logged_whatever_happens(
    manager: QueueManager, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        raise ValueError("broken")

    with caplog.at_level(logging.DEBUG):
        await manager.queries.enqueue("e", SECRET.encode(), headers={"h": SECRET})
        await manager.queries.enqueue(["e"] * 250, [SECRET.encode()] * 250, [0] * 250)
        await drain(manager)
    assert "Exception while processing" in caplog.text
    assert SECRET not in caplog.text


async def test_a_listing_leaves_out_what_it_cannot_read(
    queries: Queries, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    ids = await queries.enqueue(["e"] * 3, [SECRET.encode()] * 3, [0] * 3)
    await tables.edit(ids[1], "headers = $2::jsonb", json.dumps([SECRET]))
    assert [job.id for job in await queries.browse_queue()] == [ids[0], ids[2]]
    assert await queries.queue_job_by_id(ids[1]) is None
    assert f"The row with id {ids[1]} cannot be read as a Job" in caplog.text
    assert "headers" in caplog.text
    assert SECRET not in caplog.text
