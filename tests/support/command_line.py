"""Runs the command line as a process of its own."""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeAlias

Done: TypeAlias = subprocess.CompletedProcess[str]

TIMEOUT: Final = 60.0

SCREEN: Final = (40, 120)
"""Lines and columns of a terminal."""

EACH: Final = """
import contextlib, io, json, sys
from {package}.__main__ import main

found = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["pgq", *arguments]
    code, output, errors = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    found.append((arguments, code, output.getvalue(), errors.getvalue()))
print(json.dumps(found))
"""


class CommandLine:
    """``python -m PACKAGE`` in an environment without PostgreSQL variables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        *arguments: str,
        dsn: str | None = None,
        package: str = "pgq_fast",
        program: str | None = None,
        environment: dict[str, str] | None = None,
    ) -> Done:
        """Run it to its end."""
        return subprocess.run(
            self._command(arguments, dsn, package, program),
            env=self._environment(environment),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def each(
        self,
        commands: Sequence[Sequence[str]],
        *,
        package: str = "pgq_fast",
        environment: dict[str, str] | None = None,
    ) -> list[Done]:
        """Run *commands* one after the other in one process, which is quicker."""
        done = self(
            json.dumps(commands), program=EACH.format(package=package), environment=environment
        )
        assert done.returncode == 0, done.stderr
        return [subprocess.CompletedProcess(*found) for found in json.loads(done.stdout)]

    def start(
        self,
        *arguments: str,
        dsn: str | None = None,
        program: str | None = None,
        environment: dict[str, str] | None = None,
        terminal: bool = False,
    ) -> Running:
        """Start it, on a terminal of its own if wanted; to be used as a context manager."""
        return Running(
            self._command(arguments, dsn, "pgq_fast", program),
            self._environment(environment),
            self.folder,
            terminal,
        )

    @staticmethod
    def _command(
        arguments: Sequence[str], dsn: str | None, package: str, program: str | None
    ) -> list[str]:
        start = ["-m", package] if program is None else ["-c", program]
        to_database = [] if dsn is None else ["--pg-dsn", dsn]
        return [sys.executable, *start, *to_database, *arguments]

    @staticmethod
    def _environment(environment: dict[str, str] | None) -> dict[str, str]:
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PG") or name == "PGQ_FAST_IMPL"
        }
        return {**clean, "PYTHONPATH": str(Path(__file__).parents[2]), **(environment or {})}


class Running:
    """A process whose output can be waited for. It is killed when the block ends."""

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        folder: Path,
        terminal: bool,
        own_group: bool = False,
    ) -> None:
        if terminal:
            # A pipe and a terminal end in different ways, but both are read by a number.
            self._source, target = os.openpty()
            fcntl.ioctl(target, termios.TIOCSWINSZ, struct.pack("HHHH", *SCREEN, 0, 0))
            environment = {**environment, "TERM": "xterm"}
        else:
            self._source, target = os.pipe()
        self.process = subprocess.Popen(
            command,
            # Without a buffer what it prints can be waited for.
            env={**environment, "PYTHONUNBUFFERED": "1"},
            cwd=folder,
            stdin=target if terminal else subprocess.DEVNULL,
            stdout=target,
            stderr=target,
            process_group=0 if own_group else None,
        )
        os.close(target)
        self.output = ""
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")()
        while True:
            try:
                data = os.read(self._source, 65536)
            except OSError:
                # A terminal that nobody writes to any more.
                data = b""
            with self._changed:
                self.output += decoder.decode(data)
                self._ended = not data
                self._changed.notify_all()
            if not data:
                os.close(self._source)
                return

    def wait_for(self, pattern: str, times: int = 1) -> list[str]:
        """What *pattern* matches in the output, once it does so *times* times."""

        def found() -> list[str]:
            return [match[match.lastindex or 0] for match in re.finditer(pattern, self.output)]

        with self._changed:
            arrived = self._changed.wait_for(lambda: len(found()) >= times or self._ended, TIMEOUT)
            assert arrived, f"no {pattern!r} in {self.output}"
            assert len(found()) >= times, f"it ended without {pattern!r}: {self.output}"
            return found()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def signal_group(self, number: int) -> None:
        """Send it, and the processes that it started, a signal; it needs a group of its own."""
        os.killpg(self.process.pid, number)

    def end(self) -> int:
        """Wait for the end; the exit code."""
        code = self.process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        return code


def succeeded(done: Done) -> Done:
    """*done*, whose exit code is 0."""
    assert done.returncode == 0, done.stderr
    return done


def failed_with_one_line(done: Done) -> str:
    """The line on stderr; nothing else may be there."""
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line
