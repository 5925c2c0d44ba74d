"""The tables, indexes and routines of the ``compat`` layout: those of pgqueuer 1.6.0."""

from __future__ import annotations

from typing import Final

from pgq_fast.schema.objects import (
    STATUS_TYPE,
    Column,
    EnumType,
    Function,
    Index,
    Table,
    Target,
    Trigger,
    indexes_of,
)
from pgq_fast.settings import DBSettings

__all__ = [
    "BUCKET_KEY",
    "LOG_COLUMNS",
    "QUEUE_COLUMNS",
    "bucket_index",
    "compat_target",
    "schedules_table",
    "statistics_table",
    "status_type",
]

_TIME: Final = "timestamp with time zone"

_LABELS: Final = (
    "queued",
    "picked",
    "successful",
    "exception",
    "canceled",
    "deleted",
    "failed",
)

QUEUE_COLUMNS: Final = (
    Column("id", "bigint", not_null=True, numbering="serial"),
    Column("priority", "integer", not_null=True),
    Column("queue_manager_id", "uuid"),
    Column("created", _TIME, not_null=True, default="now()"),
    Column("updated", _TIME, not_null=True, default="now()"),
    Column("heartbeat", _TIME, not_null=True, default="now()"),
    Column("execute_after", _TIME, not_null=True, default="now()"),
    Column("status", STATUS_TYPE, not_null=True),
    Column("entrypoint", "text", not_null=True),
    Column("dedupe_key", "text"),
    Column("payload", "bytea"),
    Column("headers", "jsonb"),
    Column("attempts", "integer", not_null=True, default="0"),
    Column("slot", "bigint"),
)

LOG_COLUMNS: Final = (
    Column("id", "bigint", not_null=True, numbering="identity"),
    Column("created", _TIME, not_null=True, default="now()"),
    Column("job_id", "bigint", not_null=True),
    Column("status", STATUS_TYPE, not_null=True),
    Column("priority", "integer", not_null=True),
    Column("entrypoint", "text", not_null=True),
    Column("traceback", "jsonb"),
    Column("aggregated", "boolean", default="false"),
)

_STATISTICS_COLUMNS: Final = (
    Column("id", "bigint", not_null=True, numbering="serial"),
    Column("created", _TIME, not_null=True, default="date_trunc('sec'::text, now())"),
    Column("count", "bigint", not_null=True),
    Column("priority", "integer", not_null=True),
    Column("status", STATUS_TYPE, not_null=True),
    Column("entrypoint", "text", not_null=True),
)

_SCHEDULES_COLUMNS: Final = (
    Column("id", "bigint", not_null=True, numbering="serial"),
    Column("expression", "text", not_null=True),
    Column("entrypoint", "text", not_null=True),
    Column("heartbeat", _TIME, not_null=True, default="now()"),
    Column("created", _TIME, not_null=True, default="now()"),
    Column("updated", _TIME, not_null=True, default="now()"),
    Column("next_run", _TIME, not_null=True, default="now()"),
    Column("last_run", _TIME),
    Column("status", STATUS_TYPE, default=f"'queued'::{STATUS_TYPE}"),
)

_QUEUED: Final = f"(status = 'queued'::{STATUS_TYPE})"
_PICKED: Final = f"(status = 'picked'::{STATUS_TYPE})"

# Suffix of the name, definition, unique. Each serves one access path:
_QUEUE_INDEXES: Final = (
    # due jobs of an entrypoint in the order they are claimed in, and by the time they are due
    ("ep_prio_id_idx", f"USING btree (entrypoint, priority DESC, id) WHERE {_QUEUED}", False),
    ("ep_ea_idx", f"USING btree (entrypoint, execute_after) WHERE {_QUEUED}", False),
    ("priority_id_id1_idx", f"USING btree (priority, id DESC) INCLUDE (id) WHERE {_QUEUED}", False),
    # picked jobs by age of their heartbeat and of their last change
    ("picked_heartbeat_idx", f"USING btree (heartbeat) WHERE {_PICKED}", False),
    ("updated_id_id1_idx", f"USING btree (updated, id DESC) INCLUDE (id) WHERE {_PICKED}", False),
    # the jobs of a worker
    (
        "queue_manager_id_idx",
        "USING btree (queue_manager_id) WHERE (queue_manager_id IS NOT NULL)",
        False,
    ),
    # one queued or picked job a dedupe key
    (
        "unique_dedupe_key",
        "USING btree (dedupe_key) WHERE ((status = ANY (ARRAY["
        f"'queued'::{STATUS_TYPE}, 'picked'::{STATUS_TYPE}])) AND (dedupe_key IS NOT NULL))",
        True,
    ),
    # one picked job a slot of a limited entrypoint: this is what holds concurrency_limit
    (
        "picked_slot_idx",
        f"USING btree (entrypoint, slot) WHERE ({_PICKED} AND (slot IS NOT NULL))",
        True,
    ),
)

