"""Re-exports ``pgq_fast.logconfig`` and pgqueuer's part of ``pgq_fast.logsetup``."""

from __future__ import annotations

from pgq_fast.logconfig import (
    logger,
)
from pgq_fast.logsetup import (
    ISOFormatter,
    LogLevel,
    MaxLevelFilter,
    setup_fancy_logger,
)

__all__ = ["ISOFormatter", "LogLevel", "MaxLevelFilter", "logger", "setup_fancy_logger"]
