"""``python -m pgq_fast.adapters.mcp``: the same as ``python -m pgq_fast.mcp``."""

from __future__ import annotations

from pgq_fast.mcp.__main__ import main

if __name__ == "__main__":
    main()
