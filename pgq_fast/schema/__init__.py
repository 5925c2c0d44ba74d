"""Management of the tables of either layout: install, inspect, upgrade, verify, uninstall.

Nothing in here talks to a database. Functions that need one are generators: they yield a
:class:`~pgq_fast.schema.statements.Statement`, are sent its rows, and return their result.
``run_async`` and ``run_sync`` drive them over either kind of driver.
"""

from pgq_fast.schema.planning import Plan

__all__ = ["Plan"]
