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


def intervals(names: Sequence[str], rates: Sequence[dict]) -> str:
    """Rates as dots with their intervals, one row a policy, on an axis from 0 to 100 %.

    Args:
        names: of the policies.
        rates: "value", "low", "high", between 0 and 1; value None leaves the row empty.
    """
    scale = _Scale(0.0, 100.0)
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


class _Scale:
    """A linear axis with round ends and ticks."""

    def __init__(self, low: float, high: float):
        if high <= low:
            low, high = low - 0.5, high + 0.5
        rough = (high - low) / 4
        magnitude = 10.0 ** math.floor(math.log10(rough))
        self.tick = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough * 0.999)
        self.low = math.floor(low / self.tick + 1e-9) * self.tick
        self.high = math.ceil(high / self.tick - 1e-9) * self.tick

    def __call__(self, value: float) -> float:
        return LEFT + (value - self.low) / (self.high - self.low) * (WIDTH - LEFT - RIGHT)

    def axis(self, top: float, unit: str, beyond: bool = False) -> str:
        count = round((self.high - self.low) / self.tick)
        parts = []
        for k in range(count + 1):
            value = self.low + k * self.tick
            at, text = self(value), f"{value:g}" if abs(value) > 1e-9 else "0"
            if k == count:
                text = f"{text}+" if beyond else text
            parts.append(f'<line class="tick" x1="{at:.1f}" x2="{at:.1f}" y1="2" y2="{top:.1f}"/>')
            parts.append(f'<text class="faint" text-anchor="middle" x="{at:.1f}" y="{top + 15:.1f}">{text}</text>')
        if unit:
            parts.append(f'<text class="faint" x="0" y="{top + 15:.1f}">{html.escape(unit)}</text>')
        return "".join(parts)


def _range(values: np.ndarray) -> tuple[float, float, bool]:
    """Ends of an axis, and whether values lie beyond the upper one: a thin tail is not to press the rest together."""
    low, high = float(values.min()), float(values.max())
    bulk = float(np.quantile(values, 0.95))
    return (low, bulk, True) if high - low > 2.5 * (bulk - low) > 0 else (low, high, False)


def _label(name: str, middle: float) -> str:
    short = name if len(name) <= 12 else "…" + name[-11:]
    return f'<text class="label" x="0" y="{middle + 4}">{html.escape(short)}</text>'


def _svg(height: float, inside: str, what: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{what}">{inside}</svg>'
