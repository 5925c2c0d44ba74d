"""The tables, indexes and routines of the ``lease`` layout.

A job is in exactly one of ready, deferred, lease (its bit in ``done`` not set) and held, or it has
ended and is in the log only. Each move is one statement. There are no foreign keys and no triggers
a row on the tables that every job goes through: both cost a job more than its own row does, and
foreign keys lock rows in ways that pile up as MultiXacts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final

from pgq_fast.schema.compat_tables import (
    LOG_COLUMNS,
    QUEUE_COLUMNS,
    bucket_index,
    schedules_table,
    statistics_table,
    status_type,
)
from pgq_fast.schema.objects import (
    NEXT_ID,
    STATUS_TYPE,
    Column,
    Function,
    Index,
    Sequence,
    Table,
    Target,
    Trigger,
    View,
)
from pgq_fast.settings import DBSettings
from pgq_fast.sql import statement

__all__ = ["LeaseTables", "lease_tables", "lease_target"]

_TIME: Final = "timestamp with time zone"

# What a job brings along through all tables.
_JOB_COLUMNS: Final = (
    Column("entrypoint", "text", not_null=True),
    Column("dedupe_key", "text"),
    Column("payload", "bytea"),
    Column("headers", "jsonb"),
)

# There is no status: a row here is queued.
_READY_COLUMNS: Final = (
    Column("id", "bigint", not_null=True, default=NEXT_ID),
    Column("priority", "integer", not_null=True),
    Column("attempts", "integer", not_null=True, default="0"),
    Column("created", _TIME, not_null=True, default="now()"),
    Column("execute_after", _TIME, not_null=True, default="now()"),
    *_JOB_COLUMNS,
)

_DEFERRED_COLUMNS: Final = (
    Column("id", "bigint", not_null=True, default=NEXT_ID),
    Column("priority", "integer", not_null=True),
    Column("attempts", "integer", not_null=True, default="0"),
    Column("created", _TIME, not_null=True, default="now()"),
    Column("execute_after", _TIME, not_null=True),
    *_JOB_COLUMNS,
)

# The id is the fence of a lease: a rescue deletes the row, and nothing that names its id finds it
# again.
#
# The arrays are stored out of line, so that an update of the bitmap leaves them where they are; and
# not compressed, which would cost more than it saves in the short life of a lease.
_LEASE_COLUMNS: Final = (
    Column("id", "bigint", not_null=True, numbering="identity"),
    Column("worker", "uuid", not_null=True),
    Column("entrypoint", "text", not_null=True),
    Column("slot", "bigint"),
    Column("picked_at", _TIME, not_null=True, default="now()"),
    Column("heartbeat", _TIME, not_null=True, default="now()"),
    # A bit a job, in the order of the arrays: whether it has ended, or gone back.
    Column("done", "bit varying", not_null=True),
    Column("ids", "bigint[]", not_null=True, external=True),
    Column("priorities", "integer[]", not_null=True, external=True),
    Column("attempts", "integer[]", not_null=True, external=True),
    Column("created", f"{_TIME}[]", not_null=True, external=True),
    Column("execute_after", f"{_TIME}[]", not_null=True, external=True),
    # NULL where no job has any.
    Column("dedupe_keys", "text[]", external=True),
    Column("payloads", "bytea[]", not_null=True, external=True),
    Column("headers", "jsonb[]", external=True),
)

_HELD_COLUMNS: Final = (
    Column("id", "bigint", not_null=True),
    Column("priority", "integer", not_null=True),
    Column("attempts", "integer", not_null=True),
    Column("created", _TIME, not_null=True),
    Column("execute_after", _TIME, not_null=True),
    *_JOB_COLUMNS,
    Column("held_at", _TIME, not_null=True, default="now()"),
)

# Entrypoint and priority say where in ready the job is; the priority is the one that counts, should
# the job be in a lease with an older one.
_DEDUPE_COLUMNS: Final = (
    Column("key", "text", not_null=True),
    Column("job_id", "bigint", not_null=True),
    Column("entrypoint", "text", not_null=True),
    Column("priority", "integer", not_null=True),
)

_WAITING_COLUMNS: Final = (
    Column("id", "uuid", not_null=True),
    Column("for_work", "boolean", not_null=True),
    Column("for_ends", "boolean", not_null=True),
    Column("until", _TIME, not_null=True),
)

_LOG_BATCHES_COLUMNS: Final = (
    Column("id", "bigint", not_null=True, numbering="identity"),
    Column("created", _TIME, not_null=True, default="now()"),
    Column("status", STATUS_TYPE, not_null=True),
    Column("entrypoint", "text", not_null=True),
    Column("worker", "uuid"),
    # NULL where it is not the same for all jobs.
    Column("priority", "integer"),
    # NULL where the status is not the end of a run.
    Column("picked_at", _TIME),
    Column("jobs", "integer", not_null=True),
    # NULL where only the number is kept, for the statistics.
    Column("first_id", "bigint"),
    Column("last_id", "bigint"),
    Column("ids", "bigint[]"),
    # NULL where `priority` says it.
    Column("priorities", "integer[]"),
    # When each job was enqueued; NULL where that has been logged before.
    Column("queued_at", f"{_TIME}[]"),
    Column("aggregated", "boolean", not_null=True, default="false"),
)

# A claim, or a look for what is due, passes over what is dead but not vacuumed, so vacuum early and
# at full speed.
_VACUUMED_EARLY: Final = (
    ("autovacuum_vacuum_scale_factor", "0.02"),
    ("autovacuum_vacuum_threshold", "10000"),
    ("autovacuum_vacuum_cost_delay", "0"),
)
# Cutting the file's end off takes a lock that stops everybody, and the next wave needs it again.
_NOT_TRUNCATED: Final = (("vacuum_truncate", "off"),)

_READY_PARAMETERS: Final = (
    *_VACUUMED_EARLY,
    # Not to be told of every wave of jobs: the plans do not depend on statistics.
    ("autovacuum_analyze_scale_factor", "0.5"),
    *_NOT_TRUNCATED,
)
_LEASE_PARAMETERS: Final = (
    ("autovacuum_vacuum_scale_factor", "0"),
    ("autovacuum_vacuum_threshold", "1000"),
    ("autovacuum_vacuum_cost_delay", "0"),
    # Room for another bitmap beside the row.
    ("fillfactor", "50"),
)
_WAITING_PARAMETERS: Final = (
    ("fillfactor", "50"),
    ("autovacuum_vacuum_threshold", "100"),
    ("autovacuum_vacuum_scale_factor", "0"),
)

_FIXED_PARAMETERS: Final = frozenset({"vacuum_truncate"})


@dataclasses.dataclass(frozen=True, slots=True)
class LeaseTables:
    """The tables that only this layout has."""

    ready: Table
    """Jobs that may run now."""
    deferred: Table
    """Jobs that may run later, moved to ready when they are due."""
    lease: Table
    """Claimed jobs: a row a claim and entrypoint, or a row a job under a concurrency limit."""
    held: Table
    """Jobs that failed and are kept for somebody to look at."""
    dedupe: Table
    """The keys of jobs that are queued or picked, and nothing of jobs that have none."""
    waiting: Table
    """Who waits to be told: workers for jobs to run or for seats to become free, watchers for jobs
    to end. Never logged: after a crash of the server nobody waits, and whoever does says so again
    every few seconds."""
    log_batches: Table
    """A row a batch and outcome, with the ids of its jobs."""
    log_entries: Table
    """A row an entry for what concerns jobs one by one: failures, retries, cancellations."""

    def __iter__(self) -> Iterator[Table]:
        return (getattr(self, field.name) for field in dataclasses.fields(self))


def lease_tables(settings: DBSettings) -> LeaseTables:
    """The tables by the names that *settings* give."""
    names = settings.lease_names
    jobs = bool(settings.durability.config.queue_table)
    records = bool(settings.durability.config.queue_log_table)

    def own(name: str) -> str:
        return _unqualified(name, settings)

    return LeaseTables(
        # Without a primary key: the index for claims is unique and has the id.
        ready=Table(
            own(names.ready_table),
            _READY_COLUMNS,
            jobs,
            primary_key=(),
            parameters=_READY_PARAMETERS,
            fixed=_FIXED_PARAMETERS,
        ),
        deferred=Table(
            own(names.deferred_table),
            _DEFERRED_COLUMNS,
            jobs,
            primary_key=(),
            parameters=(*_VACUUMED_EARLY, *_NOT_TRUNCATED),
            fixed=_FIXED_PARAMETERS,
        ),
        lease=Table(own(names.lease_table), _LEASE_COLUMNS, jobs, parameters=_LEASE_PARAMETERS),
        held=Table(own(names.held_table), _HELD_COLUMNS, jobs),
        dedupe=Table(own(names.dedupe_table), _DEDUPE_COLUMNS, jobs, primary_key=("key",)),
        waiting=Table(
            own(names.waiting_table), _WAITING_COLUMNS, True, parameters=_WAITING_PARAMETERS
        ),
        log_batches=Table(own(names.log_batches_table), _LOG_BATCHES_COLUMNS, records),
        log_entries=Table(own(names.log_entries_table), LOG_COLUMNS, records),
    )


def lease_target(settings: DBSettings) -> Target:
    """The objects that *settings* name."""
    names = settings.lease_names
    tables = lease_tables(settings)
    function = _unqualified(names.lease_function, settings)
    buckets = bucket_index(settings)
    return Target(
        status_type=status_type(settings),
        # Ids of jobs, which a job keeps through all tables.
        sequences=(
            Sequence(
                _unqualified(names.ids_sequence, settings),
                used=(
                    (tables.ready.name, "max(id)"),
                    (tables.deferred.name, "max(id)"),
                    (tables.lease.name, "max((SELECT max(job) FROM unnest(ids) AS job))"),
                    (tables.held.name, "max(id)"),
                    (tables.dedupe.name, "max(job_id)"),
                    (tables.log_batches.name, "max(last_id)"),
                    (tables.log_entries.name, "max(job_id)"),
                ),
            ),
        ),
        tables=(*tables, schedules_table(settings), statistics_table(settings)),
        indexes=(*_indexes(settings, tables), buckets),
        functions=(Function(function, f"\n{statement('lease/schema/tell', settings)}\n"),),
        triggers=(
            Trigger(
                names.work_trigger, tables.ready.name, function, ("INSERT",), arguments=("work",)
            ),
            Trigger(
                names.work_trigger, tables.deferred.name, function, ("INSERT",), arguments=("work",)
            ),
            Trigger(
                names.end_trigger,
                tables.lease.name,
                function,
                ("DELETE", "UPDATE"),
                update_of=("done",),
                arguments=("end",),
            ),
        ),
        # So that every statement that reads pgqueuer's tables reads this layout too. What writes to
        # them fails: pgqueuer's own workers and producers cannot use it.
        views=(
            View(settings.queue_table, QUEUE_COLUMNS, statement("lease/schema/jobs", settings)),
            View(settings.queue_table_log, LOG_COLUMNS, statement("lease/schema/log", settings)),
        ),
        bucket_index=buckets,
    )


def _indexes(settings: DBSettings, tables: LeaseTables) -> tuple[Index, ...]:
    names = settings.lease_names
    batches, entries = tables.log_batches.name, tables.log_entries.name
    return (
        # The order of claims. The complement of the priority, so that one comparison of rows can
        # name the place from which to go on; unique, so that no job can be here twice.
        Index(
            names.ready_order_index,
            tables.ready.name,
            "USING btree (entrypoint, ((~ priority)), id)",
            unique=True,
        ),
        # By the time at which they are due.
        Index(
            names.deferred_due_index,
            tables.deferred.name,
            "USING btree (entrypoint, execute_after, id)",
            unique=True,
        ),
        # The leases of a worker.
        Index(names.lease_worker_index, tables.lease.name, "USING btree (worker)"),
        # One job a seat of a limited entrypoint: this is what holds concurrency_limit.
        Index(
            names.lease_seat_index,
            tables.lease.name,
            "USING btree (entrypoint, slot) WHERE (slot IS NOT NULL)",
            unique=True,
        ),
        # Batches that may have a job; without what is only counted: a range of NULLs would contain
        # every id.
        Index(
            names.log_batches_range_index,
            batches,
            "USING gist (int8range(first_id, last_id, '[]'::text)) WHERE (ids IS NOT NULL)",
        ),
        # Batches of a time, batches that are to be counted.
        Index(names.log_batches_created_index, batches, "USING btree (created)"),
        Index(names.log_batches_new_index, batches, "USING btree ((1)) WHERE (NOT aggregated)"),
        # As on pgqueuer's log.
        Index(names.log_entries_new_index, entries, "USING btree ((1)) WHERE (NOT aggregated)"),
        Index(names.log_entries_created_index, entries, "USING btree (created)"),
        Index(names.log_entries_status_index, entries, "USING btree (status)"),
        Index(names.log_entries_job_index, entries, "USING btree (job_id, created DESC)"),
    )


def _unqualified(name: str, settings: DBSettings) -> str:
    """*name* without ``db_schema``, which the declarations leave to ``settings.qualify``."""
    return name.removeprefix(f"{settings.db_schema}.") if settings.db_schema else name
