"""Small plots as inline SVG: colours come from the page's style sheet, so they follow its light and dark schemes.

A plot is drawn at its natural size and scales with the card it stands in. A policy has the same colour in every plot:
class `s0` is the policy under test, `s1`, `s2`, ... are the baselines.
"""

import html
import math
from collections.abc import Sequence

import numpy as np

WIDTH, LEFT, RIGHT = 324, 90, 12
ROW, AXIS = 46, 24
BINS = 30
# Of a map [pixel], and of what it shows around the failures [m].
MAP_WIDTH, MAP_HEIGHT, NARROWEST, MARGIN = 640, 420, 90, 60.0
# What a case or place is marked as: no failure, a failure that is no crash, a crash that the reference driver had too,
# a crash.
MARKS = ("fine", "other", "unavoidable", "crash")


def intervals(names: Sequence[str], rates: Sequence[dict]) -> str:
    """Rates as dots with their intervals, one row a policy, on an axis from 0 % on.

    Args:
        names: of the policies.
        rates: "value", "low", "high", between 0 and 1; value None leaves the row empty.
    """
    scale = _Scale(0.0, 100 * max((rate["high"] or 0.0 for rate in rates), default=0.0))
    marks = []
    for index, (name, rate) in enumerate(zip(names, rates, strict=True)):
        middle = index * 30 + 17
        marks.append(_label(name, middle))
        if rate["value"] is None:
            continue
        low, at, high = (scale(100 * rate[key]) for key in ("low", "value", "high"))
        marks.append(f'<line class="s{index} whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>')
        marks.append(f'<circle class="s{index} dot" cx="{at:.1f}" cy="{middle}" r="5"/>')
    height = 30 * len(names) + 4
    return _svg(height + AXIS, scale.axis(height, "%") + "".join(marks), "rates with 95 % intervals")


def histograms(names: Sequence[str], samples: Sequence[np.ndarray], unit: str, threshold: float | None = None) -> str:
    """Distributions of a metric, one row a policy over a common axis, each with a line at its median.

    Args:
        names: of the policies.
        samples: values of each. Shape: (n,), n may be 0.
        unit: of the axis.
        threshold: where to draw a line through all rows, or None.
    """
    everything = np.concatenate(samples)
    if len(everything) == 0:
        return ""
    low, high, beyond = _range(everything)
    scale = _Scale(low, high)
    edges = np.linspace(scale.low, scale.high, BINS + 1)
    marks = []
    for index, (name, values) in enumerate(zip(names, samples, strict=True)):
        base = (index + 1) * ROW - 4
        marks.append(_label(name, base - 14))
        marks.append(f'<line class="base" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
        if len(values) == 0:
            marks.append(f'<text class="faint" x="{LEFT + 6}" y="{base - 6}">no valid episode</text>')
            continue
        counts, _ = np.histogram(np.clip(values, scale.low, scale.high), edges)
        for k in np.flatnonzero(counts):
            left, right = scale(edges[k]), scale(edges[k + 1])
            tall = max(1.5, (ROW - 12) * counts[k] / counts.max())
            marks.append(
                f'<rect class="s{index}" x="{left + 0.5:.1f}" width="{right - left - 1:.1f}" '
                f'y="{base - tall:.1f}" height="{tall:.1f}"/>'
            )
        median = scale(float(np.clip(np.median(values), scale.low, scale.high)))
        marks.append(f'<line class="median" x1="{median:.1f}" x2="{median:.1f}" y1="{base - ROW + 10}" y2="{base}"/>')
    height = ROW * len(names)
    if threshold is not None and scale.low <= threshold <= scale.high:
        at = scale(threshold)
        marks.append(f'<line class="threshold" x1="{at:.1f}" x2="{at:.1f}" y1="2" y2="{height - 4}"/>')
    return _svg(height + AXIS, scale.axis(height - 2, unit, beyond) + "".join(marks), "distribution over episodes")


def scatter(
    x: np.ndarray, y: np.ndarray, marks: Sequence[str], titles: Sequence[str], names: tuple[str, str], colour: int = 0
) -> str:
    """Cases over two of their parameters.

    Args:
        x, y: of the cases. Shape: (n,), n >= 1.
        marks: of each: one of `MARKS`. What is drawn last lies on top: the failures.
        titles: of each, shown where the pointer rests on it.
        names: of the two axes, with their units.
        colour: number of the policy.
    """
    height, left = 216, 44
    across = _Scale(float(np.min(x)), float(np.max(x)), left)
    up = _Scale(float(np.min(y)), float(np.max(y)), height - 4, 8)
    parts = [across.axis(height - 4, "")]
    for value in up.ticks():
        at = up(value)
        parts.append(f'<line class="tick" x1="{left}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="faint" text-anchor="end" x="{left - 6}" y="{at + 4:.1f}">{_number(value)}</text>')
    for k in sorted(range(len(marks)), key=lambda k: MARKS.index(marks[k])):
        parts.append(_mark(marks[k], across(x[k]), up(y[k]), titles[k], colour))
    parts.append(f'<text class="faint" x="0" y="-6">↑ {html.escape(names[1])}</text>')
    parts.append(
        f'<text class="faint" text-anchor="end" x="{WIDTH - RIGHT}" y="{height + 28}">{html.escape(names[0])} →</text>'
    )
    return _svg(height + 34, "".join(parts), "cases over two parameters", above=20)


def road_map(
    lanes: Sequence[tuple[np.ndarray, float]], x: np.ndarray, y: np.ndarray, marks: Sequence[str], titles: Sequence[str]
) -> str:
    """Places on a road from above, cut out around them.

    A road that is far longer than what surrounds it is wide is drawn wider than it is.

    Args:
        lanes: centre line [m] and width [m] of each. Shape of a line: (P, 2).
        x, y: the places [m]; y grows downwards. Shape: (n,), n >= 1.
        marks, titles: of each, as in `scatter`.
    """
    low, high = _cut(lanes, x, y)
    extent = high - low
    true = min(MAP_WIDTH / extent[0], MAP_HEIGHT / extent[1])
    scale = np.maximum(true, NARROWEST / extent)
    size = extent * scale
    parts = [f'<svg width="{size[0]:.0f}" height="{size[1]:.0f}" class="map">']
    for line, width in lanes:
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in (line - low) * scale)
        thick = max(1.5, 0.94 * width * float(scale.max()))
        parts.append(f'<polyline class="lane" stroke-width="{thick:.1f}" points="{points}"></polyline>')
    for k, (column, row) in enumerate((np.stack([x, y], 1) - low) * scale):
        parts.append(_mark(marks[k], column, row, titles[k], 0))
    parts.append("</svg>")
    metres = next(m for m in (1000, 500, 200, 100, 50, 20, 10, 5, 2, 1) if m * true <= size.max() / 3)
    bar, base = metres * true, size[1] + 14
    stretched = ", along the road; across it is drawn wider" if scale.max() > 1.01 * true else ""
    parts.append(f'<line class="median" x1="0" x2="{bar:.1f}" y1="{base:.1f}" y2="{base:.1f}"/>')
    parts.append(f'<text class="faint" x="{bar + 8:.1f}" y="{base + 4:.1f}">{metres} m{stretched}</text>')
    return _svg(size[1] + 22, "".join(parts), "where it failed", max(float(size[0]), 360.0))


def _cut(lanes: Sequence[tuple[np.ndarray, float]], x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the part of the plane to be shown: the places and 60 m around them, as far as there is a road."""
    points = np.concatenate([line for line, _ in lanes])
    margin = 0.5 * max(width for _, width in lanes) + 1.0
    low = np.maximum(points.min(0) - margin, (x.min() - MARGIN, y.min() - MARGIN))
    high = np.minimum(points.max(0) + margin, (x.max() + MARGIN, y.max() + MARGIN))
    # Who left the road is shown too.
    return np.minimum(low, (x.min() - 5, y.min() - 5)), np.maximum(high, (x.max() + 5, y.max() + 5))


def _mark(kind: str, x: float, y: float, title: str, colour: int) -> str:
    shape = {
        "fine": f'<circle class="s{colour} fine" cx="{x:.1f}" cy="{y:.1f}" r="2.4"/>',
        "other": f'<rect class="other" x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"/>',
        "unavoidable": f'<circle class="unavoidable" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>',
        "crash": f'<path class="crash" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"></path>',
    }[kind]
    return f"<g><title>{html.escape(title)}</title>{shape}</g>"


class _Scale:
    """A linear axis with round ends and ticks, from pixel `start` to pixel `end`."""

    def __init__(self, low: float, high: float, start: float = LEFT, end: float = WIDTH - RIGHT):
        self.start, self.end = start, end
        if high <= low:
            low, high = low - 0.5, high + 0.5
        rough = (high - low) / 4
        magnitude = 10.0 ** math.floor(math.log10(rough))
        self.tick = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough * 0.999)
        self.low = math.floor(low / self.tick + 1e-9) * self.tick
        self.high = math.ceil(high / self.tick - 1e-9) * self.tick

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        return [self.low + k * self.tick for k in range(round((self.high - self.low) / self.tick) + 1)]

    def axis(self, top: float, unit: str, beyond: bool = False) -> str:
        ticks = self.ticks()
        parts = []
        for k, value in enumerate(ticks):
            at, text = self(value), _number(value)
            if k == len(ticks) - 1:
                text = f"{text}+" if beyond else text
            parts.append(f'<line class="tick" x1="{at:.1f}" x2="{at:.1f}" y1="2" y2="{top:.1f}"/>')
            parts.append(f'<text class="faint" text-anchor="middle" x="{at:.1f}" y="{top + 15:.1f}">{text}</text>')
        if unit:
            parts.append(f'<text class="faint" x="0" y="{top + 15:.1f}">{html.escape(unit)}</text>')
        return "".join(parts)


def _number(value: float) -> str:
    return f"{value:g}" if abs(value) > 1e-9 else "0"


def _range(values: np.ndarray) -> tuple[float, float, bool]:
    """Ends of an axis, and whether values lie beyond the upper one: a thin tail is not to press the rest together."""
    low, high = float(values.min()), float(values.max())
    bulk = float(np.quantile(values, 0.95))
    return (low, bulk, True) if high - low > 2.5 * (bulk - low) > 0 else (low, high, False)


def _label(name: str, middle: float) -> str:
    short = name if len(name) <= 12 else "…" + name[-11:]
    return f'<text class="label" x="0" y="{middle + 4}">{html.escape(short)}</text>'


def _svg(height: float, inside: str, what: str, width: float = WIDTH, above: float = 0) -> str:
    box = f"0 {-above:g} {width:g} {height + above:g}"
    return f'<svg viewBox="{box}" role="img" aria-label="{what}">{inside}</svg>'
