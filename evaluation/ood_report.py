"""What `evaluation.ood` writes: tables on the screen, and a plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.table import Table

from evaluation.corruptions import STRENGTHS
from evaluation.ood_drives import KINDS, MATCHED, OWN
from perception.ood import COMBINED, SCORES

FEATURES = ("encoder", "random", "pixels")
COLOURS = dict(zip(FEATURES, ("#2f5fa8", "#c58a3a", "#8a5aa8"), strict=True))
CORRUPTED = "corrupted"
WIDTH = 124  # characters of the widest table
SPACINGS = {OWN: "frames a policy step apart", MATCHED: "frames as far apart as familiar ones"}


class Row(NamedTuple):
    """One figure. `kind`: "unfamiliar", "rate", "clear" or "corrupted", then named "KIND STRENGTH". `drives`: AUROC of
    the means over whole drives."""

    test: str
    kind: str
    spacing: str
    features: str
    score: str
    auroc: float
    low: float
    high: float
    fpr95: float
    drives: float
    worlds: int
    frames: int


def pick(rows: Sequence[Row], **wanted: str) -> list[Row]:
    """The rows in which all of these are so."""
    return [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]


def tables(rows: Sequence[Row], familiar: str) -> list[Table]:
    """Every score of the encoder's features; the combined one of all features; the same under corruption."""
    found = []
    for spacing, words in SPACINGS.items():
        table = _new(
            f"AUROC against other drives of {familiar}, {words}", ["drives", *SCORES, "FPR95", "by drive", "worlds"]
        )
        for row in pick(rows, spacing=spacing, features="encoder", score=COMBINED):
            if row.kind == CORRUPTED:
                continue
            each = [
                pick(rows, spacing=spacing, features="encoder", score=name, test=row.test)[0] for name in SCORES[:-1]
            ]
            table.add_row(
                row.test,
                *(f"{one.auroc:.3f}" for one in each),
                _cell(row),
                f"{row.fpr95:.2f}",
                f"{row.drives:.3f}",
                f"{row.worlds}",
            )
        found.append(table)
    table = _new(
        "combined AUROC by features", ["drives", *(f"{name}, {spacing}" for spacing in SPACINGS for name in FEATURES)]
    )
    for row in pick(rows, spacing=OWN, features="encoder", score=COMBINED):
        if row.kind == CORRUPTED:
            continue
        cells = []
        for spacing in SPACINGS:
            for name in FEATURES:
                one = pick(rows, spacing=spacing, features=name, score=COMBINED, test=row.test)
                cells.append(_cell(one[0]) if one else "-")
        table.add_row(row.test, *cells)
    found.append(table)
    table = _new(f"combined AUROC of corrupted {familiar}", ["corruption, features", *map(str, STRENGTHS)])
    for kind in KINDS:
        for name in FEATURES:
            each = [
                pick(rows, kind=CORRUPTED, test=f"{kind} {strength}", features=name, score=COMBINED)
                for strength in STRENGTHS
            ]
            table.add_row(f"{kind}, {name}", *(_cell(one[0]) if one else "-" for one in each))
    return [*found, table]


def interval(row: Row) -> str:
    """An AUROC with its interval."""
    return f"{row.auroc:.3f} ({row.low:.3f}-{row.high:.3f})"


def _cell(row: Row) -> str:
    return f"{row.auroc:.3f}\n{row.low:.3f}-{row.high:.3f}"


def _new(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=not index)
    return table


def plot(rows: Sequence[Row], path: Path, familiar: str, target: float) -> None:
    """Write a PNG: the combined AUROC of each kind of drives with its interval, and by corruption."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(row.test for row in rows if row.kind != CORRUPTED))
    figure = pyplot.figure(figsize=(12, max(5.0, 0.42 * len(names) + 1.6)), layout="constrained")
    grid = figure.add_gridspec(len(KINDS), 2, width_ratios=(1.6, 1))
    left = figure.add_subplot(grid[:, 0])
    for k, name in enumerate(reversed(names)):
        for offset, features in zip((0.2, 0.0, -0.2), FEATURES, strict=True):
            for spacing, filled in ((OWN, True), (MATCHED, False)):
                for row in pick(rows, test=name, features=features, spacing=spacing, score=COMBINED):
                    place = k + offset + (0.05 if filled else -0.05)
                    colour = COLOURS[features]
                    left.plot((row.low, row.high), (place, place), color=colour, linewidth=1.2)
                    left.plot(
                        row.auroc, place, "o", color=colour, markersize=5, markerfacecolor=colour if filled else "white"
                    )
    left.set_yticks(range(len(names)), names[::-1])
    left.axvline(0.5, color="#777777", linewidth=0.8)
    left.axvline(target, color="#3f8f4f", linewidth=1.0, linestyle="--")
    left.set_xlabel(f"AUROC against other drives of {familiar}")
    for features in FEATURES:
        left.plot([], [], "o", color=COLOURS[features], label=features)
    left.plot([], [], "o", color="#555555", label=SPACINGS[OWN])
    left.plot([], [], "o", color="#555555", markerfacecolor="white", label=SPACINGS[MATCHED])
    left.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, frameon=False)
    left.grid(alpha=0.3)
    for k, kind in enumerate(KINDS):
        panel = figure.add_subplot(grid[k, 1])
        for features in FEATURES:
            found = [pick(rows, test=f"{kind} {strength}", features=features, score=COMBINED) for strength in STRENGTHS]
            found = [one[0] for one in found if one]
            at = [int(row.test.split()[-1]) for row in found]
            panel.plot(at, [row.auroc for row in found], color=COLOURS[features], marker="o", markersize=3)
            panel.fill_between(
                at,
                [row.low for row in found],
                [row.high for row in found],
                color=COLOURS[features],
                alpha=0.2,
                linewidth=0,
            )
        panel.set_ylim(-0.02, 1.02)
        panel.axhline(target, color="#3f8f4f", linewidth=1.0, linestyle="--")
        panel.set_xticks(STRENGTHS, STRENGTHS if kind == KINDS[-1] else [""] * len(STRENGTHS))
        panel.set_title(f"{familiar}, {kind}", fontsize=9, loc="left", pad=3)
        panel.grid(alpha=0.3)
    panel.set_xlabel("strength of corruption")
    figure.savefig(path, dpi=110, format="png")
    pyplot.close(figure)
