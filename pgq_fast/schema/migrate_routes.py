"""The two ways between the layouts: the SQL text that is particular to each.

What both have in common, and in which order it is sent, is in :mod:`pgq_fast.schema.migrate`.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import ClassVar, Final

from pgq_fast.choices import Layout
from pgq_fast.schema import ddl
from pgq_fast.schema.lease_tables import LeaseTables, lease_tables
from pgq_fast.schema.objects import Index, Table, Trigger, bare, beside, locate
from pgq_fast.schema.target import target
from pgq_fast.settings import DBSettings, MigrationNames
from pgq_fast.sql import sized_statement, statement

__all__ = ["Route", "ToCompat", "ToLease", "Walk", "route_to"]

# On tables of a migration, so these names are nobody else's.
_CAPTURES: Final = tuple(
    f"pgq_capture_{event}" for event in ("insert", "update", "delete", "truncate")
)
_GATE: Final = "pgq_gate"

_FIRST: Final = -(2**63)
_LAST: Final = 2**63 - 1


@dataclasses.dataclass(frozen=True, slots=True)
class Walk:
    """A way through a table in the order of an index, in batches.

    Attributes:
        flags: Those of the statement for a batch.
        start: The place before the first row: the last arguments of the statement.
        columns: Where the answer says which place comes next.
    """

    flags: tuple[str, ...]
    start: tuple[object, ...]
    columns: tuple[str, ...] = ("id",)


# Of the tables of the lease layout.
_READY: Final = Walk(("ready",), ("", str(-(2**31)), _FIRST), ("entrypoint", "place", "id"))
_DEFERRED: Final = Walk(("deferred",), ("", "-infinity", _FIRST), ("entrypoint", "place", "id"))
_HELD: Final = Walk(("held",), (_FIRST,))


class Route(ABC):
    """One direction.

    Attributes:
        directory: Where its statements are.
        source: The layout that it leaves.
        target: The layout that it leads to.
        copies: The walks that copy jobs.
        settles: The walks through what was moved, after the switch.
    """

    directory: ClassVar[str]
    source: ClassVar[Layout]
    target: ClassVar[Layout]
    copies: ClassVar[tuple[Walk, ...]]
    settles: ClassVar[tuple[Walk, ...]]

    def __init__(self, compat: DBSettings, lease: DBSettings) -> None:
        self.compat = compat
        self.lease = lease

    @property
    def names(self) -> MigrationNames:
        """What exists while the migration is under way."""
        return self.lease.migration_names

    def sql(self, name: str, *flags: str) -> str:
        """A statement of this direction."""
        return statement(f"migrate/{self.directory}/{name}", self.lease, *flags)

    def sized_sql(self, rows: int, name: str, *flags: str) -> str:
        """The same for tables of up to so many *rows*, with a plan that suits them."""
        return sized_statement(
            rows.bit_length() // 3, f"migrate/{self.directory}/{name}", self.lease, *flags
        )

    def gate(self, life: timedelta) -> str:
        """Close the gate for *life*."""
        return self.sql("gate").replace("<gate>", _interval(life))

    def settled(self) -> str:
        """Drop what was kept of the layout that was left."""
        return self.sql("settled")

    @property
    @abstractmethod
    def doomed(self) -> Mapping[str, tuple[str, ...]]:
        """The relations that the switch drops, with the columns that they should have."""

    @property
    @abstractmethod
    def own_triggers(self) -> Iterable[str]:
        """The triggers that these should have."""

    @abstractmethod
    def prepare(self) -> str:
        """Create what the copies go to, and take notes of what changes from now on."""

    @abstractmethod
    def discard(self) -> str:
        """Undo :meth:`prepare` and all that followed before the switch."""

    @abstractmethod
    def analyze(self) -> str:
        """Tell the planner how large the copies are."""

    @abstractmethod
    def switch(self, silence: timedelta, *, patient: bool) -> str:
        """Have the copies take the place of the queue.

        Args:
            silence: Of a worker that counts as dead.
            patient: Whether the others must have ended their jobs.
        """

    def _wake(self) -> str:
        table = bare(self.compat.queue_table)
        return statement("migrate/wake", self.compat).replace("<table>", table)

    def _lock(self, silence: timedelta, patient: bool) -> str:
        flags = ("patient",) if patient else ()
        return self.sql("lock", *flags).replace("<silence>", _interval(silence))

    def _renamed_log(self, names: tuple[str, str], indexes: Iterable[tuple[str, str]]) -> list[str]:
        """The log's single entries are the same table in both layouts, under two names."""
        old, new = names
        table = _own(new, self.lease)
        return [
            *_renamed(self.lease, old, new),
            *(
                f"ALTER INDEX {beside(self.lease, table, before)} RENAME TO {after};"
                for before, after in indexes
            ),
        ]

    def _log_indexes(self) -> list[tuple[str, str]]:
        """The indexes of the log's entries: name in compat, name in lease."""
        names, log = self.lease.lease_names, bare(self.compat.queue_table_log)
        return [
            (f"{log}_not_aggregated", names.log_entries_new_index),
            (f"{log}_created", names.log_entries_created_index),
            (f"{log}_status", names.log_entries_status_index),
            (f"{log}_job_id_status", names.log_entries_job_index),
        ]


