"""Starting jobs, and putting down how they end.

Handlers that never wait are through when the next job starts; the others go on in a task each, and
their jobs are in ``manager.job_context`` until they end.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pgq_fast import models, tracing
from pgq_fast.errors import (
    MalformedRowError,
    UnrecordableOutcomeError,
    invalid_retry,
    retry_request,
)
from pgq_fast.executors import EntrypointExecutor
from pgq_fast.layouts.base import Outcome, Rejected, Retry
from pgq_fast.logconfig import logger
from pgq_fast.types import JOB_STATUS, JobId, QueueEntrypoint
from pgq_fast.watchdog import Culprit
from pgq_fast.worker.acks import Acknowledger, is_attempts, stand_in
from pgq_fast.worker.context import JobContext
from pgq_fast.worker.observing import Observation
from pgq_fast.worker.reused import ReusedTasks

if TYPE_CHECKING:
    from pgq_fast.qm import QueueManager

EAGER: Final = sys.version_info >= (3, 12)
"""Whether a task can run up to its first wait while it is made."""


class Dispatcher:
    """Runs the jobs of one worker; made by the task that runs the worker.

    Attributes:
        waiting_bytes: The sizes of the payloads of jobs whose handlers wait for something.
        ended: Jobs that have ended so far, in whichever way.
        wake_at_end: Whether the end of a job sets *wake*.
        aborting: Whether cancelled jobs are to go back to the queue instead of ending as canceled.

    Args:
        manager: Whose handlers, tracer and contexts these are.
        acks: Takes the outcomes.
        wake: See *wake_at_end*.
        observation: Takes the times of the runs, if anybody wants them.
    """

    def __init__(
        self,
        manager: QueueManager,
        acks: Acknowledger,
        wake: asyncio.Event,
        observation: Observation | None = None,
    ) -> None:
        self.waiting_bytes = 0
        self.ended = 0
        self.wake_at_end = False
        self.aborting = False
        self._manager = manager
        # Invariant: a job whose handler waits has its context in one of these two.
        self._contexts = manager.job_context
        self._displaced: list[JobContext] = []
        self._acks = acks
        self._successes = acks.successes
        self._wake = wake
        self._observation = observation
        self._loop = asyncio.get_running_loop()
        runner = asyncio.current_task()
        assert runner is not None
        self._runner = runner
        self._runner_cancelling = runner.cancelling()
        self._none_waits = asyncio.Event()
        self._tracer: tracing.TracingProtocol | None = None
        # Of each entrypoint, what to call, and whether with the context.
        self._calls: dict[QueueEntrypoint, tuple[Callable[..., Awaitable[None]], bool]] = {}
        self._reused: ReusedTasks[tuple[models.Job, JobId]] | None = None
        if not EAGER:
            self._reused = ReusedTasks(lambda task, started: self._waits(task, *started))

    # -- Start --------------------------------------------------------------------------------

    async def start(
        self, jobs: Sequence[models.Job], position: int, since: float, deadline: float
    ) -> int:
        """Start *jobs* from *position* on, until *deadline* or until the worker is to stop.

        Args:
            jobs: Claimed jobs, in order.
            position: The first one to start; it is started in any case.
            since: When they were last vouched for; like *deadline* in seconds of the monotonic
                clock.
            deadline: When to stop, for timers and other tasks to get their turn.

        Returns:
            The position of the first job that was not started.
        """
        self._tracer = self._manager.tracer or tracing.TRACER.tracer
        self._contexts.resources = self._manager.resources
        self._contexts.since = since
        if self._reused is None:
            position = self._start_eagerly(jobs, position, deadline)
        else:
            position = await self._start_reusing(self._reused, jobs, position, deadline)
        self._contexts.starting = None
        self._acks.notice()
        return position

    def _start_eagerly(self, jobs: Sequence[models.Job], position: int, deadline: float) -> int:
        # The worker's innermost loop: what can be looked up once is looked up here.
        loop, contexts, run = self._loop, self._contexts, self._run
        stopping = self._manager.shutdown.is_set
        new_task: Any = asyncio.Task
        clock = time.monotonic
        count = len(jobs)
        while position < count:
            contexts.starting = job = jobs[position]
            # Here, as a handler may change its job.
            job_id = job.id
            position += 1
            # Runs until the handler first waits; most of the cheap ones are through by then. Not
            # made by the loop, whose factory is the user's and which may not pass the argument.
            task = new_task(run(job, job_id), loop=loop, eager_start=True)
            if not task.done():
                self._waits(task, job, job_id)
            if stopping() or clock() >= deadline:
                break
        return position

    async def _start_reusing(
        self,
        tasks: ReusedTasks[tuple[models.Job, JobId]],
        jobs: Sequence[models.Job],
        position: int,
        deadline: float,
    ) -> int:
        shutdown = self._manager.shutdown
        first = position

        def next_run() -> tuple[tuple[models.Job, JobId], Coroutine[Any, Any, None]] | None:
            nonlocal position
            if position == len(jobs) or (
                position > first and (shutdown.is_set() or time.monotonic() >= deadline)
            ):
                return None
            self._contexts.starting = job = jobs[position]
            position += 1
            return (job, job.id), self._run(job, job.id)

        await tasks.run_all(next_run)
        return position

    def _waits(self, task: asyncio.Task[None], job: models.Job, job_id: JobId) -> None:
        """The handler of *job* has begun to wait, in *task*."""
        contexts = self._contexts
        context = contexts.get(job_id)
        if context is None:
            contexts[job_id] = context = JobContext(contexts.resources, contexts.since)
        context.task = task
        context.entrypoint = job.entrypoint
        contexts.starting = None
        payload: object = job.payload
        if isinstance(payload, bytes):
            context.size = len(payload)
            self.waiting_bytes += context.size

    async def close(self) -> None:
        """Wait for the jobs that are still running."""
        while self._contexts or self._displaced:
            self._none_waits.clear()
            await self._none_waits.wait()
        if self._reused is not None:
            await self._reused.close()

    def abort(self) -> None:
        """Cancel the jobs that are still running; they are not acknowledged, so they go back."""
        self.aborting = True
        for context in (*self._contexts.values(), *self._displaced):
            if context.task is not None:
                context.task.cancel()

    # -- Run ----------------------------------------------------------------------------------

    async def _run(self, job: models.Job, job_id: JobId) -> None:
        """Run the handler and put down how it ended.

        *job_id* is that of *job*, which is the handler's to change.
        """
        contexts = self._contexts
        try:
            found = self._calls.get(job.entrypoint)
            if found is None:
                found = self._calls[job.entrypoint] = self._call_of(job.entrypoint)
            call, takes_context = found
            if self._tracer is not None:
                arguments = (job, contexts[job_id]) if takes_context else (job,)
                await self._run_traced(self._tracer, call, arguments)
            elif takes_context:
                await call(job, contexts[job_id])
            else:
                await call(job)
        except Exception as error:
            self._leave(job, job_id)
            self._acks.put(await self._failed(job, job_id, error))
        except BaseException as error:
            self._leave(job, job_id)
            if self.cancels(error):
                self._acks.put(Outcome(self._as_claimed(job, job_id), "canceled", None))
            raise
        else:
            context = self._leave(job, job_id) if contexts or self._displaced else None
            if context is not None and context.cancel_called:
                self._acks.put(Outcome(self._as_claimed(job, job_id), "canceled", None))
            else:
                self._successes.append(job_id)
        finally:
            self.ended += 1
            if contexts.starting is not job and not self._acks.noticed:
                self._acks.notice()
            if self.wake_at_end:
                self._wake.set()

    def cancels(self, error: BaseException) -> bool:
        """Whether *error*, which ended the task of a job, is the job's end as canceled.

        A worker that is made to stop gives its jobs back, and so does one whose process ends: then
        asyncio cancels all tasks. Any other cancellation of the task is the job's end.
        """
        return (
            isinstance(error, asyncio.CancelledError)
            and not self.aborting
            and self._runner.cancelling() == self._runner_cancelling
        )

    def is_canceled(self, job: models.Job) -> bool:
        """Whether somebody canceled *job*, whose run here is about to end.

        For those who watch runs; ``_run`` itself has the context at hand.
        """
        contexts = self._contexts
        if not contexts and not self._displaced:
            return False
        context = contexts.get(job.id)
        if contexts.starting is not job:
            task = asyncio.current_task()
            if context is None or context.task is not task:
                context = next((other for other in self._displaced if other.task is task), None)
        return context is not None and context.cancel_called

    def _leave(self, job: models.Job, job_id: JobId) -> JobContext | None:
        """Forget this run of *job*; its context, where it has one.

        A later run of the same job, after a rescue, has a context of its own.
        """
        contexts = self._contexts
        context = contexts.get(job_id)
        if contexts.starting is job:
            # It never waited.
            if context is not None:
                del contexts[job_id]
            return context
        task = asyncio.current_task()
        if context is not None and context.task is task:
            del contexts[job_id]
        else:
            (context,) = (other for other in self._displaced if other.task is task)
            self._displaced.remove(context)
        self.waiting_bytes -= context.size
        if not contexts:
            self._none_waits.set()
        return context

    def running(self, task: asyncio.Task[object] | None) -> Culprit | None:
        """The job whose handler runs in *task* or, where none does, the one that is being started.

        Other threads may ask.
        """
        contexts = self._contexts
        # Copied in one step, which no other thread can interrupt.
        for job_id, context in list(contexts.items()):
            if context.task is task:
                return _culprit(job_id, context.entrypoint)
        starting = contexts.starting
        return None if starting is None else _culprit(starting.id, starting.entrypoint)

    def displace(self, jobs: Sequence[models.Job]) -> None:
        """Make room for *jobs* where earlier runs of them have not ended yet.

        Those were taken for dead, and their ends change nothing. What is asked about these jobs
        from now on is about the new runs.
        """
        contexts = self._contexts
        if contexts:
            self._displaced += [contexts.pop(job.id) for job in jobs if job.id in contexts]

    def _call_of(self, entrypoint: QueueEntrypoint) -> tuple[Callable[..., Awaitable[None]], bool]:
        """What runs a job: the handler itself where the executor would only pass it on."""
        executor = self._manager.entrypoint_registry[entrypoint]
        call: Callable[..., Awaitable[None]] = executor.execute
        takes_context = True
        if type(executor) is EntrypointExecutor:
            call, takes_context = executor.parameters.func, executor.parameters.accepts_context
        if self._observation is not None:
            call = self._observation.timed(entrypoint, call, takes_context, self._contexts, self)
        return call, takes_context

    async def _run_traced(
        self,
        tracer: tracing.TracingProtocol,
        call: Callable[..., Awaitable[None]],
        arguments: tuple[Any, ...],
    ) -> None:
        """Run the handler in the tracer's block, which sees how it ends.

        A canceled job leaves the block with ``CancelledError`` also where its handler has returned.
        A tracer that fails does not fail the job, and one that holds an error back does not make
        it a success.
        """
        job: models.Job = arguments[0]
        started = False
        failure: Exception | None = None
        canceled: asyncio.CancelledError | None = None
        try:
            async with tracer.trace_process(job):
                started = True
                try:
                    await call(*arguments)
                except Exception as error:
                    failure = error
                    raise
                if self.is_canceled(job):
                    canceled = asyncio.CancelledError(f"job {job.id} was canceled")
                    raise canceled
        except asyncio.CancelledError as error:
            if error is not canceled:
                raise
        except Exception as error:
            if error is not failure:
                logger.error(
                    "The tracer failed for job %s",
                    job.id,
                    exc_info=error,
                    extra={"job_id": job.id, "entrypoint": job.entrypoint},
                )
        if failure is not None:
            raise failure
        if not started:
            await call(*arguments)

    async def _failed(self, job: models.Job, job_id: JobId, error: Exception) -> Outcome | Retry:
        """How *job* ends by *error*: as a retry if that asks for one, else as a failure.

        Never fails itself, whatever the handler raised: a job without an outcome would stay picked.
        """
        job = self._as_claimed(job, job_id)
        try:
            return await self._outcome_of(job, error)
        except Exception as problem:
            unrecordable = UnrecordableOutcomeError(type(problem).__name__)
            logger.error(
                "How job %s of %s ended cannot be recorded; it ends as an exception",
                job_id,
                job.entrypoint,
                exc_info=problem,
                extra={"job_id": job_id, "entrypoint": job.entrypoint},
            )
            return Outcome(
                job, "exception", models.TracebackRecord.from_exception(unrecordable, job_id)
            )

    async def _outcome_of(self, job: models.Job, error: Exception) -> Outcome | Retry:
        retry = retry_request(error)
        if retry is None:
            executor = self._manager.entrypoint_registry[job.entrypoint]
            ended = _Ended()
            await self._manager.log_failure(job, executor, invalid_retry(error) or error, ended)
            # Of this job, whatever was told of another one.
            return ended.outcome._replace(job=job)
        if retry is not error:
            retry.__cause__ = error
        reason: object = retry.reason
        logger.info(
            "Job %s of %s is retried in %s (attempt %d)",
            job.id,
            job.entrypoint,
            retry.delay,
            job.attempts,
            extra={
                "job_id": job.id,
                "entrypoint": job.entrypoint,
                "attempts": job.attempts,
                "delay": retry.delay.total_seconds(),
            },
        )
        record = models.TracebackRecord.from_exception(
            retry,
            job.id,
            {
                "entrypoint": job.entrypoint,
                "queue_manager_id": self._manager.queue_manager_id,
                "attempt": job.attempts,
                "retry_delay": str(retry.delay),
                "reason": None if reason is None else str(reason),
            },
        )
        return Retry(job, retry.delay, record)

    def refuse(self, rejected: Rejected) -> None:
        """A row that is no job cannot run; it ends as an exception, or it would come again."""
        error = MalformedRowError(
            f"the row of job {rejected.id} cannot be read: {rejected.reason}; "
            "see what wrote it, and enqueue the job again"
        )
        owner = self._manager.queue_manager_id
        record = models.TracebackRecord.from_exception(
            error, rejected.id, {"queue_manager_id": owner}
        )
        self._acks.put(Outcome(stand_in(rejected.id, owner), "exception", record))

    def _as_claimed(self, job: models.Job, job_id: JobId) -> models.Job:
        """*job*, or what stands in for it in its outcome where the handler changed who it is."""
        known = vars(job)
        if (
            known.get("id") is job_id
            and is_attempts(known.get("attempts"))
            and isinstance(known.get("entrypoint"), str)
            and isinstance(known.get("queue_manager_id"), UUID | None)
        ):
            return job
        return stand_in(job_id, self._manager.queue_manager_id, job)


def _culprit(job_id: JobId, entrypoint: QueueEntrypoint) -> Culprit:
    return Culprit(f"job {job_id} of {entrypoint}", {"job_id": job_id, "entrypoint": entrypoint})


class _Ended:
    """The sink of one job's failure."""

    def __init__(self) -> None:
        self._outcome: Outcome | None = None

    async def add(self, item: tuple[models.Job, JOB_STATUS, models.TracebackRecord | None]) -> None:
        """Take the outcome."""
        self._outcome = Outcome(*item)

    @property
    def outcome(self) -> Outcome:
        """What was taken.

        Raises:
            LookupError: Nothing was.
        """
        if self._outcome is None:
            raise LookupError("log_failure reported no outcome")
        return self._outcome
