"""Re-exports ``pgq_fast.logconfig``."""

from __future__ import annotations

from pgq_fast.logconfig import (
    logger,
)

__all__ = ["logger"]
