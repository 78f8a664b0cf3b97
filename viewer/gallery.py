"""One picture of every scenario, as docs/scenarios.md shows them.

python -m viewer.gallery --out docs/images/scenarios
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

import envs
from envs.errors import exit_on_user_error
from envs.scenarios import get

WIDTH, HEIGHT = 900, 288  # px
# How long is driven before the picture is taken [s].
DRIVEN = {"intersection-signals": 6.0, "roadworks": 9.0, "crossing": 5.0, "town": 12.0, "town-held-out": 12.0}
OTHERWISE = 3.0


@dataclass
class Args:
    out: Path = Path("docs/images/scenarios")
    """Folder for the pictures, one PNG a scenario."""
    scenarios: tuple[str, ...] = ()
    """Scenarios to draw; by default all of them."""
    seed: int = 3
    """Seed of the episodes."""


def picture(name: str, seed: int) -> np.ndarray:
    """A scene of the scenario a few seconds into an episode. Shape: (HEIGHT, WIDTH, 3) uint8."""
    scenario = get(name)
    worlds = envs.make_vec(name, 1, device="cpu", seed=seed, ego="idm" if scenario.uses_lanes else "policy")
    worlds.reset()
    shape = (1, *worlds.single_action_space.shape)
    idle = torch.zeros(shape)
    if worlds.action_names:
        idle = torch.full(shape, worlds.action_names.index("IDLE"))
    for _ in range(round(DRIVEN.get(name, OTHERWISE) * scenario.policy_frequency)):
        *_, info = worlds.step(idle)
        if info["_final_obs"].any():
            break
    frame = worlds.render(0, WIDTH, HEIGHT)
    worlds.close()
    return frame


def main() -> None:
    """The command."""
    import imageio.v3 as imageio

    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    args = tyro.cli(Args, description=__doc__)
    names = args.scenarios or envs.list_scenarios()
    for name in names:
        get(name)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        imageio.imwrite(args.out / f"{name}.png", picture(name, args.seed))
        print(args.out / f"{name}.png")


if __name__ == "__main__":
    exit_on_user_error(main)
