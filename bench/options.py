"""What the commands here have in common on their command lines."""

from __future__ import annotations

import argparse


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
