"""A web application without an event loop that enqueues: ``flask --app examples.flask_app run``.

curl -X POST localhost:5000/jobs/greet -d world
curl localhost:5000/queue
"""

from __future__ import annotations

import os

import psycopg
from flask import Flask, g, jsonify, request
from flask.typing import ResponseReturnValue

from pgq_fast.db import SyncPsycopgDriver
from pgq_fast.queries import SyncQueries

app = Flask(__name__)


def queries() -> SyncQueries:
    """Queries on the request's own connection: requests run in several threads."""
    if "connection" not in g:
        g.connection = psycopg.connect(os.environ.get("PGDSN", ""), autocommit=True)
    return SyncQueries(SyncPsycopgDriver(g.connection))


@app.teardown_appcontext
def close(error: BaseException | None) -> None:
    if (connection := g.pop("connection", None)) is not None:
        connection.close()


@app.post("/jobs/<entrypoint>")
def enqueue(entrypoint: str) -> ResponseReturnValue:
    return jsonify(ids=queries().enqueue(entrypoint, request.get_data())), 202


@app.get("/queue")
def queue() -> ResponseReturnValue:
    return jsonify([row.model_dump() for row in queries().queue_size()])