class ToLease(Route):
    """From pgqueuer's tables to those of the lease layout."""

    directory = "to_lease"
    source = Layout.compat
    target = Layout.lease
    copies = (Walk(("walk",), (_LAST,)),)
    settles = (Walk((), (_FIRST,)),)

    @property
    def doomed(self) -> Mapping[str, tuple[str, ...]]:
        """The queue table. The log is renamed, with whatever hangs on it."""
        (queue,) = (each for each in target(self.compat).tables if each.name == self._queue)
        return {self._queue: tuple(column.name for column in queue.columns)}

    @property
    def own_triggers(self) -> Iterable[str]:
        """pgqueuer's."""
        return (bare(self.compat.trigger),)

    @property
    def _queue(self) -> str:
        return self.compat.queue_table

    @property
    def _staged(self) -> tuple[tuple[Table, str], ...]:
        """The tables with jobs, and the names that they have until the switch."""
        tables, names = lease_tables(self.lease), self.names
        return (
            (tables.ready, names.staged_ready_table),
            (tables.deferred, names.staged_deferred_table),
            (tables.held, names.staged_held_table),
            (tables.dedupe, names.staged_dedupe_table),
        )

    def prepare(self) -> str:
        """Tables for the jobs; with an index by id, which the layout itself can do without."""
        names, wanted = self.names, target(self.lease)
        texts = [ddl.create_sequence(sequence, self.lease) for sequence in wanted.sequences]
        for table, name in self._staged:
            texts.append(ddl.create_table(_under(table, name, self.lease), self.lease))
            texts += [
                ddl.create_index(
                    dataclasses.replace(index, table=_own(name, self.lease)), self.lease
                )
                for index in _indexes_of(table, wanted.indexes)
            ]
        texts += [
            f"CREATE UNIQUE INDEX {names.ready_copy_index} ON {names.staged_ready_table} (id);",
            f"CREATE UNIQUE INDEX {names.deferred_copy_index}"
            f" ON {names.staged_deferred_table} (id);",
            statement("migrate/changes", self.lease),
            self.sql("capture"),
        ]
        return "\n".join(texts)

    def discard(self) -> str:
        """The copies, and the triggers on the queue."""
        names = self.names
        tables = ", ".join(name for _, name in self._staged)
        return "\n".join(
            [
                *self._undo_captures(),
                f"DROP TABLE IF EXISTS {tables}, {names.changes_table};",
                f"DROP SEQUENCE IF EXISTS {self.lease.lease_names.ids_sequence};",
            ]
        )

    def _undo_captures(self) -> Iterable[str]:
        queue = self.compat.qualified.queue_table
        return _undo_captures(self.names, {queue: (*_CAPTURES, _GATE)})

    def analyze(self) -> str:
        """All but the keys, which are looked up one by one."""
        return f"ANALYZE {', '.join(name for _, name in self._staged[:3])}"

    def switch(self, silence: timedelta, *, patient: bool) -> str:
        """The queue table is kept under another name until its jobs have been settled."""
        names, wanted = self.names, target(self.lease)
        tables = lease_tables(self.lease)
        compat = target(self.compat)
        texts = [
            self._lock(silence, patient),
            f"{self.sql('forget', 'rest')};",
            f"{self.sql('copy', 'rest')};",
            f"{self.sql('ids')};",
            *self._undo_captures(),
            *_drop_triggers(compat.triggers, self.compat),
            *(
                f"DROP FUNCTION IF EXISTS {self.compat.qualify(each.name)}();"
                for each in compat.functions
            ),
            f"DROP TABLE {names.changes_table};",
            *(
                f"DROP INDEX {beside(self.lease, tables.ready.name, index)};"
                for index in (names.ready_copy_index, names.deferred_copy_index)
            ),
            f"ALTER TABLE {self.compat.qualified.queue_table} RENAME TO {bare(names.moved_table)};",
        ]
        for table, name in self._staged:
            texts += _renamed(self.lease, name, self.lease.qualify(table.name))
        for table in (tables.lease, tables.waiting, tables.log_batches):
            texts.append(ddl.create_table(table, self.lease))
            texts += [
                ddl.create_index(index, self.lease) for index in _indexes_of(table, wanted.indexes)
            ]
        texts += self._renamed_log(
            (self.compat.qualified.queue_table_log, self.lease.lease_names.log_entries_table),
            self._log_indexes(),
        )
        texts += [ddl.create_function(function, self.lease) for function in wanted.functions]
        texts += [ddl.create_trigger(trigger, self.lease) for trigger in wanted.triggers]
        texts += [ddl.create_view(view, self.lease) for view in wanted.views]
        texts.append(self._wake())
        return "\n".join(texts)


