"""Re-exports ``pgq_fast.settings``."""

from __future__ import annotations

from pgq_fast.settings import (
    ConnectionSettings,
    DBSettings,
    Durability,
    DurabilityPolicy,
    QualifiedNames,
    add_prefix,
    db_settings,
)

__all__ = [
    "ConnectionSettings",
    "DBSettings",
    "Durability",
    "DurabilityPolicy",
    "QualifiedNames",
    "add_prefix",
    "db_settings",
]
