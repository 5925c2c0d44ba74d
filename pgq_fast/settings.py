"""Where the queue lives: names of database objects, durability, connection parameters.

Everything here comes from arguments or from ``PGQUEUER_*`` environment variables. Object names
end up in SQL text, so they are restricted to plain identifiers when they are read.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable
from enum import Enum
from os import environ
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AliasChoices, Field, StringConstraints, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pgq_fast.choices import POLL_INTERVAL, JobLog, Layout, SynchronousCommit
from pgq_fast.errors import NamesTooLongError
from pgq_fast.types import Channel

__all__ = [
    "POLL_INTERVAL",
    "ConnectionSettings",
    "DBSettings",
    "Durability",
    "DurabilityPolicy",
    "JobLog",
    "Layout",
    "LeaseNames",
    "MigrationNames",
    "QualifiedNames",
    "SynchronousCommit",
    "add_prefix",
    "db_settings",
]

_NAME = "[A-Za-z_][A-Za-z0-9_]*"

IdentifierPrefix: TypeAlias = Annotated[str, StringConstraints(pattern=f"^({_NAME})?$")]
# PostgreSQL folds an unquoted schema name to lower case, while the catalog queries compare it
# as a string: keep the one spelling that suits both.
SchemaName: TypeAlias = Annotated[str, StringConstraints(pattern=f"^{_NAME}$", to_lower=True)]
ObjectName: TypeAlias = Annotated[str, StringConstraints(pattern=rf"^{_NAME}(\.{_NAME})*$")]
# A channel is sent as a string literal and as a quoted identifier, never as bare SQL.
ChannelName: TypeAlias = Annotated[
    Channel, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
]


NAME_BYTES: Final = 63
"""What PostgreSQL keeps of a name; it drops the rest with a notice."""


def _require_distinct(*names: str) -> None:
    kept: dict[str, str] = {}
    for name in names:
        # Names are ASCII, see ObjectName.
        key = name.rpartition(".")[2].lower()[:NAME_BYTES]
        if key in kept:
            raise NamesTooLongError(kept[key], name)
        kept[key] = name


def add_prefix(string: str) -> str:
    """*string* behind ``PGQUEUER_PREFIX``. Deprecated: ``DBSettings`` does this by itself."""
    warnings.warn(
        "add_prefix is deprecated: DBSettings reads PGQUEUER_PREFIX by itself",
        DeprecationWarning,
        stacklevel=2,
    )
    return environ.get("PGQUEUER_PREFIX", "") + string


@dataclasses.dataclass(frozen=True)
class DurabilityPolicy:
    """Persistence of each table: ``""`` for a logged table, ``"UNLOGGED"`` for one without WAL."""

    queue_table: Literal["", "UNLOGGED"]
    queue_log_table: Literal["", "UNLOGGED"]
    statistics_table: Literal["", "UNLOGGED"]
    schedules_table: Literal["", "UNLOGGED"]


class Durability(Enum):
    """What a crash of the PostgreSQL server may lose."""

    volatile = "volatile"
    """Everything: all tables are unlogged."""

    balanced = "balanced"
    """Log and statistics; jobs and schedules are safe."""

    durable = "durable"
    """Nothing: all tables are logged."""

    @property
    def config(self) -> DurabilityPolicy:
        """The persistence of each table at this level."""
        jobs: Literal["", "UNLOGGED"] = "UNLOGGED" if self is Durability.volatile else ""
        records: Literal["", "UNLOGGED"] = "" if self is Durability.durable else "UNLOGGED"
        return DurabilityPolicy(
            queue_table=jobs,
            queue_log_table=records,
            statistics_table=records,
            schedules_table=jobs,
        )


class ConnectionSettings(BaseSettings, defer_build=True):
    """How to connect. What is not set is left to the DSN and to libpq's own variables."""

    model_config = SettingsConfigDict(env_prefix="PGQUEUER_", extra="ignore", populate_by_name=True)

    dsn: str | None = Field(
        default=None, validation_alias=AliasChoices("PGQUEUER_DSN", "PGDSN"), repr=False
    )
    pool_min_size: int = Field(default=1, ge=0)
    pool_max_size: int = Field(default=5, ge=1)
    connect_timeout: float | None = Field(default=None, gt=0)
    """Seconds."""
    application_name: str | None = Field(default=None)
    transaction_pooling: bool = Field(default=False)
    """Whether the DSN leads to a pooler that gives each transaction another session, such as
    PgBouncer with ``pool_mode = transaction``: then no statement is prepared by name, and nothing
    that belongs to a session (LISTEN, session locks) goes through it."""
    listen_dsn: str | None = Field(default=None, repr=False)
    """Where the connection that listens is made, past any pooler; by default where the others are.
    Under ``transaction_pooling`` nothing listens without it, and workers poll."""
    poll_interval: float = Field(default=POLL_INTERVAL, gt=0)
    """Seconds between two looks of an idle worker at the queue where nothing listens."""


