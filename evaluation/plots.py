"""Small plots as inline SVG: colours come from the page's style sheet, so they follow its light and dark schemes.

A plot is drawn at its natural size and scales with the card it stands in. A policy has the same colour in every plot:
class `s0` is the policy under test, `s1`, `s2`, ... are the baselines.
"""

import html
import math
from collections.abc import Sequence

import numpy as np

from evaluation.endings import KINDS, NONE
from evaluation.road_map import mark

WIDTH, LEFT, RIGHT = 324, 90, 12
ROW, AXIS = 46, 24
BINS = 30


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
    x: np.ndarray,
    y: np.ndarray,
    kinds: Sequence[int],
    shared: Sequence[bool],
    titles: Sequence[str],
    names: tuple[str, str],
) -> str:
    """Cases of the policy under test over two of their parameters.

    Args:
        x, y: of the cases. Shape: (n,), n >= 1.
        kinds: of failure, see `evaluation.endings`. Failures lie on top.
        shared: of each, whether the reference driver crashed too.
        titles: of each, shown where the pointer rests on it.
        names: of the two axes, with their units; "" for one without.
    """
    height, left = 216, 44
    across = _Scale(float(np.min(x)), float(np.max(x)), left)
    up = _Scale(float(np.min(y)), float(np.max(y)), height - 4, 8)
    parts = [across.axis(height - 4, "")]
    for value in up.ticks() if names[1] else ():
        at = up(value)
        parts.append(f'<line class="tick" x1="{left}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="faint" text-anchor="end" x="{left - 6}" y="{at + 4:.1f}">{_number(value)}</text>')
    for k in sorted(range(len(kinds)), key=lambda k: (kinds[k] != NONE, -kinds[k])):
        at = across(x[k]), up(y[k])
        if kinds[k] == NONE:
            dot = f'<circle class="s0 fine" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="2.4"/>'
            parts.append(f"<g><title>{html.escape(titles[k])}</title>{dot}</g>")
        else:
            parts.append(mark(kinds[k], shared[k], *at, title=f"{KINDS[kinds[k]]}: {titles[k]}"))
    if names[1]:
        parts.append(f'<text class="faint" x="0" y="-6">↑ {html.escape(names[1])}</text>')
    parts.append(
        f'<text class="faint" text-anchor="end" x="{WIDTH - RIGHT}" y="{height + 28}">{html.escape(names[0])} →</text>'
    )
    return _svg(height + 34, "".join(parts), "cases over two parameters", above=20)


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
