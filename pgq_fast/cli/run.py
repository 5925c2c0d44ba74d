"""``pgq run``: a worker from a factory."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
from datetime import timedelta
from typing import Annotated

import typer

from pgq_fast import supervisor
from pgq_fast.cli import processes as worker_processes
from pgq_fast.cli.context import load_reference
from pgq_fast.cli.endpoint import HIGHEST_PORT, require_library, worker_metrics
from pgq_fast.cli.errors import CliError, report
from pgq_fast.logsetup import FORMAT_VARIABLE, LogFormat, LogLevel, setup_logging
from pgq_fast.loops import run_in_loop
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
        int | None,
        typer.Option(min=1, help="Jobs claimed at a time; tuned to the handlers if not given."),
    ] = None,
    heartbeat_timeout: Annotated[
        float,
        typer.Option(help="Silence in seconds after which a worker's jobs are run by others."),
    ] = 30.0,
    restart_delay: Annotated[
        float,
        typer.Option(min=0, help="Pause in seconds before a new start after a failure."),
    ] = 5.0,
    restart_on_failure: Annotated[
        bool, typer.Option("--restart-on-failure", help="Start again after a failure.")
    ] = False,
    log_level: Annotated[
        LogLevel, typer.Option(case_sensitive=False, help="What the log shows.")
    ] = LogLevel.INFO,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(help=f"How it is written; else as {FORMAT_VARIABLE} says, or text."),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=HIGHEST_PORT,
            help="Serve metrics for Prometheus there; 0 takes any port that is free.",
        ),
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="Address to serve them on.")] = "127.0.0.1",
    mode: Annotated[
        QueueExecutionMode, typer.Option(help="drain ends when the queue is empty.")
    ] = QueueExecutionMode.continuous,
    max_concurrent_tasks: Annotated[
        int | None, typer.Option(min=1, help="Most jobs that a process runs at a time.")
    ] = None,
    shutdown_on_listener_failure: Annotated[
        bool,
        typer.Option(
            "--shutdown-on-listener-failure", help="End when notifications do not arrive."
        ),
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Run so many worker processes, and start others for those that die.",
        ),
    ] = None,
    supervised: Annotated[
        float | None, typer.Option(hidden=True, help="Given by --processes to its workers.")
    ] = None,
) -> None:
    """Run the worker that *factory_fn* makes, or several of them in processes of their own."""
    if max_concurrent_tasks is not None and max_concurrent_tasks < 2 * (batch_size or 0):
        raise typer.BadParameter(
            f"--max-concurrent-tasks {max_concurrent_tasks} is less than twice the --batch-size "
            f"{batch_size}: raise the one or lower the other"
        )
    if metrics_port and metrics_port + (processes or 1) - 1 > HIGHEST_PORT:
        raise typer.BadParameter(
            f"--processes {processes} takes as many ports, from --metrics-port {metrics_port} on; "
            f"the highest is {HIGHEST_PORT}"
        )
    setup_logging(
        log_level.value,
        log_format,
        with_process=supervised is not None or processes is not None,
    )
    if processes is not None:
        if metrics_port is not None:
            # Else each of them would say so.
            require_library()
        options = [
            sys.executable,
            *("-m", "pgq_fast", "run", f"--supervised={worker_processes.ORPHAN_GRACE}"),
            f"--dequeue-timeout={dequeue_timeout}",
            *(() if batch_size is None else (f"--batch-size={batch_size}",)),
            f"--heartbeat-timeout={heartbeat_timeout}",
            f"--restart-delay={restart_delay}",
            *(("--restart-on-failure",) if restart_on_failure else ()),
            f"--log-level={log_level.value}",
            *(() if log_format is None else (f"--log-format={log_format.value}",)),
            f"--mode={mode.value}",
            *(
                ()
                if max_concurrent_tasks is None
                else (f"--max-concurrent-tasks={max_concurrent_tasks}",)
            ),
            *(("--shutdown-on-listener-failure",) if shutdown_on_listener_failure else ()),
        ]

        def command(number: int) -> list[str]:
            metrics: list[str] = []
            if metrics_port is not None:
                # Zero is any that is free, for each of them.
                port = metrics_port + number - 1 if metrics_port else 0
                metrics = [f"--metrics-port={port}", f"--metrics-host={metrics_host}"]
            return [*options, *metrics, "--", factory_fn, *(factory_args or ())]

        # A worker that drains is to come to an end.
        restart = restart_on_failure or mode is QueueExecutionMode.continuous
        code = run_in_loop(
            worker_processes.supervise(
                command, processes, restart=restart, first_pause=restart_delay
            )
        )
        raise typer.Exit(code)

    try:
        factory = load_reference("factory", factory_fn)
    except CliError as error:
        if supervised is None:
            raise
        typer.echo(report(error), err=True)
        raise typer.Exit(worker_processes.CANNOT_START) from None
    if factory_args:
        factory = functools.partial(factory, factory_args)

    async def work() -> bool:
        """Run until the end; whether a signal was the reason."""
        shutdown = asyncio.Event()
        released = asyncio.Event()

        def release() -> None:
            released.set()
            shutdown.set()

        if supervised is not None:
            worker_processes.call_when_released(release, supervised)
        endpoint = (
            contextlib.nullcontext()
            if metrics_port is None
            else worker_metrics(metrics_port, metrics_host)
        )
        async with endpoint as observe:
            await supervisor.runit(
                factory,
                dequeue_timeout=timedelta(seconds=dequeue_timeout),
                batch_size=batch_size,
                restart_delay=timedelta(seconds=restart_delay if restart_on_failure else 0),
                restart_on_failure=restart_on_failure,
                shutdown=shutdown,
                mode=mode,
                max_concurrent_tasks=max_concurrent_tasks,
                shutdown_on_listener_failure=shutdown_on_listener_failure,
                heartbeat_timeout=timedelta(seconds=heartbeat_timeout),
                prepare=observe,
            )
        return shutdown.is_set() and not released.is_set()

    if run_in_loop(work()) and supervised is not None:
        raise typer.Exit(worker_processes.STOPPED_BY_SIGNAL)
