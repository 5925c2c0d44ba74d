"""Re-exports ``pgq_fast.mcp``."""

from __future__ import annotations

from pgq_fast.mcp.database import (
    PgQueuerDatabase,
)
from pgq_fast.mcp.server import (
    create_mcp_server,
)

__all__ = ["PgQueuerDatabase", "create_mcp_server"]
