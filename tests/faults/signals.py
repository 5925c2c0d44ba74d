"""Signals to workers: SIGKILL, SIGSTOP with SIGCONT, SIGTERM."""

from __future__ import annotations

import time

from faults.crew import Member
from faults.stage import HEARTBEAT, Kind, Stage


async def kill(stage: Stage) -> None:
    stage.victim().kill()
    stage.start_worker()


async def pause(stage: Stage) -> None:
    """Until its jobs have been taken over; then it goes on where it was."""
    running = await stage.until("a slow job that runs", lambda: stage.running("slow"))
    victim = stage.random.choice(list(running))
    strike = victim.pause()
    await stage.moment(HEARTBEAT * 1.2, HEARTBEAT * 2)
    victim.resume()
    strike.end = time.monotonic()


async def terminate(stage: Stage) -> None:
    """While it runs jobs, which have to end before it does."""
    running = await stage.until("a slow job that runs", lambda: stage.running("slow"))
    victim = stage.random.choice(list(running))
    victim.ask_to_end()
    stage.start_worker()
    await stage.until(f"worker {victim.number} to end", lambda: not victim.alive)
    if (code := victim.process.returncode) != 0:
        stage.problems.append(f"worker {victim.number} ended with {code} at SIGTERM")
    if left := open_runs(victim):
        stage.problems.append(f"worker {victim.number} left {left} jobs when it ended")


def open_runs(member: Member) -> int:
    """Runs that began on that worker and did not end."""
    return sum({"start": 1, "end": -1}.get(what, 0) for what, *_ in member.events())


KINDS = (
    Kind("kill", "SIGKILL to a worker.", kill, blows=5, ends="nobody"),
    Kind(
        "pause",
        "SIGSTOP to a worker, and SIGCONT after its jobs were taken over.",
        pause,
        ends="nobody",
    ),
    Kind("terminate", "SIGTERM to a worker that runs jobs.", terminate, ends="nobody"),
)