class ToCompat(Route):
    """From the tables of the lease layout to pgqueuer's."""

    directory = "to_compat"
    source = Layout.lease
    target = Layout.compat
    copies = tuple(
        dataclasses.replace(walk, flags=("walk", *walk.flags))
        for walk in (_READY, _DEFERRED, _HELD)
    )
    settles = (_READY, _DEFERRED, _HELD)

    @property
    def _tables(self) -> LeaseTables:
        return lease_tables(self.lease)

    @property
    def doomed(self) -> Mapping[str, tuple[str, ...]]:
        """The views, and all tables but the log's entries."""
        tables = self._tables
        return {
            self.lease.queue_table: (),
            self.lease.queue_table_log: (),
            **{
                table.name: tuple(column.name for column in table.columns)
                for table in (
                    tables.ready,
                    tables.deferred,
                    tables.lease,
                    tables.held,
                    tables.dedupe,
                    tables.waiting,
                    tables.log_batches,
                )
            },
        }

    @property
    def own_triggers(self) -> Iterable[str]:
        """Those that tell who waits."""
        return {trigger.name for trigger in target(self.lease).triggers}

    @property
    def _queue(self) -> tuple[Table, tuple[Index, ...]]:
        wanted = target(self.compat)
        (queue,) = (each for each in wanted.tables if each.name == self.compat.queue_table)
        return queue, tuple(_indexes_of(queue, wanted.indexes))

    def prepare(self) -> str:
        """A queue table; its indexes have their names from the beginning."""
        names = self.names
        queue, indexes = self._queue
        staged = _under(queue, names.staged_table, self.compat)
        texts = [ddl.create_table(staged, self.compat)]
        texts += [
            ddl.create_index(dataclasses.replace(index, table=staged.name), self.compat)
            for index in indexes
        ]
        texts += [statement("migrate/changes", self.lease), self.sql("capture")]
        texts += [self.sql("capture_of").replace("<table>", table) for table in self._captured()]
        return "\n".join(texts)

    def _captured(self) -> tuple[str, ...]:
        names = self.lease.lease_names
        return (names.ready_table, names.deferred_table, names.held_table)

    def _undo_captures(self) -> Iterable[str]:
        return _undo_captures(
            self.names,
            {
                **dict.fromkeys(self._captured(), _CAPTURES),
                self.lease.lease_names.lease_table: (_GATE,),
            },
        )

    def discard(self) -> str:
        """The copies, and the triggers on the tables with jobs."""
        names = self.names
        return "\n".join(
            [
                *self._undo_captures(),
                f"DROP TABLE IF EXISTS {names.staged_table}, {names.changes_table};",
            ]
        )

    def analyze(self) -> str:
        """The one table."""
        return f"ANALYZE {self.names.staged_table}"

    def switch(self, silence: timedelta, *, patient: bool) -> str:
        """What had the jobs is kept under other names until they have been settled, and so is what
        the log has of the last batches.
        """
        names, lease = self.names, self.lease.lease_names
        wanted, compat = target(self.lease), target(self.compat)
        return "\n".join(
            [
                self._lock(silence, patient),
                f"{self.sql('forget', 'rest')};",
                f"{self.sql('copy', 'rest', 'noted')};",
                f"{self.sql('give_back')};",
                f"{self.sql('ids')};",
                *self._undo_captures(),
                f"DROP TABLE {names.changes_table};",
                *(f"DROP VIEW {self.lease.qualify(view.name)};" for view in wanted.views),
                *_drop_triggers(wanted.triggers, self.lease),
                *(
                    f"DROP FUNCTION IF EXISTS {self.lease.qualify(each.name)}();"
                    for each in wanted.functions
                ),
                f"DROP TABLE {lease.lease_table}, {lease.dedupe_table}, {lease.waiting_table};",
                *(
                    f"ALTER TABLE {old} RENAME TO {bare(new)};"
                    for old, new in (
                        (lease.ready_table, names.moved_ready_table),
                        (lease.deferred_table, names.moved_deferred_table),
                        (lease.held_table, names.moved_held_table),
                        (lease.log_batches_table, names.moved_batches_table),
                    )
                ),
                *_renamed(self.compat, names.staged_table, self.compat.qualified.queue_table),
                *self._renamed_log(
                    (lease.log_entries_table, self.compat.qualified.queue_table_log),
                    [(new, old) for old, new in self._log_indexes()],
                ),
                *(ddl.create_function(function, self.compat) for function in compat.functions),
                *(ddl.create_trigger(trigger, self.compat) for trigger in compat.triggers),
                self._wake(),
            ]
        )


