"""The worker and producer processes of a round: started, hit, replaced, and ended in any case."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]

NUMBER: Final = "NUMBER"
"""Stands in a DSN for that of the process."""

# A traceback, and the class that follows it, by its full name.
_ERROR: Final = re.compile(
    r"^Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*)",
    re.MULTILINE,
)


@dataclasses.dataclass
class Strike:
    """A time in which a process could not do its work, for a reason that the suite knows of."""

    begin: float
    end: float = math.inf


class Member:
    """A process with its journal and its log."""

    def __init__(self, role: str, number: int, folder: Path, options: dict[str, Any]) -> None:
        self.role = role
        self.number = number
        self.journal = folder / f"{role}-{number}.jsonl"
        self.log = folder / f"{role}-{number}.log"
        self.strikes: list[Strike] = []
        self.killed = False
        self.asked_to_end = False
        options = {
            **options,
            "dsn": options["dsn"].replace(NUMBER, str(number)),
            "number": number,
            "journal": str(self.journal),
            "parent": os.getpid(),
        }
        python_path = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PG")},
            **{name: os.environ[name] for name in ("PGQ_FAST_IMPL",) if name in os.environ},
            **options.pop("environment", {}),
            "PYTHONPATH": os.pathsep.join(filter(None, python_path)),
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "faults.programs", role, json.dumps(options)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=ROOT,
                # Ctrl-C is for the suite, which ends it.
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def ended_by_itself(self) -> bool:
        """Whether it ended though nobody killed it or asked it to end."""
        return not self.alive and not self.killed and not self.asked_to_end

    def struck(self, seconds: float = math.inf) -> Strike:
        """Take down that something happens to it from now on, for so long."""
        now = time.monotonic()
        strike = Strike(now, now + seconds)
        self.strikes.append(strike)
        return strike

    def kill(self) -> None:
        """SIGKILL, and the wait for its end."""
        self.killed = True
        self.struck()
        self.process.kill()
        self.process.wait()

    def pause(self) -> Strike:
        """SIGSTOP."""
        strike = self.struck()
        self.process.send_signal(signal.SIGSTOP)
        return strike

    def resume(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def ask_to_end(self) -> None:
        """SIGTERM."""
        self.asked_to_end = True
        if self.alive:
            self.process.terminate()

    def events(self) -> Iterator[list[Any]]:
        """The lines of its journal; the last one may have been cut off."""
        if not self.journal.exists():
            return
        for line in self.journal.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                yield json.loads(line)

    def error(self) -> str:
        """Name of what it ended with: a signal, or the last exception in its log."""
        if (code := self.process.returncode) is not None and code < 0:
            return signal.Signals(-code).name
        found = _ERROR.findall(self.log_text())
        return found[-1] if found else "no error"

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")


class Crew:
    """All processes of a round.

    Args:
        folder: For journals and logs.
        worker: Options of every worker.
        producer: The same of every producer.
    """

    def __init__(self, folder: Path, worker: dict[str, Any], producer: dict[str, Any]) -> None:
        self._folder = folder
        self._options = {"work": worker, "produce": producer}
        self.members: list[Member] = []

    @property
    def workers(self) -> list[Member]:
        """All workers that there have been."""
        return [member for member in self.members if member.role == "work"]

    @property
    def producers(self) -> list[Member]:
        """All producers that there have been."""
        return [member for member in self.members if member.role == "produce"]

    @property
    def working(self) -> list[Member]:
        """The workers that are alive and were not asked to end."""
        return [member for member in self.workers if member.alive and not member.asked_to_end]

    def start(self, role: str, **options: Any) -> Member:
        """A new process."""
        number = len(self.members) + 1
        member = Member(role, number, self._folder, {**self._options[role], **options})
        self.members.append(member)
        return member

    def all_struck(self, seconds: float = math.inf) -> list[Strike]:
        """Take down that something happens to every worker from now on."""
        return [member.struck(seconds) for member in self.working]

    def end_all(self) -> None:
        """Leave nothing behind."""
        for member in self.members:
            if member.alive:
                member.process.kill()
                member.process.wait()
