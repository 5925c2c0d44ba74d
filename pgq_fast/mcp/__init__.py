"""An MCP server: a language model looks at a queue, and changes it where it is allowed to."""

from __future__ import annotations

from pgq_fast.errors import MissingExtraError

try:
    # What the modules here are built on; older versions of the library have it not.
    import mcp.server.mcpserver  # noqa: F401
except ImportError as error:
    raise MissingExtraError("The MCP server", "mcp") from error
