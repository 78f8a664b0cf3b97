"""Roll a policy over held-out episodes and record every vehicle at every simulation frame.

Episode i is the first life of world i under one seed, whatever is rolled beside it. So the first 100 of 200 episodes
are the 100 episodes of a shorter evaluation, two policies meet the same traffic under the same number, and memory is
that of one block of worlds whatever the number of episodes.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from envs.roads.parallel import ParallelRoad
from evaluation.lanes import Lanes
from evaluation.trajectory import BODIES, COUNTERS, MOVING, Trajectory
from evaluation.ways import Ways

# Seeds from here on belong to evaluation; training uses smaller ones.
HELD_OUT_SEED = 1_000_000
# Worlds that are rolled together. 64 recordings of `highway` are about 90 MB, with the camera 140 MB.
BLOCK = 64


NO_GOAL = -1


class Policy(Protocol):
    """What evaluation needs of a policy."""

    name: str
    env_options: dict

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """Actions for a batch of observations. Shape: (N,) int64, or as the worlds' action space has it."""

    def reset(self, done: Tensor | None) -> None:
        """Forget the past of the worlds where `done` [N] is True; of all with None."""


# Recorded in fewer bits than the simulator has them.
NARROW = {"crashed": torch.bool, "kind": torch.int8, "form": torch.int8, "signal": torch.int8}


class Frames:
    """Buffers that take a copy of the state once a simulation frame, from the start of one or more episodes.

    Args:
        worlds: whose state it is, as it is at the start.
        capacity: how many frames there can be.
    """

    def __init__(self, worlds, capacity: int):
        self.state, self.count = worlds.state, 0
        self.arrays = {}
        # Traffic comes and goes, so that bodies are recorded like all that moves.
        for name in (*MOVING, *BODIES, "signal", *COUNTERS):
            if hasattr(self.state, name):
                tensor = getattr(self.state, name)
                dtype = NARROW.get(name, tensor.dtype)
                self.arrays[name] = torch.empty((capacity, *tensor.shape), dtype=dtype, device=tensor.device)
        self.roads: dict = {}
        maps = maps_of(worlds)
        if maps:
            ways, lanes = roads_of(tuple(maps), worlds.scenario.uses_lanes)
            routes = Ways.routes(self.state.route, self.state.route_end)
            self.roads = {"ways": ways, "lanes": lanes, "routes": routes, "map": self.state.map.clone()}
        elif isinstance(worlds.road, ParallelRoad):
            self.roads = {"lanes": Lanes([worlds.road])}

    def capture(self) -> None:
        """Take the present state."""
        for name, array in self.arrays.items():
            array[self.count].copy_(getattr(self.state, name))
        self.count += 1

    def trajectory(self, **episode) -> Trajectory:
        """What has been taken, and the rest of what `Trajectory` holds."""
        return Trajectory(**{name: array[: self.count] for name, array in self.arrays.items()}, **self.roads, **episode)


def newest_picture(camera: Tensor) -> Tensor:
    """The newest picture of the ego's camera. Shape: (N, 3, H, W).

    Args:
        camera: what is observed, of one agent (N, frames * 3, H, W) or of A agents (N, A, frames * 3, H, W).
    """
    return (camera[:, 0] if camera.ndim == 5 else camera)[:, -3:]


def maps_of(worlds) -> list | None:
    """The networks that worlds drive on, None on a parallel road."""
    return worlds.sim.maps if hasattr(worlds, "sim") else None


@functools.lru_cache(maxsize=1)
def roads_of(maps: tuple, followed: bool) -> tuple[Ways, Lanes | None]:
    """The ways and the lanes of networks, the same as before where those are the same: they remember what they have
    worked out."""
    return Ways(maps, followed), Lanes(maps) if followed else None


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
    # A step is a whole number of frames. Rounding may end an episode a step after its time: the sum of many steps falls
    # short of the whole.
    max_steps = math.ceil(scenario.duration * scenario.simulation_frequency / frames_per_step) + 1

    obs, _ = worlds.reset(seed=seed, first_world=first)
    policy.reset(None)
    frames = Frames(worlds, 1 + max_steps * frames_per_step)

    def on_frame() -> None:
        frames.capture()
        if hasattr(policy, "on_frame"):  # shields act between decisions
            policy.on_frame(worlds)

    on_frame()
    success = torch.full((worlds.num_worlds,), NO_GOAL, device=worlds.device)
    if hasattr(worlds.state, "success"):
        worlds.state.success.fill_(NO_GOAL)  # stays where the scenario never says whether a goal was reached
    actions, rewards, pictures, told = [], [], [], []
    steps = torch.zeros(worlds.num_worlds, dtype=torch.int64, device=worlds.device)
    running = torch.ones(worlds.num_worlds, dtype=torch.bool, device=worlds.device)
    while running.any():
        if len(actions) == max_steps:
            raise RuntimeError(f"an episode of '{scenario.name}' outlasted its {scenario.duration} s")
        if "camera" in obs:
            pictures.append(newest_picture(obs["camera"]).clone())
        if "route" in obs:
            told.append(obs["route"].clone())
        action = policy.act(obs)
        obs, reward, terminated, truncated, _ = worlds.step(action, on_frame=on_frame)
        actions.append(action.clone())
        rewards.append(reward.clone())
        steps += running
        done = terminated | truncated
        if hasattr(worlds.state, "success"):
            success = torch.where(done & running, worlds.state.success, success)
        running &= ~done
        policy.reset(done)
        on_step()

    return frames.trajectory(
        frames=1 + steps * frames_per_step,
        actions=torch.stack(actions),
        rewards=torch.stack(rewards),
        steps=steps,
        dt=1.0 / scenario.simulation_frequency,
        frames_per_step=frames_per_step,
        camera=torch.stack(pictures) if pictures else None,
        route=torch.stack(told) if told else None,
        success=success,
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
