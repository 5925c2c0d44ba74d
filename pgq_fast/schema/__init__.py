"""Management of the tables of either layout: install, inspect, upgrade, verify, uninstall.

Nothing in here talks to a database. Functions that need one are generators: they yield a
:class:`~pgq_fast.schema.statements.Statement`, are sent its rows, and return their result.
``run_async`` and ``run_sync`` drive them over either kind of driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgq_fast.schema.planning import Plan

__all__ = ["Plan"]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """``Plan``, which takes most of this package to be imported, when it is asked for."""
        if name == "Plan":
            from pgq_fast.schema.planning import Plan

            return Plan
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