_LOG_INDEXES: Final = (
    ("not_aggregated", "USING btree ((1)) WHERE (NOT aggregated)", False),
    ("created", "USING btree (created)", False),
    ("status", "USING btree (status)", False),
    ("job_id_status", "USING btree (job_id, created DESC)", False),
)

BUCKET_KEY: Final = (
    "priority, date_trunc('sec'::text, timezone('UTC'::text, created)), status, entrypoint"
)
"""What makes two rows of the statistics the same: all but the count."""

_STATISTICS_INDEXES: Final = (("unique_count", f"USING btree ({BUCKET_KEY})", True),)

# The text as pgqueuer 1.6.0 stores it in pg_proc.prosrc. It is data, not ours to polish: an
# upgrade by pgqueuer replaces a function with other words in it, and so would ours after it.
# In a statement-level trigger OLD and NEW are null, so an UPDATE never notifies.
_NOTIFY_BODY: Final = """
DECLARE
    to_emit BOOLEAN := false;  -- Flag to decide whether to emit a notification
BEGIN
    -- Check operation type and set the emit flag accordingly
    IF TG_OP = 'UPDATE' AND OLD IS DISTINCT FROM NEW THEN
        to_emit := true;
    ELSIF TG_OP = 'DELETE' THEN
        to_emit := true;
    ELSIF TG_OP = 'INSERT' THEN
        to_emit := true;
    ELSIF TG_OP = 'TRUNCATE' THEN
        to_emit := true;
    END IF;

    -- Perform notification if the emit flag is set
    IF to_emit THEN
        PERFORM pg_notify(
            '<channel>',
            json_build_object(
                'channel', '<channel>',
                'operation', lower(TG_OP),
                'sent_at', NOW(),
                'table', TG_TABLE_NAME,
                'type', 'table_changed_event'
            )::text
        );
    END IF;

    -- Return appropriate value based on the operation
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        RETURN NEW;
    ELSIF TG_OP = 'DELETE' THEN
        RETURN OLD;
    ELSE
        RETURN NULL; -- For TRUNCATE and other non-row-specific contexts
    END IF;

END;
"""


def compat_target(settings: DBSettings) -> Target:
    """The objects that *settings* name."""
    persistence = settings.durability.config
    queue, log = settings.queue_table, settings.queue_table_log
    buckets = bucket_index(settings)
    return Target(
        status_type=status_type(settings),
        tables=(
            Table(queue, QUEUE_COLUMNS, bool(persistence.queue_table)),
            Table(log, LOG_COLUMNS, bool(persistence.queue_log_table)),
            schedules_table(settings),
            statistics_table(settings),
        ),
        indexes=(*indexes_of(queue, _QUEUE_INDEXES), *indexes_of(log, _LOG_INDEXES), buckets),
        functions=(
            Function(settings.function, _NOTIFY_BODY.replace("<channel>", settings.channel)),
        ),
        triggers=(
            Trigger(
                settings.trigger,
                queue,
                settings.function,
                ("INSERT", "UPDATE", "DELETE", "TRUNCATE"),
            ),
        ),
        bucket_index=buckets,
    )


# What both layouts have.


def status_type(settings: DBSettings) -> EnumType:
    """The statuses of jobs and of log entries."""
    return EnumType(settings.queue_status_type, _LABELS)


def schedules_table(settings: DBSettings) -> Table:
    """When entrypoints are to be run."""
    return Table(
        settings.schedules_table,
        _SCHEDULES_COLUMNS,
        bool(settings.durability.config.schedules_table),
        unique=(("expression", "entrypoint"),),
    )


def statistics_table(settings: DBSettings) -> Table:
    """Log entries, counted."""
    return Table(
        settings.statistics_table,
        _STATISTICS_COLUMNS,
        bool(settings.durability.config.statistics_table),
    )


def bucket_index(settings: DBSettings) -> Index:
    """What keeps a bucket of the statistics to one row."""
    (index,) = indexes_of(settings.statistics_table, _STATISTICS_INDEXES)
    return index
