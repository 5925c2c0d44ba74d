"""Re-exports ``pgq_fast.web``."""

from __future__ import annotations

from pgq_fast.web import create_web_app, create_web_router

__all__ = ["create_web_app", "create_web_router"]