def route_to(layout: Layout, compat: DBSettings, lease: DBSettings) -> Route:
    """The way to *layout*.

    Args:
        layout: Where it leads.
        compat: Settings with the names of the installation, and its durability.
        lease: The same.
    """
    return ToLease(compat, lease) if layout is Layout.lease else ToCompat(compat, lease)


def _interval(value: timedelta) -> str:
    return f"{value.total_seconds()} seconds"


def _own(name: str, settings: DBSettings) -> str:
    """*name* without ``db_schema``, which declarations leave to ``settings.qualify``."""
    return name.removeprefix(f"{settings.db_schema}.") if settings.db_schema else name


def _under(table: Table, name: str, settings: DBSettings) -> Table:
    """*table* by another name."""
    return dataclasses.replace(table, name=_own(name, settings))


def _indexes_of(table: Table, indexes: Iterable[Index]) -> Iterable[Index]:
    return (index for index in indexes if index.table == table.name)


def _drop_triggers(triggers: Iterable[Trigger], settings: DBSettings) -> Iterable[str]:
    return (
        f"DROP TRIGGER IF EXISTS {trigger.name} ON {settings.qualify(trigger.table)};"
        for trigger in triggers
    )


def _undo_captures(names: MigrationNames, on: Mapping[str, Iterable[str]]) -> Iterable[str]:
    """Drop the triggers of a migration *on* these tables, and their functions."""
    for table, triggers in on.items():
        for trigger in triggers:
            yield f"DROP TRIGGER IF EXISTS {trigger} ON {table};"
    yield f"DROP FUNCTION IF EXISTS {names.gate_function}(), {names.capture_function}();"


def _renamed(settings: DBSettings, old: str, new: str) -> Iterable[str]:
    """Rename a table together with what PostgreSQL has named after it."""
    yield f"ALTER TABLE {old} RENAME TO {bare(new)};"
    yield (
        statement("migrate/rename", settings)
        .replace("<old>", locate(settings, old).name)
        .replace("<new>", locate(settings, new).name)
        .replace("<table>", new)
    )
