"""What the site leaves out of the pages, and what it must have."""

from __future__ import annotations

import logging
import pkgutil
import re
import zlib
from pathlib import Path
from typing import Any, Final

import pgq_fast

# Its warnings fail a strict build.
logger = logging.getLogger("mkdocs.hooks.pgq_fast")

CHECK: Final = re.compile(r"^<!-- (?:check\n|not run: ).*?-->\n", re.DOTALL | re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page without what only its test reads."""
    return CHECK.sub("", markdown)


def on_post_build(config: Any, **_: Any) -> None:
    """Warn of public names of the package that no API page has."""
    inventory = (Path(config["site_dir"]) / "objects.inv").read_bytes()
    # Four lines of text stand before what is compressed.
    lines = zlib.decompress(inventory.split(b"\n", 4)[4]).decode().splitlines()
    shown = {line.split(" ", 1)[0] for line in lines}
    objects = [pkgutil.resolve_name(name) for name in sorted(shown) if _exists(name)]
    for name in [*pgq_fast.__all__, "install_as_pgqueuer"]:
        value = getattr(pgq_fast, name)
        if not any(each is value for each in objects):
            logger.warning("No API page has pgq_fast.%s", name)


def _exists(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        # Attributes of instances, and what an optional library would be needed for.
        return False
    return True
