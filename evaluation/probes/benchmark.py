"""The benchmark, one seed at a time: record, train the controls, fit the probes, score them.

What is tested on: "episodes" (other episodes of what was trained on), "weather" and "surfaces" (looks that are held
out, see `evaluation.probes.looks`), "maps" (see `recording.maps_apart`), "clean" (some pictures of "episodes") and
"KIND STRENGTH", these pictures corrupted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from envs.errors import UserError
from envs.scenarios import Scenario
from envs.sensors.rig import Rig
from evaluation.corruptions import STRENGTHS, corrupt
from evaluation.probes import controls, dense, fits, looks
from evaluation.probes.fits import Labels
from evaluation.probes.labels import LABELS
from evaluation.probes.recording import PICTURES, Recording, check_apart, maps_apart, record, take
from evaluation.probes.scores import Predictions, figures
from evaluation.recorder import HELD_OUT_SEED
from perception import encoders

SHARES = (0.01, 0.1, 1.0)  # of the training pictures
CORRUPTIONS = ("noise", "blur", "fog", "low-light", "occlusion")
CORRUPTED = 600  # pictures that are corrupted
FIRST = 100  # the worlds' seeds are HELD_OUT_SEED + FIRST + 10 * seed, and the two after it
# What a seed is made of, in about the proportion of the time it takes: for the bar that shows progress.
RECORDING, TRAINING, FITTING, CORRUPTING = 10.0, 100.0, 10.0, 10.0
TOTAL = 3 * RECORDING + TRAINING + 3 * FITTING + CORRUPTING


class Row(NamedTuple):
    """One figure of one seed."""

    figure: str  # a name in `evaluation.probes.scores.FIGURES`
    test: str  # what it was tested on, see the module
    features: str  # "encoder", "random", "supervised"; "pixels" and "constant" are no features
    probe: str  # "linear", "mlp", "knn", "decoder" of maps; "" where nothing was probed
    share: float  # of the training pictures
    value: float


@dataclass(frozen=True)
class Subject:
    """What is probed, where.

    Attributes:
        encoder: frozen, on the device.
        architecture: see `perception.encoders.architecture`.
        rig, frames: of the camera that it looks through.
        scenario: that it looks at.
        worlds: that training pictures come from; tests have half as many, new maps a quarter.
        labels: that are asked for; all that the scenario has if empty.
        device: where everything is.
    """

    encoder: encoders.Encoder
    architecture: dict
    rig: Rig
    frames: int
    scenario: Scenario
    worlds: int
    labels: tuple[str, ...]
    device: str


class Pictures(NamedTuple):
    """Recordings of one seed; no test shares an episode with the training."""

    train: Recording
    tests: dict[str, Recording]
    labels: Labels  # of the training pictures, those to be learnt, but for maps
    asked: set[str]  # names of the labels to be learnt, maps included


@torch.no_grad()
def run(
    subject: Subject, seed: int, advance: Callable[[float], None] = lambda units: None
) -> tuple[Pictures, list[Row]]:
    """Every figure of one seed, and what it was measured on.

    Args:
        subject: what is probed.
        seed: of the worlds, the controls and the probes, from 0 on.
        advance: called with the units of progress that have passed, `TOTAL` in all.

    Raises:
        UserError: the scenario lacks a label that is asked for.
    """
    found = pictures(subject, seed, advance)
    train, tests, labels, asked = found
    step = TRAINING / (controls.STEPS + controls.SUPERVISED_STEPS)
    control = (subject.architecture, train, labels, subject.rig, seed, lambda: advance(step))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = encoders.rebuild(subject.architecture).to(train.images.device)
    networks = {
        "encoder": subject.encoder,
        "random": untrained.eval().requires_grad_(False),
        "supervised": controls.supervised(*control),
    }
    shifted = controls.pixels(*control)

    guess = fits.constant(train.images, labels, train.worlds)
    rows = _scored("constant", "", 1.0, guess, {name: (test.images, test) for name, test in tests.items()})
    rows += _scored("pixels", "", 1.0, shifted.read, {name: (test.images, test) for name, test in tests.items()})
    readers: dict[str, Callable[[Tensor], Predictions]] = {"pixels": shifted.read}
    for name, network in networks.items():
        probed, readers[name] = _probed(name, network, found, seed)
        rows += probed
        if asked & {"occupancy", "segmentation"}:
            rows += _decoded(name, network, found, seed)
        advance(FITTING)
    if asked & {"occupancy", "segmentation"}:
        rows += _most_frequent(found)
    return found, rows + _corrupted(tests["episodes"], readers, seed, advance)


def pictures(subject: Subject, seed: int, advance: Callable[[float], None] = lambda units: None) -> Pictures:
    """The recordings of one seed; those to train on show no look that is held out. Raises UserError as `run` does."""
    first = HELD_OUT_SEED + FIRST + 10 * seed

    def made(scenario: Scenario, worlds: int, number: int, keep: Callable[[Tensor], Tensor] | None) -> Recording:
        return record(
            scenario,
            worlds,
            first + number,
            subject.rig,
            subject.frames,
            subject.device,
            keep,
            lambda: advance(RECORDING / PICTURES),
        )

    known, elsewhere = maps_apart(subject.scenario)
    train = made(known, subject.worlds, 0, looks.is_seen)
    labels, asked = wanted(train, subject)
    other = made(known, subject.worlds // 2, 1, None)
    tests = {name: other.take(rows) for name, rows in looks.split(other.looks).items()}
    tests = {"episodes": tests.pop("seen"), **tests}
    if elsewhere is None:
        advance(RECORDING)
    else:
        tests["maps"] = made(elsewhere, subject.worlds // 4, 2, looks.is_seen)
    for test in tests.values():
        check_apart(train, test)
    return Pictures(train, tests, labels, asked)


def wanted(train: Recording, subject: Subject) -> tuple[Labels, set[str]]:
    """The labels of the training pictures that are to be learnt, but for maps, and the names of all.

    Raises:
        UserError: one that is asked for is nowhere defined in the scenario, or is always the same.
    """
    labels = fits.learnable(train.labels)
    maps = [name for name, kind in LABELS.items() if kind.kind == "map"]
    there = [*labels, *maps]
    for name in subject.labels:
        if name not in there:
            raise UserError(f"'{subject.scenario.name}' has no label '{name}' to probe (it has: {', '.join(there)})")
    asked = set(subject.labels or there)
    kept = {name: label for name, label in labels.items() if name in asked}
    if not kept:
        raise UserError(f"beside {' and '.join(sorted(asked))}, ask for a label that is no map")
    return kept, asked


# --- probing ----------------------------------------------------------------------------------------------------------


def _scored(
    features: str,
    probe: str,
    share: float,
    read: Callable[[Tensor], Predictions],
    tests: dict[str, tuple[Tensor, Recording]],
) -> list[Row]:
    """The figures of a read-out.

    Args:
        read: what says the labels of what it is given.
        tests: name -> what is read, and the recording that it is of.
    """
    return [
        Row(figure, name, features, probe, share, value)
        for name, (given, test) in tests.items()
        for figure, value in figures(read(given), test.labels).items()
    ]


def _probed(
    name: str, network: encoders.Encoder, found: Pictures, seed: int
) -> tuple[list[Row], Callable[[Tensor], Predictions]]:
    """The figures of all probes of one network's features, and what reads pictures through the linear one."""
    features = network(found.train.images)
    tests = {test: (network(recording.images), recording) for test, recording in found.tests.items()}
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed)).to(features.device)
    rows: list[Row] = []
    for share in SHARES:
        drawn = order[: max(2, round(share * len(features)))].sort().values
        known = fits.learnable(take(found.labels, drawn))
        for probe, fit in fits.PROBES.items():
            read = fit(features[drawn], known, found.train.worlds[drawn], seed)
            everywhere = share == 1 and probe == "linear"
            if everywhere:
                linear = read
            rows += _scored(name, probe, share, read, tests if everywhere else {"episodes": tests["episodes"]})
    return rows, lambda images: linear(network(images))


