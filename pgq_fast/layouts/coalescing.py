"""Jobs that are enqueued one by one at the same time go to the server together.

A :class:`Coalescer` is in one of two states:

* Idle: nothing is under way. A call sends its own job, in the caller's own task, so that a lone
  producer pays for no task and no hand-over, and cancels nobody's statement but its own.
* Busy: a statement is under way. A call waits. When the statement ends, a task of the coalescer's
  own takes the calls that wait, sends their jobs in one statement, and goes on until none waits.
  That task belongs to no caller, so none of them can cancel it.

There are no timers: what gathers calls is the time that the statement before takes.

One statement at a time, also over a pool: two at a time carry half of the jobs each, and are slower
as the fixed cost of each is that of many rows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextvars import Context
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

MAX_ROWS: Final = 500
"""Jobs in one statement. More gain nothing: by then its fixed cost is a few percent of it."""

MAX_BYTES: Final = 1 << 20
"""Payload and header bytes in one statement, so that small jobs do not wait for many large ones.

A single larger job goes alone.
"""

JobT = TypeVar("JobT")
JobT_contra = TypeVar("JobT_contra", contravariant=True)
ResultT = TypeVar("ResultT")
ResultT_co = TypeVar("ResultT_co", covariant=True)

# The event loop refers to tasks weakly.
_senders: Final[set[asyncio.Task[None]]] = set()


class Sender(Protocol[JobT_contra, ResultT_co]):
    """What a coalescer needs to know about statements."""

    def may_go_together(self) -> bool:
        """Whether jobs may share a statement now: not in a transaction of the user's."""
        ...

    def size(self, job: JobT_contra, /) -> int:
        """Bytes of *job* that count towards ``MAX_BYTES``."""
        ...

    async def send_alone(self, job: JobT_contra, /) -> ResultT_co:
        """Send one job."""
        ...

    async def send_together(self, jobs: Sequence[JobT_contra], /) -> Sequence[ResultT_co]:
        """Send *jobs*, all or none of them, in one statement; a result for each, in order."""
        ...

    def had_no_effect(self, error: Exception, /) -> bool:
        """Whether *error* of a statement proves that none of its jobs was stored."""
        ...


class _Call(NamedTuple, Generic[JobT, ResultT]):
    """A caller that waits; it was cancelled if the future is done before its job was sent."""

    future: asyncio.Future[ResultT]
    job: JobT


class Coalescer(Generic[JobT, ResultT]):
    """Sends jobs, those of concurrent callers in one statement.

    Args:
        sender: Runs the statements.
        loop: The event loop of all callers.
    """

    def __init__(self, sender: Sender[JobT, ResultT], loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._sender = sender
        # Invariant: while calls wait, it is busy, and whoever ends that takes care of them.
        self._busy = False
        self._waiting: deque[_Call[JobT, ResultT]] = deque()

    async def send(self, job: JobT) -> ResultT:
        """Send *job*; the result is its own, and so is the error.

        A caller that is cancelled while it waits takes its job along; one that is cancelled later
        does not know whether it was stored. Nothing is sent twice unless the server said that the
        first attempt had no effect.
        """
        if not self._sender.may_go_together():
            return await self._sender.send_alone(job)
        if self._busy:
            future: asyncio.Future[ResultT] = self.loop.create_future()
            self._waiting.append(_Call(future, job))
            return await future
        self._busy = True
        try:
            return await self._sender.send_alone(job)
        finally:
            self._end_statement()

    def _end_statement(self) -> None:
        """Become idle, or go on with the calls that wait."""
        while self._waiting and self._waiting[0].future.done():
            self._waiting.popleft()
        # A coroutine that is thrown away after its loop ends up here, too.
        self._busy = bool(self._waiting) and not self.loop.is_closed()
        if self._busy:
            # A task begins with a copy of the context, which must not be that of whichever caller
            # happens to be here. (Task factories need not know the argument for that.)
            task = Context().run(self.loop.create_task, self._send_waiting())
            _senders.add(task)
            task.add_done_callback(_senders.discard)

    async def _send_waiting(self) -> None:
        try:
            while calls := self._take():
                await self._send(calls)
                # Callers that got their result and enqueue the next job at once are in time for
                # the next statement.
                await asyncio.sleep(0)
        finally:
            self._end_statement()

    def _take(self) -> list[_Call[JobT, ResultT]]:
        """The calls for the next statement, in order, without those that were cancelled."""
        calls: list[_Call[JobT, ResultT]] = []
        room = MAX_BYTES
        while self._waiting and len(calls) < MAX_ROWS:
            call = self._waiting[0]
            if not call.future.done():
                room -= self._sender.size(call.job)
                if room < 0 and calls:
                    break
                calls.append(call)
            self._waiting.popleft()
        return calls

    async def _send(self, calls: list[_Call[JobT, ResultT]]) -> None:
        """Send the jobs of *calls*; each future has an outcome afterwards."""
        try:
            if len(calls) == 1 or not await self._sent_together(calls):
                await self._send_one_by_one(calls)
        finally:
            # Whatever ends the task here, as the end of the loop does, must not leave one waiting.
            for call in calls:
                call.future.cancel()

    async def _sent_together(self, calls: list[_Call[JobT, ResultT]]) -> bool:
        """Whether *calls* have their outcome; if not, nothing was stored."""
        # Once more: the user may have begun a transaction since the calls came.
        if not self._sender.may_go_together():
            return False
        try:
            results = await self._sender.send_together([call.job for call in calls])
        except Exception as error:
            # One bad job fails the whole statement, and does not tell which it was.
            if self._sender.had_no_effect(error):
                return False
            for call in calls:
                _fail(call.future, error)
            return True
        for call, result in zip(calls, results, strict=True):
            if not call.future.done():
                call.future.set_result(result)
        return True

    async def _send_one_by_one(self, calls: list[_Call[JobT, ResultT]]) -> None:
        for call in calls:
            if call.future.done():
                continue
            try:
                result = await self._sender.send_alone(call.job)
            except Exception as error:
                _fail(call.future, error)
            else:
                if not call.future.done():
                    call.future.set_result(result)


def _fail(future: asyncio.Future[ResultT], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
