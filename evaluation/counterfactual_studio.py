"""The same moment shown again, with one thing changed: what the sensors of a world would have observed.

A `Studio` is a batch of worlds beside those that are driven. Each of its worlds is given the states that the moment's
observation goes back to, oldest first, with the world's change in all of them, and its sensors observe one after the
other. The driven worlds are only read.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from envs.errors import UserError
from evaluation.counterfactual_changes import Change, State, apply, most
from evaluation.recorder import Policy

Observation = dict[str, Tensor]


@dataclass(frozen=True)
class Moment:
    """A policy step of a world, before it is taken.

    Attributes:
        step: number of the policy step, from 0.
        time: since the episode began [s].
        past: the states that the observation goes back to, oldest first, of one world each, without observations.
        obs: what the policy is shown. Shape: (1, ...).
        action: what it does. Shape: (1,), or (1, K).
        road: that is driven on.
    """

    step: int
    time: float
    past: tuple[State, ...]
    obs: Observation
    action: Tensor
    road: Any

    @property
    def state(self) -> State:
        """The state of the world at the moment."""
        return self.past[-1]


def seen_state(worlds) -> State:
    """Copies of everything that sensors look at. Shape: (N, ...) each."""
    return {name: tensor for name, tensor in worlds.get_state().items() if not name.startswith("obs.")}


def drive(worlds, policy: Policy, seed: int, first: int = 0) -> Iterator[Moment]:
    """Drive the first episode of one world, moment by moment.

    Args:
        worlds: an `envs.api.VecWorlds` of one world and one agent.
        policy: drives the ego.
        seed: of the worlds.
        first: number of the episode.
    """
    last_frame = worlds.scenario.frames_per_step
    depth = getattr(worlds, "frames", 1)
    obs, _ = worlds.reset(seed=seed, first_world=first)
    policy.reset(None)
    past, step, done = (seen_state(worlds),) * depth, 0, False
    while not done:
        action = policy.act(obs)
        road, time = worlds.road_of(0), step / worlds.scenario.policy_frequency
        yield Moment(step, time, past, {name: t.clone() for name, t in obs.items()}, action.clone(), road)
        frame, latest = 0, {}

        def on_frame() -> None:
            # Sensors observe between the last frame and the traffic that leaves and enters after it.
            nonlocal frame, latest
            frame += 1
            if frame == last_frame:
                latest = seen_state(worlds)

        obs, _, terminated, truncated, _ = worlds.step(action, on_frame)
        latest["state.episode_length"] += 1  # counted with the score, and a key of the sensor's noise
        past, step = (*past[1:], latest), step + 1
        done = bool(terminated[0] | truncated[0])
        policy.reset(terminated | truncated)


class Studio:
    """Worlds that show moments again.

    Args:
        worlds: that are driven.
        make_worlds: number of worlds -> worlds like these.

    Raises:
        UserError: several agents, or worlds of another simulator.
    """

    def __init__(self, worlds, make_worlds: Callable[[int], Any]):
        if not hasattr(worlds, "sim") or worlds.scenario.agents != 1:
            raise UserError("counterfactuals are of one agent a world, in worlds of lanewise")
        self.worlds = make_worlds(1 + most(worlds))

    def show(self, moment: Moment, changes: Sequence[Change]) -> Observation:
        """What would have been observed. Row 0 is the moment as it was, row 1 + k has change k.

        Raises:
            UserError: row 0 is not what was observed: some sensor does not look at the state alone.
        """
        rows = self.worlds.num_worlds
        obs: Observation = {}
        for state in moment.past:
            batch = self.worlds.get_state()
            for name, tensor in state.items():
                batch[name] = tensor if name == "seed" else tensor.repeat(rows, *[1] * (tensor.ndim - 1))
            for row, change in enumerate(changes, 1):
                apply(batch, row, change)
            obs = self.worlds.set_state(batch)
            self.worlds.sim.film()
        shown = {name: tensor[: 1 + len(changes)].clone() for name, tensor in obs.items()}
        for name, tensor in moment.obs.items():
            if not torch.equal(shown[name][:1], tensor):
                where = self.worlds.scenario.name
                raise UserError(f"'{where}' cannot be shown again: '{name}' is not observed from the state alone")
        return shown

    def close(self) -> None:
        """End the threads."""
        self.worlds.close()
