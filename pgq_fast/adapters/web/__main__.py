"""``python -m pgq_fast.adapters.web``: the dashboard, with what the environment says."""

from __future__ import annotations

from pgq_fast.web import serve

if __name__ == "__main__":
    serve()
