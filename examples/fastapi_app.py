"""A web application that enqueues: ``uvicorn examples.fastapi_app:app``.

curl -X POST localhost:8000/jobs/greet -d world
curl -X POST localhost:8000/guests/ann
curl localhost:8000/queue
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import Annotated

import asyncpg
from fastapi import Depends, FastAPI, HTTPException, Request

from pgq_fast.models import QueueStatistics
from pgq_fast.queries import Queries


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One pool for the life of the application, shared by all requests."""
    async with asyncpg.create_pool(os.environ.get("PGDSN"), min_size=1) as pool:
        await pool.execute("CREATE TABLE IF NOT EXISTS guests (name text PRIMARY KEY)")
        app.state.pool = pool
        app.state.queries = Queries.from_asyncpg_pool(pool)
        yield


app = FastAPI(lifespan=lifespan)


def get_queries(request: Request) -> Queries:
    queries: Queries = request.app.state.queries
    return queries


@app.post("/jobs/{entrypoint}", status_code=202)
async def enqueue(
    entrypoint: str, request: Request, queries: Annotated[Queries, Depends(get_queries)]
) -> dict[str, list[int]]:
    return {"ids": [*await queries.enqueue(entrypoint, await request.body())]}


@app.post("/guests/{name}", status_code=202)
async def welcome(name: str, request: Request) -> dict[str, int]:
    async with request.app.state.pool.acquire() as connection, connection.transaction():
        # Part of the transaction: if the name is taken, the job is gone as well.
        queries = Queries.from_asyncpg_connection(connection)
        [job_id] = await queries.enqueue("greet", name.encode())
        try:
            await connection.execute("INSERT INTO guests VALUES ($1)", name)
        except asyncpg.UniqueViolationError:
            raise HTTPException(409, f"{name} is here already") from None
    return {"id": job_id}


@app.get("/queue")
async def queue(queries: Annotated[Queries, Depends(get_queries)]) -> list[QueueStatistics]:
    return await queries.queue_size()
