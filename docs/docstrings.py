"""Turns what docstrings take from reStructuredText into Markdown, for the API pages."""

from __future__ import annotations

import re
from typing import Any, Final

import griffe

ROLE: Final = re.compile(r":(?:class|func|meth|mod|attr|data):`(~?)([\w.]+)`")
LITERAL_BLOCK: Final = re.compile(r"(\S?) ?::$", re.MULTILINE)


def _role(found: re.Match[str]) -> str:
    name = found[2].rpartition(".")[2] if found[1] else found[2]
    return f"`{name}`"


class Docstrings(griffe.Extension):
    """Applied to each object of the package."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of *obj*."""
        if obj.docstring is not None:
            text = ROLE.sub(_role, obj.docstring.value)
            obj.docstring.value = LITERAL_BLOCK.sub(r"\1", text)
