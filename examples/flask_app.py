"""A web application without an event loop that enqueues: ``flask --app examples.flask_app run``.

curl -X POST localhost:5000/jobs/greet -d world
curl -X POST localhost:5000/guests/ann
curl localhost:5000/queue
"""

from __future__ import annotations

import os
from typing import Any

import psycopg
from flask import Flask, g, jsonify, request
from flask.typing import ResponseReturnValue

from pgq_fast.db import SyncPsycopgDriver
from pgq_fast.queries import SyncQueries

app = Flask(__name__)

with psycopg.connect(os.environ.get("PGDSN", "")) as setup:
    setup.execute("CREATE TABLE IF NOT EXISTS guests (name text PRIMARY KEY)")


def connection() -> psycopg.Connection[Any]:
    """The request's own connection: requests run in several threads."""
    if "connection" not in g:
        g.connection = psycopg.connect(os.environ.get("PGDSN", ""), autocommit=True)
    opened: psycopg.Connection[Any] = g.connection
    return opened


def queries() -> SyncQueries:
    return SyncQueries(SyncPsycopgDriver(connection()))


@app.teardown_appcontext
def close(error: BaseException | None) -> None:
    if (opened := g.pop("connection", None)) is not None:
        opened.close()


@app.post("/jobs/<entrypoint>")
def enqueue(entrypoint: str) -> ResponseReturnValue:
    return jsonify(ids=queries().enqueue(entrypoint, request.get_data())), 202


@app.post("/guests/<name>")
def welcome(name: str) -> ResponseReturnValue:
    try:
        with connection().transaction():
            # Part of the transaction: if the name is taken, the job is gone as well.
            [job_id] = queries().enqueue("greet", name.encode())
            connection().execute("INSERT INTO guests VALUES (%s)", [name])
    except psycopg.errors.UniqueViolation:
        return jsonify(error=f"{name} is here already"), 409
    return jsonify(id=job_id), 202


@app.get("/queue")
def queue() -> ResponseReturnValue:
    return jsonify([row.model_dump() for row in queries().queue_size()])
