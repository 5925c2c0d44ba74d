"""Moves a queue between the layouts while it is in use.

The jobs are copied, not moved: until the switch the queue is where it was, and workers, producers
and people go on with it. Whatever changes meanwhile is noted by triggers, and copied again.
Therefore all that was done before the switch can be thrown away at any time, and it is: a migration
that failed or was killed starts anew, and going back is the same as not going on.

    copy -> follow the changes -> close the gate: no more claims -> wait for running jobs -> switch

The switch is one transaction, within which what is left to follow is little. Behind it, what the
two layouts log at different times is settled: an enqueue is an entry of the log in one, and derived
from the job's row in the other until the job ends. What is left to settle is in the tables that the
switch has put aside, so that the next call goes on with it.

A migration lives as long as its statements come, see sql/migrate/take.sql: there is no session
whose end would tell, as a driver may have several or share one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeAlias

from pgq_fast.choices import Layout
from pgq_fast.drivers.base import Int8Array
from pgq_fast.drivers.failures import sqlstate_of
from pgq_fast.errors import (
    MigrationBlockedError,
    MigrationLapsedError,
    MigrationRefusedError,
    MigrationUnderWayError,
)
from pgq_fast.logconfig import logger
from pgq_fast.schema import manage
from pgq_fast.schema.layout import installed_layout
from pgq_fast.schema.migrate_routes import Route, Walk, route_to
from pgq_fast.schema.objects import locate
from pgq_fast.schema.statements import Pause, Statement, Steps, query
from pgq_fast.settings import DBSettings, Durability
from pgq_fast.sql import statement

__all__ = ["MigrationProgress", "MigrationReport", "Phase", "migrate"]

LIFE: Final = timedelta(seconds=30)
"""After so long without a statement a migration counts as dead. Batches take less than a second."""

TURN: Final = LIFE + timedelta(seconds=10)
"""How long another migration is waited for at least: one that was killed counts as dead then."""

GATE: Final = timedelta(seconds=10)
"""After this time without a statement workers claim jobs again."""

SHORTEST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 0.5
"""Seconds between two looks at what is waited for."""

CHASES: Final = 100
"""Batches of changes that are followed in a row, before the gate is closed all the same."""

GATED_CHASES: Final = 10
"""The same behind the gate, which does not open in so short a time."""

# Raised by the statements in sql/migrate.
_UNDER_WAY: Final = "PGQ01"
_LAPSED: Final = "PGQ02"
_RUNNING: Final = "PGQ03"
_EMPTIED: Final = "PGQ04"
_UNDEFINED_TABLE: Final = "42P01"
# A lock was not to be had in time; or two waited for each other.
_BUSY: Final = frozenset({"55P03", "40P01"})

Phase: TypeAlias = Literal["log", "copy", "drain", "settle"]
"""``log``: its batches are turned into entries, from lease to compat. ``copy``: jobs are copied.
``drain``: no more jobs are claimed, and running ones end. ``settle``: the queue has moved, its log
follows."""


@dataclasses.dataclass(frozen=True, slots=True)
class MigrationProgress:
    """How far a migration has come.

    Attributes:
        phase: What it is doing.
        done: Jobs that this is done with.
        total: Jobs in all, as they were counted at the beginning of the phase: there may be more.
    """

    phase: Phase
    done: int
    total: int


@dataclasses.dataclass(frozen=True, slots=True)
class MigrationReport:
    """What a migration did.

    Attributes:
        source: The layout of the queue before.
        target: The layout of the queue now.
        jobs: Jobs that were queued or held, and moved. Those of an earlier call that was killed
            behind its switch are among them.
        requeued: Jobs among them that were taken from workers, dead ones or not: these run again.
        standstill: For how long no jobs could be claimed.
        notes: What is left to do by hand.
    """

    source: Layout
    target: Layout
    jobs: int = 0
    requeued: int = 0
    standstill: timedelta = timedelta(0)
    notes: tuple[str, ...] = ()


class _EmptiedError(Exception):
    """Somebody has emptied the queue: the copies are worth nothing."""


def migrate(
    settings: DBSettings,
    to: Layout,
    *,
    batch_size: int,
    patience: timedelta,
    heartbeat_timeout: timedelta,
    requeue_picked: bool,
    on_progress: Callable[[MigrationProgress], None] | None,
) -> Steps[MigrationReport]:
    """Have the queue in the layout *to*; see :meth:`pgq_fast.queries.Queries.migrate`."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, must be at least 1")
    source = yield from installed_layout(settings)
    if source is None:
        raise MigrationRefusedError(["there is no installation by these names"])
    installed = yield from _as_installed(settings, source)
    migration = _Migration(
        installed, batch_size, patience, heartbeat_timeout, requeue_picked, on_progress
    )
    report = yield from migration.run(to)
    for note in report.notes:
        logger.warning("%s", note)
    return report


