"""Draws a chart as SVG, for pages that are light or dark.

The background is transparent. Colours of lines and bars have a contrast of 3 or more against
both white and dark pages. Text follows ``prefers-color-scheme``, with 4.5 or more where that is
the page's own, and 3 where a page is toggled and the browser does not tell its pictures. The same
chart gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from charts import Chart, Point, Series, shown

WIDTH: Final = 760
# Estimated width of a character, as part of the size of the font: no font is at hand here.
CHARACTER: Final = 0.56
FONT: Final = 13
TITLE: Final = 16
MARGIN: Final = 12
LINE: Final = 20
BAR: Final = 15
BAR_GAP: Final = 3
GROUP_GAP: Final = 11
LABEL_LINE: Final = 15
PLOT_HEIGHT: Final = 300
LONGEST_LABEL: Final = 270

# In this order for what has no colour of its own. See the contrast test.
PALETTE: Final = (
    "#2f81f7",
    "#d9630f",
    "#1f9d5b",
    "#a065e8",
    "#e0457b",
    "#0f95a5",
    "#968810",
    "#838a94",
)
# The same thing has the same colour in every chart. The first part that a label has counts.
OWN_COLOURS: Final = (
    ("lease", PALETTE[0]),
    ("pgqueuer", PALETTE[1]),
    ("pgq_fast", PALETTE[2]),
    ("compat", PALETTE[2]),
    ("best", PALETTE[0]),
    ("defaults", PALETTE[7]),
)
LIGHT: Final = {"text": "#656c75", "grid": "#d8dce1", "spread": "#2b3138"}
DARK: Final = {"text": "#8d949f", "grid": "#3d444d", "spread": "#dfe4ea"}


def _themed(colours: Mapping[str, str]) -> str:
    return (
        f"text{{fill:{colours['text']}}}.grid{{stroke:{colours['grid']}}}"
        f".axis{{stroke:{colours['text']}}}.spread{{stroke:{colours['spread']}}}"
    )


STYLE: Final = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;"
    f"font-size:{FONT}px}}.title{{font-size:{TITLE}px;font-weight:600}}"
    ".end{text-anchor:end}.middle{text-anchor:middle}.none{font-style:italic}"
    ".spread{fill:none;stroke-width:1.4}"
    f"{_themed(LIGHT)}@media (prefers-color-scheme:dark){{{_themed(DARK)}}}"
)

# The part of a logarithmic axis that 0 is apart from the lowest value.
ZERO: Final = 0.12
# Half the size of a mark; its shape tells lines apart without colours.
MARK: Final = 4.5


def draw(chart: Chart) -> str:
    """The chart as a document."""
    body, height = _bars(chart) if chart.categories else _lines(chart)
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {_n(height)}"'
            f' width="{WIDTH}" height="{_n(height)}" role="img" aria-labelledby="title desc">',
            f'<title id="title">{escape(chart.title)}</title>',
            f'<desc id="desc">{escape(_described(chart))}</desc>',
            f"<style>{STYLE}</style>",
            *body,
            "</svg>\n",
        )
    )


def _described(chart: Chart) -> str:
    """All figures in words, for those who do not see the plot."""
    parts = [f"{chart.y} by {chart.x or 'what was measured'}."]
    for series in chart.series:
        points = (f"{_category(point.x)}: {shown(point.median)}" for point in series.points)
        parts.append(f"{series.label}: {'; '.join(points)}.")
    parts += [f"{missing.label}: not measured." for missing in chart.missing]
    return " ".join(parts)


# ------------------------------------------------------------------------------ the pieces


def _n(value: float) -> str:
    """A coordinate, short."""
    return f"{value:.1f}".removesuffix(".0")


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f'<text x="{_n(x)}" y="{_n(y)}"{attribute}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<path class="{kind}" d="M{_n(x1)} {_n(y1)}L{_n(x2)} {_n(y2)}"/>'


def _whisker(x1: float, y1: float, x2: float, y2: float) -> str:
    """From the lowest to the highest, with ends across."""
    across = 3.5
    dx, dy = (0.0, across) if y1 == y2 else (across, 0.0)
    ends = "".join(
        f"M{_n(x - dx)} {_n(y - dy)}L{_n(x + dx)} {_n(y + dy)}" for x, y in ((x1, y1), (x2, y2))
    )
    return f'<path class="spread" d="M{_n(x1)} {_n(y1)}L{_n(x2)} {_n(y2)}{ends}"/>'


def _mark(number: int, x: float, y: float, colour: str) -> str:
    """One of four shapes."""
    size = MARK
    if number % 4 == 0:
        return f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(size)}" fill="{colour}"/>'
    corners = {
        1: ((-size, -size), (size, -size), (size, size), (-size, size)),
        2: ((0, -1.3 * size), (1.2 * size, size), (-1.2 * size, size)),
        3: ((0, -1.4 * size), (1.4 * size, 0), (0, 1.4 * size), (-1.4 * size, 0)),
    }[number % 4]
    points = " ".join(f"{_n(x + dx)},{_n(y + dy)}" for dx, dy in corners)
    return f'<polygon points="{points}" fill="{colour}"/>'


def _wide(text: str, size: int = FONT) -> float:
    return len(text) * size * CHARACTER


def _wrapped(text: str, room: float, size: int = FONT) -> list[str]:
    """The text in lines that fit, if no word is too long."""
    lines = [""]
    for word in text.split():
        if lines[-1] and _wide(f"{lines[-1]} {word}", size) > room:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _varied(label: str, labels: Sequence[str]) -> str | None:
    """What a label is a variant of: of "a", "b" and "a, held", the last is one of the first."""
    return next((other for other in labels if label.startswith(f"{other}, ")), None)


def _colours(labels: Sequence[str], variants: bool = True) -> dict[str, str]:
    """The colour of each label: its own where it has one that is free.

    Where lines may be dashed, a variant has the colour of what it is a variant of.
    """
    chosen: dict[str, str] = {}
    for label in labels:
        if variants and _varied(label, labels) is not None:
            continue
        own = next((colour for part, colour in OWN_COLOURS if part in label), None)
        if own is not None and own not in chosen.values():
            chosen[label] = own
    for label in labels:
        of = _varied(label, labels) if variants else None
        if of in chosen:
            chosen[label] = chosen[of]
        elif label not in chosen:
            free = [colour for colour in PALETTE if colour not in chosen.values()]
            chosen[label] = free[0] if free else PALETTE[len(chosen) % len(PALETTE)]
    return chosen


def _title(chart: Chart) -> tuple[list[str], float]:
    """The title, in as many lines as it needs, and where what follows may begin."""
    lines = _wrapped(chart.title, WIDTH - 2 * MARGIN, TITLE)
    top = MARGIN + TITLE
    return (
        [_text(MARGIN, top + number * LINE, line, "title") for number, line in enumerate(lines)],
        top + (len(lines) - 1) * LINE + MARGIN,
    )


def _legend(
    entries: Iterable[tuple[str, str]], top: float, mark: Callable[[int, float, float, str], str]
) -> tuple[list[str], float]:
    """What the colours are, in as many rows as it takes, and where what follows may begin."""
    parts: list[str] = []
    x, y = float(MARGIN), top + FONT
    for number, (label, colour) in enumerate(entries):
        wide = 18 + _wide(label) + 16
        if x > MARGIN and x + wide > WIDTH - MARGIN:
            x, y = float(MARGIN), y + LINE
        parts += [mark(number, x + 6, y - 4.5, colour), _text(x + 18, y, label)]
        x += wide
    return parts, y + MARGIN


def _square(_number: int, x: float, y: float, colour: str) -> str:
    return f'<rect x="{_n(x - 6)}" y="{_n(y - 6)}" width="12" height="12" rx="2" fill="{colour}"/>'


def _category(x: str | float) -> str:
    return x if isinstance(x, str) else _short(x)


def _short(value: float) -> str:
    """A number at an axis: 10 k, 2 M."""
    if value == 0:
        return "0"
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.3g}"


# ------------------------------------------------------------------------------ axes


@dataclass(frozen=True)
class Scale:
    """Values to positions, linear from 0 or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool
    zero: bool = False
    """Whether a logarithmic scale has a place for 0 before its lowest value."""

    def at(self, value: float) -> float:
        """The position."""
        if not self.log:
            share = (value - self.low) / (self.high - self.low)
        elif value <= 0:
            share = 0.0
        else:
            share = math.log(value / self.low) / math.log(self.high / self.low)
            if self.zero:
                share = ZERO + (1 - ZERO) * share
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values, not too many."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1.0, 2.0, 5.0) if self.high / self.low <= 300 else (1.0,)
            found = [10.0**power * step for power in range(first, last + 1) for step in steps]
        else:
            step = _step((self.high - self.low) / 5)
            found = [self.low + step * n for n in range(math.floor(self._span() / step) + 1)]
        within = [value for value in found if self.low * 0.999 <= value <= self.high * 1.001]
        return ([0.0] if self.zero else []) + within

    def _span(self) -> float:
        return (self.high - self.low) * 1.000001


