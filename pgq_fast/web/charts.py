"""Charts as SVG, drawn by the server: nothing in them but numbers and what is escaped.

Colours come from classes, since the page allows no styles of its own and has two palettes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from markupsafe import Markup, escape

from pgq_fast.web.formats import duration

__all__ = ["Bar", "Line", "bars", "lines", "sparkline"]

WIDTH: Final = 720
WIDE: Final = 1480
"""For a chart that has the whole width of a page: its letters are as large as those of others."""
HEIGHT: Final = 180
_LEFT: Final = 56
_BOTTOM: Final = 22
_TOP: Final = 12
_RIGHT: Final = 8
_PLOT_HEIGHT: Final = HEIGHT - _BOTTOM - _TOP


_RECT: Final = Markup('<rect {}x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')


class Bar(NamedTuple):
    """A stack of numbers for a part of the time, each with the class that colours it."""

    begin: datetime
    parts: Sequence[tuple[str, int]]


class Line(NamedTuple):
    """A line; None is a gap."""

    name: str
    kind: str
    points: Sequence[tuple[datetime, float | None]]


def _nice(largest: float) -> float:
    """A round number that is not below *largest*."""
    if largest <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(largest))
    return next(step * size for step in (1, 2, 5, 10) if step * size >= largest * 0.999)


def _number(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _frame(
    width: int, top: str, begin: datetime, end: datetime, label: str, inner: Markup
) -> Markup:
    middle, base = _TOP + _PLOT_HEIGHT / 2, _TOP + _PLOT_HEIGHT
    form = "%H:%M" if (end - begin).total_seconds() <= 86_400 else "%d %b %H:%M"
    return Markup(
        '<svg class="chart" viewBox="0 0 {w} {h}" role="img" aria-label="{label}">'
        '<line class="grid" x1="{x}" y1="{top_y}" x2="{right}" y2="{top_y}"/>'
        '<line class="grid" x1="{x}" y1="{middle}" x2="{right}" y2="{middle}"/>'
        '<line class="axis" x1="{x}" y1="{base}" x2="{right}" y2="{base}"/>'
        '<text x="{text_x}" y="{top_text}" text-anchor="end">{top}</text>'
        '<text x="{text_x}" y="{base}" text-anchor="end">0</text>'
        '<text x="{x}" y="{foot}">{begin}</text>'
        '<text x="{right}" y="{foot}" text-anchor="end">{end} UTC</text>'
        "{inner}</svg>"
    ).format(
        w=width, h=HEIGHT, label=label, x=_LEFT, right=width - _RIGHT, top_y=_TOP,
        middle=middle, base=base, text_x=_LEFT - 6, top_text=_TOP + 8, top=top,
        foot=HEIGHT - 6, begin=f"{begin.astimezone(UTC):{form}}",
        end=f"{end.astimezone(UTC):{form}}", inner=inner,
    )  # fmt: skip


def bars(stacks: Sequence[Bar], end: datetime, label: str) -> Markup:
    """Stacked bars, one for each part of the time until *end*."""
    top = _nice(max((sum(count for _, count in bar.parts) for bar in stacks), default=0))
    width = (WIDE - _LEFT - _RIGHT) / max(len(stacks), 1)
    drawn = []
    for place, bar in enumerate(stacks):
        y = float(_TOP + _PLOT_HEIGHT)
        pieces = []
        for kind, count in bar.parts:
            if count:
                # What is there is seen, be it ever so little.
                height = max(count / top * _PLOT_HEIGHT, 1.0)
                y -= height
                x, wide = _LEFT + place * width, max(width - 1.5, 1.0)
                pieces.append(_RECT.format(Markup('class="{}" ').format(kind), x, y, wide, height))
        if pieces:
            said = ", ".join(f"{count:,} {kind}" for kind, count in bar.parts if count)
            drawn.append(
                Markup("<g><title>{:%H:%M:%S} UTC: {}</title>{}</g>").format(
                    bar.begin.astimezone(UTC), said, Markup("").join(pieces)
                )
            )
    begin = stacks[0].begin if stacks else end
    return _frame(WIDE, _number(top), begin, end, label, Markup("").join(drawn))


def lines(
    drawn: Sequence[Line], begin: datetime, end: datetime, label: str, *, seconds: bool = False
) -> Markup:
    """Lines from *begin* to *end*; with *seconds*, the values are lengths of time."""
    top = _nice(
        max((value for line in drawn for _, value in line.points if value is not None), default=0)
    )
    span = max((end - begin).total_seconds(), 1e-9)
    plot_width = WIDTH - _LEFT - _RIGHT
    pieces = []
    for line in drawn:
        run: list[str] = []
        runs = [run]
        for when, value in line.points:
            if value is None:
                run = []
                runs.append(run)
                continue
            x = _LEFT + min(max((when - begin).total_seconds() / span, 0.0), 1.0) * plot_width
            run.append(f"{x:.1f},{_TOP + _PLOT_HEIGHT * (1 - value / top):.1f}")
        for run in runs:
            if len(run) > 1:
                pieces.append(
                    Markup('<polyline class="line {}" points="{}"><title>{}</title></polyline>')
                    .format(line.kind, " ".join(run), line.name)
                )  # fmt: skip
            elif run:
                left, _, down = run[0].partition(",")
                pieces.append(
                    Markup('<circle class="dot {}" cx="{}" cy="{}" r="2.5"/>').format(
                        line.kind, left, down
                    )
                )
    high = duration(top) if seconds else _number(top)
    return _frame(WIDTH, high, begin, end, label, Markup("").join(pieces))


def sparkline(values: Sequence[int], label: str) -> Markup:
    """A few bars without axes."""
    top = max(values, default=0) or 1
    width = 120 / max(len(values), 1)
    inner = Markup("").join(
        _RECT.format("", place * width, 24 - height, max(width - 1, 1), height)
        for place, value in enumerate(values)
        if (height := max(value / top * 24, 1.5) if value else 0)
    )
    return Markup(
        '<svg class="sparkline" viewBox="0 0 120 24" role="img" aria-label="{}">{}</svg>'
    ).format(escape(label), inner)
