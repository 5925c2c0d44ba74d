"""The logger of the package.

It is named ``pgqueuer``: that is the name under which applications configure it. Records about one
job have ``job_id``, and where it is known ``entrypoint``, as attributes; payloads are never logged.
"""

from __future__ import annotations

import logging
from typing import Final

logger: Final = logging.getLogger("pgqueuer")
logger.addHandler(logging.NullHandler())
