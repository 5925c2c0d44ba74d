"""Starting jobs, and putting down how they end.

A started job is in ``manager.job_context`` until its handler is through. Handlers that never wait
are through when the next job starts; the others go on in a task each.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

from pgq_fast import models, tracing
from pgq_fast.errors import MalformedRowError, retry_request
from pgq_fast.executors import EntrypointExecutor
from pgq_fast.layouts.base import Outcome, Rejected, Retry
from pgq_fast.logconfig import logger
from pgq_fast.types import QueueEntrypoint
from pgq_fast.worker.acks import Acknowledger
from pgq_fast.worker.context import JobContext
from pgq_fast.worker.reused import ReusedTasks

if TYPE_CHECKING:
    from pgq_fast.qm import QueueManager

EAGER: Final = sys.version_info >= (3, 12)
"""Whether a task can run up to its first wait while it is made."""


class Dispatcher:
    """Runs the jobs of one worker.

    Attributes:
        waiting: Tasks in which a handler waits for something, with the size of its job's payload.
        waiting_bytes: The sum of these sizes.
        ended: Jobs that have ended so far.
        wake_at_end: Whether the end of a job sets *wake*.
        aborting: Whether cancelled jobs are to go back to the queue instead of ending as canceled.

    Args:
        manager: Whose handlers, tracer and contexts these are.
        acks: Takes the outcomes.
        wake: See *wake_at_end*.
    """

    def __init__(self, manager: QueueManager, acks: Acknowledger, wake: asyncio.Event) -> None:
        self.waiting: dict[asyncio.Task[None], int] = {}
        self.waiting_bytes = 0
        self.ended = 0
        self.wake_at_end = False
        self.aborting = False
        self._manager = manager
        self._contexts = manager.job_context
        self._acks = acks
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._none_waits = asyncio.Event()
        self._calls: dict[QueueEntrypoint, Callable[..., Awaitable[None]]] = {}
        self._reused = None if EAGER else ReusedTasks(self._left, self._forget)

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
        if self._reused is None:
            return self._start_eagerly(jobs, position, since, deadline)
        return await self._start_reusing(self._reused, jobs, position, since, deadline)

    def _start_eagerly(
        self, jobs: Sequence[models.Job], position: int, since: float, deadline: float
    ) -> int:
        # The worker's innermost loop: what can be looked up once is looked up here.
        loop, contexts, run = self._loop, self._contexts, self._run
        resources, shutdown = self._manager.resources, self._manager.shutdown
        new_task: Any = asyncio.Task
        clock = time.monotonic
        while position < len(jobs):
            job = jobs[position]
            position += 1
            contexts[job.id] = context = JobContext(resources, since)
            # Runs until the handler first waits; most of the cheap ones are through by then. Not
            # made by the loop, whose factory is the user's and which may not pass the argument.
            task = new_task(run(job, context), loop=loop, eager_start=True)
            if not task.done():
                self._left(task, job)
                task.add_done_callback(self._forget)
            if shutdown.is_set() or clock() >= deadline:
                break
        return position

    async def _start_reusing(
        self,
        tasks: ReusedTasks[models.Job],
        jobs: Sequence[models.Job],
        position: int,
        since: float,
        deadline: float,
    ) -> int:
        shutdown = self._manager.shutdown
        first = position

        def next_run() -> tuple[models.Job, Coroutine[Any, Any, None]] | None:
            nonlocal position
            if position == len(jobs) or (
                position > first and (shutdown.is_set() or time.monotonic() >= deadline)
            ):
                return None
            job = jobs[position]
            position += 1
            self._contexts[job.id] = context = JobContext(self._manager.resources, since)
            return job, self._run(job, context)

        await tasks.run_all(next_run)
        return position

    def _left(self, task: asyncio.Task[None], job: models.Job) -> None:
        size = len(job.payload or b"")
        self.waiting[task] = size
        self.waiting_bytes += size

    def _forget(self, task: asyncio.Task[None]) -> None:
        self.waiting_bytes -= self.waiting.pop(task)
        if not self.waiting:
            self._none_waits.set()

    async def close(self) -> None:
        """Wait for the jobs that are still running."""
        while self.waiting:
            self._none_waits.clear()
            await self._none_waits.wait()
        if self._reused is not None:
            await self._reused.close()

    def abort(self) -> None:
        """Cancel the jobs that are still running; they are not acknowledged, so they go back."""
        self.aborting = True
        for task in self.waiting:
            task.cancel()

    # -- Run ----------------------------------------------------------------------------------

    async def _run(self, job: models.Job, context: JobContext) -> None:
        """Run the handler and put down how it ended."""
        job_id = job.id
        try:
            call = self._calls.get(job.entrypoint)
            if call is None:
                call = self._calls[job.entrypoint] = self._call_of(job.entrypoint)
            tracer = self._manager.tracer or tracing.TRACER.tracer
            if tracer is None:
                await call(job, context)
            else:
                await self._run_traced(tracer, call, job, context)
        except asyncio.CancelledError:
            # A worker that is made to stop gives its jobs back; any other cancellation of the
            # task is the job's end.
            if not self.aborting:
                self._acks.put(Outcome(job, "canceled", None))
            raise
        except Exception as error:
            await self._failed(job, error)
        else:
            if context.cancel_called:
                self._acks.put(Outcome(job, "canceled", None))
            else:
                self._acks.succeeded(job_id)
        finally:
            self.ended += 1
            self._manager.jobs_logged += 1
            # A later run of the same job has another context.
            if self._contexts.get(job_id) is context:
                del self._contexts[job_id]
            if self.wake_at_end:
                self._wake.set()

    def _call_of(self, entrypoint: QueueEntrypoint) -> Callable[..., Awaitable[None]]:
        """What runs a job: the handler itself where the executor would only pass it on."""
        executor = self._manager.entrypoint_registry[entrypoint]
        if type(executor) is not EntrypointExecutor:
            return executor.execute
        handler: Callable[..., Awaitable[None]] = executor.parameters.func
        if executor.parameters.accepts_context:
            return handler
        return lambda job, _: handler(job)

    async def _run_traced(
        self,
        tracer: tracing.TracingProtocol,
        call: Callable[..., Awaitable[None]],
        job: models.Job,
        context: JobContext,
    ) -> None:
        """Run the handler in the tracer's block. A tracer that fails does not fail the job."""
        started = False
        failure: Exception | None = None
        try:
            async with tracer.trace_process(job):
                started = True
                try:
                    await call(job, context)
                except Exception as error:
                    failure = error
        except Exception as error:
            logger.error("The tracer failed for job %s", job.id, exc_info=error)
        if failure is not None:
            raise failure
        if not started:
            await call(job, context)

    async def _failed(self, job: models.Job, error: Exception) -> None:
        """Retry the job if *error* asks for it, else record the failure."""
        retry = retry_request(error)
        if retry is None:
            executor = self._manager.entrypoint_registry[job.entrypoint]
            await self._manager.log_failure(job, executor, error, self._acks)
            return
        if retry is not error:
            retry.__cause__ = error
        logger.info(
            "Job %s of %s is retried in %s (attempt %d)",
            job.id,
            job.entrypoint,
            retry.delay,
            job.attempts,
        )
        record = models.TracebackRecord.from_exception(
            retry,
            job.id,
            {
                "entrypoint": job.entrypoint,
                "queue_manager_id": self._manager.queue_manager_id,
                "attempt": job.attempts,
                "retry_delay": str(retry.delay),
                "reason": retry.reason,
            },
        )
        self._acks.put(Retry(job, retry.delay, record))

    def refuse(self, rejected: Rejected) -> None:
        """A row that is no job cannot run; it ends as an exception, or it would come again."""
        error = MalformedRowError(
            f"the row of job {rejected.id} cannot be read: {rejected.reason}; "
            "see what wrote it, and enqueue the job again"
        )
        now = models.utc_now()
        # Stands in for the job in its outcome, which needs no more than id and owner.
        job = models.Job.model_construct(
            id=rejected.id,
            priority=0,
            created=now,
            updated=now,
            heartbeat=now,
            execute_after=now,
            status="picked",
            entrypoint=QueueEntrypoint(""),
            payload=None,
            queue_manager_id=self._manager.queue_manager_id,
            headers=None,
        )
        record = models.TracebackRecord.from_exception(
            error, rejected.id, {"queue_manager_id": self._manager.queue_manager_id}
        )
        self._acks.put(Outcome(job, "exception", record))
