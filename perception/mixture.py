"""The worlds that an encoder learns from: those of one scenario or of several, whose drivers drive or wander."""

import torch

from envs import scenarios
from envs.errors import UserError
from perception.data import Drive, DrivingData
from perception.wandering import WanderingData

SEPARATOR = ","
WANDERING = 0.25  # share of the worlds
APART = 7919  # between the seeds of two scenarios, whose worlds would look alike under one


class Mixture:
    """Several engines of driving data as one: the worlds of the first come first, and so on.

    A step is a policy step in each, of one second in some scenarios and a fifth of one in others.

    Args:
        parts: the engines, on one device, with images of one shape.

    Attributes:
        parts: as given.
        drivers, image, image_shape, num_worlds, num_actions, device: as of `DrivingData`.
    """

    def __init__(self, parts: list[DrivingData | WanderingData]):
        self.parts = parts
        first = parts[0]
        self.device, self.num_actions, self.image_shape = first.device, first.num_actions, first.image_shape
        self.num_worlds = sum(part.num_worlds for part in parts)
        self.drivers = torch.cat([part.drivers for part in parts])

    @property
    def image(self) -> torch.Tensor:
        """What the drivers see now, uint8 [N, C, H, W]."""
        return torch.cat([part.image for part in self.parts])

    def collect(self, steps: int, into: Drive | None = None) -> Drive:
        """Drive every world on. See `DrivingData.collect`."""
        drive = into or Drive.empty(steps, self.image)
        begin = 0
        for part in self.parts:
            worlds = slice(begin, begin + part.num_worlds)
            part.collect(steps, Drive(drive.images[:, worlds], drive.actions[:, worlds], drive.episodes[:, worlds]))
            begin = worlds.stop
        return drive

    def state(self) -> dict[str, torch.Tensor]:
        """Everything needed to go on exactly."""
        return {f"{i}.{name}": value for i, part in enumerate(self.parts) for name, value in part.state().items()}

    def set_state(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from what `state` gave."""
        for index, part in enumerate(self.parts):
            own = f"{index}."
            part.set_state({name.removeprefix(own): value for name, value in state.items() if name.startswith(own)})

    def close(self) -> None:
        """Release the worlds."""
        for part in self.parts:
            part.close()


def driving_data(
    names: str, num_worlds: int, device: str = "auto", frames: int = 2, seed: int = 0, rig: str = "surround"
) -> Mixture:
    """The worlds to learn from. In a quarter of those of a scenario with lanes egos wander, in the others they drive.

    Args:
        names: of a scenario, or of several with commas between them.
        num_worlds: how many, shared evenly; the first scenarios have one more each if that does not come out.
        device, frames, seed, rig: as for `DrivingData`.

    Raises:
        UserError: a scenario is unknown, named twice, or has fewer than 4 worlds.
    """
    wanted = [scenarios.get(name) for name in names.split(SEPARATOR)]
    twice = [scenario.name for scenario in wanted if wanted.count(scenario) > 1]
    if twice:
        raise UserError(f"'{twice[0]}' is named twice among the scenarios")
    share, rest = divmod(num_worlds, len(wanted))
    parts = []
    for index, scenario in enumerate(wanted):
        worlds = share + (index < rest)
        wander = int(WANDERING * worlds) if scenario.uses_lanes and worlds > 4 else 0
        driving, own = worlds - wander, seed + APART * index
        parts.append(DrivingData(scenario.name, driving, device, frames, own, rig=rig))
        if wander:
            parts.append(WanderingData(scenario.name, wander, device, frames, own, rig, first_world=driving))
    return Mixture(parts)
