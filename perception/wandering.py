"""Who wanders in its lane: who keeps to its middle shows neither an offset nor a heading that an encoder could learn.

A wanderer steers towards an offset from the middle that it draws anew every few seconds, with some noise, and sometimes
does with its pedals what it likes. Otherwise it keeps its distance as the cautious driver of `perception.drivers` does.
It sees signals no more than that one.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import envs
from envs import scenarios
from envs.physics.actions import ACCELERATION_RANGE, META_ACTIONS, STEERING_RANGE
from envs.physics.control import HALF_LENGTH
from envs.roads.network import RoadNetwork
from perception.data import DRIVERS, IDLE, Drive
from perception.drivers import FASTER, LEFT, RIGHT, SLOWER, cautious

OFFSET = 1.4  # m: the farthest from the middle that is steered to
REDRAWN = 0.25  # chance a second that the offset is drawn anew, and as much that the pedals are
TURN = 0.15  # rad: the largest heading error that is steered to
SWAY = 1.0  # m/s sideways: standard deviation of the noise, up to TURN
WILFUL = 0.25  # share of the worlds that just now do with their pedals what they like
PEDALS = {"FASTER": 2.0, "SLOWER": -4.0}  # m/s2
SLOWEST = 2.0  # m/s: below, steering is as at this speed
MARGIN = 5.0  # m/s by which speeds may be out of the range of the scenario's target speeds
SHIFT = 0.4  # m sideways in a step that count as going left or right

# Where the egos are on their lanes: offset [m] and heading error [rad], both positive to the right, and the lane's
# curvature there [1/m]. Shape: (N,) each.
Poses = tuple[Tensor, Tensor, Tensor]


class Wanderer:
    """At the wheel of worlds whose egos take throttle and steering.

    Args:
        worlds: a `VecWorlds` made with ego="continuous".
        poses: says where the egos are now.
        seed: of what they draw.
    """

    def __init__(self, worlds, poses: Callable[[], Poses], seed: int):
        self.worlds, self.poses = worlds, poses
        actions = worlds.scenario.actions
        self.paced = not actions.names and not actions.throttle  # only steering is up to them
        self.meant = torch.tensor([PEDALS.get(name, 0.0) for name in META_ACTIONS], device=worlds.device)
        self.generator = torch.Generator(worlds.device).manual_seed(seed)
        self.offset, self.pedals = self._uniform(-OFFSET, OFFSET), self._uniform(-4.0, 3.0)
        self.wilful = self._uniform(0, 1) < WILFUL

    def _uniform(self, low: float, high: float) -> Tensor:
        drawn = torch.rand(self.worlds.num_worlds, generator=self.generator, device=self.worlds.device)
        return low + (high - low) * drawn

    def __call__(self) -> Tensor:
        """Throttle and steering of the coming step. Shape: (N, 2)."""
        period = 1.0 / self.worlds.scenario.policy_frequency
        anew = self._uniform(0, 1) < REDRAWN * period
        self.offset = torch.where(anew, self._uniform(-OFFSET, OFFSET), self.offset)
        anew = self._uniform(0, 1) < REDRAWN * period
        self.wilful = torch.where(anew, self._uniform(0, 1) < WILFUL, self.wilful)
        self.pedals = torch.where(anew, self._uniform(-4.0, 3.0), self.pedals)
        return torch.stack([self._acceleration() / ACCELERATION_RANGE[1], self._steering(period)], 1).clamp(-1, 1)

    def _acceleration(self) -> Tensor:
        """What the pedals are told [m/s2]. Shape: (N,)."""
        speed, (low, high, _) = self.worlds.state.speed[:, 0], self.worlds.scenario.target_speeds
        told = torch.where(self.wilful, self.pedals, self.meant[cautious(self.worlds)])
        if self.paced:
            return torch.zeros_like(speed)
        told = torch.where(speed > high + MARGIN, told.clamp(max=0.0), told)
        told = torch.where(speed < max(low - MARGIN, 0.0), told.clamp(min=1.0), told)
        return torch.maximum(told, -speed.clamp(min=0.0))  # nobody reverses

    def _steering(self, period: float) -> Tensor:
        """Steering that leads to the wanted heading within a step, as a share of all of it. Shape: (N,)."""
        offset, turn, bend = self.poses()
        speed = self.worlds.state.speed[:, 0].clamp(min=SLOWEST)
        noise = torch.randn(turn.shape, generator=self.generator, device=turn.device)
        missing = self.offset - offset - speed * turn * period / 2
        wanted = (missing / speed).clamp(-TURN, TURN) + noise * (SWAY / speed).clamp(max=TURN)
        rate = speed * bend + (wanted - turn) / period
        sin_slip = (rate * HALF_LENGTH / speed).clamp(-0.6, 0.6)
        return torch.atan(2 * torch.tan(torch.asin(sin_slip))) / STEERING_RANGE[1]

    def state(self) -> dict[str, Tensor]:
        """Everything needed to go on exactly, but for the worlds."""
        own = {name: getattr(self, name) for name in ("offset", "pedals", "wilful")}
        return own | {"generator": self.generator.get_state()}

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        for name in ("offset", "pedals", "wilful"):
            setattr(self, name, state[name].to(self.worlds.device))
        self.generator.set_state(state["generator"].cpu())


class LanePoses:
    """Where the first egos are on the lanes closest to them, from headings that were looked up a metre apart.

    Args:
        worlds: a `VecWorlds`.
    """

    def __init__(self, worlds):
        self.worlds = worlds
        if not isinstance(worlds.road, RoadNetwork):
            return
        headings, bends, counts = [], [], []
        for lane in (lane for network in worlds.sim.maps for lane in network.lanes):
            along = np.arange(0.0, lane.length + 1.0)
            heading = np.unwrap(np.broadcast_to(lane.heading_at(along), along.shape))
            headings.append(heading)
            bends.append(np.gradient(heading) if len(heading) > 1 else np.zeros(1))
            counts.append(len(heading))
        self.heading, self.bend = (
            torch.tensor(np.concatenate(rows), dtype=torch.float32, device=worlds.device) for rows in (headings, bends)
        )
        self.counts = torch.tensor(counts, device=worlds.device)
        self.starts = self.counts.cumsum(0) - self.counts

    def __call__(self) -> Poses:
        """See `Poses`."""
        s = self.worlds.state
        if not isinstance(self.worlds.road, RoadNetwork):
            road = self.worlds.road
            offset = s.y[:, 0] - (s.y[:, 0] / road.lane_width).round().clamp(0, road.lanes - 1) * road.lane_width
            return offset, s.heading[:, 0], torch.zeros_like(offset)
        lane = s.lane[:, 0].long()
        along = s.lane_s[:, 0].round().long().clamp(min=0)
        place = self.starts[lane] + torch.minimum(along, self.counts[lane] - 1)
        turn = torch.remainder(s.heading[:, 0] - self.heading[place] + math.pi, 2 * math.pi) - math.pi
        return s.lane_r[:, 0], turn, self.bend[place]


class WanderingData:
    """Worlds of one scenario whose egos wander, with randomised cameras; used as `perception.data.DrivingData` is.

    Args:
        scenario: name of a scenario with lanes.
        num_worlds, device, frames, seed, rig: as for `DrivingData`.
        first_world: index of the first of the worlds, whose random numbers hang on it.
    """

    def __init__(
        self, scenario: str, num_worlds: int, device: str, frames: int, seed: int, rig: str, first_world: int = 0
    ):
        declared = scenarios.get(scenario)
        self.worlds = envs.make_vec(
            declared,
            num_worlds=num_worlds,
            device=device,
            observation="camera",
            frames=frames,
            seed=seed,
            ego="continuous",
            randomize=True,
            rig=rig,
            agents=1,
        )
        self.num_worlds, self.device, self.num_actions = num_worlds, self.worlds.device, len(META_ACTIONS)
        self.drivers = torch.full((num_worlds,), DRIVERS.index("wandering"), device=self.device)
        self.poses = LanePoses(self.worlds)
        self.driver = Wanderer(self.worlds, self.poses, seed)
        self.image = self.worlds.reset(first_world=first_world)[0]["camera"]
        self.image_shape = tuple(self.image.shape[1:])

    def collect(self, steps: int, into: Drive | None = None) -> Drive:
        """See `DrivingData.collect`. A step has the name of the meta-action that would have done something like it."""
        drive = into or Drive.empty(steps, self.image)
        state = self.worlds.state
        for t in range(steps):
            drive.images[t], drive.episodes[t] = self.image, state.episode
            lane, speed, offset = state.lane[:, 0].clone(), state.speed[:, 0].clone(), self.poses()[0].clone()
            self.image = self.worlds.step(self.driver())[0]["camera"]
            change, shift = state.speed[:, 0] - speed, self.poses()[0] - offset
            least = 1.0 / self.worlds.scenario.policy_frequency
            named = torch.full_like(drive.actions[t], IDLE)
            named[change > least] = FASTER
            named[change < -least] = SLOWER
            same = state.lane[:, 0] == lane
            named[same & (shift > SHIFT)] = RIGHT
            named[same & (shift < -SHIFT)] = LEFT
            drive.actions[t] = named
        return drive

    def state(self) -> dict[str, Tensor]:
        """Everything needed to go on exactly."""
        worlds = {f"worlds.{name}": value for name, value in self.worlds.get_state().items()}
        return worlds | {f"driver.{name}": value for name, value in self.driver.state().items()} | {"image": self.image}

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        for prefix, part in (("worlds.", self.worlds), ("driver.", self.driver)):
            own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            part.set_state(own)
        self.image = state["image"].to(self.device)

    def close(self) -> None:
        """Release the worlds."""
        self.worlds.close()
