"""``python -m pgq_fast.adapters.web``: the dashboard, with what the environment says."""

from __future__ import annotations

import sys

from pgq_fast.errors import DashboardError
from pgq_fast.web import serve

if __name__ == "__main__":
    try:
        serve()
    except DashboardError as error:
        sys.exit(f"pgq_fast: {error}")
