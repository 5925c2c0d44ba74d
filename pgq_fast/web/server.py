"""``serve``: the dashboard and a server for it."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

import uvicorn
from fastapi import FastAPI

from pgq_fast.errors import UnprotectedDashboardError
from pgq_fast.loops import run_in_loop
from pgq_fast.settings import ConnectionSettings
from pgq_fast.web.app import create_web_app, open_queries
from pgq_fast.web.auth import Login, is_loopback
from pgq_fast.web.settings import WebSettings
from pgq_fast.web.sse import Broadcaster

__all__ = ["Server", "serve"]

GRACE: Final = 5
"""Seconds that answers under way have to end."""

MOST_REQUESTS: Final = 500
"""Connections at once; more are told to come back."""


def serve(
    *,
    host: str | None = None,
    port: int | None = None,
    dsn: str | None = None,
    connection_settings: ConnectionSettings | None = None,
    user: str | None = None,
    password: str | None = None,
    token: str | None = None,
    read_only: bool | None = None,
    show_payloads: bool | None = None,
    allow_unprotected: bool | None = None,
    root_path: str = "",
    log_level: str = "info",
) -> None:
    """Run the dashboard until the process is interrupted or terminated.

    What is not given comes from ``PGQUEUER_WEB_*`` in the environment; names and layout of the
    tables come from there too.

    Args:
        host: Address to listen on, 127.0.0.1 by default.
        port: Port to listen on, 8080 by default; 0 for any that is free.
        dsn: Where the database is; by default what *connection_settings* say.
        connection_settings: Of the pool of connections; by default those of the environment.
        user: User name of HTTP Basic authentication; takes a *password* too.
        password: Its password.
        token: For ``Authorization: Bearer``, or as the password of any user in a browser.
        read_only: Whether nobody may requeue or cancel jobs.
        show_payloads: Whether payloads and headers of jobs are shown.
        allow_unprotected: Whether it may listen on any address without a login.
        root_path: The path that a proxy takes off before it passes requests on.
        log_level: Of the server's log, as uvicorn calls them.

    Raises:
        UnprotectedDashboardError: It would be reachable from other machines without a login.
        IncompleteLoginError: There is a user without a password or the reverse.
        OSError: The database cannot be reached; or another exception of the database library's.
        SystemExit: The address cannot be listened on; the log says why.
    """
    given = {
        "host": host,
        "port": port,
        "user": user,
        "password": password,
        "token": token,
        "read_only": read_only,
        "show_payloads": show_payloads,
        "allow_unprotected": allow_unprotected,
    }
    # As the constructor of the settings takes them, so that they are checked.
    settings = WebSettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    if (
        Login.of(settings) is None
        and not settings.allow_unprotected
        and not is_loopback(settings.host)
    ):
        raise UnprotectedDashboardError(settings.host)
    # uvicorn ends as the signal says once it has cleaned up, and Ctrl-C is how people end this.
    with contextlib.suppress(KeyboardInterrupt):
        run_in_loop(_serve(settings, dsn, connection_settings, root_path, log_level))


class Server(uvicorn.Server):
    """A server that does not wait for browsers to hang up before it ends.

    Args:
        app: The dashboard.
        settings: Where it listens.
        root_path: The path that a proxy takes off.
        log_level: Of the server's log.
    """

    def __init__(
        self,
        app: FastAPI,
        settings: WebSettings,
        *,
        root_path: str = "",
        log_level: str = "info",
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                root_path=root_path,
                log_level=log_level,
                server_header=False,
                limit_concurrency=MOST_REQUESTS,
                timeout_graceful_shutdown=GRACE,
            )
        )
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then what uvicorn does."""
        broadcaster = getattr(self._app.state, "pgq_broadcaster", None)
        if isinstance(broadcaster, Broadcaster):
            broadcaster.end_streams()
        await super().shutdown(sockets)


async def _serve(
    settings: WebSettings,
    dsn: str | None,
    connection_settings: ConnectionSettings | None,
    root_path: str,
    log_level: str,
) -> None:
    # Before the server starts, so that it is the caller who gets to know what is wrong.
    async with open_queries(dsn, connection_settings) as queries:
        server = Server(
            create_web_app(settings=settings, queries=queries),
            settings,
            root_path=root_path,
            log_level=log_level,
        )
        await server.serve()
    if not server.started:
        raise SystemExit(1)
