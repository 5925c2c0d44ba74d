"""The web dashboard: pages that show a queue and act on its jobs. Takes the extra ``web``.

``create_web_router`` is for an application of your own, ``create_web_app`` for a server of your
own, and ``serve`` brings both along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    import fastapi as _fastapi  # noqa: F401
    import jinja2 as _jinja2  # noqa: F401
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"the dashboard needs {missing.name}: pip install 'pgq-fast[web]'", name=missing.name
    ) from missing

from pgq_fast.web.app import create_web_app
from pgq_fast.web.routes import create_web_router
from pgq_fast.web.settings import WebSettings as WebSettings

if TYPE_CHECKING:
    from pgq_fast.web.server import serve as serve

__all__ = ["create_web_app", "create_web_router"]


def __getattr__(name: str) -> object:
    """``serve`` with its server, which those who mount the dashboard need not have."""
    if name != "serve":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from pgq_fast.web.server import serve
    except ModuleNotFoundError as missing:
        if missing.name != "uvicorn":
            raise
        raise ModuleNotFoundError(
            "the dashboard's server needs uvicorn: pip install 'pgq-fast[web]'", name="uvicorn"
        ) from missing
    return serve
