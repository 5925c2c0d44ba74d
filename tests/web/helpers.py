"""Jobs that have been through something, and pages as text."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from html import unescape
from typing import Any

import httpx

from pgq_fast.models import Job, TracebackRecord
from pgq_fast.queries import Queries
from pgq_fast.repository import EntrypointExecutionParameter
from pgq_fast.types import JOB_STATUS, QueueEntrypoint, QueueManagerId

WORKER = QueueManagerId(uuid.UUID(int=7))


async def claim(queries: Queries, entrypoint: str, count: int = 1) -> list[Job]:
    """Claim as a worker does."""
    wanted = {QueueEntrypoint(entrypoint): EntrypointExecutionParameter(0)}
    return await queries.dequeue(count, wanted, WORKER, None, timedelta(days=1))


async def run(
    queries: Queries, entrypoint: str, *statuses: JOB_STATUS, message: str = "no such host"
) -> list[int]:
    """Enqueue jobs and end each with a status; their ids."""
    count = len(statuses)
    await queries.enqueue([entrypoint] * count, [b"secret payload"] * count, [0] * count)
    jobs = await claim(queries, entrypoint, count)
    await queries.log_jobs(
        [
            (job, status, failure(job, message) if status in ("exception", "failed") else None)
            for job, status in zip(jobs, statuses, strict=True)
        ]
    )
    return [job.id for job in jobs]


def failure(job: Job, message: str) -> TracebackRecord:
    try:
        raise ConnectionError(message)
    except ConnectionError as error:
        return TracebackRecord.from_exception(error, job.id, {"entry_point": job.entrypoint})


async def text(client: httpx.AsyncClient, path: str, **options: Any) -> str:
    """The page at *path*, which has to be there."""
    response = await client.get(path, **options)
    assert response.status_code == 200, response.text
    return response.text


def ids(page: str) -> list[int]:
    """The jobs that a page lists, in order."""
    return [int(number) for number in re.findall(r'name="ids" value="(\d+)"', page)]


def link(page: str, words: str) -> str | None:
    """Where the link with *words* leads to."""
    found = re.search(rf'href="([^"]*)"[^>]*>{re.escape(words)}<', page)
    return unescape(found[1]) if found else None


def token(page: str) -> str:
    """What the forms of a page send along."""
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found is not None
    return found[1]


async def act(
    client: httpx.AsyncClient, page: str, path: str, fields: dict[str, Any], **options: Any
) -> httpx.Response:
    """Send a form of *page* to *path*."""
    fields = {"csrf": token(await text(client, page)), **fields}
    return await client.post(path, data=fields, **options)
