"""Deep import paths of what runs workers."""

from __future__ import annotations
