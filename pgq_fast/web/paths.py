"""Addresses of the dashboard's pages, wherever it was mounted."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from fastapi import Request

__all__ = ["address", "base_of"]


def base_of(request: Request, own: str) -> str:
    """The path that stands before *own*, the route's path within the dashboard.

    Prefixes of routers, mounted applications and the root path that a proxy takes off all count.
    The result is quoted, and empty at the root.
    """
    root = str(request.scope.get("root_path", "")).rstrip("/")
    path = str(request.scope["path"])
    if root and path != root and not path.startswith(f"{root}/"):
        path = root + path
    # A parameter is one segment here, so the numbers of slashes are equal.
    return quote(path.rsplit("/", own.count("/"))[0])


def address(base: str, path: str, **query: object) -> str:
    """*path* of the dashboard at *base*, with those of the parameters that say something.

    No host: the browser knows by which one it came, the server behind a proxy does not.
    """
    given = {name: str(value) for name, value in query.items() if value not in (None, "")}
    return f"{base}{quote(path)}" + (f"?{urlencode(given)}" if given else "")
