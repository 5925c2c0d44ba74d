"""``python -m pgq_fast.mcp``: the server over standard input and output."""

from __future__ import annotations

from pgq_fast.mcp.server import create_mcp_server


def main() -> None:
    """Serve until standard input ends."""
    create_mcp_server().run(transport="stdio")


if __name__ == "__main__":
    main()