def _decoded(name: str, network: encoders.Encoder, found: Pictures, seed: int) -> list[Row]:
    """The figures of the decoders of one network's last convolution."""
    train = found.train
    maps = dense.aligned(network, network.maps(train.images[train.dense]))
    occupied = segmented = None
    if "occupancy" in found.asked:
        occupied = dense.occupancy(maps, train.occupancy, train.worlds[train.dense])
    if "segmentation" in found.asked:
        segmented = dense.segmentation(maps, train.segmentation, seed)
    rows = []
    for test, recording in found.tests.items():
        if len(recording.dense):
            maps = dense.aligned(network, network.maps(recording.images[recording.dense]))
            said = [None if decode is None else decode(maps) for decode in (occupied, segmented)]
            found_here = dense.figures(*said, recording)
            rows += [Row(figure, test, name, "decoder", 1.0, value) for figure, value in found_here.items()]
    return rows


def _most_frequent(found: Pictures) -> list[Row]:
    """The figures of the best maps without a look at the picture."""
    taken, classes = dense.most_frequent(found.train)
    rows = []
    for test, recording in found.tests.items():
        said = [
            guess.expand(len(recording.dense), -1, -1) if name in found.asked else None
            for name, guess in (("occupancy", taken), ("segmentation", classes))
        ]
        if len(recording.dense):
            values = dense.figures(*said, recording)
            rows += [Row(figure, test, "constant", "", 1.0, value) for figure, value in values.items()]
    return rows


def _corrupted(
    test: Recording,
    readers: dict[str, Callable[[Tensor], Predictions]],
    seed: int,
    advance: Callable[[float], None],
) -> list[Row]:
    """The figures of some pictures, clean and corrupted."""
    spread = torch.linspace(0, len(test) - 1, min(CORRUPTED, len(test))).round().long().to(test.images.device)
    some = test.take(spread)
    rows = []

    def score(name: str, images: Tensor) -> None:
        for features, read in readers.items():
            probe = "" if features == "pixels" else "linear"
            rows.extend(_scored(features, probe, 1.0, read, {name: (images, some)}))

    score("clean", some.images)
    for kind in CORRUPTIONS:
        for strength in STRENGTHS:
            generator = torch.Generator(some.images.device).manual_seed(seed)
            score(f"{kind} {strength}", corrupt(some.images, kind, strength, generator))
            advance(CORRUPTING / (len(CORRUPTIONS) * len(STRENGTHS)))
    return rows