def _as_installed(settings: DBSettings, source: Layout) -> Steps[DBSettings]:
    """*settings* with the durability of the tables that are there.

    Like an upgrade, a migration leaves it as it is: the settings may say what others should have.
    """
    lease = settings.lease_names
    jobs, records = (
        (settings.queue_table, settings.queue_table_log)
        if source is Layout.compat
        else (lease.ready_table, lease.log_entries_table)
    )
    rows = yield query(statement("migrate/found", settings), *_located(settings, (jobs, records)))
    unlogged = {int(row["place"]) for row in rows if row["unlogged"]}
    durability = {
        frozenset[int](): Durability.durable,
        frozenset((2,)): Durability.balanced,
        frozenset((1, 2)): Durability.volatile,
    }.get(frozenset(unlogged), Durability.durable)
    return _changed(settings, layout=source, durability=durability)


def _changed(settings: DBSettings, **changes: object) -> DBSettings:
    """A copy of *settings* with other values for some."""
    copy = settings.model_copy(update=changes)
    # Kept texts of statements may depend on what has changed.
    vars(copy).pop("statements", None)
    return copy


def _located(settings: DBSettings, names: Iterable[str]) -> tuple[list[str | None], list[str]]:
    """Schemas and names as the two arrays that queries of the catalog take."""
    locations = [locate(settings, name) for name in names]
    return [location.schema for location in locations], [each.name for each in locations]