def _step(about: float) -> float:
    """A step of 1, 2 or 5 times a power of ten, not below *about*."""
    power = 10.0 ** math.floor(math.log10(about))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= about * 0.999)


def _step_below(value: float) -> float:
    """A number of 1, 2 or 5 times a power of ten, not above *value*."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (5, 2, 1) if step * power <= value * 1.001)


def _value_scale(values: Sequence[float], start: float, end: float, log: bool) -> Scale:
    positive = [value for value in values if value > 0]
    if log and positive:
        low, high = _step_below(min(positive)), _step(max(positive))
        # Over a decade at least: a narrow scale makes noise look like something.
        return Scale(low if high >= 10 * low else _step_below(high / 10), high, start, end, True)
    high = max(values, default=0.0) or 1.0
    step = _step(high / 5)
    return Scale(0.0, step * math.ceil(high / step - 1e-9), start, end, False)


# ------------------------------------------------------------------------------ categories


def _bars(chart: Chart) -> tuple[list[str], float]:
    """A group of bars a series; of dots on a logarithmic axis, where bars have no beginning."""
    names = list(dict.fromkeys(str(p.x) for series in chart.series for p in series.points))
    colours = _colours(names, variants=False)
    parts, y = _title(chart)
    if len(names) > 1:
        legend, y = _legend(
            [(name, colours[name]) for name in names], y, _mark if chart.log_y else _square
        )
        parts += legend
    have = [series.label for series in chart.series]
    missing = [each.label for each in chart.missing if each.label not in have]
    labels = {label: _wrapped(label, LONGEST_LABEL) for label in (*have, *missing)}
    widest = max((_wide(line) for lines in labels.values() for line in lines), default=0)
    left = MARGIN + widest + 8
    values = [v for s in chart.series for p in s.points for v in (p.lowest, p.highest)]
    # There is room for figures beside the longest bar, and left of the first dot.
    start = left + 50 if chart.log_y else left
    scale = _value_scale(values, start, WIDTH - MARGIN - 66, chart.log_y)
    draw_group = _dots if chart.log_y else _group
    top = y
    rows: list[str] = []
    for series in chart.series:
        # The group in the middle of its label, or the label in the middle of its group.
        group_height = BAR if chart.log_y else len(series.points) * (BAR + BAR_GAP) - BAR_GAP
        height = max(group_height, len(labels[series.label]) * LABEL_LINE)
        rows += draw_group(series, names, colours, scale, y + (height - group_height) / 2)
        rows += _row_label(labels[series.label], left, y + height / 2)
        y += height + GROUP_GAP
    for label in missing:
        height = max(BAR, len(labels[label]) * LABEL_LINE)
        rows += _row_label(labels[label], left, y + height / 2)
        rows.append(_text(left + 5, y + height / 2 + 4.5, "not measured", "none"))
        y += height + GROUP_GAP
    if chart.series:
        parts += _value_axis_below(scale, top - 4, y - GROUP_GAP + 6, chart.y)
    y += LINE + LINE
    return [*parts, *rows], y + MARGIN - 4


def _row_label(lines: Sequence[str], right: float, middle: float) -> list[str]:
    """A label left of what it is for."""
    top = middle - (len(lines) - 1) * LABEL_LINE / 2 + 4.5
    return [
        _text(right - 8, top + number * LABEL_LINE, line, "end")
        for number, line in enumerate(lines)
    ]


def _group(
    series: Series, _names: Sequence[str], colours: dict[str, str], scale: Scale, y: float
) -> list[str]:
    parts = []
    for point in series.points:
        wide = max(scale.at(point.median) - scale.start, 1.0)
        parts.append(
            f'<rect x="{_n(scale.start)}" y="{_n(y)}" width="{_n(wide)}" height="{BAR}" rx="2"'
            f' fill="{colours[str(point.x)]}"/>'
        )
        end, middle = scale.start + wide, y + BAR / 2
        if point.lowest != point.highest:
            parts.append(_whisker(scale.at(point.lowest), middle, scale.at(point.highest), middle))
            end = max(end, scale.at(point.highest))
        parts.append(_text(end + 7, middle + 4.5, shown(point.median)))
        y += BAR + BAR_GAP
    return parts


def _dots(
    series: Series, names: Sequence[str], colours: dict[str, str], scale: Scale, y: float
) -> list[str]:
    """One row, with the figures of the outermost dots beside them."""
    middle = y + BAR / 2
    ends = [scale.at(v) for p in series.points for v in (p.lowest, p.highest)]
    parts = [_line(min(ends), middle, max(ends), middle, "grid")]
    points = sorted(series.points, key=lambda point: point.median)
    for point in points:
        if point.lowest != point.highest:
            parts.append(_whisker(scale.at(point.lowest), middle, scale.at(point.highest), middle))
        name = str(point.x)
        parts.append(_mark(names.index(name), scale.at(point.median), middle, colours[name]))
    beside = MARK + 5
    last = points[-1]
    if len(points) > 1:
        parts.append(_text(min(ends) - beside, middle + 4.5, shown(points[0].median), "end"))
    parts.append(_text(max(ends) + beside, middle + 4.5, shown(last.median)))
    return parts


def _value_axis_below(scale: Scale, top: float, bottom: float, label: str) -> list[str]:
    parts = []
    for tick in scale.ticks():
        x = scale.at(tick)
        parts.append(_line(x, top, x, bottom, "grid"))
        parts.append(_text(x, bottom + 16, _short(tick), "middle"))
    parts.append(_text((scale.start + scale.end) / 2, bottom + 16 + LINE, label, "middle"))
    return parts


# ------------------------------------------------------------------------------ numbers


def _lines(chart: Chart) -> tuple[list[str], float]:
    """A line a series, over numbers."""
    colours = _colours([series.label for series in chart.series])
    parts, y = _title(chart)
    legend, y = _legend(((s.label, colours[s.label]) for s in chart.series), y, _mark)
    parts += legend
    points = [point for series in chart.series for point in series.points]
    if not points:
        return parts, y
    values = [v for p in points for v in (p.lowest, p.highest)]
    top, bottom = y + 4, y + 4 + PLOT_HEIGHT
    vertical = _value_scale(values, bottom, top, chart.log_y)
    left = MARGIN + LINE + max(_wide(_short(tick)) for tick in vertical.ticks()) + 6
    right = WIDTH - MARGIN - 14
    horizontal = _number_scale([_number(p) for p in points], left + 14, right, chart.log_x)
    for tick in vertical.ticks():
        at = vertical.at(tick)
        parts += [
            _line(left, at, right + 14, at, "grid"),
            _text(left - 6, at + 4.5, _short(tick), "end"),
        ]
    parts += [
        _line(left, bottom, right + 14, bottom, "axis"),
        f'<text class="middle" transform="translate({_n(MARGIN + 10)} {_n((top + bottom) / 2)})'
        f' rotate(-90)">{escape(chart.y)}</text>',
        *_number_axis(horizontal, sorted({_number(p) for p in points}), bottom),
        _text((left + right) / 2, bottom + 20 + LINE, chart.x, "middle"),
    ]
    for number, series in enumerate(chart.series):
        dashed = _varied(series.label, list(colours)) is not None
        parts += _curve(number, series, colours[series.label], dashed, horizontal, vertical)
    return parts, bottom + 20 + LINE + MARGIN


def _number(point: Point) -> float:
    assert not isinstance(point.x, str)
    return point.x


def _number_scale(values: Sequence[float], start: float, end: float, log: bool) -> Scale:
    low, high = min(values), max(values)
    if log:
        positive = [value for value in values if value > 0] or [1.0]
        low, high = min(positive), max(positive)
        return Scale(low, max(high, low * 2), start, end, True, zero=min(values) <= 0)
    return Scale(low, high if high > low else low + 1, start, end, False)


def _number_axis(scale: Scale, values: Sequence[float], bottom: float) -> list[str]:
    """Ticks where something was measured; those that would overlap are left out."""
    parts: list[str] = []
    free = -math.inf
    for value in values:
        x, text = scale.at(value), _short(value)
        parts.append(_line(x, bottom, x, bottom + 4, "axis"))
        half = _wide(text) / 2
        if x - half >= free:
            parts.append(_text(x, bottom + 18, text, "middle"))
            free = x + half + 6
    return parts


def _curve(
    number: int, series: Series, colour: str, dashed: bool, horizontal: Scale, vertical: Scale
) -> list[str]:
    points = sorted(series.points, key=_number)
    where = [(horizontal.at(_number(p)), vertical.at(p.median)) for p in points]
    path = "L".join(f"{_n(x)} {_n(y)}" for x, y in where)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    parts = [f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>']
    for point, (x, y) in zip(points, where, strict=True):
        if point.lowest != point.highest:
            parts.append(_whisker(x, vertical.at(point.lowest), x, vertical.at(point.highest)))
        parts.append(_mark(number, x, y, colour))
    return parts
