"""Runs a worker from a factory: signals, and restarts after failures.

Two events tell "stop the process" from "this worker has ended": a worker may set its own event
whenever it ends, also on a failure, after which the next one is to be started.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final, TypeAlias

from pgq_fast.applications import PgQueuer
from pgq_fast.errors import PgqException
from pgq_fast.factories import load_factory, validate_factory_result
from pgq_fast.logconfig import logger
from pgq_fast.qm import QueueManager
from pgq_fast.sm import SchedulerManager
from pgq_fast.tasks import cancel_on_exit, wait_for_event
from pgq_fast.types import QueueExecutionMode

__all__ = ["run"]

Manager: TypeAlias = QueueManager | SchedulerManager | PgQueuer
ManagerFactory: TypeAlias = Callable[[], object]

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

ECHO: Final = 0.2
"""Seconds within which a signal is the same one again: a terminal sends Ctrl-C to a whole group of
processes, and one of them may pass it on."""


class UnsupportedManagerError(PgqException, NotImplementedError):
    """A factory yielded something that cannot be run."""

    def __init__(self, manager: object) -> None:
        super().__init__(
            f"the factory yielded a {type(manager).__name__}, which cannot be run: yield a "
            "PgQueuer, a QueueManager or a SchedulerManager"
        )


async def run(
    factory: str | ManagerFactory,
    *,
    dequeue_timeout: timedelta = timedelta(seconds=30),
    batch_size: int | None = None,
    heartbeat_timeout: timedelta = timedelta(seconds=30),
    mode: QueueExecutionMode = QueueExecutionMode.continuous,
    max_concurrent_tasks: int | None = None,
    shutdown_on_listener_failure: bool = False,
    restart_on_failure: bool = False,
    restart_delay: timedelta = timedelta(seconds=5),
    shutdown: asyncio.Event | None = None,
) -> None:
    """Run the worker that *factory* makes, as ``pgq run`` does.

    Args:
        factory: The function that makes it, or ``module:function``.
        dequeue_timeout: Longest time between two looks at the queue.
        batch_size: Jobs to claim at a time; None: as many as suit the handlers.
        heartbeat_timeout: Silence after which another worker's job counts as abandoned.
        mode: Until it is told to stop, or until the queue is empty.
        max_concurrent_tasks: The most jobs that this worker holds at a time; None for any number.
        shutdown_on_listener_failure: Stop when LISTEN no longer delivers.
        restart_on_failure: Make and run a new worker after one that failed.
        restart_delay: Time between the two.
        shutdown: Set it to stop. Without one, SIGINT and SIGTERM do.

    Raises:
        UnsupportedManagerError: A ``NotImplementedError``; the factory yields something else.
        ValueError: *restart_delay* is negative.
    """
    await runit(
        load_factory(factory) if isinstance(factory, str) else factory,
        dequeue_timeout=dequeue_timeout,
        batch_size=batch_size,
        restart_delay=restart_delay if restart_on_failure else timedelta(0),
        restart_on_failure=restart_on_failure,
        shutdown=shutdown or asyncio.Event(),
        mode=mode,
        max_concurrent_tasks=max_concurrent_tasks,
        shutdown_on_listener_failure=shutdown_on_listener_failure,
        heartbeat_timeout=heartbeat_timeout,
        handle_signals=shutdown is None,
    )


async def runit(
    factory: ManagerFactory,
    dequeue_timeout: timedelta,
    batch_size: int | None,
    restart_delay: timedelta,
    restart_on_failure: bool,
    shutdown: asyncio.Event,
    mode: QueueExecutionMode,
    max_concurrent_tasks: int | None,
    shutdown_on_listener_failure: bool,
    heartbeat_timeout: timedelta = timedelta(seconds=30),
    handle_signals: bool = True,
    prepare: Callable[[Manager], None] | None = None,
) -> None:
    """Run workers from *factory* one after the other until one ends well or *shutdown* is set.

    The arguments are those of :func:`run`; *handle_signals* has SIGINT and SIGTERM set *shutdown*,
    and *prepare* is called with each worker before it runs.
    """
    if restart_delay < timedelta(0):
        raise ValueError(f"restart_delay is {restart_delay}: give zero or more")

    async def run_one() -> None:
        cycle = asyncio.Event()
        async with (
            cancel_on_exit(asyncio.create_task(forward_shutdown(shutdown, cycle))),
            validate_factory_result(factory()) as made,
        ):
            manager = setup_shutdown_handlers(made, cycle)
            if prepare is not None:
                prepare(manager)
            await run_manager(
                manager,
                dequeue_timeout,
                batch_size,
                mode,
                max_concurrent_tasks,
                shutdown_on_listener_failure,
                heartbeat_timeout,
            )

    with stop_signals(shutdown) if handle_signals else contextlib.nullcontext():
        while not shutdown.is_set():
            try:
                await run_one()
            except Exception:
                if not restart_on_failure:
                    raise
                logger.exception("The worker failed")
            else:
                return
            await await_shutdown_or_timeout(shutdown, restart_delay)


async def run_manager(
    manager: Manager,
    dequeue_timeout: timedelta,
    batch_size: int | None,
    mode: QueueExecutionMode,
    max_concurrent_tasks: int | None,
    shutdown_on_listener_failure: bool,
    heartbeat_timeout: timedelta = timedelta(seconds=30),
) -> None:
    """Run *manager* with the arguments that its kind takes: a scheduler takes none."""
    logger.debug("Running a %s", type(manager).__name__)
    if isinstance(manager, SchedulerManager):
        await manager.run()
    elif isinstance(manager, QueueManager | PgQueuer):
        await manager.run(
            dequeue_timeout=dequeue_timeout,
            batch_size=batch_size,
            mode=mode,
            max_concurrent_tasks=max_concurrent_tasks,
            shutdown_on_listener_failure=shutdown_on_listener_failure,
            heartbeat_timeout=heartbeat_timeout,
        )
    else:
        raise UnsupportedManagerError(manager)


def setup_shutdown_handlers(manager: object, shutdown: asyncio.Event) -> Manager:
    """Have *manager*, with the managers in it, end when *shutdown* is set.

    Raises:
        UnsupportedManagerError: It is no manager.
    """
    if isinstance(manager, PgQueuer):
        manager.qm.shutdown = manager.sm.shutdown = shutdown
    elif not isinstance(manager, QueueManager | SchedulerManager):
        raise UnsupportedManagerError(manager)
    manager.shutdown = shutdown
    return manager


def setup_signal_handlers(
    shutdown: asyncio.Event, abandon: Callable[[], None] | None = None
) -> None:
    """Have SIGINT and SIGTERM set *shutdown*, where the platform and the thread allow that.

    Another signal ends the process at once, as if nobody handled it, after a call of *abandon*.
    """
    asked_at: float | None = None

    def stop(signum: signal.Signals) -> None:
        nonlocal asked_at
        now = loop.time()
        if asked_at is None:
            asked_at = now
            logger.info("%s received, shutting down", signum.name)
            shutdown.set()
        elif now - asked_at > ECHO:
            logger.warning("%s received again, ending at once", signum.name)
            if abandon is not None:
                abandon()
            loop.remove_signal_handler(signum)
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)

    loop = asyncio.get_running_loop()
    try:
        for signum in STOP_SIGNALS:
            loop.add_signal_handler(signum, stop, signum)
    except (NotImplementedError, RuntimeError, ValueError):
        # Windows has no such handlers, and threads other than the main one may set none.
        logger.warning(
            "Signals cannot be handled here, so SIGTERM does not stop the worker gracefully"
        )


@contextlib.contextmanager
def stop_signals(
    shutdown: asyncio.Event, abandon: Callable[[], None] | None = None
) -> Iterator[None]:
    """Handle the signals for the length of the block; afterwards they act as by default.

    The arguments are those of :func:`setup_signal_handlers`.
    """
    setup_signal_handlers(shutdown, abandon)
    try:
        yield
    finally:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            for signum in STOP_SIGNALS:
                loop.remove_signal_handler(signum)


async def forward_shutdown(source: asyncio.Event, target: asyncio.Event) -> None:
    """Set *target* once *source* is set."""
    await source.wait()
    target.set()


async def await_shutdown_or_timeout(shutdown: asyncio.Event, restart_delay: timedelta) -> None:
    """Wait for *restart_delay*, or less if *shutdown* is set meanwhile."""
    logger.info("Next worker in %g seconds", restart_delay.total_seconds())
    await wait_for_event(shutdown, restart_delay.total_seconds())
