"""Runs a trial of ``measure.py``, or ``bare.py``: in a process and a database of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from measure import Figures, Trial, request_line
from servers import BenchError, new_database, plain_environment

# Seconds after which a measurement counts as hanging.
TIMEOUT: Final = 600


class TrialFailed(BenchError):
    """A trial ended with an error, or did not end; others may still do."""


def named(trial: Trial) -> str:
    """What is measured, in words."""
    return f"{trial.package}, {trial.task}, {trial.settings()}"


def run_trial(
    trial: Trial, dsn: str, timeout: float = TIMEOUT, program: str = "measure.py"
) -> Figures:
    """One measurement, in a process of its own that runs *program*, a file beside this one.

    Raises:
        TrialFailed: It failed, or took more than *timeout* seconds.
    """
    environment = plain_environment()
    # By name, so that kernels that are missing end the run instead of being measured as fast.
    environment["PGQ_FAST_IMPL"] = trial.implementation
    environment["PGQUEUER_LAYOUT"] = trial.layout
    with new_database(dsn) as database:
        # A process of its own loads one library only, and starts without what others left behind.
        try:
            done = subprocess.run(
                [sys.executable, str(Path(__file__).with_name(program))],
                input=request_line("measure", trial, database),
                capture_output=True,
                env=environment,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TrialFailed(f"{named(trial)}: no end after {timeout} s") from error
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()[-2000:]
        raise TrialFailed(f"{named(trial)}: {reason}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures
