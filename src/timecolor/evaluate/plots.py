"""Small line plots as inline SVG. Colours and type come from the page's style sheet, so they follow light and dark."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 520, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 14, 44  # px around the axes
SHAPES = 6  # markers and colours, then they come round again


@dataclass(frozen=True, slots=True)
class Point:
    """One mean with its interval (None = none). words: what the point is, said on hover."""

    x: float
    y: float
    low: float | None
    high: float | None
    words: str


@dataclass(frozen=True, slots=True)
class Series:
    """Points joined by a line, in order of x."""

    name: str
    points: tuple[Point, ...]


def plot(title: str, x_label: str, y_label: str, series: Sequence[Series]) -> str:
    """A figcaption, an SVG and a legend. x is positive and drawn on a logarithmic scale; one point at least."""
    points = [point for line in series for point in line.points]
    if not points or min(point.x for point in points) <= 0:
        raise ValueError(f"{title}: give at least one point, and only positive x")
    x_ticks = _log_ticks([point.x for point in points])
    ends = [end for point in points for end in (point.low, point.y, point.high) if end is not None]
    y_ticks = _ticks(min(ends), max(ends))
    x_first, x_last = math.log(min(x_ticks[0], *(p.x for p in points))), math.log(max(x_ticks[-1], *(p.x for p in points)))

    def across(x: float) -> float:
        return LEFT + 12 + (WIDTH - LEFT - RIGHT - 24) * (math.log(x) - x_first) / (x_last - x_first)

    def down(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])

    digits = max(0, -math.floor(math.log10(y_ticks[1] - y_ticks[0]) + 1e-9))
    parts = []
    for y in y_ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down(y):.1f}" y2="{down(y):.1f}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 8}" y="{down(y) + 4:.1f}">{f"{y:.{digits}f}".replace("-", "−")}</text>')
    parts += [f'<text class="tick middle" x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 20}">{x:g}</text>' for x in x_ticks]
    parts.append(f'<text class="axis middle" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}">{escape(x_label)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text class="axis middle" transform="translate(14 {middle}) rotate(-90)">{escape(y_label)}</text>')
    for i, line in enumerate(series):
        aside = 3 * (i - (len(series) - 1) / 2)  # px, so that intervals do not hide each other
        at = [across(p.x) + aside for p in line.points]
        drawn = [
            _interval(x, down(p.low), down(p.high))
            for x, p in zip(at, line.points, strict=True)
            if p.low is not None and p.high is not None
        ]
        path = " ".join(f"{x:.1f},{down(p.y):.1f}" for x, p in zip(at, line.points, strict=True))
        drawn.append(f'<polyline class="line" points="{path}"/>')
        drawn += [
            f"<g><title>{escape(f'{line.name}, {p.words}: {p.y:.4g}')}</title>{_marker(i, x, down(p.y))}</g>"
            for x, p in zip(at, line.points, strict=True)
        ]
        parts.append(f'<g class="series-{i % SHAPES}">{"".join(drawn)}</g>')
    legend = "".join(
        f'<li><svg class="series-{i % SHAPES}" width="14" height="14" aria-hidden="true">{_marker(i, 7, 7)}</svg>'
        f"{escape(line.name)}</li>"
        for i, line in enumerate(series)
    )
    values = "; ".join(f"{line.name}: {', '.join(f'{p.words} {p.y:.4g}' for p in line.points)}" for line in series)
    return (
        f'<figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(f"{title}. {values}")}">{"".join(parts)}</svg><ul class="legend">{legend}</ul>'
    )


def _interval(x: float, low: float, high: float) -> str:
    return f'<line class="interval" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'


def _marker(i: int, x: float | int, y: float | int) -> str:
    """A shape for each series, so that colour is not needed to tell them apart."""
    outline = [
        f'<circle class="marker" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>',
        f'<rect class="marker" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>',
        _polygon(x, y, (0, -5.5), (5.2, 4), (-5.2, 4)),
        _polygon(x, y, (0, -6), (6, 0), (0, 6), (-6, 0)),
        _polygon(x, y, (0, 5.5), (5.2, -4), (-5.2, -4)),
        f'<circle class="marker hollow" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>',
    ]
    return outline[i % SHAPES]


def _polygon(x: float | int, y: float | int, *corners: tuple[float | int, float | int]) -> str:
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon class="marker" points="{points}"/>'


def _ticks(low: float, high: float) -> list[float]:
    """Round values that enclose [low, high], three to eight of them."""
    span = high - low
    if span <= max(1e-9 * max(abs(low), abs(high)), sys.float_info.min):  # too near to be told apart
        span = max(abs(high), 1) * 0.1
    rough = span / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if first == last:
        first, last = first - 1, last + 1
    return [i * step for i in range(first, last + 1)]


def _log_ticks(values: Sequence[float]) -> list[float]:
    """The values themselves where they are few and apart (steps 1, 2, 4 ...), else powers of ten that enclose them."""
    own = sorted(set(values))
    if len(own) > 1 and all(b / a >= 1.5 for a, b in pairwise(own)) and all(v == int(v) for v in own):
        return own
    first, last = math.floor(math.log10(own[0])), math.ceil(math.log10(own[-1]))
    last = max(last, first + 1)
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    inside = [tick for tick in ticks if own[0] / 1.01 <= tick <= own[-1] * 1.01]
    return inside if len(inside) > 1 else [10.0**first, 10.0**last]
