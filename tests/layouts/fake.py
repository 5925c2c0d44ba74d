"""A driver without a server, and a clock that goes as a test wants."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

Answer = Callable[..., Any]


class FakeDriver:
    """Notes the statements by their names, and answers as the test says.

    A statement is known by what it does: the tables' names are those of the default settings.
    """

    owns_connections = False
    is_concurrent = False

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names
        self.sent: list[tuple[str, tuple[object, ...]]] = []
        self.answers: dict[str, Any] = {}

    def _note(self, query: str, args: tuple[object, ...]) -> str:
        (name,) = [name for pattern, name in self._names.items() if re.match(pattern, query)]
        self.sent.append((name, args))
        return name

    async def fetch_rows(self, query: str, *args: object) -> Any:
        answer = self.answers[self._note(query, args)]
        return answer(*args) if callable(answer) else answer

    async def execute(self, query: str, *args: object) -> str:
        self._note(query, args)
        return ""

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        raise NotImplementedError

    def in_transaction(self) -> bool:
        return False

    def names(self) -> list[str]:
        """What has been sent since the last call."""
        names = [name for name, _ in self.sent]
        self.sent.clear()
        return names


class Clock:
    """In place of ``time`` in a module."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
        self.now = 1000.0
        monkeypatch.setattr(f"{module}.time", self)

    def monotonic(self) -> float:
        return self.now
