"""Programs that are the first to import the package, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Final

# What the package imports of others takes much longer than the rest: it is there before each
# program gets a copy of the process.
_RUNNER: Final = """
import os
import sys
import traceback
import anyio, asyncio, importlib.metadata, pydantic.types, pydantic_settings

assert not any(name.startswith(("pgq_fast", "pgqueuer")) for name in sys.modules)
failed = False
for program in sys.argv[1:]:
    child = os.fork()
    if not child:
        try:
            exec(program, {"__name__": "__main__"})
        except BaseException:
            print(program, file=sys.stderr)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    failed |= os.waitpid(child, 0)[1] != 0
sys.exit(failed)
"""


def run_each(programs: Sequence[str]) -> None:
    """Run *programs*, each as if it were alone; fail with the tracebacks of those that fail."""
    done = subprocess.run(
        [sys.executable, "-c", _RUNNER, *programs],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
