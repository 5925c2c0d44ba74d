"""Factories: what a worker is made by, named on the command line or passed to ``run``.

A factory is a function that returns an async context manager, usually one written with
``@contextlib.asynccontextmanager``. What the context yields is run; leaving it cleans up.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from pgq_fast.errors import PgqException

__all__ = ["load_factory", "validate_factory_result"]

_HOW_TO = """Write it with @contextlib.asynccontextmanager:

    @contextlib.asynccontextmanager
    async def create_worker():
        connection = await asyncpg.connect()
        try:
            yield PgQueuer.from_asyncpg_connection(connection)
        finally:
            await connection.close()
"""


class Factory(Protocol):
    """Makes what is to be run, from the extra arguments of the command line."""

    def __call__(self, *args: object) -> object:
        """Return an async context manager around a ``PgQueuer`` or one of its managers."""
        ...


class InvalidFactoryError(PgqException, ValueError):
    """A text that does not name a factory."""

    def __init__(self, factory: str) -> None:
        super().__init__(
            f"{factory!r} does not name a factory: give 'module:function', such as 'app:worker'"
        )


def load_factory(factory: str | Factory) -> Factory:
    """The factory that ``module:function`` names; a function is returned as it is.

    Modules are also looked for in the current directory.

    Raises:
        InvalidFactoryError: A ``ValueError``; the text is not of that form.
        ImportError: There is no such module.
        AttributeError: The module has no such name.
        TypeError: The name stands for something that cannot be called.
    """
    if callable(factory):
        return factory

    module_name, _, name = factory.partition(":")
    if not module_name or not name:
        raise InvalidFactoryError(factory)

    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    loaded: object = getattr(importlib.import_module(module_name), name)
    if not callable(loaded):
        raise TypeError(
            f"{factory!r} is a {type(loaded).__name__}, not a function that makes a worker"
        )
    return loaded


def validate_factory_result(result: object) -> AbstractAsyncContextManager[object]:
    """*result* itself, if it is an async context manager.

    Raises:
        TypeError: It is anything else; the message shows how to write a factory.
    """
    if isinstance(result, AbstractAsyncContextManager):
        return result
    if inspect.iscoroutine(result):
        # Nobody is going to await it: keep Python from warning about that.
        result.close()
    raise TypeError(
        "the factory has to return an async context manager, but it returned a "
        f"{type(result).__name__}. {_HOW_TO}"
    )
