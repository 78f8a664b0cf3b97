"""Plots of influences as inline SVG, in the colours of the page's style sheet; see `evaluation.plots`."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.plots import WIDTH

LABELS, CELL, ROW, GAP = 170, 15, 20, 10  # [pixel] of the timeline: labels, a step, a row, before another group
WIDEST = 1600  # [pixel], beyond which steps are narrower
PALEST = 0.07  # opacity of what is seen and has no influence


@dataclass(frozen=True)
class Line:
    """A row of the timeline.

    Attributes:
        label: at its left.
        influence: of each step; NaN where nothing is observed of the change. Shape: (S,).
        changes_action: whether it changes the action. Shape: (S,).
    """

    label: str
    influence: np.ndarray
    changes_action: np.ndarray


def timeline(times: Sequence[float], actions: Sequence[str], groups: Sequence[Sequence[Line]], top: float) -> str:
    """Influences over time: the darker, the greater. A dot: another action is chosen.

    Args:
        times: of the steps [s]. Length S.
        actions: a sign for each step's action; empty signs where there are none.
        groups: rows, in groups apart from each other.
        top: the influence that is drawn in full colour.
    """
    cell = min(CELL, (WIDEST - LABELS) / len(times))
    parts, at = [], ROW
    if any(actions):
        parts.append(_label("action", at))
        for k, sign in enumerate(actions):
            middle = LABELS + (k + 0.5) * cell
            parts.append(f'<text text-anchor="middle" x="{middle:.1f}" y="{at + 14}">{html.escape(sign)}</text>')
        at += ROW + GAP
    for group in groups:
        for line in group:
            parts.append(_label(line.label, at))
            parts += [_cell(line, k, LABELS + k * cell, at, cell, top, times[k]) for k in range(len(times))]
            at += ROW
        at += GAP if group else 0
    every = max(1, round(len(times) * 48 / (len(times) * cell) / 5)) * 5
    for k in range(0, len(times), every):
        left = LABELS + (k + 0.5) * cell
        parts.append(f'<text class="faint" text-anchor="middle" x="{left:.1f}" y="14">{times[k]:g} s</text>')
    width = LABELS + len(times) * cell + 4
    return (
        f'<svg viewBox="0 0 {width:.0f} {at}" style="min-width:{width:.0f}px;max-width:{width:.0f}px" role="img" '
        f'aria-label="influence over time">{"".join(parts)}</svg>'
    )


def _label(text: str, at: float) -> str:
    return f'<text class="label" text-anchor="end" x="{LABELS - 8}" y="{at + 14}">{html.escape(text)}</text>'


def _cell(line: Line, k: int, left: float, at: float, wide: float, top: float, time: float) -> str:
    influence = float(line.influence[k])
    if np.isnan(influence):
        return ""
    opacity = PALEST + (1 - PALEST) * min(1.0, influence / top)
    dot = ""
    if line.changes_action[k]:
        dot = f'<circle class="acts" cx="{left + wide / 2:.1f}" cy="{at + ROW / 2:.1f}" r="3"/>'
    other = ", another action" if dot else ""
    title = f"{line.label}, {time:g} s: {influence:.3g}{other}"
    return (
        f'<g><title>{html.escape(title)}</title><rect class="s0" fill-opacity="{opacity:.2f}" x="{left + 0.5:.1f}" '
        f'y="{at + 1}" width="{wide - 1:.1f}" height="{ROW - 2}"/>{dot}</g>'
    )


def bars(names: Sequence[str], before: np.ndarray, after: np.ndarray) -> str:
    """What an action comes from before and after a change, a row an action: of probabilities on an axis from 0 to 1, of
    others from the least to the greatest.

    Args:
        names: of the actions.
        before, after: Shape: (A,).
    """
    low = min(0.0, float(before.min()), float(after.min()))
    high = max(1.0 if low == 0.0 else 0.0, float(before.max()), float(after.max()))
    left, right, parts = 96, WIDTH - 84, []

    def column(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    for k, name in enumerate(names):
        top = k * 26
        parts.append(f'<text class="label" x="0" y="{top + 16}">{html.escape(name)}</text>')
        for values, colour, row in ((before, "s2", top + 3), (after, "s0", top + 12)):
            ends = sorted((column(0.0), column(float(values[k]))))
            parts.append(
                f'<rect class="{colour}" x="{ends[0]:.1f}" y="{row}" height="8" '
                f'width="{max(1.0, ends[1] - ends[0]):.1f}"/>'
            )
        told = f"{before[k]:.3g} → {after[k]:.3g}" if high > 1.0 else f"{before[k]:.2f} → {after[k]:.2f}"
        parts.append(f'<text class="faint" text-anchor="end" x="{WIDTH}" y="{top + 16}">{told}</text>')
    height = 26 * len(names)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="before and after">{"".join(parts)}</svg>'


def scatter(x: np.ndarray, y: np.ndarray, acts: Sequence[bool], titles: Sequence[str], names: tuple[str, str]) -> str:
    """Objects over two figures, both from 0 to their greatest value.

    Args:
        x, y: neither below 0. Shape: (n,), n >= 1.
        acts: which of them change the action; they lie on top, in another colour.
        titles: of each, shown where the pointer rests on it.
        names: of the two axes, with their units.
    """
    height, left, right = 216, 44, WIDTH - 12
    parts = []
    ends = [max(float(values.max()), 1e-9) for values in (x, y)]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        column, row = left + share * (right - left), height - 8 - share * (height - 16)
        parts.append(f'<line class="tick" x1="{column:.1f}" x2="{column:.1f}" y1="8" y2="{height - 8}"/>')
        parts.append(f'<line class="tick" x1="{left}" x2="{right}" y1="{row:.1f}" y2="{row:.1f}"/>')
        parts.append(
            f'<text class="faint" text-anchor="middle" x="{column:.1f}" y="{height + 8}">{share * ends[0]:.2g}</text>'
            f'<text class="faint" text-anchor="end" x="{left - 6}" y="{row + 4:.1f}">{share * ends[1]:.2g}</text>'
        )
    for k in np.argsort(acts, kind="stable"):
        column = left + x[k] / ends[0] * (right - left)
        row = height - 8 - y[k] / ends[1] * (height - 16)
        kind = "s1" if acts[k] else "s0 fine"
        dot = f'<circle class="{kind}" cx="{column:.1f}" cy="{row:.1f}" r="{3 if acts[k] else 2.4}"/>'
        parts.append(f"<g><title>{html.escape(titles[k])}</title>{dot}</g>")
    parts.append(f'<text class="faint" x="0" y="-6">↑ {html.escape(names[1])}</text>')
    parts.append(
        f'<text class="faint" text-anchor="end" x="{right}" y="{height + 26}">{html.escape(names[0])} →</text>'
    )
    box = f"0 -20 {WIDTH} {height + 52}"
    return f'<svg viewBox="{box}" role="img" aria-label="objects over two figures">{"".join(parts)}</svg>'
