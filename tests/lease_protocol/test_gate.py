"""Notifications are sent only to those who wait. No job may slip through between the two."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from lease_protocol.conftest import Join, Session
from lease_protocol.members import blocked
from pgq_fast.layouts.waiting import LONGEST_POLL, RENEWED_AFTER

pytestmark = [pytest.mark.layouts("lease"), pytest.mark.pg_matrix]

INSERT = "INSERT INTO pgqueuer_ready (entrypoint, priority) VALUES ('e', 0)"


async def heard(
    listener: asyncpg.Connection, act: Callable[[], Awaitable[Any]]
) -> list[tuple[str, str]]:
    """What is notified by *act*: pairs of operation and table."""
    payloads: list[str] = []
    end = asyncio.Event()

    def take(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload == "end":
            end.set()
        else:
            payloads.append(str(payload))

    await listener.add_listener("ch_pgqueuer", take)
    try:
        await act()
        # Notifications come in the order of commits.
        await listener.execute("SELECT pg_notify('ch_pgqueuer', 'end')")
        await asyncio.wait_for(end.wait(), 30)
    finally:
        await listener.remove_listener("ch_pgqueuer", take)
    events = [json.loads(payload) for payload in payloads]
    return [(event["operation"], event["table"]) for event in events]


async def test_nobody_is_told_while_nobody_waits(join: Join, session: Session) -> None:
    member, listener, producer = await join(), await session(), await session()
    insert = lambda: producer.execute(INSERT)  # noqa: E731
    assert await heard(listener, insert) == []
    await member.rest()
    assert await heard(listener, insert) == [("insert", "pgqueuer_ready")]
    await member.layout.leave(member.owner)
    assert await heard(listener, insert) == []


async def test_who_waits_for_jobs_is_not_told_of_ends(join: Join, session: Session) -> None:
    member, listener, producer = await join(), await session(), await session()
    await producer.execute(INSERT)
    await producer.execute(INSERT)
    jobs = [job.id for job in await member.claim()]
    await member.rest(seats=False)
    assert await heard(listener, lambda: member.finish(jobs[:1])) == []
    await member.rest(seats=True)
    ends = await heard(listener, lambda: member.finish(jobs[1:]))
    assert set(ends) == {("delete", "pgqueuer_lease")}


async def test_a_worker_whose_time_is_over_is_not_told(join: Join, session: Session) -> None:
    member, listener, producer = await join(), await session(), await session()
    await member.rest()
    await producer.execute("UPDATE pgqueuer_waiting SET until = now() - interval '1 s'")
    assert await heard(listener, lambda: producer.execute(INSERT)) == []


async def test_a_quiet_queue_is_not_polled(join: Join) -> None:
    member = await join()
    rest = await member.rest()
    assert (rest.due, rest.look_again) == (None, RENEWED_AFTER)


async def test_polls_while_an_insert_that_saw_nobody_is_under_way(
    join: Join, session: Session
) -> None:
    member, producer = await join(), await session()
    transaction = producer.transaction()
    await transaction.start()
    await producer.execute(INSERT)
    pauses = [(await member.rest()).look_again for _ in range(10)]
    assert pauses == sorted(pauses)  # type: ignore[type-var]
    assert pauses[-1] == LONGEST_POLL
    await transaction.commit()
    rest = await member.rest()
    assert (rest.due, rest.look_again) == (timedelta(0), RENEWED_AFTER)


@pytest.mark.parametrize("how", ["plain", "savepoint", "copy", "cte"])
async def test_an_insert_that_is_younger_than_the_registration_and_did_not_see_it(
    join: Join, session: Session, how: str
) -> None:
    """Its id is one that a snapshot does not tell from those that nobody has."""
    member, producer, stopper = await join(), await session(), await session()
    await stopper.execute(
        "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_current_xact_id(); PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL;"
        " END $$;"
        "CREATE TRIGGER stop AFTER INSERT ON pgqueuer_waiting"
        " FOR EACH STATEMENT EXECUTE FUNCTION stop();"
        "SELECT pg_advisory_lock(1)"
    )
    resting = asyncio.create_task(member.rest())
    await blocked(stopper)
    transaction = producer.transaction()
    await transaction.start()
    match how:
        case "plain":
            await producer.execute(INSERT)
        case "savepoint":
            async with producer.transaction():
                await producer.execute(INSERT)
        case "copy":
            await producer.copy_records_to_table(
                "pgqueuer_ready", records=[("e", 0)], columns=["entrypoint", "priority"]
            )
        case _:
            await producer.execute(f"WITH job AS ({INSERT} RETURNING id) SELECT FROM job")
    await stopper.execute("SELECT pg_advisory_unlock(1)")
    for _ in range(3):
        rest = await resting
        assert rest.due is None
        assert rest.look_again is not None
        assert rest.look_again <= LONGEST_POLL
        resting = asyncio.create_task(member.rest())
    await resting
    await transaction.commit()
    rest = await member.rest()
    assert (rest.due, rest.look_again) == (timedelta(0), RENEWED_AFTER)


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_an_insert_with_an_old_snapshot_tells_in_any_case(
    join: Join, session: Session, isolation: Any
) -> None:
    member, listener, producer = await join(), await session(), await session()
    transaction = producer.transaction(isolation=isolation)
    await transaction.start()
    await producer.execute("SELECT 1")
    # Not visible to that snapshot.
    await member.rest()

    async def insert() -> None:
        await producer.execute(INSERT)
        await transaction.commit()

    assert await heard(listener, insert) == [("insert", "pgqueuer_ready")]


async def test_each_statement_of_a_transaction_looks_for_itself(
    join: Join, session: Session
) -> None:
    """In READ COMMITTED the trigger sees who registered after the transaction had begun."""
    member, listener, producer = await join(), await session(), await session()
    transaction = producer.transaction()
    await transaction.start()
    await producer.execute(INSERT)
    await member.rest()

    async def insert() -> None:
        await producer.execute(INSERT)
        await transaction.commit()

    assert await heard(listener, insert) == [("insert", "pgqueuer_ready")]


async def test_a_prepared_insert_counts_as_under_way(join: Join, session: Session) -> None:
    member, producer = await join(), await session()
    await producer.execute(f"BEGIN; {INSERT}; PREPARE TRANSACTION 'insert'")
    rest = await member.rest()
    assert rest.look_again is not None
    assert rest.look_again <= LONGEST_POLL
    await producer.execute("COMMIT PREPARED 'insert'")
    rest = await member.rest()
    assert (rest.due, rest.look_again) == (timedelta(0), RENEWED_AFTER)


async def test_a_transaction_that_told_cannot_be_prepared(join: Join, session: Session) -> None:
    """PostgreSQL's own rule for NOTIFY. Here it depends on whether somebody waits."""
    member, producer = await join(), await session()
    await member.rest()
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="NOTIFY"):
        await producer.execute(f"BEGIN; {INSERT}; PREPARE TRANSACTION 'insert'")
    await producer.execute("ROLLBACK")