@dataclasses.dataclass
class _Migration:
    """One call of :func:`migrate`.

    Attributes:
        settings: With the layout and the durability that are installed.
    """

    settings: DBSettings
    batch_size: int
    patience: timedelta
    heartbeat_timeout: timedelta
    requeue_picked: bool
    on_progress: Callable[[MigrationProgress], None] | None
    token: uuid.UUID = dataclasses.field(default_factory=uuid.uuid4)

    def __post_init__(self) -> None:
        self.compat = _changed(self.settings, layout=Layout.compat)
        self.lease = _changed(self.settings, layout=Layout.lease)
        # Jobs that were copied, and changes that were followed: the tables are no larger.
        self.seen = 0
        self.jobs = self.logged = self.expanded = 0
        self.requeued = 0
        self.standstill = timedelta(0)

    def run(self, to: Layout) -> Steps[MigrationReport]:
        """All of it, with this migration being the one that is under way."""
        yield from self._count()
        yield from self._take()
        try:
            report = yield from self._all(to)
        except GeneratorExit:
            raise
        except BaseException as error:
            if (yield from self._lapsed()):
                # What there is may be another migration's.
                raise MigrationLapsedError from error
            # The failure matters more. Without this, everything comes to rest a little later.
            with contextlib.suppress(Exception):
                yield from self._give_up()
            raise
        yield from self._release()
        return report

    def _count(self) -> Steps[None]:
        """See how much there is to do. Before anything begins, as this may take long."""
        (row,) = yield query(self._route(self.settings.layout).sql("total"))
        self.jobs, self.logged = int(row["jobs"]), int(row["logged"])

    def _all(self, to: Layout) -> Steps[MigrationReport]:
        # Again: another migration may have ended since.
        source = yield from installed_layout(self.settings)
        if source is None:
            raise MigrationRefusedError(["the installation has been removed"])
        settled = yield from self._settle_all()
        route = self._route(source)
        yield from self._discard(route)
        if source is to:
            return MigrationReport(source, to, jobs=settled)
        yield from self._look_for_obstacles(route)
        notes = yield from self._notes(route)
        if route.source is Layout.lease:
            yield from self._expand_log(route)
        yield from self._alone(route.prepare())
        while True:
            try:
                yield from self._copy(route)
                yield from self._follow(route, CHASES)
                yield from self._switch(route)
                break
            except _EmptiedError:
                yield from self._alone(route.sql("emptied"))
        settled += yield from self._settle(route)
        return MigrationReport(source, to, settled, self.requeued, self.standstill, notes)

    # -- Who may ------------------------------------------------------------------------------

    def _take(self) -> Steps[None]:
        """Become the migration that is under way, after the one that is."""
        text = self._own(self._common("take")).replace("<life>", f"{LIFE.total_seconds()} seconds")
        began = yield from self._clock()
        for pause in _pauses():
            try:
                yield Statement(f"{self._opening()}\n{text}")
            except Exception as error:
                if sqlstate_of(error) not in {_UNDER_WAY, *_BUSY}:
                    raise
            else:
                return
            now = yield from self._clock()
            if now - began > max(self.patience, TURN):
                raise MigrationUnderWayError
            yield Pause(pause)

    def _lapsed(self) -> Steps[bool]:
        """Whether this is not the migration that is under way any more; as far as can be seen."""
        try:
            yield from self._beat()
        except MigrationLapsedError:
            return True
        except Exception as error:
            # Another one has ended.
            return sqlstate_of(error) == _UNDEFINED_TABLE
        return False

    def _release(self) -> Steps[None]:
        """This migration is over. A failure does no harm: it lapses by itself."""
        try:
            for _, pause in zip(range(5), _pauses(), strict=False):
                try:
                    yield Statement(f"{self._opening()}\n{self._own(self._common('release'))}")
                except Exception as error:
                    if sqlstate_of(error) not in _BUSY:
                        raise
                else:
                    return
                yield Pause(pause)
        except Exception as error:
            logger.warning("The end of the migration could not be noted: %s", error)

    def _give_up(self) -> Steps[None]:
        """Leave the queue as it was. What cannot be removed now is inert; the next call removes it.

        Behind the switch there is nothing to take back.
        """
        stop = self._common("stop")
        yield Statement(stop, (self.token,))
        try:
            source = yield from installed_layout(self.settings)
            if source is not None:
                yield from self._discard(self._route(source), attempts=10)
        except Exception as error:
            logger.warning(
                "What a migration had begun could not be removed, which the next call of migrate() "
                "will do: %s",
                error,
            )
            yield Statement(self._common("stop", "for_good"), (self.token,))
        else:
            yield from self._release()

    def _opening(self, *, fenced: bool = False) -> str:
        """The first statements of a transaction that changes the schema."""
        (key,) = manage.lock(self.settings).args
        flags = ("fenced",) if fenced else ()
        return self._own(self._common("alone", *flags)).replace("<key>", str(int(str(key))))

    def _own(self, text: str) -> str:
        return text.replace("<token>", str(self.token))

    def _common(self, name: str, *flags: str) -> str:
        return statement(f"migrate/{name}", self.settings, *flags)

    def _clock(self) -> Steps[datetime]:
        """The time, which is the server's wherever times are compared."""
        (row,) = yield query(self._common("clock"))
        at: datetime = row["at"]
        return at

    def _beat(self) -> Steps[datetime]:
        """As ``_clock``, and a sign of life."""
        row = yield from self._fenced(self._common("beat"))
        at: datetime = row["at"]
        return at

    def _fenced(self, sql: str, *args: object) -> Steps[dict[str, Any]]:
        """A statement of the one migration that is under way; its row, empty if it has none.

        Raises:
            MigrationLapsedError: That is not this one any more; nothing was done.
        """
        rows = yield query(sql, self.token, *args)
        if not rows:
            # Nothing was found. Or nothing was looked for, which this tells.
            yield from self._beat()
            return {}
        if not rows[0]["mine"]:
            raise MigrationLapsedError
        return rows[0]

    def _alone(self, text: str, *, attempts: int | None = None) -> Steps[None]:
        """Change the schema in one transaction, as soon as its locks can be had.

        Raises:
            MigrationBlockedError: They could not.
            MigrationLapsedError: This is not the migration that is under way any more.
        """
        began: datetime | None = None
        for attempt, pause in enumerate(_pauses(), start=1):
            try:
                yield Statement(f"{self._opening(fenced=True)}\n{text}")
            except Exception as error:
                state = sqlstate_of(error)
                if state == _LAPSED:
                    raise MigrationLapsedError from error
                if state not in _BUSY:
                    raise
                now = yield from self._beat()
                began = began or now
                if now - began > self.patience or attempt == attempts:
                    raise (yield from self._locked()) from error
            else:
                return
            yield Pause(pause)

    def _locked(self) -> Steps[MigrationBlockedError]:
        lease = self.lease.lease_names
        names = (
            self.settings.queue_table,
            self.settings.queue_table_log,
            lease.ready_table,
            lease.deferred_table,
            lease.held_table,
            lease.lease_table,
            lease.log_entries_table,
        )
        rows = yield query(self._common("sessions"), *_located(self.settings, names))
        return MigrationBlockedError({}, [int(row["pid"]) for row in rows])

    # -- Before -------------------------------------------------------------------------------

    def _route(self, source: Layout) -> Route:
        to = Layout.lease if source is Layout.compat else Layout.compat
        return route_to(to, self.compat, self.lease)

    def _exists(self, *names: str) -> Steps[bool]:
        """Whether one of the relations is there."""
        rows = yield query(self._common("found"), *_located(self.settings, names))
        return bool(rows)

    def _discard(self, route: Route, attempts: int | None = None) -> Steps[None]:
        """Throw away what a migration had begun."""
        if (yield from self._exists(route.names.changes_table)):
            yield from self._alone(route.discard(), attempts=attempts)

    def _look_for_obstacles(self, route: Route) -> Steps[None]:
        """See that nothing would be lost.

        Raises:
            MigrationRefusedError: Something would.
        """
        source = self.compat if route.source is Layout.compat else self.lease
        plan = yield from manage.plan_upgrade(source)
        if plan.statements:
            raise MigrationRefusedError(["it is not up to date: run 'pgq upgrade' first"])
        doomed = {locate(source, name).name: columns for name, columns in route.doomed.items()}
        declared = [(name, column) for name, columns in doomed.items() for column in columns]
        rows = yield query(
            self._common("obstacles"),
            *_located(source, route.doomed),
            [name for name, _ in declared],
            [column for _, column in declared],
            [locate(source, trigger).name for trigger in route.own_triggers],
        )
        if rows:
            raise MigrationRefusedError(
                [f"{row['obstacle']} would be lost, drop it first" for row in rows]
            )

    def _notes(self, route: Route) -> Steps[tuple[str, ...]]:
        source = self.compat if route.source is Layout.compat else self.lease
        rows = yield query(self._common("grants"), *_located(source, route.doomed))
        return tuple(
            f"others than its owner had rights on {row['name']}: grant them what they need on the "
            f"tables of the layout {route.target.value}"
            for row in rows
        )

    def _expand_log(self, route: Route) -> Steps[None]:
        """Turn the batches that the log has now into entries, which say the same."""
        (row,) = yield query(route.sql("last_batch"))
        last = int(row["id"])
        place = 0
        while True:
            row = yield from self._fenced(
                route.sql("expand", "before"), self.batch_size, place, last
            )
            if not row["batches"]:
                return
            place = int(row["id"])
            self._expanded(row)

    def _expand_rest(self, route: Route) -> Steps[None]:
        """The same with those that came until the switch."""
        place = 2**63 - 1
        while True:
            row = yield from self._fenced(route.sql("expand", "after"), self.batch_size, place)
            if not row["batches"]:
                return
            place = int(row["id"])
            self._expanded(row)

    def _expanded(self, row: dict[str, Any]) -> None:
        self.expanded += int(row["jobs"])
        self._tell("log", self.expanded, self.logged)

    # -- Copies -------------------------------------------------------------------------------

    def _copy(self, route: Route) -> Steps[None]:
        """Copy all jobs that no worker holds."""
        done = 0
        for walk in route.copies:
            done = yield from self._walk(route, "copy", walk, "copy", done, self.jobs)
        self.seen += done
        yield Statement(route.analyze())

    def _walk(
        self, route: Route, name: str, walk: Walk, phase: Phase, done: int, total: int
    ) -> Steps[int]:
        """Do something to all rows of a table; with them, how many jobs are done."""
        sql = route.sql(name, "fenced", *walk.flags)
        place = walk.start
        while True:
            row = yield from self._fenced(sql, self.batch_size, *place)
            if not row or not row["jobs"]:
                return done
            place = tuple(row[column] for column in walk.columns)
            done += int(row["jobs"])
            self._tell(phase, done, total)

    def _follow(self, route: Route, batches: int) -> Steps[bool]:
        """Copy again what has changed, until there are only changes of this moment, or so many
        *batches* of changes have been followed; whether it was the former.

        Raises:
            _EmptiedError: The queue was emptied.
        """
        for _ in range(batches):
            forget = route.sized_sql(self.seen, "forget", "fenced")
            row = yield from self._fenced(forget, self.batch_size)
            if row["emptied"]:
                raise _EmptiedError
            notes = row["notes"]
            if not notes:
                return True
            self.seen += len(notes)
            yield from self._fenced(
                route.sized_sql(self.seen, "copy", "fenced", "changed", "noted"),
                Int8Array(row["ids"]),
                Int8Array(notes),
            )
            if len(notes) < self.batch_size:
                return True
        return False

    # -- Switch -------------------------------------------------------------------------------

    def _switch(self, route: Route) -> Steps[None]:
        """Close the gate, wait for running jobs, and switch.

        Raises:
            MigrationBlockedError: Some ran for too long, or the tables were locked.
        """
        yield from self._alone(route.gate(GATE))
        closed = yield from self._beat()
        most = 0
        for pause in _pauses():
            caught_up = yield from self._follow(route, GATED_CHASES)
            row = yield from self._fenced(route.sql("drain"), GATE, self.heartbeat_timeout)
            held, running = int(row["held"]), int(row["held"]) - int(row["silent"])
            most = max(most, running)
            self._tell("drain", most - running, most)
            overdue = row["at"] - closed > self.patience
            forced = overdue and self.requeue_picked
            if not caught_up and not overdue:
                continue
            if not running or forced:
                text = route.switch(self.heartbeat_timeout, patient=not forced)
                switched = yield from self._try_to_switch(text, overdue)
                if switched:
                    self.requeued = held
                    self.standstill = (yield from self._clock()) - closed
                    return
            elif overdue:
                rows = yield query(route.sql("holders"), self.heartbeat_timeout)
                if rows:
                    raise MigrationBlockedError({row["worker"]: int(row["jobs"]) for row in rows})
            yield Pause(pause)

    def _try_to_switch(self, text: str, overdue: bool) -> Steps[bool]:
        try:
            yield Statement(f"{self._opening(fenced=True)}\n{text}")
        except Exception as error:
            state = sqlstate_of(error)
            if state == _EMPTIED:
                raise _EmptiedError from error
            if state == _LAPSED:
                raise MigrationLapsedError from error
            if state == _RUNNING:
                return False
            if state not in _BUSY:
                raise
            if overdue:
                raise (yield from self._locked()) from error
            return False
        return True

    # -- After --------------------------------------------------------------------------------

    def _settle_all(self) -> Steps[int]:
        """Go on with what an earlier migration has left behind its switch."""
        names, done = self.lease.migration_names, 0
        for to, table in (
            (Layout.lease, names.moved_table),
            (Layout.compat, names.moved_ready_table),
        ):
            if (yield from self._exists(table)):
                done += yield from self._settle(route_to(to, self.compat, self.lease))
        return done

    def _settle(self, route: Route) -> Steps[int]:
        """Have log and statistics say what they would say had the jobs always been here.

        Returns:
            How many jobs that were.
        """
        done = 0
        if route.target is Layout.compat:
            yield from self._expand_rest(route)
        for walk in route.settles:
            done = yield from self._walk(route, "settle", walk, "settle", done, self.jobs)
        try:
            yield from self._alone(route.settled())
        except MigrationBlockedError as error:
            # A pg_dump, for one. Nothing needs them any more.
            logger.warning(
                "Tables that the migration has put aside could not be dropped, which the next call "
                "of migrate() will do: sessions %s have them locked",
                error.sessions,
            )
        return done

    def _tell(self, phase: Phase, done: int, total: int) -> None:
        if self.on_progress is not None:
            self.on_progress(MigrationProgress(phase, done, max(done, total)))


def _pauses() -> Iterator[float]:
    """Seconds, growing."""
    pause = SHORTEST_PAUSE
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE)
