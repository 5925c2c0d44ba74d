"""What the commands here make of what they measured: a file, charts for a reader, ratios."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

import earlier
from charts import shown
from command import today, typed


class Recording:
    """A run, from its first measurement on.

    Args:
        kind: Which command's.
        options: As ``options.add_common`` has them.

    Raises:
        BenchError: The earlier run to compare with cannot be read: better now than after hours.
    """

    def __init__(self, kind: str, options: argparse.Namespace) -> None:
        self._kind = kind
        self._options = options
        self._before = earlier.read(options.compare) if options.compare else None
        self._date = today()
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return time.monotonic() - self._began

    def document(self, facts: Mapping[str, Any], **results: Any) -> dict[str, Any]:
        """All of it, as data."""
        return {
            "kind": self._kind,
            "command": typed(),
            "date": self._date,
            **facts,
            "repeat": self._options.repeat,
            "scale": self._options.scale,
            "seconds": round(self.seconds, 1),
            **results,
        }

    def keep(self, found: Mapping[str, Any]) -> None:
        """Write it, and print it beside the earlier run, as far as that was asked for."""
        if self._options.json:
            self._options.json.write_text(json.dumps(found, indent=2) + "\n")
        if self._before is not None:
            earlier.print_beside(found, self._before, self._options.compare.name)


def print_chart(found: Mapping[str, Any]) -> None:
    """A chart for a reader."""
    print(f"\n{found['name']}: {found['title']}")
    for series in found["series"]:
        for point in series["points"]:
            runs, x = point["runs"], point["x"]
            where = x if isinstance(x, str) else f"{x:,.12g}"
            spread = f"({shown(min(runs))} to {shown(max(runs))})" if len(runs) > 1 else ""
            print(
                f"   {series['label']:32} {where:>12} {found['x']:28} "
                f"{shown(statistics.median(runs)):>14} {found['y']} {spread}".rstrip()
            )
    for missing in found["missing"]:
        print(f"   MISSING: {missing['label']}: {missing['reason']}")
    sys.stdout.flush()
