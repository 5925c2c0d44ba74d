"""Re-exports ``pgq_fast.web.sse``."""

from __future__ import annotations

from pgq_fast.web.sse import Broadcaster

__all__ = ["Broadcaster"]
