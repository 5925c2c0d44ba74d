"""Counting values by size, many at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence


class Histogram:
    """How many values were at most each of some bounds, and their sum.

    A batch is sorted and then cut at the bounds, which costs less than to look each value up.

    Args:
        bounds: Ascending; what is beyond the last one is counted as well.
    """

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, values: list[float]) -> None:
        """Count *values*, which are sorted in place."""
        values.sort()
        start, end = 0, len(values)
        for place, bound in enumerate(self._bounds):
            if start == end:
                break
            # A value that equals a bound belongs below it.
            cut = bisect_right(values, bound, start)
            self._counts[place] += cut - start
            start = cut
        self._counts[-1] += end - start
        self._sum += sum(values)

    def cumulative(self) -> tuple[list[tuple[str, int]], float]:
        """Upper bounds with the number of values up to each, and the sum of all values."""
        total = 0
        buckets = []
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else repr(float(bound)), total))
        return buckets, self._sum
