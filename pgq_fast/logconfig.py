"""The logger of the package.

It is named ``pgqueuer``: that is the name under which applications configure it.
"""

from __future__ import annotations

import logging
from typing import Final

logger: Final = logging.getLogger("pgqueuer")
logger.addHandler(logging.NullHandler())
