"""Line charts as SVG that is part of the page: colours and sizes are the style sheet's."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 440, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 28
COLOURS = 8  # classes c0 to c7 of the style sheet
_MOST_POINTS = 240
_Y_TICKS, _X_TICKS = 4, 5
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A quantity over steps.

    Attributes:
        label: in the legend and the readout.
        points: (step, value) by rising step; finite.
        colour: index of a colour.
        dash: index of a dash pattern; 0 is a solid line.
        bands: lower and upper lines of areas behind it, the widest first.
        faint: whether it stands behind another line of the same quantity; it has no legend.
        dots: whether the points are measurements far apart, shown as dots.
    """

    label: str
    points: Sequence[Point]
    colour: int = 0
    dash: int = 0
    bands: Sequence[tuple[Sequence[Point], Sequence[Point]]] = ()
    faint: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Chart:
    """Some lines with a title; `within` are bounds of the y axis that are always shown, `across`
    says what the x axis counts.
    """

    title: str
    unit: str
    lines: Sequence[Line]
    note: str = ""
    within: tuple[float, ...] = ()
    across: str = "step"

    @property
    def legend(self) -> list[Line]:
        """The lines that are named."""
        return [line for line in self.lines if not line.faint]

    @property
    def summary(self) -> str:
        """The chart in words, for those who do not see it."""
        parts = []
        for line in self.legend:
            (first, start), (last, end) = line.points[0], line.points[-1]
            parts.append(
                f"{line.label}: {number(start)} at {self.across} {first:g}, {number(end)} at "
                f"{self.across} {last:g}"
            )
        return f"{self.title} ({self.unit}). {'; '.join(parts)}."


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most 240 points: means of neighbours where there are more."""
    size = math.ceil(len(points) / _MOST_POINTS)
    if size <= 1:
        return list(points)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], math.fsum(y for _, y in group) / len(group)) for group in groups]


def number(value: float) -> str:
    """A value in three digits or so: 0.0123, 4.69, 512, 12,345, 1.2e-05."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers between two bounds, about `count` of them."""
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if size * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


class _Frame:
    """Where values stand in the drawing."""

    def __init__(self, chart: Chart):
        edges = [edge for line in chart.lines for band in line.bands for edge in band]
        points = [p for line in chart.lines for p in line.points] + [p for e in edges for p in e]
        steps, values = [p[0] for p in points], [p[1] for p in points] + list(chart.within)
        self.first, self.last = min(steps), max(max(steps), min(steps) + 1)
        low, high = min(values), max(values)
        if high - low < 1e-9 * max(1.0, abs(high)):
            low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
        spare = 0.04 * (high - low)
        self.low = low if low in chart.within or low == 0 else low - spare
        self.high = high if high in chart.within else high + spare

    def x(self, step: float) -> float:
        share = (step - self.first) / (self.last - self.first)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def path(self, points: Sequence[Point]) -> str:
        return "M" + "L".join(f"{self.x(step):.1f},{self.y(value):.1f}" for step, value in points)


def svg(chart: Chart) -> Markup:
    """Draw a chart; every text in it is escaped."""
    frame = _Frame(chart)
    parts = [*_axes(frame)]
    for line in chart.lines:
        parts += _areas(frame, line)
    for line in chart.lines:
        parts += _line(frame, line)
    parts.append(
        f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}" visibility="hidden"></line>'
    )
    label = escape(chart.summary)
    return Markup(
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" '
        f'aria-label="{label}" data-chart="{escape(_readout(chart, frame))}">{"".join(parts)}</svg>'
    )


def _axes(frame: _Frame) -> list[str]:
    parts = []
    for value in ticks(frame.low, frame.high, _Y_TICKS):
        y = f"{frame.y(value):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="ytick" x="{LEFT - 7}" y="{y}">{number(value)}</text>')
    for step in ticks(frame.first, frame.last, _X_TICKS):
        if step == int(step):
            x = f"{frame.x(step):.1f}"
            parts.append(f'<text class="xtick" x="{x}" y="{HEIGHT - 9}">{step:,.0f}</text>')
    return parts


def _areas(frame: _Frame, line: Line) -> list[str]:
    found = []
    for low, high in line.bands:
        outline = frame.path(low) + "L" + frame.path(list(reversed(high)))[1:]
        found.append(f'<path class="band c{line.colour % COLOURS}" d="{outline}Z"/>')
    return found


def _line(frame: _Frame, line: Line) -> list[str]:
    names = f"c{line.colour % COLOURS} d{line.dash % 4}"
    parts = []
    if len(line.points) > 1:
        kind = "line faint" if line.faint else "line thin" if line.dots else "line"
        parts.append(f'<path class="{kind} {names}" d="{frame.path(line.points)}"/>')
    if line.dots or len(line.points) == 1:
        for step, value in line.points:
            place = f'cx="{frame.x(step):.1f}" cy="{frame.y(value):.1f}"'
            parts.append(f'<circle class="dot {names}" r="3.2" {place}/>')
    return parts


def _readout(chart: Chart, frame: _Frame) -> str:
    """What the script needs to say the values under the cursor, as JSON."""
    lines = [
        {
            "label": line.label,
            "colour": line.colour % COLOURS,
            "points": [[step, number(value)] for step, value in line.points],
        }
        for line in chart.legend
    ]
    box = [frame.first, frame.last, LEFT, WIDTH - RIGHT, WIDTH]
    told = {"box": box, "across": chart.across, "lines": lines}
    return json.dumps(told, separators=(",", ":"), ensure_ascii=False)
