"""Other job queues on PostgreSQL beside pgq_fast: drains and bulk enqueues, one machinery for all.

    python bench/peers.py --quick --json FILE

Each library is driven by a program of its own in bench/programs, through its public API, in a
process and an environment of its own under bench/.peers, made on first use; pgq_fast runs in this
interpreter's, where its tree is. A trial has a new database, ANALYZEd once it is filled. A rate is
that from a worker's start to the last job's run, to 20 ms. Payloads carry a number, and a trial in
which one did not run exactly once is an error, not a figure. What a library keeps of its jobs stays
at its default.

"best" are settings that the library's documentation recommends for throughput, not the result of a
search: who knows a library better may find better ones.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
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
PATIENCE: Final = 120
REPEAT: Final = 3
QUICK_REPEAT: Final = 1
QUICK_SCALE: Final = 0.2


@dataclass(frozen=True)
class Peer:
    """A library, and how it is set."""

    name: str
    program: str
    requirements: tuple[str, ...]
    """Empty: the environment of this interpreter."""
    jobs: dict[str, int]
    """Of a trial, by settings, so that it takes some seconds."""
    settings: dict[str, dict[str, Any]]
    package: str = ""
    environment: dict[str, str] = field(default_factory=dict)


BEST: Final = {"consumers": 2, "run": {"batch_size": 1000}}
PEERS: Final = (
    Peer(
        "pgqueuer",
        "pgq.py",
        ("pgqueuer[asyncpg]==1.6.0", "uvloop"),
        {"defaults": 15_000, "best": 60_000},
        {"defaults": {}, "best": BEST},
        "pgqueuer",
    ),
    Peer(
        "pgq_fast compat",
        "pgq.py",
        (),
        {"defaults": 100_000, "best": 150_000},
        {"defaults": {}, "best": BEST},
        "pgq_fast",
        {"PGQUEUER_LAYOUT": "compat"},
    ),
    Peer(
        "pgq_fast lease",
        "pgq.py",
        (),
        {"defaults": 500_000, "best": 500_000},
        {"defaults": {}, "best": {"consumers": 2}},
        "pgq_fast",
        {"PGQUEUER_LAYOUT": "lease"},
    ),
    Peer(
        "procrastinate",
        "procrastinate_app.py",
        ("procrastinate==3.10.0", "psycopg[binary]", "uvloop"),
        {"defaults": 1_500, "best": 3_000},
        {"defaults": {}, "best": {"run": {"concurrency": 30}, "pool": {"max_size": 20}}},
    ),
    Peer(
        "oban",
        "oban_app.py",
        ("oban==0.7.0", "uvloop"),
        {"defaults": 3_000, "best": 5_000},
        {"defaults": {}, "best": {"limit": 500}},
    ),
    Peer(
        "graphile-worker",
        "graphile.mjs",
        ("graphile-worker@0.18.0",),
        {"defaults": 5_000, "best": 100_000},
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
)


# Named, so that a table without them does not pass for a full one.
UNCOVERED: Final = ("awa-pg", "chancy", "python-pq", "pg-boss")


def install_steps(peer: Peer, home: Path) -> list[list[str]]:
    """The commands that install a peer in *home*.

    Raises:
        BenchError: Node is not there.
    """
    if not peer.program.endswith(".mjs"):
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
    return "node" if peer.program.endswith(".mjs") else str(home / "bin" / "python")


class Program:
    """A process that runs a peer's program in one role."""

    def __init__(self, peer: Peer, python: str, role: str, dsn: str, **request: Any) -> None:
        # Not a pipe, which nobody empties while the program works.
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [python, str(HERE / "programs" / peer.program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**plain_environment(), **peer.environment, "PEER_HOME": str(CACHE / peer.name)},
            text=True,
        )
        # A program that hangs is ended, and its missing answer is the error.
        self.watchdog = threading.Timer(PATIENCE, self.process.kill)
        self.watchdog.daemon = True
        self.watchdog.start()
        self.send({"role": role, "dsn": dsn, "package": peer.package, "settings": {}, **request})

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


