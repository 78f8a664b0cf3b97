"""What a run of the benchmark writes: tables on the screen, a plot, JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from evaluation.corruptions import STRENGTHS
from evaluation.probes.benchmark import CORRUPTIONS, SHARES
from evaluation.probes.fits import PROBES
from evaluation.probes.scores import FIGURES
from evaluation.probes.summary import Means, skill, skills, value

FEATURES = ("constant", "random", "encoder", "supervised", "pixels")
NAMES = {"constant": "guess"}
PROBED = ("random", "encoder", "supervised")
COLOURS = {
    "constant": "#9a9a9a", "random": "#c58a3a", "encoder": "#2f5fa8", "supervised": "#3f8f4f", "pixels": "#8a5aa8",
}  # fmt: skip


def tables(found: Means, verdicts: dict[str, dict[str, Any]], title: str) -> list[Table]:
    """The figures on other episodes; what comparing them says; those of held-out maps and looks; skill by probe and
    share of the labels.
    """
    return [_main(found, title), _verdicts(verdicts), _generalisation(found), _efficiency(found)]


def _new(title: str, first: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _main(found: Means, title: str) -> Table:
    table = _new(f"{title}: linear probes on other episodes", "figure", [NAMES.get(name, name) for name in FEATURES])
    for name in found:
        unit = FIGURES[name].unit
        label = f"{name.replace('_', ' ')}, {unit}" if unit else name.replace("_", " ")
        table.add_row(label, *(number(value(found, name, features)) for features in FEATURES))
    return table


def _verdicts(verdicts: dict[str, dict[str, Any]]) -> Table:
    table = _new("the encoder's, judged", "figure", ("bar", "gap closed", "1 % labels", "strength 3"))
    for name, verdict in verdicts.items():
        cells = [
            "" if verdict[key] is None else f"{form.format(verdict[key])} {'✓' if verdict[met] else '✗'}"
            for key, met, form in (
                ("bar", "bar_met", "{:g}"),
                ("gap_closed", "gap_met", "{:.0%}"),
                ("few_labels", "few_met", "{:.2f}"),
                ("growth", "growth_met", "{:+.0%}"),
            )
        ]
        table.add_row(name.replace("_", " "), *cells)
    return table


def _generalisation(found: Means) -> Table:
    held_out = ("episodes", "maps", "weather", "surfaces")
    tests = [test for test in held_out if any(key[0] == test for means in found.values() for key in means)]
    table = _new("the encoder's linear probes where they were not trained", "figure", tests)
    for name in found:
        table.add_row(name.replace("_", " "), *(number(value(found, name, "encoder", test=test)) for test in tests))
    return table


def _efficiency(found: Means) -> Table:
    shares = [f"{share:.0%} of labels" for share in SHARES]
    table = _new("mean skill: 0 is the best guess without a picture, 1 is perfect", "features, probe", shares)
    grid = [(features, probe, share) for features in PROBED for probe in PROBES for share in SHARES]
    means = skills(found, [{"features": f, "probe": p, "share": s} for f, p, s in grid])
    for k in range(0, len(grid), len(SHARES)):
        table.add_row(f"{grid[k][0]}, {grid[k][1]}", *map(number, means[k : k + len(SHARES)]))
    return table


def number(amount: float | None) -> str:
    """Three digits, or a dash."""
    return "-" if amount is None else f"{amount:.3g}" if abs(amount) >= 1 else f"{amount:.3f}"


def records(found: Means) -> list[dict[str, Any]]:
    """Every mean, flat, for JSON."""
    return [
        {"figure": figure, "test": test, "features": features, "probe": probe, "share": share, **mean}
        for figure, entries in found.items()
        for (test, features, probe, share), mean in entries.items()
    ]


def plot(found: Means, path: Path, title: str) -> None:
    """Write a PNG: the skill of each figure with its interval, by share of labels, and by corruption."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in found if skill(found, name, "encoder") is not None]
    figure = pyplot.figure(figsize=(12, max(4.5, 0.34 * len(names) + 1.2)), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1.5, 1))
    left, top, low = (figure.add_subplot(part) for part in (grid[:, 0], grid[0, 1], grid[1, 1]))
    for k, name in enumerate(names[::-1]):
        for offset, features in zip((0.24, 0.08, -0.08, -0.24), FEATURES[1:], strict=True):
            middle, *ends = (skill(found, name, features, end=end) for end in ("value", "low", "high"))
            if middle is not None:
                left.plot(middle, k + offset, "o", color=COLOURS[features], markersize=4)
                if None not in ends:
                    left.plot(ends, [k + offset] * 2, color=COLOURS[features], linewidth=1.2)
    left.set_yticks(range(len(names)), [name.replace("_", " ") for name in names[::-1]], fontsize=8)
    left.set_xlim(-1.05, 1.0)
    left.axvline(0, color="#777777", linewidth=0.8)
    left.set_xlabel("skill: 0 is the best guess without a picture, 1 is perfect")
    for features in FEATURES[1:]:
        left.plot([], [], "o", color=COLOURS[features], label=features)
    left.legend(fontsize=8, loc="lower right")

    grid = [(features, probe, share) for features in PROBED for probe in PROBES for share in SHARES]
    means = skills(found, [{"features": f, "probe": p, "share": s} for f, p, s in grid])
    styles = dict(zip(PROBES, ("-", "--", ":"), strict=True))
    for k in range(0, len(grid), len(SHARES)):
        features, probe, _ = grid[k]
        line = [float("nan") if mean is None else mean for mean in means[k : k + len(SHARES)]]
        top.plot([100 * share for share in SHARES], line, styles[probe], color=COLOURS[features], marker="o", ms=3)
    for probe, style in styles.items():
        top.plot([], [], style, color="#777777", label=probe)
    top.set_xscale("log")
    top.set_xlabel("labels [%]")
    top.legend(fontsize=8)

    tests = ["clean", *(f"{kind} {strength}" for strength in STRENGTHS for kind in CORRUPTIONS)]
    means = skills(found, [{"features": f, "test": test} for f in FEATURES[1:] for test in tests])
    for k, features in enumerate(FEATURES[1:]):
        clean, *spoilt = means[k * len(tests) : (k + 1) * len(tests)]
        if clean is not None:
            count = len(CORRUPTIONS)
            line = [clean, *(sum(spoilt[i : i + count]) / count for i in range(0, len(spoilt), count))]
            low.plot((0, *STRENGTHS), line, color=COLOURS[features], marker="o", markersize=3)
    low.set_xlabel("strength of corruption, mean over kinds")
    for panel in (left, top, low):
        panel.grid(alpha=0.3)
    for panel in (top, low):
        panel.set_ylabel("mean skill")
        panel.set_ylim(top=1.0)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=110, format="png")
    pyplot.close(figure)
