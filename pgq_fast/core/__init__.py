"""Deep import paths of the worker's parts; each module's home is named in it."""

from __future__ import annotations