def run_trial(peer: Peer, python: str, setting: str, jobs: int, server: str) -> dict[str, float]:
    """Fill a new database and drain it; the rates of both."""
    with new_database(server) as database:
        dsn = urlunsplit(urlsplit(database.dsn)._replace(path=f"/{database.name}"))
        settings = peer.settings[setting]
        with Program(peer, python, "install", dsn) as program:
            program.read()
        with Program(peer, python, "bulk", dsn, jobs=jobs, settings=settings) as program:
            program.read()
            program.send({})
            seconds = program.read()["seconds"]
        asyncio.run(query(dsn, "ANALYZE"))
        with Program(peer, python, "work", dsn, settings=settings) as program:
            program.read()
            began = time.monotonic()
            program.send({})
            message: dict[str, Any] = {"count": 0}
            while message["count"] < jobs:
                message = program.read()
            ended = message["at"]
            program.send({})
            while "ran" not in (message := program.read()):
                pass
        require_same("runs of jobs", message["ran"], range(jobs))
    return {"bulk": jobs / seconds, "drain": jobs / (ended - began)}


def scaled(peer: Peer, setting: str, scale: float) -> int:
    """Jobs of a trial; a few at least."""
    return max(10, round(peer.jobs[setting] * scale))


def words(peer: Peer, setting: str, scale: float) -> str:
    """What was set, and the number of jobs, which a rate may depend on."""
    settings = peer.settings[setting]
    said = json.dumps(settings) if settings else "all defaults"
    return f"{scaled(peer, setting, scale):,} jobs, {said}"


def measure(peers: Sequence[Peer], repeat: int, scale: float, dsn: str) -> list[dict[str, Any]]:
    """The charts, of all peers in turn."""
    charts = [
        {"name": "drain", "title": "Drain, a handler that does nothing, one worker process"},
        {"name": "bulk", "title": "Enqueue in bulk, the library's fastest documented call"},
    ]
    for chart in charts:
        chart.update(x="settings", y="jobs/s", log_x=False, log_y=False, categories=True)
        chart.update(series=[], missing=[])
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    errors: dict[str, str] = {}
    for _ in range(repeat):
        for peer in peers:
            for setting in peer.settings:
                label = f"{peer.name}, {setting}"
                if label in errors:
                    continue
                jobs = scaled(peer, setting, scale)
                try:
                    rates = run_trial(peer, interpreter(peer), setting, jobs, dsn)
                except (BenchError, MeasurementError) as error:
                    errors[label] = str(error)
                    runs.pop((peer.name, setting), None)
                else:
                    runs.setdefault((peer.name, setting), []).append(rates)
                print(f"  {label}: {errors.get(label) or rates}", file=sys.stderr, flush=True)
    for chart in charts:
        for peer in peers:
            points = [
                {
                    "x": setting,
                    "settings": words(peer, setting, scale),
                    "runs": [rates[chart["name"]] for rates in runs[peer.name, setting]],
                }
                for setting in peer.settings
                if (peer.name, setting) in runs
            ]
            if points:
                chart["series"].append({"label": peer.name, "points": points})
        chart["missing"] = [{"label": label, "reason": why} for label, why in errors.items()]
    return charts


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common(parser, REPEAT)
    parser.add_argument("--only", metavar="NAME", action="append", default=[])
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
            print_facts(facts)
            charts = measure(peers, options.repeat, options.scale, dsn)
    except BenchError as error:
        print(f"peers.py: {error}", file=sys.stderr)
        return 1
    for chart in charts:
        chart["missing"] += [
            {"label": name, "reason": "bench/programs has no program for it yet: not measured"}
            for name in UNCOVERED
        ]
        print_chart(chart)
    recording.keep(recording.document(facts, charts=charts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
