"""What the dashboard reads of a queue: never more rows than a page needs, however long it is.

Numbers are counted up to a limit, lists are pages that go on from a key, and where a filter has no
index, a page looks at so many jobs and says where it stopped. Each look is a transaction that can
write nothing and ends after a few seconds; the session keeps nothing of its settings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from pgq_fast.choices import Layout
from pgq_fast.drivers.base import RowDriver
from pgq_fast.drivers.failures import sqlstate_of
from pgq_fast.errors import SlowReadError, UnreadableQueueError
from pgq_fast.queries import Queries
from pgq_fast.schema.layout import mismatch_behind
from pgq_fast.sql import layout_statement
from pgq_fast.web.cursors import Cursor

__all__ = ["Filters", "Page", "Place", "Reads"]

COUNTED: Final = 10_000
"""Where counting ends: index entries that one number may cost."""

LOOKED_AT: Final = 20_000
"""Jobs that one page looks at for those that match its filters."""

SEARCHED: Final = 100_000
"""Deferred jobs that the search for a single one looks at, where nothing says in which order it is:
15 ms of the server's time."""

NAMES: Final = 200
"""Entrypoints that a page knows at most."""

NAMES_A_PAGE: Final = 50
"""Entrypoints whose jobs one page of the list looks through: each costs a statement."""

COUNTED_OF_EACH: Final = 1_000
"""Where counting ends for each row of a table."""

PAGE: Final = 50
"""Jobs on a page."""

STATISTICS: Final = 50_000
"""Rows of the statistics that a chart reads: 25 ms of the server's time."""

RECENT: Final = 20_000
"""Log entries that the statistics do not count yet and a chart does."""

TIMEOUT: Final = timedelta(seconds=5)
"""A look that takes longer is given up."""

_CANCELED: Final = "57014"
_HIGHEST_PRIORITY: Final = 2**31 - 1
_LOWEST_PRIORITY: Final = -(2**31)
_HIGHEST_ID: Final = 2**63 - 1

Place: TypeAlias = Literal["queued", "deferred", "picked", "failed"]
"""Where a job is: due, not due yet, running, or held after a failure."""

PLACES: Final[tuple[Place, ...]] = get_args(Place)

Record: TypeAlias = dict[str, Any]
Fetch: TypeAlias = Callable[..., Awaitable[list[Record]]]


@dataclasses.dataclass(frozen=True)
class Count:
    """A number that is exact, or *more* where counting ended at a limit."""

    value: int
    more: bool = False

    @classmethod
    def upto(cls, limit: int, counted: int) -> Count:
        """*counted* by looking at *limit* + 1 at most."""
        return cls(min(counted, limit), counted > limit)

    def __str__(self) -> str:
        return f"{self.value:,}{'+' if self.more else ''}"


@dataclasses.dataclass(frozen=True)
class Filters:
    """Which jobs to list.

    Attributes:
        place: Where they are.
        entrypoint: Of this entrypoint; None for any.
        lowest: Priority at least.
        highest: Priority at most.
        older: Enqueued longer ago than this; None for any time.
    """

    place: Place = "queued"
    entrypoint: str | None = None
    lowest: int = _LOWEST_PRIORITY
    highest: int = _HIGHEST_PRIORITY
    older: timedelta | None = None

    @property
    def needs_search(self) -> bool:
        """Whether there is a condition that no index serves."""
        return (
            self.lowest > _LOWEST_PRIORITY
            or self.highest < _HIGHEST_PRIORITY
            or self.older is not None
            or (self.place in ("picked", "failed") and self.entrypoint is not None)
        )


@dataclasses.dataclass
class Page:
    """Jobs, and where to go on.

    Attributes:
        jobs: Rows of the statements in ``sql/*/web``.
        next: Where the next page begins; None if there is none.
        looked: How many jobs were looked at.
        searching: Whether the page ended because that were enough, not because it was full.
        cut: Whether there may be jobs that no page reaches.
    """

    jobs: list[Record]
    next: Cursor | None = None
    looked: int = 0
    searching: bool = False
    cut: bool = False


@dataclasses.dataclass(frozen=True)
class Overview:
    """The queue in numbers.

    Attributes:
        counts: Jobs by place.
        about_queued: The planner's guess of the queued jobs where counting ended before; None else,
            or if it has none.
        waited: Seconds for which the due job that is first in its line has waited, the longest.
        workers: Workers that hold jobs.
        idle: Workers that wait to be told of jobs; None where the layout does not know them.
        names_cut: Whether there are more entrypoints than were looked at.
    """

    counts: dict[Place, Count]
    about_queued: int | None
    waited: float | None
    workers: Count
    idle: Count | None
    names_cut: bool


