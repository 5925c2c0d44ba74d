"""What the commands here have in common on their command lines."""

from __future__ import annotations

import argparse
from pathlib import Path


def positive_int(text: str) -> int:
    """A number of repeats."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def positive_float(text: str) -> float:
    """A scale."""
    if not 0 < (number := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return number


def add_common(parser: argparse.ArgumentParser, repeat: int) -> None:
    """What every command that measures takes; *repeat* is its default."""
    parser.add_argument("--dsn", help="a server of yours instead of an embedded one")
    parser.add_argument("--repeat", type=positive_int, help=f"default: {repeat}")
    parser.add_argument("--scale", type=positive_float, help="multiplies the numbers of jobs")
    add_kept(parser)


def add_kept(parser: argparse.ArgumentParser) -> None:
    """What becomes of the figures."""
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything here as well")
    parser.add_argument(
        "--compare",
        metavar="EARLIER.json",
        type=Path,
        help="print the ratio of each figure to that of an earlier run, which --json kept",
    )


def settle(
    options: argparse.Namespace, repeat: int, quick_repeat: int, quick_scale: float
) -> argparse.Namespace:
    """*options* with repeats and scale, also where they are not given."""
    if options.repeat is None:
        options.repeat = quick_repeat if options.quick else repeat
    if options.scale is None:
        options.scale = quick_scale if options.quick else 1.0
    return options
