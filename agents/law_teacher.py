"""A teacher that is the drivers' own law: the meta-action that comes nearest to what IDM would do at the ego's wheel.

It is told everything: junctions, signals, people and whoever else its law gives way to. What it would do is not
computed anew: a second batch takes over the worlds' state, its ego drives itself for `HORIZON`, and the action is
chosen that, kept up for as long, leads to the speed that the ego has then. In less time speeds would not differ by
enough: who may go, but gently, would never set out.
"""

import math

import torch
from torch.nn.functional import one_hot

import envs
from envs.errors import UserError
from envs.physics.control import SPEED_GAIN
from envs.state import IDM

HORIZON = 2.0  # s
EXPONENT = 4.0  # IDM's, of the ego
CHANGES = {-1: "LANE_LEFT", 1: "LANE_RIGHT"}
# In the order of preference among equals: the first two are relative to the speed, which a student sees. What IDLE does
# depends on the target speed of before, which it does not.
SPEEDS = {"SLOWER": -1, "FASTER": 1, "IDLE": 0}


class LawTeacher:
    """IDM, MOBIL and the rules of junctions as a teacher of meta-actions. See `agents.teacher.Teacher`.

    It keeps nothing from one step to the next.

    Args:
        worlds: `envs.api.VecWorlds` that somebody drives.

    Raises:
        UserError: worlds without meta-actions, with several agents, or in which no law can drive.
    """

    name = "idm"

    def __init__(self, worlds):
        self.worlds, scenario = worlds, worlds.scenario
        if not worlds.action_names or scenario.agents > 1:
            raise UserError(
                f"'idm' teaches the choice among speeds and lanes of one vehicle; '{scenario.name}' has "
                f"{'other actions' if not worlds.action_names else f'{scenario.agents} agents'}"
            )
        self.law = envs.make_vec(
            scenario, worlds.num_worlds, device=worlds.device, observation="state", ego="idm", dtype=worlds.state.dtype
        )
        self.law.reset(0)
        self.changes = int(self.law.state.changes_lanes[:, 0].max())
        self.limits, self.roads = _lanes(worlds)
        self.actions = worlds.action_names
        low, high, count = scenario.target_speeds
        self.speeds = torch.linspace(low, high, count, device=worlds.device)
        self.steps = max(1, round(HORIZON * scenario.policy_frequency))
        # What is then left of the distance to a target speed.
        self.left = (1 - SPEED_GAIN / scenario.simulation_frequency) ** (self.steps * scenario.frames_per_step)

    def reset(self, done: torch.Tensor | None) -> None:
        """Nothing is remembered."""

    def close(self) -> None:
        """End the threads of the second batch."""
        self.law.close()

    def advise(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        """The action for the worlds as they are now, with probability 1. Shape: (N, A) float32.

        Args:
            obs: not looked at.
        """
        state, law = self.worlds.state, self.law.state
        for name, tensor in state.tensors.items():
            law.tensors[name].copy_(tensor)
        self.law.sim.seed.copy_(self.worlds.sim.seed)
        lane = state.target_lane[:, 0].long()
        law.kind[:, 0] = IDM
        law.changes_lanes[:, 0] = self.changes
        law.exponent[:, 0] = EXPONENT
        law.timer[:, 0] = math.inf  # lanes are thought about in every step
        law.target_speed[:, 0] = self.limits[lane]
        open_ = torch.ones_like(lane, dtype=torch.bool)  # whether the episode goes on
        wanted, target_lane = state.speed[:, 0].clone(), lane
        for step in range(self.steps):
            self.law.sim.step()
            wanted = torch.where(open_, law.ego_speed, wanted)
            open_ &= (law.terminated == 0) & (law.truncated == 0)
            if step == 0:
                target_lane = torch.where(open_, law.target_lane[:, 0].long(), lane)
        chosen = self._nearest_speed(state.speed[:, 0], wanted)
        for step, name in CHANGES.items():
            if name in self.actions:
                beside = (target_lane == lane + step) & (self.roads[lane] == self.roads[target_lane])
                chosen = torch.where(beside, self.actions.index(name), chosen)
        return one_hot(chosen, len(self.actions)).float()

    def _nearest_speed(self, speed: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """The action after which the speed is nearest to the wanted one. Shape: (N,) int64."""
        last = len(self.speeds) - 1
        spacing = (self.speeds[-1] - self.speeds[0]) / last
        present = ((speed - self.speeds[0]) / spacing).round().long().clamp(0, last)
        index = self.worlds.state.speed_index[:, 0].long()
        worst = torch.full_like(speed, math.inf)
        chosen = torch.zeros_like(index)
        for name, step in SPEEDS.items():
            target = self.speeds[(present + step).clamp(0, last) if step else index]
            miss = (target + (speed - target) * self.left - wanted).abs()
            better = miss < worst - 1e-3
            chosen = torch.where(better, self.actions.index(name), chosen)
            worst = torch.where(better, miss, worst)
        return chosen


def _lanes(worlds) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every lane, counted through all maps, its speed limit [m/s] and the number of the road that it belongs to."""
    if worlds.sim.maps is None:
        limits, roads = [worlds.road.speed_limit] * worlds.road.lanes, [0] * worlds.road.lanes
    else:
        lanes = [lane for network in worlds.sim.maps for lane in network.lanes]
        named = [(k, *index[:2]) for k, network in enumerate(worlds.sim.maps) for index in network.indices]
        numbers = {road: number for number, road in enumerate(dict.fromkeys(named))}
        limits, roads = [lane.speed_limit for lane in lanes], [numbers[road] for road in named]
    return torch.tensor(limits, device=worlds.device), torch.tensor(roads, device=worlds.device)
