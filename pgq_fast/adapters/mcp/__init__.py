"""Deep import paths of the MCP server."""