@dataclasses.dataclass(frozen=True)
class QualifiedNames:
    """The objects that live in a schema, spelled as SQL refers to them."""

    queue_table: str
    queue_table_log: str
    statistics_table: str
    schedules_table: str
    function: str
    queue_status_type: str


@dataclasses.dataclass(frozen=True)
class LeaseNames:
    """The further objects of the lease layout, spelled as SQL refers to them.

    Indexes and triggers live in the schema of their table, so their names have none.
    """

    ids_sequence: str
    ready_table: str
    deferred_table: str
    lease_table: str
    held_table: str
    dedupe_table: str
    waiting_table: str
    log_batches_table: str
    log_entries_table: str
    lease_function: str
    ready_order_index: str
    deferred_due_index: str
    lease_worker_index: str
    lease_seat_index: str
    log_batches_range_index: str
    log_batches_created_index: str
    log_batches_new_index: str
    log_entries_new_index: str
    log_entries_created_index: str
    log_entries_status_index: str
    log_entries_job_index: str
    statistics_bucket_index: str
    work_trigger: str
    end_trigger: str


@dataclasses.dataclass(frozen=True)
class MigrationNames:
    """What exists only while a queue moves from one layout to the other, spelled as SQL does."""

    migration_table: str
    changes_table: str
    staged_table: str
    """What is to be the queue table of the compat layout while it is being filled; the others are
    the same of the lease layout."""
    staged_ready_table: str
    staged_deferred_table: str
    staged_held_table: str
    staged_dedupe_table: str
    moved_table: str
    """What was the queue table of the compat layout, until the queue has settled in the other one;
    the others are what is left of the lease layout then."""
    moved_ready_table: str
    moved_deferred_table: str
    moved_held_table: str
    moved_batches_table: str
    capture_function: str
    gate_function: str
    ready_copy_index: str
    deferred_copy_index: str


def _aliases(field: str) -> AliasChoices:
    """Environment spellings of *field*: ``PGQUEUER_X``, then the older bare ``X``."""
    return AliasChoices(f"pgqueuer_{field}", field)


def _prefixed(name: str) -> Callable[[dict[str, Any]], Any]:
    """Default of a name: *name* behind the prefix, which is validated before it."""
    return lambda data: f"{data['prefix']}{name}"


