"""Roll a policy over held-out episodes and record every vehicle at every simulation frame.

Episode i is the first life of world i under one seed, whatever is rolled beside it. So the first 100 of 200 episodes
are the 100 episodes of a shorter evaluation, two policies meet the same traffic under the same number, and memory is
that of one block of worlds whatever the number of episodes.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from evaluation.trajectory import MOVING, SIZES, Trajectory

# Seeds from here on belong to evaluation; training uses smaller ones.
HELD_OUT_SEED = 1_000_000
# Worlds that are rolled together. 64 recordings of `highway` are about 70 MB, with the camera 120 MB.
BLOCK = 64


class Policy(Protocol):
    """What evaluation needs of a policy."""

    name: str
    env_options: dict

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """Actions for a batch of observations, int64. Shape: (N,)."""

    def reset(self, done: Tensor | None) -> None:
        """Forget the past of the worlds where `done` [N] is True; of all with None."""


class _Frames:
    """Buffers that take a copy of the moving state once a simulation frame."""

    def __init__(self, state, capacity: int):
        self.state, self.count = state, 0
        self.arrays = {}
        for name in MOVING:
            tensor = getattr(state, name)
            dtype = torch.bool if name == "crashed" else tensor.dtype
            self.arrays[name] = torch.empty((capacity, *tensor.shape), dtype=dtype, device=tensor.device)
        self.present = torch.empty_like(self.arrays["crashed"])

    def capture(self) -> None:
        for name, array in self.arrays.items():
            array[self.count].copy_(getattr(self.state, name))
        torch.ne(self.state.kind, 0, out=self.present[self.count])
        self.count += 1


def record(worlds, policy: Policy, seed: int, first: int = 0, on_step: Callable[[], None] = lambda: None) -> Trajectory:
    """Roll the first episode of every world, from a reset to its end.

    Args:
        worlds: an `envs.api.VecWorlds`, or anything with its interface.
        policy: drives the egos.
        seed: of the worlds.
        first: number of the first world's episode.
        on_step: called after every policy step.

    Returns:
        the trajectory of the N worlds, on the worlds' device.
    """
    scenario = worlds.scenario
    frames_per_step = scenario.frames_per_step
    max_steps = round(scenario.duration * scenario.policy_frequency)

    obs, _ = worlds.reset(seed=seed, first_world=first)
    policy.reset(None)
    frames = _Frames(worlds.state, 1 + max_steps * frames_per_step)
    frames.capture()
    sizes = {name: getattr(worlds.state, name).clone() for name in SIZES}
    actions, rewards, pictures = [], [], []
    steps = torch.zeros(worlds.num_worlds, dtype=torch.int64, device=worlds.device)
    running = torch.ones(worlds.num_worlds, dtype=torch.bool, device=worlds.device)
    while running.any():
        if len(actions) == max_steps:
            raise RuntimeError(f"an episode of '{scenario.name}' outlasted its {scenario.duration} s")
        if "camera" in obs:
            pictures.append(obs["camera"][:, -3:].clone())
        action = policy.act(obs)
        obs, reward, terminated, truncated, _ = worlds.step(action, on_frame=frames.capture)
        actions.append(action.clone())
        rewards.append(reward.clone())
        steps += running
        done = terminated | truncated
        running &= ~done
        policy.reset(done)
        on_step()

    return Trajectory(
        **{name: array[: frames.count] for name, array in frames.arrays.items()},
        present=frames.present[: frames.count],
        **sizes,
        frames=1 + steps * frames_per_step,
        actions=torch.stack(actions),
        rewards=torch.stack(rewards),
        steps=steps,
        dt=1.0 / scenario.simulation_frequency,
        frames_per_step=frames_per_step,
        camera=torch.stack(pictures) if pictures else None,
    )


def record_episodes(
    make_worlds: Callable[[int], object],
    policy: Policy,
    episodes: int,
    seed: int = HELD_OUT_SEED,
    on_step: Callable[[int], None] = lambda worlds: None,
) -> Iterator[tuple[int, object, Trajectory]]:
    """Roll episodes 0 ... episodes-1, block by block.

    Args:
        make_worlds: number of worlds -> worlds.
        policy: drives the egos.
        episodes: how many.
        seed: of all of them.
        on_step: called after every policy step with the number of worlds that took it.

    Yields:
        the number of the block's first episode, the worlds, and their trajectory.
    """
    worlds = None
    try:
        for first in range(0, episodes, BLOCK):
            count = min(BLOCK, episodes - first)
            if worlds is None or worlds.num_worlds != count:
                if worlds is not None:
                    worlds.close()
                worlds = make_worlds(count)
            yield first, worlds, record(worlds, policy, seed, first, lambda count=count: on_step(count))
    finally:
        if worlds is not None:
            worlds.close()
