"""Deep import paths of what talks to the outside; each module's home is named in it."""

from __future__ import annotations
