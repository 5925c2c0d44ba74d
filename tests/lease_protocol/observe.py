"""What the tables of the lease layout say, all of it in one statement."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import asyncpg

from lease_protocol.model import Lease, Model

_JOB = """
    'id', id, 'priority', priority, 'attempts', attempts, 'entrypoint', entrypoint,
    'key', dedupe_key, 'payload', encode(payload, 'hex'), 'headers', headers,
    'bytes', coalesce(octet_length(payload), 0) + coalesce(pg_column_size(headers), 0)
"""

QUERY = f"""
SELECT json_build_object(
    'ready', (SELECT json_agg(json_build_object({_JOB})) FROM pgqueuer_ready),
    'deferred', (
        SELECT json_agg(json_build_object({_JOB}, 'due', execute_after <= now()))
        FROM pgqueuer_deferred
    ),
    'held', (SELECT json_agg(json_build_object({_JOB})) FROM pgqueuer_held),
    'leased', (
        SELECT json_agg(json_build_object({_JOB}, 'lease', lease))
        FROM (
            SELECT lease.id AS lease, lease.entrypoint, job.*
            FROM pgqueuer_lease AS lease
            CROSS JOIN LATERAL unnest(ids, priorities, attempts, dedupe_keys, payloads, headers)
                WITH ORDINALITY
                AS job (id, priority, attempts, dedupe_key, payload, headers, place)
            WHERE get_bit(lease.done, job.place::int - 1) = 0
        ) AS job
    ),
    'leases', (
        SELECT json_agg(json_build_object(
            'id', id, 'owner', worker, 'entrypoint', entrypoint, 'ids', ids, 'slot', slot,
            'done', done::text, 'stale', heartbeat < now() - interval '30 min'
        ))
        FROM pgqueuer_lease
    ),
    'keys', (
        SELECT json_agg(json_build_array(key, job_id, entrypoint, priority)) FROM pgqueuer_dedupe
    ),
    'log', (
        SELECT json_agg(json_build_array(job_id, status, number))
        FROM (
            SELECT job_id, status, count(*) AS number FROM pgqueuer_log GROUP BY job_id, status
        ) AS entry
    ),
    'view', (
        SELECT json_agg(json_build_array(id, status, queue_manager_id, priority, attempts, slot))
        FROM pgqueuer
    ),
    'statistics', (
        SELECT json_agg(json_build_array(entrypoint, status, count))
        FROM (
            SELECT entrypoint, status, sum(count) AS count FROM pgqueuer_statistics
            GROUP BY entrypoint, status
        ) AS bucket
    )
)::text
"""


@dataclasses.dataclass
class Seen:
    """The tables at one instant."""

    places: dict[int, tuple[str, dict[str, Any]]]
    """The place of each job, and its row there."""
    leases: dict[int, Lease]
    keys: dict[str, tuple[int, str, int]]
    log: dict[int, Counter[str]]
    view: dict[int, tuple[Any, ...]]
    statistics: Counter[tuple[str, str]]

    @property
    def size_of(self) -> dict[int, int]:
        return {job_id: row["bytes"] for job_id, (_, row) in self.places.items()}


async def look(connection: asyncpg.Connection) -> Seen:
    """Read the tables; no job may be in two places."""
    answer = json.loads(await connection.fetchval(QUERY))
    places: dict[int, tuple[str, dict[str, Any]]] = {}
    for name, place in (
        ("ready", "ready"), ("deferred", "deferred"), ("held", "held"), ("leased", "lease")
    ):  # fmt: skip
        for row in answer[name] or ():
            assert row["id"] not in places, f"job {row['id']} is in two places"
            places[row["id"]] = (place, row)
    leases = {}
    for row in answer["leases"] or ():
        done = {job_id for job_id, bit in zip(row["ids"], row["done"], strict=True) if bit == "1"}
        lease = Lease(
            row["id"], UUID(row["owner"]), row["entrypoint"], row["ids"], row["slot"], done,
            row["stale"],
        )  # fmt: skip
        assert lease.open, f"lease {lease.id} holds nothing"
        assert lease.slot is None or len(lease.ids) == 1
        leases[lease.id] = lease
    log: dict[int, Counter[str]] = {}
    for job_id, status, number in answer["log"] or ():
        log.setdefault(job_id, Counter())[status] = number
    return Seen(
        places,
        leases,
        {key: (job_id, name, priority) for key, job_id, name, priority in answer["keys"] or ()},
        log,
        {row[0]: tuple(row[1:]) for row in answer["view"] or ()},
        Counter({(name, status): count for name, status, count in answer["statistics"] or ()}),
    )


def compare(model: Model, seen: Seen) -> None:
    """Fail where the tables differ from the model."""
    alive = {job.id: job for job in model.at("ready", "deferred", "held", "lease")}
    assert {job_id: place for job_id, (place, _) in seen.places.items()} == {
        job_id: job.place for job_id, job in alive.items()
    }
    for job_id, job in alive.items():
        _, row = seen.places[job_id]
        payload = None if row["payload"] is None else bytes.fromhex(row["payload"])
        assert (row["entrypoint"], payload, row["headers"], row["key"]) == (
            job.entrypoint, job.payload, job.headers, job.key
        )  # fmt: skip
        assert (row["priority"], row["attempts"]) == (job.priority, job.attempts), job
        assert row.get("lease") == job.lease
        assert bool(row.get("due")) == job.due
    assert seen.leases == model.leases
    assert seen.keys == {
        key: (job_id, model.jobs[job_id].entrypoint, priority)
        for key, (job_id, priority) in model.keys.items()
    }
    assert seen.log == model.log()
    assert seen.view == {job_id: _as_viewed(model, job_id) for job_id in alive}


def _as_viewed(model: Model, job_id: int) -> tuple[Any, ...]:
    job = model.jobs[job_id]
    lease = None if job.lease is None else model.leases[job.lease]
    status = {"lease": "picked", "held": "failed"}.get(job.place, "queued")
    owner = None if lease is None else str(lease.owner)
    slot = None if lease is None else lease.slot
    return (status, owner, job.priority, job.attempts, slot)


def check_limits(seen: Seen, limits: Mapping[str, int]) -> None:
    """Fail where more jobs run than may, or two hold one seat."""
    running = Counter(lease.entrypoint for lease in seen.leases.values() for _ in lease.open)
    for name, limit in limits.items():
        assert limit <= 0 or running[name] <= limit, f"{running[name]} jobs of {name} run"
    seats = [
        (lease.entrypoint, lease.slot) for lease in seen.leases.values() if lease.slot is not None
    ]
    assert len(seats) == len(set(seats))
