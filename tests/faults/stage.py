"""A round: a queue under load, a kind of fault done to it several times, and the account after."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode

import psycopg

from faults.account import Account, Clock, Tables, counts, take, wall_offset
from faults.crew import NUMBER, Crew, Member, Strike
from faults.pulse import Patience, watch
from faults.server import Server
from pgq_fast.drivers.owned import OwnedDriver
from pgq_fast.queries import Queries
from pgq_fast.settings import Layout
from support.layouts import LAYOUT_VARIABLE, queries_of
from support.server import with_database

OWNED: Final = ("owned-asyncpg", "owned-psycopg")
"""Drivers that open their connections themselves, and replace those that are lost."""

DRIVERS: Final = (*OWNED, "asyncpg", "psycopg", "asyncpg-pool")
"""All drivers; the others are on connections of the user's."""

WORKERS: Final = 2
HEARTBEAT: Final = 2.0
POLL: Final = 2.0
"""Seconds: the workers' heartbeat timeout and dequeue timeout, short for the sake of the suite."""

PATIENCE: Final = 45.0
"""Seconds without any progress after which a round has failed."""

BACKLOG: Final = 40
"""Runs of jobs before the first fault and after the last one, in a short round."""

REPLACE_PAUSE: Final = 0.3
"""Seconds between the end of a worker and the start of the next one."""

CLEAR: Final = frozenset(
    {
        # The package's own.
        "ConnectionLostError",
        "FailingListenerError",
        # asyncpg's.
        "AdminShutdownError",
        "CannotConnectNowError",
        "ConnectionDoesNotExistError",
        "CrashShutdownError",
        "InterfaceError",
        # ... where the session ends just as a statement is being sent.
        "InternalClientError",
        # psycopg's.
        "AdminShutdown",
        "CrashShutdown",
        "OperationalError",
        # The operating system's.
        "BrokenPipeError",
        "ConnectionRefusedError",
        "ConnectionResetError",
    }
)
"""Errors that tell whoever runs a worker that its connection is gone."""


@dataclasses.dataclass
class Setting:
    """What is around the queue of a round, and how workers get to it."""

    dsn: str
    listen_dsn: str | None = None
    """The way past a pooler; None: there is no pooler."""
    tablespace: str | None = None
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Variables of the workers' processes."""
    handle: Any = None
    """What the kind of fault works by."""


@contextlib.asynccontextmanager
async def nothing_special(stage: Stage) -> AsyncIterator[Setting]:
    """Workers on a direct connection."""
    yield Setting(stage.server.tcp_dsn(stage.name))


Ends = Literal["nobody", "unowned", "anybody"]
"""Whose end a kind of fault may be; that of a worker on the user's connections, for most."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of fault."""

    name: str
    what: str
    """A sentence for the page: what is done."""
    strike: Callable[[Stage], Awaitable[None]]
    blows: int = 3
    """How often in a round."""
    ends: Ends = "unowned"
    errors: frozenset[str] = frozenset()
    """Errors, and signals, that are clear beside errors of lost connections."""
    setting: Callable[[Stage], AbstractAsyncContextManager[Setting]] = nothing_special
    session: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Settings of PostgreSQL for the sessions of the workers."""
    worker: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options of the workers."""
    faked_clock: bool = False
    """Whether the server's clock can be stepped."""

    def may_end(self, driver: str) -> bool:
        """Whether a worker on that driver may end by itself."""
        return self.ends == "anybody" or (self.ends == "unowned" and driver not in OWNED)


class RoundFailed(Exception):
    """Something did not come about that a round waits for."""


@dataclasses.dataclass
class Workers:
    """What became of the workers of a round."""

    started: int = 0
    survived: int = 0
    """Of those that were there from the beginning."""
    killed: int = 0
    ended: dict[str, int] = dataclasses.field(default_factory=dict)
    """By themselves, with which errors."""
    not_started: dict[str, int] = dataclasses.field(default_factory=dict)
    """Ended before they had done anything, with which errors."""


@dataclasses.dataclass
class Result:
    """What a round came to."""

    kind: str
    layout: str
    driver: str
    seconds: float = 0.0
    blows: int = 0
    account: Account = dataclasses.field(default_factory=Account)
    workers: Workers = dataclasses.field(default_factory=Workers)

    @property
    def problems(self) -> list[str]:
        """What is not as it has to be."""
        return self.account.problems

    def as_json(self) -> dict[str, Any]:
        """For the file."""
        return {
            "kind": self.kind,
            "layout": self.layout,
            "driver": self.driver,
            "seconds": round(self.seconds, 1),
            "blows": self.blows,
            "jobs": counts(self.account),
            "workers": dataclasses.asdict(self.workers),
            "problems": self.problems,
        }


