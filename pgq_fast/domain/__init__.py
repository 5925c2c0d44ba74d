"""Deep import paths of data, errors and settings; each module's home is named in it."""

from __future__ import annotations
