"""The drives on which scores of unfamiliarity are compared, and the looks that are taken at them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from envs import scenarios
from envs.errors import UserError
from envs.scenarios import Scenario
from evaluation.corruptions import LASTING, STRENGTHS, corrupt
from evaluation.recorder import HELD_OUT_SEED
from perception.data import DrivingData
from perception.mixture import SEPARATOR, WANDERING, Mixture, driving_data
from perception.transitions import Look, Transitions, record
from perception.wandering import WanderingData

KINDS = ("noise", "blur", "fog", "low-light", "occlusion")  # of corruption
FIRST = 400  # the worlds' seeds are HELD_OUT_SEED + FIRST + 10 * seed, and some after it
CELL = 16  # px, of the pixels' statistics
OWN, MATCHED = "own", "matched"


@dataclass(frozen=True)
class Setting:
    """How drives are filmed. worlds: of each test. seconds: of each drive. See `perception.familiar.Drives`."""

    rig: str
    frames: int
    worlds: int
    seconds: int
    seed: int
    device: str


@dataclass(frozen=True)
class Test:
    """Drives that are told from familiar ones.

    Attributes:
        name: for reports.
        kind: "unfamiliar" or, as controls, "rate" and "clear".
        make: number of worlds and seed -> worlds with single frames.
        rate: their policy steps a second.
    """

    name: str
    kind: str
    make: Callable[[int, int], DrivingData | Mixture]
    rate: int


def familiar_rate(names: str) -> int | None:
    """Policy steps a second of the familiar scenarios, None if theirs differ."""
    rates = {scenarios.get(name).policy_frequency for name in names.split(SEPARATOR)}
    return rates.pop() if len(rates) == 1 else None


def planned(familiar: str, unfamiliar: str, setting: Setting) -> list[Test]:
    """The unfamiliar scenarios, then the controls: what is familiar at another rate, and not randomised.

    Raises:
        UserError: an unknown scenario, or one of a familiar family.
    """
    families = {scenarios.get(name).family for name in familiar.split(SEPARATOR)}
    found = []
    for name in unfamiliar.split(SEPARATOR):
        scenario = scenarios.get(name)
        if scenario.family in families:
            raise UserError(f"'{name}' is of the family '{scenario.family}', which is familiar")
        found.append(Test(scenario.name, "unfamiliar", _driving(name, setting), scenario.policy_frequency))
    first = scenarios.get(familiar.split(SEPARATOR)[0])
    rates = {test.rate for test in found if first.simulation_frequency % test.rate == 0} - {first.policy_frequency}
    if rates and first.uses_lanes:
        faster = replace(first, policy_frequency=max(rates))
        name = f"{first.name} at {faster.policy_frequency} Hz"
        found.append(Test(name, "rate", _mixed(faster, setting), faster.policy_frequency))
    found.append(Test(f"{first.name}, clear day", "clear", _clear(first, setting), first.policy_frequency))
    return found


def _driving(names: str, setting: Setting) -> Callable[[int, int], Mixture]:
    return lambda worlds, seed: driving_data(names, worlds, setting.device, 1, seed, setting.rig)


def _mixed(scenario: Scenario, setting: Setting) -> Callable[[int, int], Mixture]:
    """As `perception.mixture.driving_data`, of a scenario without a name of its own."""

    def make(worlds: int, seed: int) -> Mixture:
        wander = int(WANDERING * worlds)
        driving = DrivingData(scenario, worlds - wander, setting.device, 1, seed, rig=setting.rig)
        return Mixture(
            [driving, WanderingData(scenario, wander, setting.device, 1, seed, setting.rig, worlds - wander)]
        )

    return make


def _clear(scenario: Scenario, setting: Setting) -> Callable[[int, int], DrivingData]:
    return lambda worlds, seed: DrivingData(scenario.name, worlds, setting.device, 1, seed, False, setting.rig)


def drive(
    test: Test,
    looks: dict[str, Look],
    setting: Setting,
    number: int,
    rate: int | None,
    advance: Callable[[float], None],
) -> dict[str, dict[str, Transitions]]:
    """Drive a test's worlds and look once a second.

    Args:
        test, looks, setting: see there.
        number: of the test, for its seed.
        rate: of what is familiar. Where frames can be stacked as far apart as there, this is done beside.
        advance: called with shares of the drive, 1 in all.

    Returns:
        {OWN (frames a policy step of the test apart) or MATCHED (as far apart in seconds as familiar ones): {look:
        transitions}}; without those of which there are none.
    """
    apart = {OWN: 1}
    if rate is not None and test.rate % rate == 0:
        apart[MATCHED] = test.rate // rate
    data = test.make(setting.worlds, HELD_OUT_SEED + FIRST + 100 * setting.seed + number)
    steps = setting.seconds * test.rate
    try:
        found = record(
            data, looks, steps, setting.frames, sorted(set(apart.values())), test.rate, lambda: advance(1 / steps)
        )
    finally:
        data.close()
    return {spacing: found[k] for spacing, k in apart.items() if len(next(iter(found[k].values())))}


def familiar_test(names: str, setting: Setting) -> Test:
    """Drives as those that were learnt from."""
    return Test(names, "familiar", _driving(names, setting), familiar_rate(names) or 1)


def pixels(images: Tensor) -> tuple[Tensor, Tensor]:
    """A look without an encoder: mean and standard deviation of each channel in each cell of 16 x 16 pixels."""
    values = images.float() / 255
    mean = functional.avg_pool2d(values, CELL)
    deviation = (functional.avg_pool2d(values.square(), CELL) - mean.square()).clamp(min=0).sqrt()
    cells = torch.cat([mean, deviation], 1)
    return cells.flatten(1), cells.flatten(1).half()


def spoilt(look: Look, kind: str, strength: int, seed: int, device: str) -> Look:
    """A look at corrupted pictures; fog and dirt stay in their places for the whole drive."""
    generator = torch.Generator(device)
    generator.manual_seed(seed)

    def seen(images: Tensor) -> tuple[Tensor, Tensor]:
        if kind in LASTING:
            generator.manual_seed(seed)
        return look(corrupt(images, kind, strength, generator))

    return seen


def corruptions(looks: dict[str, Look], setting: Setting) -> dict[str, Look]:
    """All looks at all corruptions, as "NAME|KIND|STRENGTH"."""
    return {
        f"{name}|{kind}|{strength}": spoilt(look, kind, strength, setting.seed, setting.device)
        for name, look in looks.items()
        for kind in KINDS
        for strength in STRENGTHS
    }
