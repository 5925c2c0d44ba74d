"""The tables, indexes and routines that this release wants to find in the database.

Everything is spelled the way PostgreSQL's catalog prints it, so that a declared object and an
installed one compare as text. ``<status>`` stands for the status type, whose name and schema
depend on the settings.
"""

from __future__ import annotations

import dataclasses
import zlib
from typing import Final, Literal, NamedTuple

from pgq_fast.settings import DBSettings

__all__ = [
    "BUCKET_KEY",
    "STATUS_TYPE",
    "Column",
    "EnumType",
    "Function",
    "Index",
    "Location",
    "Retired",
    "Table",
    "Target",
    "Trigger",
    "beside",
    "locate",
    "retired",
    "target",
]

STATUS_TYPE: Final = "<status>"

# PostgreSQL cuts longer names off; NAMEDATALEN - 1 bytes, and our names are ASCII.
_NAME_LENGTH: Final = 63


class Location(NamedTuple):
    """Where the catalog keeps an object.

    ``schema`` is None where the connection's ``current_schema()`` decides.
    """

    schema: str | None
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column. Those that number their rows themselves are primary keys.

    Attributes:
        numbering: ``serial`` for a default from an owned sequence, ``identity`` for an identity
            column, None for an ordinary one.
    """

    name: str
    type: str
    not_null: bool = False
    default: str | None = None
    numbering: Literal["serial", "identity"] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Index:
    """An index that no constraint brings along; *definition* starts with ``USING``."""

    name: str
    table: str
    definition: str
    unique: bool = False

    @property
    def rebuild_name(self) -> str:
        """Name under which a new definition is built beside the old one.

        The same as pgqueuer's, so that each finds what the other left half done.
        """
        return f"pgq_rebuild_{zlib.crc32(self.name.encode()):08x}"


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A table; *unlogged* as the settings' durability asks for it when it is created."""

    name: str
    columns: tuple[Column, ...]
    unlogged: bool
    unique: tuple[tuple[str, ...], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class EnumType:
    """An enum type with its labels in order."""

    name: str
    labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Function:
    """A plpgsql trigger function; *body* is what stands between the dollar quotes."""

    name: str
    body: str


@dataclasses.dataclass(frozen=True, slots=True)
class Trigger:
    """A statement-level trigger after each kind of change of *table*."""

    name: str
    table: str
    function: str


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """All objects of one installation, named as in the settings."""

    status_type: EnumType
    tables: tuple[Table, ...]
    indexes: tuple[Index, ...]
    function: Function
    trigger: Trigger
    bucket_index: Index
    """The one of *indexes* that keeps a statistics bucket to one row."""


@dataclasses.dataclass(frozen=True, slots=True)
class Retired:
    """Objects of earlier releases that nothing uses any more."""

    index: str
    type: str
    table: str
    column: str


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

_QUEUE_COLUMNS: Final = (
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

_LOG_COLUMNS: Final = (
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


def target(settings: DBSettings) -> Target:
    """The objects that *settings* name."""
    persistence = settings.durability.config
    queue, log = settings.queue_table, settings.queue_table_log
    statistics, schedules = settings.statistics_table, settings.schedules_table
    (bucket_index,) = _indexes(statistics, _STATISTICS_INDEXES)
    return Target(
        status_type=EnumType(settings.queue_status_type, _LABELS),
        tables=(
            Table(queue, _QUEUE_COLUMNS, bool(persistence.queue_table)),
            Table(log, _LOG_COLUMNS, bool(persistence.queue_log_table)),
            Table(
                schedules,
                _SCHEDULES_COLUMNS,
                bool(persistence.schedules_table),
                unique=(("expression", "entrypoint"),),
            ),
            Table(statistics, _STATISTICS_COLUMNS, bool(persistence.statistics_table)),
        ),
        indexes=(*_indexes(queue, _QUEUE_INDEXES), *_indexes(log, _LOG_INDEXES), bucket_index),
        function=Function(settings.function, _NOTIFY_BODY.replace("<channel>", settings.channel)),
        trigger=Trigger(settings.trigger, queue, settings.function),
        bucket_index=bucket_index,
    )


def retired(settings: DBSettings) -> Retired:
    """What earlier releases of pgqueuer may have left behind."""
    return Retired(
        index=f"{_bare(settings.queue_table)}_heartbeat_id_id1_idx",
        type=settings.legacy_statistics_status_type,
        table=settings.statistics_table,
        column="time_in_queue",
    )


def locate(settings: DBSettings, name: str) -> Location:
    """Where the catalog keeps the object that SQL calls ``settings.qualify(name)``.

    Names reach SQL unquoted, so PostgreSQL folds them to lower case and cuts them off.
    """
    schema = name.rpartition(".")[0].rpartition(".")[2] or settings.db_schema
    return Location(
        None if schema is None else _folded(schema),
        _folded(_bare(name)),
    )


def beside(settings: DBSettings, table: str, name: str) -> str:
    """SQL for an index *name*, which lives in the schema of its table."""
    schema = settings.qualify(table).rpartition(".")[0]
    return f"{schema}.{name}" if schema else name


def _indexes(table: str, rows: tuple[tuple[str, str, bool], ...]) -> tuple[Index, ...]:
    return tuple(
        Index(f"{_bare(table)}_{suffix}", table, definition, unique)
        for suffix, definition, unique in rows
    )


def _bare(name: str) -> str:
    return name.rpartition(".")[2]


def _folded(name: str) -> str:
    return name.lower()[:_NAME_LENGTH]
