"""Re-exports the command line, ``pgq_fast.cli.app``."""

from __future__ import annotations

from pgq_fast.cli.app import app

__all__ = ["app"]
