"""Answers that are no pages."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["PageError"]


class PageError(Exception):
    """The request is refused; *message* says why, and what to do, to whoever made it.

    Args:
        status: HTTP status.
        message: One or two sentences.
        headers: Of the answer.
    """

    def __init__(
        self, status: int, message: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
