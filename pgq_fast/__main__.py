"""``python -m pgq_fast``, and what the console scripts call."""

from __future__ import annotations

import contextlib
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; exit code 1 for a failure, 2 for wrong usage."""
    from pgq_fast.cli.app import app
    from pgq_fast.cli.errors import report

    with contextlib.suppress(KeyboardInterrupt):
        try:
            app(prog_name="pgqueuer")
        except Exception as error:
            print(report(error), file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    main()
