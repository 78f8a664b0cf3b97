"""A contact sheet: some pictures with what the simulator says of them, to see whether labels are right."""

from pathlib import Path

import numpy as np
import torch

from envs.sensors.surfaces import CLASSES
from evaluation.probes.labels import LABELS
from evaluation.probes.recording import CELL, DEPTH, SIDE, Recording

PICTURES, COLUMNS = 12, 3
# RGB of `CLASSES`.
PALETTE = (
    (150, 190, 225), (110, 140, 80), (90, 90, 95), (240, 240, 240), (60, 90, 200), (220, 60, 60), (230, 130, 50),
    (230, 200, 60), (20, 20, 20),
)  # fmt: skip


def chosen(recording: Recording) -> list[int]:
    """Pictures that show much: of each label those in which it is there, in turn, none twice; all with dense labels."""
    dense = torch.zeros(len(recording), dtype=torch.bool)
    dense[recording.dense.cpu()] = True
    wanted = []
    for name, label in recording.labels.items():
        there = label.mask.cpu() & dense
        if LABELS[name].kind == "presence":
            there &= label.value.cpu() > 0.5
        rows = there.nonzero()[:, 0]
        # The middle of the drive first: at its start everybody is still where it was put.
        wanted.append(rows[torch.argsort((rows - len(recording) // 2).abs(), stable=True)].tolist())
    found: list[int] = []
    for turn in range(max((len(rows) for rows in wanted), default=0)):
        for rows in wanted:
            if turn < len(rows) and rows[turn] not in found and len(found) < PICTURES:
                found.append(rows[turn])
    return found


def written(recording: Recording, row: int) -> list[str]:
    """The labels of one picture in words, in the order of `LABELS`."""
    lines = []
    for name, label in recording.labels.items():
        value = float(label.value[row])
        if not label.mask[row]:
            said = "-"
        elif label.kind == "presence":
            said = "yes" if value > 0.5 else "no"
        elif label.kind == "class":
            said = LABELS[name].classes[int(value)]
        else:
            said = f"{value:.3g} {LABELS[name].unit}"
        lines.append(f"{name.replace('_', ' ')}: {said}")
    return lines


def draw(recording: Recording, path: Path, title: str) -> None:
    """Write the sheet as PNG: the newest picture, its segmentation, what is taken ahead, and the labels in words."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = chosen(recording)
    place = {row: k for k, row in enumerate(recording.dense.tolist())}
    lines = max(1, -(-len(rows) // COLUMNS))
    figure = pyplot.figure(figsize=(6.2 * COLUMNS, 3.3 * lines + 0.5), layout="constrained")
    grid = figure.add_gridspec(lines, 3 * COLUMNS, width_ratios=(3.0, 1.0, 1.9) * COLUMNS)
    palette = np.array(PALETTE, dtype=np.uint8)
    assert len(palette) == len(CLASSES)
    for k, row in enumerate(rows):
        line, column = k // COLUMNS, 3 * (k % COLUMNS)
        inner = grid[line, column].subgridspec(2, 1)
        for part, picture in enumerate(
            (
                recording.images[row, -3:].permute(1, 2, 0).cpu().numpy(),
                palette[recording.segmentation[place[row]].cpu().numpy()],
            )
        ):
            panel = figure.add_subplot(inner[part])
            panel.imshow(picture, interpolation="nearest")
            panel.axis("off")
        panel = figure.add_subplot(grid[line, column + 1])
        taken = recording.occupancy[place[row]].cpu().numpy()
        panel.imshow(taken, cmap="Greys", vmin=0, vmax=1, extent=(-SIDE, SIDE, 0, DEPTH), aspect="auto")
        panel.set_xticks((-SIDE, 0, SIDE))
        panel.set_yticks(range(0, DEPTH + 1, 5 * CELL))
        panel.tick_params(labelsize=6)
        panel = figure.add_subplot(grid[line, column + 2])
        panel.text(0, 1, "\n".join(written(recording, row)), va="top", fontsize=8, family="monospace")
        panel.axis("off")
    figure.suptitle(title)
    figure.savefig(path, dpi=80, format="png")
    pyplot.close(figure)
