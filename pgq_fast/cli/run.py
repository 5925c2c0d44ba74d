"""``pgq run``: a worker from a factory."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Annotated

import typer

from pgq_fast import supervisor
from pgq_fast.cli.context import load_reference, run
from pgq_fast.logsetup import LogLevel, setup_logging
from pgq_fast.types import QueueExecutionMode

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(name="run", help="Run a worker until SIGINT or SIGTERM.")(run_worker)


def run_worker(
    factory_fn: Annotated[
        str, typer.Argument(help="module:function that returns an async context manager.")
    ],
    factory_args: Annotated[
        list[str] | None,
        typer.Argument(help="Passed to the function as a list; put them after --."),
    ] = None,
    dequeue_timeout: Annotated[
        float, typer.Option(help="Longest time in seconds without a look at the queue.")
    ] = 30.0,
    batch_size: Annotated[
        int | None, typer.Option(help="Jobs claimed at a time; tuned to the handlers if not given.")
    ] = None,
    heartbeat_timeout: Annotated[
        float,
        typer.Option(help="Silence in seconds after which a worker's jobs are run by others."),
    ] = 30.0,
    restart_delay: Annotated[
        float, typer.Option(help="Pause in seconds before --restart-on-failure starts again.")
    ] = 5.0,
    restart_on_failure: Annotated[
        bool, typer.Option("--restart-on-failure", help="Start again after a failure.")
    ] = False,
    log_level: Annotated[
        LogLevel, typer.Option(case_sensitive=False, help="What the log shows.")
    ] = LogLevel.INFO,
    mode: Annotated[
        QueueExecutionMode, typer.Option(help="drain ends when the queue is empty.")
    ] = QueueExecutionMode.continuous,
    max_concurrent_tasks: Annotated[
        int | None, typer.Option(help="Most jobs that run here at a time.")
    ] = None,
    shutdown_on_listener_failure: Annotated[
        bool,
        typer.Option(
            "--shutdown-on-listener-failure", help="End when notifications do not arrive."
        ),
    ] = False,
) -> None:
    """Run the worker that *factory_fn* makes."""
    setup_logging(log_level.value)
    factory = load_reference("factory", factory_fn)
    if factory_args:
        factory = functools.partial(factory, factory_args)
    run(
        supervisor.run(
            factory,
            dequeue_timeout=timedelta(seconds=dequeue_timeout),
            batch_size=batch_size,
            heartbeat_timeout=timedelta(seconds=heartbeat_timeout),
            mode=mode,
            max_concurrent_tasks=max_concurrent_tasks,
            shutdown_on_listener_failure=shutdown_on_listener_failure,
            restart_on_failure=restart_on_failure,
            restart_delay=timedelta(seconds=restart_delay),
        )
    )
