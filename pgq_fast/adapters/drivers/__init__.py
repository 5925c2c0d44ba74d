"""Deep import paths of the drivers."""

from __future__ import annotations
