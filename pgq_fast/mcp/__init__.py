"""An MCP server: a language model looks at a queue, and changes it where it is allowed to."""
