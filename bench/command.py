"""The command that made a file of figures, as a reader can repeat it."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

# What of a DSN is shown: nothing. It may have a password.
DSN: Final = re.compile(r"(--(?:pg-)?dsn=).*", re.DOTALL)
# Files of whoever ran it, which change nothing about the figures.
FILES: Final = ("--json", "--compare")


def typed(arguments: Sequence[str] | None = None) -> str:
    """The command line of this process, or another, without DSNs and names of files."""
    program, *rest = sys.argv if arguments is None else arguments
    shown: list[str] = []
    for before, argument in zip(["", *rest], rest, strict=False):
        if before in FILES or argument.partition("=")[0] in FILES:
            continue
        if before in ("--dsn", "--pg-dsn"):
            argument = "DSN"
        shown.append(DSN.sub(r"\1DSN", argument))
    return " ".join(["python", f"bench/{Path(program).name}", *map(shlex.quote, shown)])


def today() -> str:
    """The date, in UTC."""
    return datetime.now(UTC).date().isoformat()
