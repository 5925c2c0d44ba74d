"""What an idle worker does when it hears of jobs: it claims, at once and no more than it must."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from behaviour.helpers import LayoutSpy, Recorder, Tables, eventually, working
from pgq_fast.qm import QueueManager

pytestmark = pytest.mark.layouts

# No poll comes in time: what happens, happens because of a notification.
NO_POLL = timedelta(hours=1)


@pytest.fixture(autouse=True)
def no_polls_of_the_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of the lease layout looks again when its registration is about to end."""
    monkeypatch.setattr("pgq_fast.layouts.waiting.REGISTERED_FOR", 3 * NO_POLL)
    monkeypatch.setattr("pgq_fast.layouts.waiting.RENEWED_AFTER", NO_POLL)


async def test_a_burst_of_notifications_is_one_reason_to_look(
    manager: QueueManager, tables: Tables, spy: LayoutSpy
) -> None:
    manager.entrypoint("e")(Recorder())
    payload = {
        "channel": manager.channel,
        "operation": "insert",
        "sent_at": "2030-01-01T00:00:00+00:00",
        "table": "pgqueuer",
        "type": "table_changed_event",
    }
    async with working(manager, dequeue_timeout=NO_POLL, heartbeat_timeout=NO_POLL):
        await spy.resting()
        spy.claims.clear()
        # PostgreSQL sends equal payloads of one transaction once: each has a time of its own.
        await tables.rows(
            "SELECT pg_notify($1, jsonb_set($2::jsonb, '{sent_at}', to_jsonb("
            "timestamptz '2030-01-01' + number * interval '1 second'))::text)"
            " FROM generate_series(1, 500) AS number",
            manager.channel,
            json.dumps(payload),
        )
        # Comes after the others on the same connection: then the worker has heard them all.
        await manager.listener_healthy()
        await eventually(lambda: spy.claims)
        await spy.resting()
    assert 1 <= len(spy.claims) <= 3


async def test_the_first_thing_after_an_insert_is_a_claim(
    manager: QueueManager, spy: LayoutSpy
) -> None:
    """A probe first would cost a job that somebody waits for another round trip."""
    handler = Recorder()
    manager.entrypoint("e")(handler)
    async with working(manager, dequeue_timeout=NO_POLL, heartbeat_timeout=NO_POLL):
        for count in (1, 1, 5):
            await spy.resting()
            handler.jobs.clear()
            spy.calls.clear()
            await manager.queries.enqueue(["e"] * count, [None] * count, [0] * count)
            await eventually(lambda count=count: len(handler.jobs) == count)  # type: ignore[misc]
            assert spy.calls[0] == "claim"
