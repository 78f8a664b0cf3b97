"""What is familiar to encoders, learnt from drives: those of one part of the worlds are fitted to, those of others are
calibrated on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from envs.errors import UserError
from envs.physics.actions import META_ACTIONS
from perception import ood
from perception.mixture import driving_data
from perception.ood import Familiarity
from perception.transitions import Look, record

FIRST_SEED = 500_000  # encoders and policies are trained from 0 on, evaluated from 1,000,000 on
CALIBRATION = 0.5  # worlds to calibrate on, as a share of those to learn from
FEWEST = 100  # transitions


@dataclass(frozen=True)
class Drives:
    """What is familiar, and how it is filmed.

    Attributes:
        scenario: name of one, or of several with commas between them.
        rig, frames: of the camera.
        worlds: to learn from.
        steps: policy steps of each.
        seed: of the worlds and the predictors.
        device: where everything is.
    """

    scenario: str
    rig: str
    frames: int
    worlds: int
    steps: int
    seed: int
    device: str


def fitted(
    drives: Drives,
    looks: Mapping[str, Look],
    begin: Callable[[str, int], Callable[[], None]] = lambda name, steps: lambda: None,
) -> dict[str, tuple[Familiarity, int]]:
    """What is familiar to each of the looks, and from how many transitions it was learnt. All see the same worlds.

    Args:
        drives: see there.
        looks: by name.
        begin: called with the name of each stage and its number of steps; what it returns is called after each step.

    Raises:
        UserError: bad drives, or too few.
    """
    halves = []
    for half, worlds in enumerate((drives.worlds, max(8, round(CALIBRATION * drives.worlds)))):
        advance = begin("driving other worlds" if half else "driving", drives.steps)
        seed = FIRST_SEED + 2 * drives.seed + half
        data = driving_data(drives.scenario, worlds, drives.device, 1, seed, drives.rig)
        try:
            halves.append(record(data, looks, drives.steps, drives.frames, advance=advance)[1])
        finally:
            data.close()
    found = {}
    for name in looks:
        first, second = (half[name] for half in halves)
        if min(len(first), len(second)) < FEWEST:
            raise UserError("the drives are too short or too few to learn from: give more --steps or --worlds")
        known = ood.fit(first, second, len(META_ACTIONS), drives.seed, begin(f"fitting {name}", ood.STEPS))
        found[name] = (known, len(first) + len(second))
    return found