@dataclasses.dataclass(frozen=True)
class Ended:
    """Jobs that ended.

    Attributes:
        rows: ``slot`` (number of the slot since 1970), ``status``, ``count``, and ``entrypoint``
            where it was asked for.
        cut: Whether older ones are missing, since the statistics are longer than what was read.
        behind: Whether newer ones are missing, since more wait to be counted than was read.
    """

    rows: list[Record]
    cut: bool
    behind: bool


class Reads:
    """Bounded reads of the queue behind *queries*.

    Args:
        queries: A ``Queries``: the tables themselves are read.

    Raises:
        UnreadableQueueError: It is something else.
    """

    def __init__(self, queries: object) -> None:
        if not isinstance(queries, Queries):
            raise UnreadableQueueError(queries)
        self.queries = queries
        self.layout = queries.qbq.settings.layout

    # -- Transactions -------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _look(self) -> AsyncIterator[Fetch]:
        """Statements of one transaction that is read only and bounded.

        Raises:
            SlowReadError: A statement took too long.
            LayoutMismatchError: The queue is kept in other tables.
        """
        driver = self.queries.driver
        try:
            if not isinstance(driver, RowDriver) or driver.in_transaction():
                # Nothing here may change a transaction that is somebody else's.
                yield self._fetcher(driver.fetch)
                return
            async with driver.transaction() as transaction:
                milliseconds = str(int(TIMEOUT.total_seconds() * 1000))
                await self._fetcher(transaction.fetch)("bounds", milliseconds)
                yield self._fetcher(transaction.fetch)
        except Exception as error:
            if sqlstate_of(error) == _CANCELED:
                raise SlowReadError(TIMEOUT) from error
            mismatch = await mismatch_behind(error, driver, self.queries.qbq.settings)
            if mismatch is not None:
                raise mismatch from error
            raise

    def _fetcher(self, fetch: Callable[..., Awaitable[list[dict[str, object]]]]) -> Fetch:
        async def fetch_named(name: str, *args: object, flag: str = "") -> list[Record]:
            settings = self.queries.qbq.settings
            if name == "schedules" or name == "alive":
                settings = self.queries.qbs.settings
            return await fetch(layout_statement(f"web/{name}", settings, flag), *args)

        return fetch_named

    async def _rows(self, name: str, *args: object, flag: str = "") -> list[Record]:
        async with self._look() as fetch:
            return await fetch(name, *args, flag=flag)

    # -- Numbers ------------------------------------------------------------------------------

    async def alive(self) -> None:
        """Nothing, or the error that the queue cannot be read for."""
        await self._rows("alive")

    async def overview(self) -> Overview:
        """The queue in numbers."""
        limit = COUNTED + 1
        async with self._look() as fetch:
            (row,) = await fetch("counts", limit, NAMES)
            workers = await fetch("workers", NAMES, self._jobs_of_workers)
            about = None
            if row["queued"] >= limit:
                settings = self.queries.qbq.settings
                table = settings.qualified.queue_table
                if self.layout is Layout.lease:
                    table = settings.lease_names.ready_table
                guess = await fetch("estimate", table)
                about = guess[0]["rows"] if guess else None
            idle = None
            if self.layout is Layout.lease:
                (waiting,) = await fetch("waiting", COUNTED)
                idle = Count(waiting["workers"])
        counts: dict[Place, Count] = {place: Count.upto(COUNTED, row[place]) for place in PLACES}
        if row["failed_cut"]:
            counts["failed"] = Count(counts["failed"].value, True)
        if row["names_cut"]:
            counts["queued"] = dataclasses.replace(counts["queued"], more=True)
            counts["deferred"] = dataclasses.replace(counts["deferred"], more=True)
        return Overview(
            counts=counts,
            about_queued=about if about is None or about > COUNTED else None,
            waited=row["waited"],
            workers=Count(len(workers), len(workers) >= NAMES),
            idle=idle,
            names_cut=row["names_cut"],
        )

    async def counts(self) -> dict[Place, Count]:
        """Jobs by place."""
        return (await self.overview()).counts

    async def ended(self, window: timedelta, slot: int, *, by_entrypoint: bool = False) -> Ended:
        """Jobs that ended within *window*, by slots of *slot* seconds."""
        flag = "by_entrypoint" if by_entrypoint else ""
        async with self._look() as fetch:
            counted = await fetch("throughput", window, slot, STATISTICS, flag=flag)
            recent = await fetch("recent", window, slot, RECENT, flag=flag)
        return Ended(
            [*counted, *recent],
            cut=any(row["cut"] for row in counted),
            behind=any(row["cut"] for row in recent),
        )

    async def durations(self, window: timedelta, slots: int) -> list[Record]:
        """Run times of a sample of jobs that ended within *window*: ``n`` of *slots*, ``jobs``."""
        return await self._rows("durations", window, slots, 400, 100)

    async def entrypoints(self) -> tuple[list[Record], dict[str, int]]:
        """Entrypoints with queued jobs, and running jobs by entrypoint."""
        async with self._look() as fetch:
            queued = await fetch("entrypoints", COUNTED_OF_EACH + 1, NAMES)
            running = await fetch("running", COUNTED)
        return queued, {row["entrypoint"]: row["picked"] for row in running}

    async def names(self) -> list[str]:
        """Entrypoints with queued jobs."""
        return [row["entrypoint"] for row in await self._rows("names", "", NAMES)]

    async def uncounted(self) -> Count:
        """Log entries that no statistics contain yet."""
        (row,) = await self._rows("uncounted", COUNTED + 1)
        return Count.upto(COUNTED, row["entries"])

    # -- Lists --------------------------------------------------------------------------------

    async def jobs(self, filters: Filters, after: Cursor | None = None) -> Page:
        """A page of jobs.

        Args:
            filters: Which ones.
            after: ``Page.next`` of the page before.
        """
        async with self._look() as fetch:
            if filters.place == "failed":
                return await self._held(fetch, filters, after)
            if filters.place == "picked":
                return await self._picked(fetch, filters, after)
            return await self._waiting(fetch, filters, after)

    async def _waiting(self, fetch: Fetch, filters: Filters, after: Cursor | None) -> Page:
        """Queued or deferred jobs, entrypoint by entrypoint: each has an index in its order."""
        place = "queued" if filters.place == "queued" else "deferred"
        start = after.text(0) if after is not None else filters.entrypoint or ""
        if filters.entrypoint is not None:
            names, more = [start], False
        else:
            rows = await fetch("names", start, NAMES_A_PAGE + 1)
            names = [row["entrypoint"] for row in rows[:NAMES_A_PAGE]]
            more = len(rows) > NAMES_A_PAGE
        page = Page([])
        budget = LOOKED_AT
        for name in names:
            key = after if after is not None and name == start else None
            if place == "queued":
                begin: tuple[object, ...] = (
                    (filters.highest, 0) if key is None else (key.integer(1), key.integer(2))
                )
            else:
                begin = (None, 0) if key is None else (key.time(1), key.integer(2))
            room = PAGE - len(page.jobs)
            search = self._searches(filters)
            # Most pages are full after a few jobs, whatever they are searched for.
            for look in (min(budget, (4 * PAGE if search else 0) + room + 1), budget):
                found = await fetch(
                    place,
                    name,
                    *begin,
                    filters.lowest,
                    filters.highest,
                    filters.older,
                    look,
                    room + 1,
                )
                matches, last, looked = _judged(found)
                if not search or len(matches) > room or looked < look:
                    break
            page.jobs += matches[:room]
            page.looked += looked
            budget -= looked
            if len(matches) > room or (looked >= look and last is not None):
                end = matches[room - 1] if len(matches) > room else last
                assert end is not None
                page.searching = len(matches) <= room and search
                page.next = self._after(place, name, end)
                if page.next is None:
                    page.cut = True
                return page
            if len(page.jobs) >= PAGE or budget <= 0:
                position = names.index(name) + 1
                follower = names[position] if position < len(names) else None
                if follower is None and more:
                    follower = rows[NAMES_A_PAGE]["entrypoint"]
                page.next = None if follower is None else self._first(place, follower, filters)
                return page
        if more:
            page.searching = True
            page.next = self._first(place, rows[NAMES_A_PAGE]["entrypoint"], filters)
        return page

    def _searches(self, filters: Filters) -> bool:
        """Whether a page looks at more jobs than it shows."""
        # In pgqueuer's tables, deferred jobs stand among the queued ones.
        mixed = self.layout is Layout.compat and filters.place == "queued"
        return mixed or filters.needs_search

    def _after(self, place: str, name: str, row: Record) -> Cursor | None:
        if place == "queued":
            return Cursor.of(name, row["priority"], row["id"])
        if self.layout is Layout.compat and row["tie"] > LOOKED_AT:
            # Jobs that are due at the same instant have no order to go on from, only a number to
            # skip, and that is not to grow.
            return None
        return Cursor.of(name, row["execute_after"], row["tie"])

    def _first(self, place: str, name: str, filters: Filters) -> Cursor:
        if place == "queued":
            return Cursor.of(name, filters.highest, 0)
        return Cursor.of(name, None, 0)

    async def _picked(self, fetch: Fetch, filters: Filters, after: Cursor | None) -> Page:
        if self.layout is Layout.lease:
            begin: tuple[object, ...] = (
                (0, 0) if after is None else (after.integer(0), after.integer(1))
            )
        else:
            begin = (None, 0) if after is None else (after.time(0), after.integer(1))
        look = LOOKED_AT if filters.needs_search or self.layout is Layout.lease else PAGE + 1
        found = await fetch(
            "picked",
            filters.entrypoint,
            *begin,
            filters.lowest,
            filters.highest,
            filters.older,
            look,
            PAGE + 1,
        )
        matches, last, looked = _judged(found)
        page = Page(matches[:PAGE], looked=looked)
        end = matches[PAGE - 1] if len(matches) > PAGE else None
        if end is None and last is not None and self._more_picked(last, looked, look):
            end, page.searching = last, True
        if end is not None:
            page.next = (
                Cursor.of(end["lease"], end["tie"])
                if self.layout is Layout.lease
                else Cursor.of(end["updated"], end["id"])
            )
        return page

    def _more_picked(self, last: Record, looked: int, look: int) -> bool:
        if self.layout is Layout.compat:
            return looked >= look
        # Leases are looked at as a whole.
        return bool(last["more_leases"]) or last["lease"] < last["last_lease"]

    async def _held(self, fetch: Fetch, filters: Filters, after: Cursor | None) -> Page:
        found = await fetch(
            "held",
            _HIGHEST_ID if after is None else after.integer(0),
            filters.entrypoint,
            filters.older,
            LOOKED_AT if self.layout is Layout.lease else COUNTED,
            PAGE + 1,
            filters.lowest,
            filters.highest,
        )
        page = Page(found[:PAGE], cut=any(row["cut"] for row in found))
        if len(found) > PAGE:
            page.next = Cursor.of(found[PAGE - 1]["id"])
        return page

    async def exceptions(self, after: Cursor | None = None) -> Page:
        """Failures that the log has, newest first."""
        begin = (None, 0) if after is None else (after.time(0), after.integer(1))
        found = await self._rows("exceptions", *begin, COUNTED, PAGE + 1)
        page = Page(found[:PAGE], cut=any(row["looked"] >= COUNTED for row in found))
        if len(found) > PAGE:
            page.next = Cursor.of(found[PAGE - 1]["created"], found[PAGE - 1]["id"])
        return page

    async def job(
        self, job_id: int, *, payload: bool, hint: Cursor | None = None
    ) -> tuple[Record | None, list[Record], bool]:
        """A job, what the log says of it, newest first, and whether the search was cut short.

        Args:
            job_id: Its id.
            payload: Whether to read its payload and headers too.
            hint: Where it was, as :meth:`hint` says.
        """
        flag = "payload" if payload else ""
        where = (None, None) if hint is None else (hint.text(0), hint.time(1))
        async with self._look() as fetch:
            rows = await fetch("job", job_id, *where, SEARCHED, flag=flag)
            history = await fetch("history", job_id, 100, flag=flag)
        row = rows[0] if rows else None
        if row is not None and row["id"] is None:
            return None, history, bool(row["cut"])
        return row, history, False

    @staticmethod
    def hint(job: Record) -> Cursor:
        """Where to find *job*, a row of a list, again."""
        return Cursor.of(job["entrypoint"], job["execute_after"])

    async def workers(self) -> list[Record]:
        """Workers that hold jobs."""
        rows = await self._rows("workers", NAMES, self._jobs_of_workers)
        for row in rows:
            row["entrypoints"] = cast("list[str]", json.loads(row["entrypoints"]))
            row["jobs"] = (
                Count.upto(COUNTED_OF_EACH, row["jobs"])
                if self.layout is Layout.compat
                else Count(row["jobs"])
            )
        return rows

    @property
    def _jobs_of_workers(self) -> int:
        """How many jobs of each worker are looked at, or how many leases of all."""
        return COUNTED_OF_EACH + 1 if self.layout is Layout.compat else COUNTED

    async def leases(self) -> list[Record]:
        """Leases, the one without a heartbeat for longest first; none on pgqueuer's tables."""
        if self.layout is Layout.compat:
            return []
        return await self._rows("leases", COUNTED, 100)

    async def stale(self, threshold: timedelta) -> list[Record]:
        """Running jobs without a heartbeat for *threshold*."""
        return await self._rows("stale", threshold, 100)

    async def schedules(self) -> list[Record]:
        """Schedules by name."""
        return await self._rows("schedules", NAMES)


def _judged(rows: Sequence[Record]) -> tuple[list[Record], Record | None, int]:
    """The rows that match, the last one that was looked at if it is there, and how many were."""
    if not rows:
        return [], None, 0
    looked = int(rows[0]["looked"])
    last = rows[-1] if rows[-1]["place"] == looked else None
    return [row for row in rows if row["matches"]], last, looked