class DBSettings(BaseSettings, defer_build=True):
    """Names of the queue's database objects.

    ``prefix`` goes before every name that is not given explicitly, so several queues can share
    a database; ``db_schema`` puts all of them in a schema, else the ``search_path`` decides.
    """

    model_config = SettingsConfigDict(env_prefix="PGQUEUER_", extra="ignore", populate_by_name=True)

    # The first field: the defaults of the names below read it.
    prefix: IdentifierPrefix = Field(default="")
    db_schema: SchemaName | None = Field(
        default=None, validation_alias=AliasChoices("db_schema", "pgqueuer_schema")
    )
    channel: ChannelName = Field(
        default_factory=_prefixed("ch_pgqueuer"), validation_alias=_aliases("channel")
    )
    function: ObjectName = Field(
        default_factory=_prefixed("fn_pgqueuer_changed"), validation_alias=_aliases("function")
    )
    statistics_table: ObjectName = Field(
        default_factory=_prefixed("pgqueuer_statistics"),
        validation_alias=_aliases("statistics_table"),
    )
    queue_status_type: ObjectName = Field(
        default_factory=_prefixed("pgqueuer_status"),
        validation_alias=_aliases("queue_status_type"),
    )
    queue_table: ObjectName = Field(
        default_factory=_prefixed("pgqueuer"), validation_alias=_aliases("queue_table")
    )
    queue_table_log: ObjectName = Field(
        default_factory=_prefixed("pgqueuer_log"), validation_alias=_aliases("queue_table_log")
    )
    trigger: ObjectName = Field(
        default_factory=_prefixed("tg_pgqueuer_changed"), validation_alias=_aliases("trigger")
    )
    schedules_table: ObjectName = Field(
        default_factory=_prefixed("pgqueuer_schedules"),
        validation_alias=_aliases("schedules_table"),
    )
    durability: Durability = Field(
        default=Durability.durable, validation_alias=_aliases("durability")
    )
    widen_id: bool = Field(default=True, validation_alias=_aliases("widen_id"))
    """Whether an upgrade widens 32-bit ids: that rewrites the table under an exclusive lock."""

    layout: Layout = Field(default=Layout.compat)
    """The tables that the queue is kept in."""
    job_log: JobLog = Field(default=JobLog.all)
    """What the log of the lease layout keeps."""
    job_log_of: dict[str, JobLog] = Field(default_factory=dict)
    """The same for single entrypoints; in the environment a JSON object."""
    synchronous_commit: SynchronousCommit = Field(default=SynchronousCommit.acks)
    """Which commits of the lease layout wait until they are on disk."""

    @model_validator(mode="after")
    def reject_dotted_names_with_db_schema(self) -> DBSettings:
        """A name that brings its own schema contradicts ``db_schema``."""
        if self.db_schema:
            for field in dataclasses.fields(QualifiedNames):
                name: str = getattr(self, field.name)
                if "." in name:
                    raise ValueError(
                        f"{field.name}={name!r} names a schema, and so does db_schema="
                        f"{self.db_schema!r}: drop one of them"
                    )
        return self

    @property
    def legacy_statistics_status_type(self) -> str:
        """An enum type of old installations; uninstalling drops it."""
        return f"{self.prefix}pgqueuer_statistics_status"

    def qualify(self, name: str) -> str:
        """*name* in ``db_schema``, or as it is where none is set."""
        return f"{self.db_schema}.{name}" if self.db_schema else name

    @functools.cached_property
    def qualified(self) -> QualifiedNames:
        """The names as SQL refers to them."""
        return QualifiedNames(
            **{
                field.name: self.qualify(getattr(self, field.name))
                for field in dataclasses.fields(QualifiedNames)
            }
        )

    @functools.cached_property
    def lease_names(self) -> LeaseNames:
        """The names of what only the lease layout has, made from those of the other objects.

        Raises:
            NamesTooLongError: Two of them are the same for PostgreSQL.
        """
        names = self.qualified

        def bare(name: str) -> str:
            return name.rpartition(".")[2]

        queue, log = bare(names.queue_table), bare(names.queue_table_log)
        own = LeaseNames(
            ids_sequence=f"{names.queue_table}_ids",
            ready_table=f"{names.queue_table}_ready",
            deferred_table=f"{names.queue_table}_deferred",
            lease_table=f"{names.queue_table}_lease",
            held_table=f"{names.queue_table}_held",
            dedupe_table=f"{names.queue_table}_dedupe",
            waiting_table=f"{names.queue_table}_waiting",
            log_batches_table=f"{names.queue_table_log}_batches",
            log_entries_table=f"{names.queue_table_log}_entries",
            lease_function=f"{names.function}_lease",
            ready_order_index=f"{queue}_ready_order_idx",
            deferred_due_index=f"{queue}_deferred_due_idx",
            lease_worker_index=f"{queue}_lease_worker_idx",
            lease_seat_index=f"{queue}_lease_seat_idx",
            log_batches_range_index=f"{log}_batches_range_idx",
            log_batches_created_index=f"{log}_batches_created_idx",
            log_batches_new_index=f"{log}_batches_new_idx",
            log_entries_new_index=f"{log}_entries_new_idx",
            log_entries_created_index=f"{log}_entries_created_idx",
            log_entries_status_index=f"{log}_entries_status_idx",
            log_entries_job_index=f"{log}_entries_job_idx",
            # As in the compat layout, where the catalog looks for it.
            statistics_bucket_index=f"{bare(names.statistics_table)}_unique_count",
            work_trigger=f"{bare(self.trigger)}_work",
            end_trigger=f"{bare(self.trigger)}_end",
        )
        _require_distinct(
            names.queue_table,
            names.queue_table_log,
            names.statistics_table,
            names.schedules_table,
            *dataclasses.astuple(own),
        )
        return own

    @functools.cached_property
    def migration_names(self) -> MigrationNames:
        """The names of what a migration between the layouts needs, made from the others.

        Raises:
            NamesTooLongError: Two of them are the same for PostgreSQL.
        """
        names = self.qualified
        queue, log = names.queue_table, names.queue_table_log
        bare = queue.rpartition(".")[2]
        own = MigrationNames(
            migration_table=f"{queue}_migration",
            changes_table=f"{queue}_changes",
            staged_table=f"{queue}_staged",
            staged_ready_table=f"{queue}_staged_ready",
            staged_deferred_table=f"{queue}_staged_deferred",
            staged_held_table=f"{queue}_staged_held",
            staged_dedupe_table=f"{queue}_staged_dedupe",
            moved_table=f"{queue}_moved",
            moved_ready_table=f"{queue}_moved_ready",
            moved_deferred_table=f"{queue}_moved_deferred",
            moved_held_table=f"{queue}_moved_held",
            moved_batches_table=f"{log}_moved_batches",
            capture_function=f"{names.function}_capture",
            gate_function=f"{names.function}_gate",
            ready_copy_index=f"{bare}_ready_copy_idx",
            deferred_copy_index=f"{bare}_deferred_copy_idx",
        )
        _require_distinct(queue, log, *dataclasses.astuple(own))
        return own

    @functools.cached_property
    def statements(self) -> dict[tuple[str, tuple[str | int, ...]], str]:
        """SQL text for these names by file and variant, as far as it was needed; see ``sql``."""
        return {}

    @property
    def schema_expr(self) -> str:
        """SQL for the schema's name in catalog queries.

        A literal where ``db_schema`` is set: DO blocks take no parameters, and the name was
        validated as an identifier.
        """
        return f"'{self.db_schema}'" if self.db_schema else "current_schema()"


@functools.cache
def db_settings() -> DBSettings:
    """The settings of this process, read from the environment once.

    Call ``db_settings.cache_clear()`` after a change of the environment.
    """
    return DBSettings()