async def test_a_registration_that_the_server_forgot_is_a_new_one(
    join: Join, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash of the server empties the table; inserts of the time after it told nobody."""
    monkeypatch.setattr("pgq_fast.layouts.waiting.RENEWED_AFTER", timedelta(0))
    member, producer = await join(), await session()
    assert (await member.rest()).look_again == timedelta(0)
    await producer.execute("DELETE FROM pgqueuer_waiting")
    transaction = producer.transaction()
    await transaction.start()
    await producer.execute(INSERT)
    rest = await member.rest()
    assert rest.look_again is not None
    assert timedelta(0) < rest.look_again <= LONGEST_POLL
    await transaction.commit()
    assert (await member.rest()).look_again == timedelta(0)


async def test_a_renewed_registration_relies_on_the_first_one(
    join: Join, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or every long transaction would have all idle workers poll again."""
    monkeypatch.setattr("pgq_fast.layouts.waiting.RENEWED_AFTER", timedelta(0))
    member, producer = await join(), await session()
    await member.rest()
    async with producer.transaction():
        await producer.execute(INSERT)
        assert (await member.rest()).look_again == timedelta(0)


async def test_workers_that_come_back_late_together_do_not_wait_for_each_other(
    join: Join, session: Session
) -> None:
    """After a pause of the whole machine, each finds the registrations of the others outdated."""
    members = [await join() for _ in range(4)]
    stopper = await session()
    await stopper.executemany(
        "INSERT INTO pgqueuer_waiting (id, for_work, for_ends, until)"
        " VALUES ($1, true, true, now() - interval '1 s')",
        [(uuid.uuid4(),), *((member.owner,) for member in members)],
    )
    # All have renewed their own and are about to remove others when this one lets them.
    transaction = stopper.transaction()
    await transaction.start()
    await stopper.execute(
        "SELECT FROM pgqueuer_waiting WHERE NOT id = ANY($1::uuid[]) FOR UPDATE",
        [member.owner for member in members],
    )
    resting = [asyncio.create_task(member.rest()) for member in members]
    await asyncio.wait(resting, timeout=1)
    await transaction.commit()
    for rest in await asyncio.gather(*resting):
        assert rest.due is None
