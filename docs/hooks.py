"""What the site leaves out of the pages."""

from __future__ import annotations

import re
from typing import Any, Final

CHECK: Final = re.compile(r"^<!-- (?:check\n|not run: ).*?-->\n", re.DOTALL | re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page without what only its test reads."""
    return CHECK.sub("", markdown)
