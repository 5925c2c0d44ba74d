"""A dashboard that listens, with the server that ``serve`` uses."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from pgq_fast.settings import ConnectionSettings
from pgq_fast.web import create_web_app
from pgq_fast.web.server import Server
from pgq_fast.web.settings import WebSettings

DEADLINE = 30.0


@contextlib.contextmanager
def listening(dsn: str, settings: WebSettings | None = None, root_path: str = "") -> Iterator[str]:
    """Its address, for the length of the block; in a thread, with an event loop of its own."""
    settings = (settings or WebSettings()).model_copy(update={"port": 0})
    app = create_web_app(dsn, ConnectionSettings(), settings=settings)
    server = Server(app, settings, root_path=root_path, log_level="warning")
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + DEADLINE
        while not server.started:
            assert thread.is_alive(), "the server ended"
            assert time.monotonic() < until, "the server does not start"
            time.sleep(0.01)
        (port,) = {socket.getsockname()[1] for each in server.servers for socket in each.sockets}
        yield f"http://127.0.0.1:{port}{root_path}"
    finally:
        server.should_exit = True
        thread.join(DEADLINE)
        assert not thread.is_alive(), "the server does not end"