class Stage:
    """What a kind of fault can get at during a round.

    Attributes:
        random: For all that is left to chance.
        server: The server itself.
        name: The queue's database.
        dsn: The way to it past everything.
        handle: What the kind's setting has for it.
        crew: The processes.
        brief: Whether the round is one of the short ones.
        backlog: Runs of jobs before the first fault and after the last one.
        block: Seconds for which a handler blocks its loop.
    """

    def __init__(
        self,
        kind: Kind,
        layout: Layout,
        driver: str,
        seed: str,
        server: Server,
        folder: Path,
        *,
        brief: bool,
    ) -> None:
        self.kind = kind
        self.layout = layout
        self.driver = driver
        self.random = random.Random(seed)
        self.server = server
        self.folder = folder
        self.brief = brief
        self.backlog = BACKLOG if brief else 5 * BACKLOG
        self.block = 3 * HEARTBEAT if brief else 60.0
        self.problems: list[str] = []
        self.probes: list[int] = []
        self.errors: Counter[str] = Counter()
        self.not_started: Counter[str] = Counter()
        self.pauses: list[Strike] = []
        self.ended = False
        self._probe_numbers = itertools.count(1)
        self._found_ended: set[int] = set()
        self._stack = contextlib.AsyncExitStack()
        self.name = f"faults_{self.random.getrandbits(40):x}"
        self.dsn = with_database(server.dsn, self.name)

    # -- What kinds of faults use -----------------------------------------------------------------

    async def moment(self, least: float = 0.05, most: float = 0.6) -> None:
        """Some time."""
        await asyncio.sleep(self.random.uniform(least, most))

    def victim(self) -> Member:
        """A worker that is alive."""
        return self.random.choice(self.crew.working)

    async def enqueue(self, entrypoint: str) -> int:
        """A job beside those of the load; its id."""
        token = f"stage.{next(self._probe_numbers)}"
        (job,) = await self.queries.enqueue(entrypoint, f"{token} ".encode())
        self.probes.append(job)
        return job

    def connect(self) -> psycopg.Connection[Any]:
        """A connection past everything, each statement for itself."""
        return psycopg.connect(self.dsn, autocommit=True)

    async def until(self, what: str, check: Callable[[], Any], patience: float = PATIENCE) -> Any:
        """Wait until *check* says something true; that.

        Raises:
            RoundFailed: It does not, for *patience* seconds.
        """
        waiting = Patience(patience)
        while not (found := check()):
            if waiting.ran_out():
                raise RoundFailed(f"waited {patience:.0f} s for {what}")
            await asyncio.sleep(0.02)
        return found

    async def advanced(self, runs: int) -> None:
        """Wait until so many more jobs have been started."""
        before = self._runs()
        await self.until(f"{runs} runs of jobs", lambda: self._runs() >= before + runs)

    def running(self, entrypoint: str) -> dict[Member, int]:
        """Workers that run a job of *entrypoint* now, with the job."""
        found = {}
        for member in self.crew.working:
            open_runs: set[int] = set()
            for what, _, *facts in member.events():
                if what == "start" and facts[2] == entrypoint:
                    open_runs.add(facts[0])
                elif what == "end":
                    open_runs.discard(facts[0])
            if open_runs:
                found[member] = min(open_runs)
        return found

    def started(self, entrypoint: str) -> set[int]:
        """Jobs of *entrypoint* that have been started."""
        return {
            facts[0]
            for member in self.crew.workers
            for what, _, *facts in member.events()
            if what == "start" and facts[2] == entrypoint
        }

    def start_worker(self, **options: Any) -> Member:
        """One more worker."""
        options = {**self.kind.worker, **options}
        return self.crew.start("work", seed=self.random.random(), **options)

    # -- The round --------------------------------------------------------------------------------

    async def play(self) -> Result:
        """The whole round."""
        began, offset = time.monotonic(), wall_offset()
        blows = 0
        account = Account()
        watch(lambda begin, end: self.pauses.append(Strike(begin, end)), lambda: self.ended)
        async with self._stack:
            self._stack.callback(setattr, self, "ended", True)
            await self._set_up()
            keeper = asyncio.create_task(self._replace_ended())
            try:
                await self._probe()
                for _ in range(1 if self.brief else 2):
                    self.crew.start("produce", seed=self.random.random())
                first = set(self.crew.working)
                await self.advanced(self.backlog)
                for _ in range(min(2, self.kind.blows) if self.brief else self.kind.blows):
                    await self.moment()
                    await self.kind.strike(self)
                    blows += 1
                await self.advanced(self.backlog)
                await self._end_producers()
                await self._drained()
                await self._probe()
                survivors = len(first & set(self.crew.working))
                # From here on an end is the one that was asked for.
                keeper.cancel()
                await self._end_workers()
            except RoundFailed as error:
                self.problems.append(str(error))
                survivors = len(self.crew.working)
            finally:
                keeper.cancel()
                self._note_ended()
                self.crew.end_all()
            if keeper.done() and not keeper.cancelled():
                keeper.result()
            tables = await asyncio.to_thread(Tables.read, self.dsn)
            clock = None if self.kind.faked_clock else Clock.measured(offset)
            account = take(self.crew.members, self.probes, tables, self.pauses, clock)
            account.problems[:0] = self.problems
        workers = Workers(
            len(self.crew.workers),
            survivors,
            sum(member.killed for member in self.crew.workers),
            dict(sorted(self.errors.items())),
            dict(sorted(self.not_started.items())),
        )
        seconds = time.monotonic() - began
        return Result(
            self.kind.name, self.layout.value, self.driver, seconds, blows, account, workers
        )

    async def _set_up(self) -> None:
        setting = await self._stack.enter_async_context(self.kind.setting(self))
        self.handle = setting.handle
        self._stack.enter_context(self.server.database(self.name, setting.tablespace))
        driver = await self._stack.enter_async_context(OwnedDriver(self.dsn, "asyncpg"))
        self.queries: Queries = queries_of(driver, self.layout)
        await self.queries.install()
        environment = {LAYOUT_VARIABLE: self.layout.value, **setting.environment}
        self.crew = Crew(
            self.folder,
            {
                "dsn": self._for_workers(setting.dsn),
                "listen_dsn": setting.listen_dsn,
                "driver": self.driver,
                "heartbeat": HEARTBEAT,
                "poll": POLL,
                "batch": self.random.choice([5, 20, 100]),
                "block": self.block,
                "environment": environment,
            },
            {
                "dsn": self.dsn,
                "pause": 0.05,
                "environment": {LAYOUT_VARIABLE: self.layout.value},
            },
        )
        self._stack.callback(self.crew.end_all)
        for _ in range(WORKERS):
            self.start_worker()

    def _for_workers(self, dsn: str) -> str:
        parameters = {"application_name": f"worker-{NUMBER}"}
        if self.kind.session:
            parameters["options"] = " ".join(
                f"-c {name}={value}" for name, value in self.kind.session.items()
            )
        return f"{dsn}{'&' if '?' in dsn else '?'}{urlencode(parameters, quote_via=quote)}"

    def _runs(self) -> int:
        return sum(
            member.journal.read_bytes().count(b'["start"')
            for member in self.crew.workers
            if member.journal.exists()
        )

    async def _replace_ended(self) -> None:
        """Do what whoever runs a worker does: start the next one when it ends with an error."""
        while True:
            await asyncio.sleep(REPLACE_PAUSE)
            for _ in range(self._note_ended()):
                self.start_worker()

    def _note_ended(self) -> int:
        """Take down how workers ended; how many have since the last time."""
        ended = [
            member
            for member in self.crew.workers
            if member.ended_by_itself and member.number not in self._found_ended
        ]
        for member in ended:
            self._found_ended.add(member.number)
            # Jobs in hand run again.
            member.struck()
            error = member.error()
            has_worked = any(what == "start" for what, *_ in member.events())
            (self.errors if has_worked else self.not_started)[error] += 1
            if error not in CLEAR | self.kind.errors:
                code = member.process.returncode
                self.problems.append(f"worker {member.number} ended with {code}, {error}")
            elif has_worked and not self.kind.may_end(self.driver):
                self.problems.append(f"worker {member.number} ended, with {error}")
        return len(ended)

    async def _probe(self) -> None:
        """See that every worker works, and is told that there is something to do."""
        asked: dict[int, float] = {}
        waiting = Patience(PATIENCE)
        while missing := [m for m in self.crew.working if m.number not in self._probed(asked)]:
            for member in missing:
                if member.number not in asked:
                    asked[member.number] = await self.enqueue(f"probe-{member.number}")
            if waiting.ran_out():
                raise RoundFailed(f"worker {missing[0].number} is alive, and does not work")
            await asyncio.sleep(0.05)

    def _probed(self, asked: Mapping[int, float]) -> set[int]:
        return {
            member.number
            for member in self.crew.workers
            if member.number in asked
            and any(
                what == "start" and facts[0] == asked[member.number]
                for what, _, *facts in member.events()
            )
        }

    async def _end_producers(self) -> None:
        for member in self.crew.producers:
            # Before, it knows of no signals.
            await self.until("a producer", member.journal.exists)
            member.ask_to_end()
        for member in self.crew.producers:
            await self._ended_well(member)

    async def _end_workers(self) -> None:
        ending = self.crew.working
        for member in ending:
            member.ask_to_end()
        for member in ending:
            await self._ended_well(member)

    async def _ended_well(self, member: Member) -> None:
        await self.until(f"{member.role} {member.number} to end", lambda: not member.alive)
        if (code := member.process.returncode) != 0:
            self.problems.append(
                f"{member.role} {member.number} ended with {code} at SIGTERM, {member.error()}"
            )

    async def _drained(self) -> None:
        """Wait until nothing is left that can run."""
        last, waiting = -1, Patience(PATIENCE)
        with self.connect() as connection:
            while True:
                row = connection.execute(
                    "SELECT count(*) FROM pgqueuer"
                    " WHERE status IN ('queued', 'picked') AND entrypoint <> 'later'"
                ).fetchone()
                assert row is not None
                if row[0] == 0:
                    return
                if row[0] != last:
                    last, waiting = row[0], Patience(PATIENCE)
                elif waiting.ran_out():
                    raise RoundFailed(f"{last} jobs are left, and nobody runs them")
                await asyncio.sleep(0.1)
