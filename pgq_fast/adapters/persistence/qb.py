"""Re-exports ``pgq_fast.builders``."""

from __future__ import annotations

from pgq_fast.builders import (
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
)
from pgq_fast.settings import (
    DBSettings,
    Durability,
    DurabilityPolicy,
    QualifiedNames,
)

__all__ = [
    "DBSettings",
    "Durability",
    "DurabilityPolicy",
    "QualifiedNames",
    "QueryBuilderEnvironment",
    "QueryQueueBuilder",
    "QuerySchedulerBuilder",
]
