"""Re-exports ``pgq_fast.factories``."""

from __future__ import annotations

from pgq_fast.factories import (
    Factory,
    load_factory,
    validate_factory_result,
)

__all__ = ["Factory", "load_factory", "validate_factory_result"]
