"""``pgq run --processes``: several worker processes, and the one that looks after them.

The standard input of each worker is a pipe whose other end only the supervisor has. What is written
there, or its end, ends the worker as SIGTERM does. So a supervisor that is killed leaves no workers
behind, and a signal that a terminal or a service manager sends to all processes is not sent twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from pgq_fast.logconfig import logger
from pgq_fast.supervisor import STOP_SIGNALS, stop_signals
from pgq_fast.tasks import wait_for_event

__all__ = ["CANNOT_START", "ORPHAN_GRACE", "STOPPED_BY_SIGNAL", "call_when_released", "supervise"]

CANNOT_START: Final = 78
"""Exit code of a worker whose factory cannot be loaded: another one could not either."""

STOPPED_BY_SIGNAL: Final = 79
"""Exit code of a worker that a signal of its own ended, for somebody who wants a fresh one."""

ORPHAN_GRACE: Final = 30.0
"""Seconds for which a worker lets its jobs go on after the supervisor was killed."""

LONGEST_PAUSE: Final = 60.0
"""Seconds that a worker is waited with at most, unless the first pause is longer."""

CALM: Final = 60.0
"""Seconds after which a worker that dies has not died of how it started: pauses begin anew."""


def call_when_released(callback: Callable[[], None], grace: float) -> None:
    """Have *callback* called on the running loop when the supervisor says so, or is gone.

    Args:
        callback: What ends the worker in good order.
        grace: Seconds from when the supervisor is gone until the process ends in any case: nobody
            is left who could end a job that hangs.
    """
    loop = asyncio.get_running_loop()

    def read() -> None:
        told = b""
        with contextlib.suppress(OSError):
            told = os.read(sys.stdin.fileno(), 1)
        # The loop may be over.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(callback)
        if not told:
            time.sleep(grace)
            logger.error("The supervisor is gone, and jobs did not end: ending at once")
            os._exit(1)

    # In a thread: not every loop can wait for a pipe on every platform.
    threading.Thread(target=read, name="pgq_fast supervisor's pipe", daemon=True).start()


async def supervise(
    command: Callable[[int], Sequence[str]], count: int, *, restart: bool, first_pause: float
) -> int:
    """Run *count* processes until SIGINT or SIGTERM, or until all have ended for good.

    Args:
        command: The worker with a number from 1 to *count*.
        count: How many at a time.
        restart: Whether to start another one for each that fails or is killed.
        first_pause: Seconds before that; twice as long each time it dies again soon after.

    Returns:
        The exit code: 0 if every process ended well, else 1.
    """
    fleet = _Fleet(command, restart=restart, first_pause=first_pause)
    with stop_signals(fleet.stop, abandon=fleet.kill):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(fleet.keep(number + 1)) for number in range(count)]
    return 0 if all(task.result() for task in tasks) else 1


class _Fleet:
    def __init__(
        self, command: Callable[[int], Sequence[str]], *, restart: bool, first_pause: float
    ) -> None:
        self.command = command
        self.restart = restart
        self.first_pause = first_pause
        self.stop = asyncio.Event()
        self.processes: set[asyncio.subprocess.Process] = set()

    def kill(self) -> None:
        """End all processes at once."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def keep(self, number: int) -> bool:
        """Keep the process *number* running; whether it ended well in the end."""
        pause = self.first_pause
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                code = await self._run_one(number)
                ended = _as_words(code)
            except OSError as error:
                # No memory or no more processes: that may pass.
                code, ended = 1, f"could not be started: {error}"
            if code == 0:
                return True
            if code == CANNOT_START:
                self.stop.set()
                return False
            if self.stop.is_set():
                # Killed: a signal to all processes reached it before it could handle any.
                return code in (STOPPED_BY_SIGNAL, *(-signum for signum in STOP_SIGNALS))
            if code != STOPPED_BY_SIGNAL and not self.restart:
                logger.error("Worker process %d %s", number, ended)
                return False
            if code == STOPPED_BY_SIGNAL or time.monotonic() - began > CALM:
                pause = self.first_pause
            logger.warning(
                "Worker process %d %s; the next one starts in %g seconds",
                number,
                ended,
                pause,
            )
            await wait_for_event(self.stop, pause)
            pause = max(self.first_pause, min(2 * pause, LONGEST_PAUSE))
        return True

    async def _run_one(self, number: int) -> int:
        process = await asyncio.create_subprocess_exec(
            *self.command(number),
            stdin=asyncio.subprocess.PIPE,
            # Ctrl-C is for the supervisor.
            start_new_session=True,
        )
        logger.info("Worker process %d has the pid %d", number, process.pid)
        self.processes.add(process)
        told = asyncio.create_task(self._tell(process))
        try:
            return await process.wait()
        finally:
            told.cancel()
            self.processes.discard(process)

    async def _tell(self, process: asyncio.subprocess.Process) -> None:
        await self.stop.wait()
        assert process.stdin is not None
        # It may have ended just now.
        with contextlib.suppress(OSError):
            process.stdin.write(b".")
            await process.stdin.drain()


def _as_words(code: int) -> str:
    if code == STOPPED_BY_SIGNAL:
        return "was stopped by a signal"
    if code >= 0:
        return f"failed with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
