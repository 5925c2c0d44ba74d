"""Other job queues on PostgreSQL beside pgq_fast: what each does in a second, and how it waits.

    python bench/peers.py --quick --json FILE
    python bench/peers.py --only pgq_fast --only oban --task drain

Each library is driven by a program of its own in bench/programs, through its public API, in a
process and an environment of its own under bench/.peers, made on first use; pgq_fast runs in this
interpreter's, where its tree is. A trial has a new database, ANALYZEd once it is filled. Payloads
carry a number, and a trial in which one did not run exactly once, or in which other jobs are queued
than were enqueued, is an error, not a figure. What a library keeps of its jobs stays at its
default.

The rate of a drain is that from the workers' start to the last job's run, to 20 ms. A wait is that
from just before a job is enqueued to its handler's start, in another process, whose worker has
nothing else to do; the next job comes when the last one has run.

"best" are settings that the library's documentation recommends for throughput, not the result of a
search: who knows a library better may find better ones.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import queue
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from facts import gather, print_facts
from measure import MeasurementError, require_same
from options import add_common, settle
from recording import Recording, print_chart
from servers import BenchError, new_database, plain_environment, postgres, query

HERE: Final = Path(__file__).resolve().parent
CACHE: Final = HERE / ".peers"
# Seconds after which a program counts as hanging.
PATIENCE: Final = 240
REPEAT: Final = 3
QUICK_REPEAT: Final = 1
QUICK_SCALE: Final = 0.2
# Jobs of a trial at least, whatever the scale.
FEWEST: Final = 10
# Jobs that are enqueued one by one at the same time.
AT_ONCE: Final = 16
# Jobs whose waits are measured, the ones before them that warm up, and seconds between the end of
# one and the next, at random, so that no timer of a library falls into step with them.
WAITS: Final = 40
WARM_UP: Final = 3
PAUSE: Final = (0.005, 0.015)
# Seconds that a worker is given to come to rest before.
REST: Final = 1.5


@dataclass(frozen=True)
class Peer:
    """A library, and how it is set."""

    name: str
    program: str
    requirements: tuple[str, ...]
    """The library first; empty: the environment of this interpreter."""
    table: str
    """Where the library has the jobs that wait."""
    jobs: dict[str, int]
    """Of a drain, by settings, so that it takes some seconds."""
    bulk: int
    """The same for jobs that are enqueued in bulk."""
    single: int
    """The same for jobs that are enqueued one by one."""
    settings: dict[str, dict[str, Any]]
    package: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    best_of_two: dict[str, Any] | None = None
    """The best settings of each of two worker processes, where they are others."""

    @property
    def is_node(self) -> bool:
        return self.program.endswith(".mjs")


BEST: Final = {"consumers": 2, "run": {"batch_size": 1000}}
ALONE: Final = {"consumers": 1}
PEERS: Final = (
    Peer(
        "pgqueuer",
        "pgq.py",
        ("pgqueuer[asyncpg]==1.6.0", "uvloop"),
        "pgqueuer",
        {"defaults": 15_000, "best": 60_000},
        100_000,
        5_000,
        {"defaults": {}, "best": BEST},
        "pgqueuer",
    ),
    Peer(
        "pgq_fast compat",
        "pgq.py",
        (),
        "pgqueuer",
        {"defaults": 100_000, "best": 150_000},
        150_000,
        50_000,
        {"defaults": {}, "best": BEST},
        "pgq_fast",
        {"PGQUEUER_LAYOUT": "compat"},
        {**BEST, **ALONE},
    ),
    Peer(
        "pgq_fast lease",
        "pgq.py",
        (),
        "pgqueuer_ready",
        {"defaults": 500_000, "best": 500_000},
        1_000_000,
        100_000,
        {"defaults": {}, "best": {"consumers": 2}},
        "pgq_fast",
        {"PGQUEUER_LAYOUT": "lease"},
        ALONE,
    ),
    Peer(
        "procrastinate",
        "procrastinate_app.py",
        ("procrastinate==3.10.0", "psycopg[binary]", "uvloop"),
        "procrastinate_jobs",
        {"defaults": 1_500, "best": 3_000},
        30_000,
        5_000,
        {"defaults": {}, "best": {"run": {"concurrency": 30}, "pool": {"max_size": 20}}},
    ),
    Peer(
        "oban",
        "oban_app.py",
        ("oban==0.7.0", "uvloop"),
        "oban_jobs",
        {"defaults": 3_000, "best": 5_000},
        50_000,
        5_000,
        {"defaults": {}, "best": {"limit": 500}},
    ),
    Peer(
        "awa-pg",
        "awa_app.py",
        ("awa-pg==0.6.9", "uvloop"),
        "awa.ready_entries",
        {"defaults": 10_000, "best": 20_000},
        100_000,
        5_000,
        {
            "defaults": {},
            "best": {
                "client": {"max_connections": 20},
                "queue": {"max_workers": 256, "claim_batch_size": 512, "claimers": 2},
            },
        },
    ),
    Peer(
        "chancy",
        "chancy_app.py",
        ("chancy==0.26.0", "psycopg[binary]", "uvloop"),
        "chancy_jobs",
        {"defaults": 20, "best": 3_000},
        30_000,
        5_000,
        {
            "defaults": {},
            "best": {"async": True, "queue": {"concurrency": 50, "eager_polling": True}},
        },
    ),
    Peer(
        "python-pq",
        "pq_app.py",
        ("python-pq==0.9.1", "uvloop"),
        "pq_tasks",
        {"defaults": 200, "best": 400},
        5_000,
        3_000,
        {"defaults": {}, "best": {"run": {"concurrency": 8}}},
    ),
    Peer(
        "graphile-worker",
        "graphile.mjs",
        ("graphile-worker@0.18.0",),
        "graphile_worker._private_jobs",
        {"defaults": 5_000, "best": 100_000},
        100_000,
        5_000,
        {
            "defaults": {},
            "best": {
                "concurrentJobs": 24,
                "maxPoolSize": 25,
                "localQueue": {"size": 500},
                "completeJobBatchDelay": 0,
                "failJobBatchDelay": 0,
            },
        },
    ),
    Peer(
        "pg-boss",
        "pgboss.mjs",
        # The library needs a Node that distributions do not have yet.
        ("pg-boss@12.38.0", "node@22.23.3"),
        "pgboss.job",
        {"defaults": 10, "best": 30_000},
        100_000,
        5_000,
        {
            "defaults": {},
            "best": {
                "boss": {"useListenNotify": True},
                "queue": {"notify": True},
                "work": {"batchSize": 500, "localConcurrency": 2, "burstWhenBatchFull": True},
            },
        },
    ),
)


def install_steps(peer: Peer, home: Path) -> list[list[str]]:
    """The commands that install a peer in *home*.

    Raises:
        BenchError: Node is not there.
    """
    if not peer.is_node:
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        return [[sys.executable, "-m", "venv", str(home)], [*pip, *peer.requirements]]
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise BenchError("cannot be installed: there is no Node here")
    home.mkdir(parents=True, exist_ok=True)
    return [[npm, "install", "--silent", "--prefix", str(home), *peer.requirements]]


def interpreter(peer: Peer) -> str:
    """What runs the peer's program, after the peer was installed.

    Raises:
        BenchError: It cannot be installed; the message is the installer's last line.
    """
    if not peer.requirements:
        return sys.executable
    home = CACHE / peer.name
    done = home / ".installed"
    wanted = "\n".join(peer.requirements)
    if not done.exists() or done.read_text() != wanted:
        for command in install_steps(peer, home):
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            if ran.returncode:
                lines = (ran.stderr or ran.stdout).strip().splitlines() or ["no reason was given"]
                raise BenchError(f"cannot be installed: {lines[-1]}")
        done.write_text(wanted)
    if not peer.is_node:
        return str(home / "bin" / "python")
    own = home / "node_modules" / "node" / "bin" / "node"
    return str(own) if own.exists() else "node"


class Program:
    """A process that runs a peer's program in one role."""

    def __init__(self, peer: Peer, python: str, role: str, dsn: str, **request: Any) -> None:
        # Not a pipe, which nobody empties while the program works.
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.folder = tempfile.TemporaryDirectory(prefix="pgq-fast-peer-")
        self.process = subprocess.Popen(
            [python, str(HERE / "programs" / peer.program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={
                **plain_environment(),
                **peer.environment,
                "PEER_HOME": str(CACHE / peer.name),
                "PEER_RAN": str(Path(self.folder.name) / "ran"),
            },
            text=True,
        )
        # A program that hangs is ended, and its missing answer is the error.
        self.watchdog = threading.Timer(PATIENCE, self.process.kill)
        self.watchdog.daemon = True
        self.watchdog.start()
        whole = {"settings": {}, "timed": False, "at_once": AT_ONCE, **request}
        self.send({"role": role, "dsn": dsn, "package": peer.package, **whole})

    def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines()
            raise BenchError(lines[-1] if lines else "it was ended, or ended without a word")
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise BenchError(f"its answer cannot be read: {error}") from error
        return answer

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.watchdog.cancel()
        self.process.kill()
        self.process.communicate()
        self.errors.close()
        self.folder.cleanup()


# ------------------------------------------------------------------------------ trials


@dataclass(frozen=True)
class Trial:
    """A peer with its settings, on a database of its own."""

    peer: Peer
    setting: str
    python: str
    dsn: str

    def program(self, role: str, **request: Any) -> Program:
        settings = self.peer.settings[self.setting]
        return Program(self.peer, self.python, role, self.dsn, settings=settings, **request)

    def enqueue(self, role: str, jobs: int) -> float:
        """Have jobs enqueued; the rate."""
        with self.program(role, jobs=jobs) as program:
            program.read()
            program.send({})
            seconds = float(program.read()["seconds"])
        return jobs / seconds

    def enqueued(self, role: str, jobs: int) -> float:
        """The same, and that they are queued is checked."""
        rate = self.enqueue(role, jobs)
        queued = asyncio.run(query(self.dsn, f"SELECT count(*) FROM {self.peer.table}"))
        if queued != jobs:
            raise MeasurementError(f"{jobs} jobs expected, and {queued} are queued")
        return rate

    def drain(self, jobs: int, processes: int = 1) -> float:
        """The rate of workers that empty a queue."""
        self.enqueue("bulk", jobs)
        asyncio.run(query(self.dsn, "ANALYZE"))
        with ExitStack() as stack:
            workers = [stack.enter_context(self.program("work")) for _ in range(processes)]
            messages: queue.Queue[tuple[int, dict[str, Any] | BenchError]] = queue.Queue()
            for number, worker in enumerate(workers):
                worker.read()
                threading.Thread(
                    target=forward, args=(worker, number, messages), daemon=True
                ).start()
            began = ended = time.monotonic()
            for worker in workers:
                worker.send({})
            counts = [0] * processes
            ran: list[int] = []
            working = processes
            while working:
                number, message = messages.get()
                if isinstance(message, BenchError):
                    raise message
                if "ran" in message:
                    ran += message["ran"]
                    working -= 1
                elif sum(counts) < jobs:
                    counts[number] = message["count"]
                    ended = max(ended, message["at"])
                    if sum(counts) >= jobs:
                        for worker in workers:
                            worker.send({})
        require_same("runs of jobs", ran, range(jobs))
        return jobs / (ended - began)

    def wait(self, jobs: int) -> float:
        """The median of the waits, in milliseconds."""
        total = jobs + WARM_UP
        generator = random.Random(1)
        began: list[float] = []
        with self.program("work", timed=True) as worker, self.program("paced", jobs=total) as one:
            for program in (worker, one):
                program.read()
            worker.send({})
            time.sleep(REST)
            one.send({})
            for number in range(total):
                began.append(one.read()["at"])
                while worker.read()["count"] <= number:
                    pass
                time.sleep(generator.uniform(*PAUSE))
                one.send({})
            worker.send({})
            while "ran" not in (message := worker.read()):
                pass
        require_same("runs of jobs", message["ran"], range(total))
        started: dict[int, float] = dict(zip(message["ran"], message["times"], strict=True))
        waits = [started[number] - began[number] for number in range(WARM_UP, total)]
        return statistics.median(waits) * 1e3


def forward(
    program: Program, number: int, messages: queue.Queue[tuple[int, dict[str, Any] | BenchError]]
) -> None:
    """Pass on what a program says, to its last word."""
    try:
        while True:
            message = program.read()
            messages.put((number, message))
            if "ran" in message:
                return
    except (BenchError, ValueError) as error:
        # The latter where it was ended meanwhile, and nobody listens any more.
        messages.put((number, BenchError(str(error))))


@contextmanager
def new_trial(peer: Peer, setting: str, python: str, server: str) -> Iterator[Trial]:
    """The library's tables in a new database."""
    with new_database(server) as database:
        dsn = urlunsplit(urlsplit(database.dsn)._replace(path=f"/{database.name}"))
        trial = Trial(peer, setting, python, dsn)
        with trial.program("install") as program:
            program.read()
        yield trial


@dataclass(frozen=True)
class Task:
    """What is measured, of each library in the same way."""

    title: str
    y: str
    jobs: Callable[[Peer, str], int]
    run: Callable[[Trial, int], float]
    settings: tuple[str, ...] = ("defaults", "best")
    processes: int = 1


TASKS: Final[Mapping[str, Task]] = {
    "drain": Task(
        "Drain, a handler that does nothing, one worker process",
        "jobs/s",
        lambda peer, setting: peer.jobs[setting],
        lambda trial, jobs: trial.drain(jobs),
    ),
    "drain-2": Task(
        "Drain, a handler that does nothing, two worker processes",
        "jobs/s",
        lambda peer, setting: 2 * peer.jobs[setting],
        lambda trial, jobs: trial.drain(jobs, processes=2),
        ("best",),
        processes=2,
    ),
    "bulk": Task(
        "Enqueue in bulk, the library's fastest documented call",
        "jobs/s",
        lambda peer, _: peer.bulk,
        lambda trial, jobs: trial.enqueued("bulk", jobs),
        ("best",),
    ),
    "single": Task(
        f"Enqueue one by one, {AT_ONCE} at the same time in one process",
        "jobs/s",
        lambda peer, _: peer.single,
        lambda trial, jobs: trial.enqueued("single", jobs),
        ("best",),
    ),
    "wait": Task(
        "From enqueue to the handler's start on an idle worker, median",
        "ms",
        lambda *_: WAITS,
        lambda trial, jobs: trial.wait(jobs),
    ),
}


def scaled(task: Task, peer: Peer, setting: str, scale: float) -> int:
    """Jobs of a trial; a few at least."""
    return max(FEWEST, round(task.jobs(peer, setting) * scale))


def suited(task: Task, peer: Peer) -> Peer:
    """*peer*, with the best settings for the number of processes that *task* has."""
    if task.processes == 1 or peer.best_of_two is None:
        return peer
    return replace(peer, settings={**peer.settings, "best": peer.best_of_two})


def words(task: Task, peer: Peer, setting: str, scale: float) -> str:
    """What was set, and the number of jobs, which a rate may depend on."""
    settings = suited(task, peer).settings[setting]
    said = json.dumps(settings) if settings else "all defaults"
    return f"{scaled(task, peer, setting, scale):,} jobs, {said}"


class Interpreters:
    """What runs each peer's program; what cannot be installed is not tried again."""

    def __init__(self) -> None:
        self._found: dict[str, str | BenchError] = {}

    def of(self, peer: Peer) -> str:
        """As ``interpreter`` has it.

        Raises:
            BenchError: As there.
        """
        if peer.name not in self._found:
            try:
                self._found[peer.name] = interpreter(peer)
            except BenchError as error:
                self._found[peer.name] = error
        found = self._found[peer.name]
        if isinstance(found, BenchError):
            raise BenchError(str(found))
        return found


def measure(
    peers: Sequence[Peer],
    repeat: int,
    scale: float,
    dsn: str,
    tasks: Sequence[str] = tuple(TASKS),
) -> list[dict[str, Any]]:
    """The charts, of all peers in turn."""
    runs: dict[tuple[str, str, str], list[float]] = {}
    errors: dict[tuple[str, str, str], str] = {}
    interpreters = Interpreters()
    for name in tasks:
        task = TASKS[name]
        for _ in range(repeat):
            for peer in peers:
                for setting in task.settings:
                    key = (name, peer.name, setting)
                    if key in errors:
                        continue
                    jobs = scaled(task, peer, setting, scale)
                    try:
                        python = interpreters.of(peer)
                        with new_trial(suited(task, peer), setting, python, dsn) as trial:
                            value = task.run(trial, jobs)
                    except (BenchError, MeasurementError) as error:
                        errors[key] = str(error)
                        runs.pop(key, None)
                    else:
                        runs.setdefault(key, []).append(value)
                    print(
                        f"  {name}, {peer.name}, {setting}: {errors.get(key) or f'{value:,.1f}'}",
                        file=sys.stderr,
                        flush=True,
                    )
    return [chart(name, peers, scale, runs, errors) for name in tasks]


def chart(
    name: str,
    peers: Sequence[Peer],
    scale: float,
    runs: Mapping[tuple[str, str, str], Sequence[float]],
    errors: Mapping[tuple[str, str, str], str],
) -> dict[str, Any]:
    """What was found of one task, and what could not be."""
    task = TASKS[name]
    found = [
        {
            "label": peer.name,
            "points": [
                {
                    "x": setting,
                    "settings": words(task, peer, setting, scale),
                    "runs": list(runs[name, peer.name, setting]),
                }
                for setting in task.settings
                if (name, peer.name, setting) in runs
            ],
        }
        for peer in peers
    ]
    return {
        "name": name,
        "title": task.title,
        "x": "settings",
        "y": task.y,
        "log_x": False,
        # Between the quickest and the slowest there are three orders of magnitude.
        "log_y": True,
        "categories": True,
        "series": [series for series in found if series["points"]],
        "missing": [
            {"label": f"{peer}, {setting}", "reason": why}
            for (task_name, peer, setting), why in errors.items()
            if task_name == name
        ],
    }


def versions(peers: Sequence[Peer]) -> dict[str, str]:
    """Of the libraries, as they are asked for."""
    found = {}
    for peer in peers:
        for requirement in peer.requirements[:1]:
            name, _, version = re.split(r"(==|@)", requirement)
            found[name.partition("[")[0]] = version
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common(parser, REPEAT)
    parser.add_argument("--only", metavar="NAME", action="append", default=[])
    parser.add_argument("--task", choices=TASKS, action="append", help="default: all")
    parser.add_argument("--list", action="store_true", help="list the libraries and do no more")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"--repeat {QUICK_REPEAT} --scale {QUICK_SCALE}, where they are not given",
    )
    options = settle(parser.parse_args(), REPEAT, QUICK_REPEAT, QUICK_SCALE)
    peers = [
        peer
        for peer in PEERS
        if not options.only or any(part in peer.name for part in options.only)
    ]
    if options.list or not peers:
        print("\n".join(peer.name for peer in PEERS))
        return 0 if options.list else 2
    try:
        recording = Recording("peers", options)
        with postgres(options.dsn) as dsn:
            facts = gather(dsn)
            facts["versions"] |= versions(peers)
            print_facts(facts)
            charts = measure(
                peers, options.repeat, options.scale, dsn, options.task or tuple(TASKS)
            )
    except BenchError as error:
        print(f"peers.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    for each in charts:
        print_chart(each)
    recording.keep(recording.document(facts, charts=charts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
