"""Deep import paths of the queries and of the SQL they send."""

from __future__ import annotations
