"""How a registered function is run: for jobs, and for schedules.

An executor wraps one function. The worker makes it once, when the function is registered, and
calls ``execute`` for each job or each tick. Subclass the abstract classes to put something around
the call: rate limits, timing, another retry policy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from abc import ABC, abstractmethod
from datetime import UTC, datetime, timedelta

# The aliases below are part of the public API, where their runtime form is typing's.
from typing import Awaitable, Callable, TypeAlias, TypeVar, cast  # noqa: UP035

from pgq_fast.errors import RetryRequested, retry_request
from pgq_fast.models import Context, Job, Schedule, ScheduleContext, utc_now
from pgq_fast.types import CronEntrypoint, CronExpression, OnFailure

__all__ = [
    "AbstractEntrypointExecutor",
    "AbstractScheduleExecutor",
    "AsyncContextCrontab",
    "AsyncContextEntrypoint",
    "AsyncCrontab",
    "AsyncEntrypoint",
    "DatabaseRetryEntrypointExecutor",
    "Entrypoint",
    "EntrypointExecutor",
    "EntrypointExecutorParameters",
    "EntrypointTypeVar",
    "ScheduleCrontab",
    "ScheduleExecutor",
    "ScheduleExecutorFactoryParameters",
    "is_async_callable",
    "wants_context",
]

AsyncEntrypoint: TypeAlias = Callable[[Job], Awaitable[None]]
AsyncContextEntrypoint: TypeAlias = Callable[[Job, Context], Awaitable[None]]
Entrypoint: TypeAlias = AsyncEntrypoint | AsyncContextEntrypoint
EntrypointTypeVar = TypeVar("EntrypointTypeVar", bound=Entrypoint)

AsyncCrontab: TypeAlias = Callable[[Schedule], Awaitable[None]]
AsyncContextCrontab: TypeAlias = Callable[[Schedule, ScheduleContext], Awaitable[None]]
ScheduleCrontab: TypeAlias = AsyncCrontab | AsyncContextCrontab


def is_async_callable(obj: object) -> bool:
    """Whether calling *obj* gives a coroutine: an async function, a partial of one, or an
    object whose ``__call__`` is async.
    """
    while isinstance(obj, functools.partial):
        obj = obj.func
    if inspect.iscoroutinefunction(obj):
        return True
    return callable(obj) and inspect.iscoroutinefunction(type(obj).__call__)


def wants_context(func: object, context_type: type) -> bool:
    """Whether *func* has a parameter annotated *context_type* that can be passed by position.

    Annotations that are strings are evaluated one by one, so a name that exists only for type
    checkers hides its own parameter and no other.
    """
    if not callable(func):
        return False
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError, NameError):
        return False
    namespace = _globals_of(func)
    return any(
        _evaluated(parameter.annotation, namespace) is context_type
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    )


def _globals_of(func: object) -> dict[str, object]:
    """The module namespace in which the innermost function behind *func* was written."""
    while True:
        if isinstance(func, functools.partial):
            func = func.func
        elif inspect.ismethod(func):
            func = func.__func__
        elif hasattr(func, "__wrapped__"):
            func = func.__wrapped__
        elif hasattr(func, "__globals__"):
            return cast("dict[str, object]", func.__globals__)
        elif inspect.isroutine(func) or inspect.isclass(func):
            return {}
        else:
            func = type(func).__call__


def _evaluated(annotation: object, namespace: dict[str, object]) -> object:
    """What *annotation* stands for; a string that cannot be evaluated stands for itself."""
    # Twice: an annotation quoted by its author is a string in a string where all are postponed.
    for _ in range(2):
        if isinstance(annotation, str):
            # An annotation may be any text; one that means nothing here is no context.
            with contextlib.suppress(Exception):
                annotation = eval(annotation, dict(namespace))
    return annotation


@dataclasses.dataclass
class EntrypointExecutorParameters:
    """What ``entrypoint`` was called with.

    Attributes:
        concurrency_limit: Jobs of this entrypoint that may run at once, over all workers;
            0 for no limit.
        func: The registered function.
        accepts_context: Whether *func* takes a ``Context`` after the job.
        on_failure: What becomes of a job that fails: ``delete`` it, or ``hold`` it for a look.
    """

    concurrency_limit: int
    func: Entrypoint
    accepts_context: bool = False
    on_failure: OnFailure = "delete"


@dataclasses.dataclass
class AbstractEntrypointExecutor(ABC):
    """Base of what runs the jobs of an entrypoint."""

    parameters: EntrypointExecutorParameters

    @abstractmethod
    async def execute(self, job: Job, context: Context) -> None:
        """Run *job*. Returning is success; ``RetryRequested`` is a retry, other errors failures."""


@dataclasses.dataclass
class EntrypointExecutor(AbstractEntrypointExecutor):
    """Calls the registered function.

    Raises:
        TypeError: The function is not async.
    """

    def __post_init__(self) -> None:
        func = self.parameters.func
        if not is_async_callable(func):
            name = getattr(func, "__qualname__", None) or repr(func)
            raise TypeError(
                f"{name} is not async, and a handler has to be: it shares the event loop with "
                "all others. Declare it with 'async def', and run blocking code in it by "
                "'await asyncio.to_thread(blocking, job)'."
            )

    async def execute(self, job: Job, context: Context) -> None:
        """Await the function with *job*, and with *context* if it takes one."""
        if self.parameters.accepts_context:
            await cast(AsyncContextEntrypoint, self.parameters.func)(job, context)
        else:
            await cast(AsyncEntrypoint, self.parameters.func)(job)


@dataclasses.dataclass
class DatabaseRetryEntrypointExecutor(EntrypointExecutor):
    """Turns a failure into a retry, later each time: the wait is kept in the database.

    A ``RetryRequested`` that the function raises by itself, alone or in an exception group of
    nothing else, keeps its own delay and is not counted against *max_attempts* here.

    Attributes:
        max_attempts: Retries before a failure is final.
        initial_delay: Wait before the first retry.
        max_delay: The longest wait.
        backoff_multiplier: By how much each wait exceeds the one before.
    """

    max_attempts: int = 5
    initial_delay: timedelta = dataclasses.field(default_factory=lambda: timedelta(seconds=1))
    max_delay: timedelta = dataclasses.field(default_factory=lambda: timedelta(minutes=5))
    backoff_multiplier: float = 2.0

    async def execute(self, job: Job, context: Context) -> None:
        """Run *job*; raise ``RetryRequested`` for a failure that is not yet final."""
        try:
            await super().execute(job, context)
        except RetryRequested:
            raise
        except Exception as error:
            if (requested := retry_request(error)) is not None:
                raise requested from error
            if job.attempts >= self.max_attempts:
                raise
            raise RetryRequested(self._delay_after(job.attempts), reason=str(error)) from error

    def _delay_after(self, attempts: int) -> timedelta:
        """The wait before the next retry of a job that was retried *attempts* times."""
        if not self.initial_delay:
            return self.initial_delay
        try:
            return min(self.initial_delay * self.backoff_multiplier**attempts, self.max_delay)
        except OverflowError:
            return self.max_delay


@dataclasses.dataclass
class ScheduleExecutorFactoryParameters:
    """What ``schedule`` was called with.

    Attributes:
        entrypoint: Name of the schedule.
        expression: Its cron expression, normalised; a sixth field counts seconds.
        func: The registered function.
        clean_old: Whether what is stored under this name is deleted when the scheduler starts.
        accepts_context: Whether *func* takes a ``ScheduleContext`` after the schedule.
    """

    entrypoint: CronEntrypoint
    expression: CronExpression
    func: ScheduleCrontab
    clean_old: bool
    accepts_context: bool = False


@dataclasses.dataclass
class AbstractScheduleExecutor(ABC):
    """Base of what runs a schedule."""

    parameters: ScheduleExecutorFactoryParameters

    @abstractmethod
    async def execute(self, schedule: Schedule, context: ScheduleContext) -> None:
        """Run one tick of *schedule*. An error is logged; the next tick comes all the same."""

    def get_next(self) -> datetime:
        """When the expression fires next after now, in UTC."""
        # Only schedulers need croniter, and it takes a while to import.
        from croniter import croniter

        ticks = croniter(self.parameters.expression, start_time=utc_now())
        return datetime.fromtimestamp(ticks.get_next(), UTC)

    def next_in(self) -> timedelta:
        """Time until :meth:`get_next`; never negative."""
        # Read the clock first: a tick between the two readings must not end up in the past.
        now = utc_now()
        return self.get_next() - now


@dataclasses.dataclass
class ScheduleExecutor(AbstractScheduleExecutor):
    """Awaits the registered function."""

    async def execute(self, schedule: Schedule, context: ScheduleContext) -> None:
        """Await the function with *schedule*, and with *context* if it takes one."""
        if self.parameters.accepts_context:
            await cast(AsyncContextCrontab, self.parameters.func)(schedule, context)
        else:
            await cast(AsyncCrontab, self.parameters.func)(schedule)
