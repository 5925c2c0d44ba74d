"""Re-exports ``pgq_fast.completion``."""

from __future__ import annotations

from pgq_fast.completion import (
    CompletionWatcher,
)

__all__ = ["CompletionWatcher"]
