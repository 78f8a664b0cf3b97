"""Experts at the wheel of the worlds that an encoder learns from, and what disturbs them.

They need not be good: an encoder must also see what comes of mistakes, and of getting out of them again.
"""

import numpy as np
import torch

from envs.physics.actions import META_ACTIONS
from envs.roads.network import RoadNetwork
from envs.state import LANDMARK, OBSTACLE

LEFT, IDLE, RIGHT, FASTER, SLOWER = range(len(META_ACTIONS))
AHEAD = 8  # m along its lane that a car aims at
PARKING_SPEED = 3.0  # m/s
LENGTH = 5.0  # m, of the bicycle that a steering angle turns
SWERVES, DAWDLES = 0.1, 0.1  # chance a second that a driver is made to change lane, or to drive at another pace


def cautious(env) -> torch.Tensor:
    """Meta-actions int64 [N] of a driver who sees the truth: keeps a gap in time, passes where there is room.

    Args:
        env: a `VecWorlds`; on a road network it looks at its own lane only, and stays on it.
    """
    if isinstance(env.road, RoadNetwork):
        return _cautious_on_lane(env.state)
    s = env.state
    lane = (s.y[:, :1] / env.road.lane_width).round()
    other = s.kind != 0
    other[:, 0] = False
    ahead = s.x - s.x[:, :1]
    closing = s.speed[:, :1] - s.speed
    speed = s.speed[:, 0].clamp(min=1)

    def room(step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """In the lane `step` to the right: metres to the first car ahead, to the first behind, and seconds until the
        former is reached.
        """
        inside = other & ((s.y - (lane + step) * env.road.lane_width).abs() < env.road.lane_width / 2)
        gap, slot = torch.where(inside & (ahead >= 0), ahead - s.length, torch.inf).min(1)
        behind = torch.where(inside & (ahead < 0), -ahead - s.length, torch.inf).amin(1)
        exists = ((lane + step >= 0) & (lane + step < env.road.lanes))[:, 0]
        reached = gap / closing.gather(1, slot[:, None])[:, 0].clamp(min=0.1)
        return torch.where(exists, gap, 0), torch.where(exists, behind, 0), reached

    gap, _, reached = room(0)
    action = torch.where(gap > 2.5 * speed, FASTER, IDLE)
    action = torch.where((gap < 0.8 * speed) | (reached < 3), SLOWER, action)
    for step, change in ((1, RIGHT), (-1, LEFT)):
        front, back, _ = room(step)
        action = torch.where(
            (gap < 1.5 * speed) & (front > gap + 10) & (front > 0.6 * speed) & (back > 12), change, action
        )
    return action


def _cautious_on_lane(s) -> torch.Tensor:
    """`cautious` without lane changes, from a state that knows lanes."""
    other = (s.kind != 0) & (s.kind <= OBSTACLE) & (s.lane == s.lane[:, :1])
    other[:, 0] = False
    speed = s.speed[:, 0].clamp(min=1)
    ahead = s.lane_s - s.lane_s[:, :1]
    gap, slot = torch.where(other & (ahead >= 0), ahead - (s.length + s.length[:, :1]) / 2, torch.inf).min(1)
    reached = gap / (s.speed[:, 0] - s.speed.gather(1, slot[:, None])[:, 0]).clamp(min=0.1)
    action = torch.where(gap > 2.5 * speed, FASTER, IDLE)
    return torch.where((gap < 0.8 * speed) | (reached < 3), SLOWER, action)


class Disturbances:
    """What makes an expert of IDM, MOBIL, junctions and signals a noisy one: now and then it is made to change to the
    next lane, or to drive at another pace than it wants to, and must cope.

    Args:
        env: a `VecWorlds` on a road network whose egos drive themselves.
        disturbed: bool [N], whose.
        generator: of the random numbers, on the worlds' device.
    """

    def __init__(self, env, disturbed: torch.Tensor, generator: torch.Generator):
        self.state, self.disturbed, self.generator = env.state, disturbed, generator
        self.frequency = env.scenario.policy_frequency
        beside = []  # of each lane, the one to its left and the one to its right, itself where there is none
        for network in env.sim.maps:
            for start, end, place in network.indices:
                road, own = network.graph[start][end], len(beside)
                exist = [0 <= place + step < len(road) and not road[place + step].forbidden for step in (-1, 1)]
                beside.append((own - exist[0], own + exist[1]))
        self.beside = torch.tensor(beside, dtype=env.state.lane.dtype, device=env.device)
        self.wanted = env.state.target_speed[:, 0].clone()  # m/s, what each wants to drive in this episode

    def __call__(self) -> None:
        """Disturb the coming policy step."""
        s, count = self.state, len(self.disturbed)
        options = {"generator": self.generator, "device": self.disturbed.device}
        chance, side, pace = torch.rand(3, count, **options)
        self.wanted = torch.where(s.episode_length == 0, s.target_speed[:, 0], self.wanted)
        swerves = self.disturbed & (chance < SWERVES / self.frequency) & (s.lane[:, 0] == s.target_lane[:, 0])
        beside = self.beside[s.lane[:, 0].long()].gather(1, (side < 0.5).long()[:, None])[:, 0]
        s.target_lane[:, 0] = torch.where(swerves, beside, s.target_lane[:, 0])
        # Who gives way at a crossing wants to drive at 0 m/s.
        dawdles = self.disturbed & (chance > 1 - DAWDLES / self.frequency) & (s.target_speed[:, 0] > 0)
        share = (0.2 + 1.2 * pace).clamp(max=1)  # one in three goes back to what it wants
        s.target_speed[:, 0] = torch.where(dawdles, self.wanted * share, s.target_speed[:, 0])


class LaneFollower:
    """Continuous actions that keep a car of constant speed on the nearest lane, by pure pursuit (Coulter 1992).

    Args:
        env: a `VecWorlds` on a road network.
    """

    def __init__(self, env):
        self.state, self.full = env.state, env.scenario.actions.steering_range[1]
        lines = [lane.position(np.arange(0.0, lane.length)) for lane in env.road.lanes]
        self.points = torch.tensor(
            np.concatenate(lines), dtype=torch.float32, device=env.device
        )  # [P, 2], a metre apart
        count = torch.tensor([len(line) for line in lines], device=env.device)
        self.last = torch.repeat_interleave(count.cumsum(0) - 1, count)  # [P], the last point of a point's lane

    def __call__(self) -> torch.Tensor:
        """Float [N, 1], steering."""
        position = torch.stack([self.state.x[:, 0], self.state.y[:, 0]], 1)
        nearest = torch.cdist(position, self.points).argmin(1)
        aim = self.points[torch.minimum(nearest + AHEAD, self.last[nearest])]
        return (_angle(self.state, *aim.unbind(1)) / self.full).clamp(-1, 1)[:, None]


class Parker:
    """Continuous actions that bring a car to its goal, forwards or backwards: it aims at a point on the goal's axis,
    which is the nearer to the goal, the nearer the car is to the axis.

    Args:
        env: a `VecWorlds` with a landmark in each world.
    """

    def __init__(self, env):
        self.state, self.full = env.state, env.scenario.actions.steering_range[1]

    def __call__(self) -> torch.Tensor:
        """Float [N, 2], throttle and steering."""
        s = self.state
        slot = (s.kind == LANDMARK).int().argmax(1, keepdim=True)
        x, y, c, d = (value.gather(1, slot)[:, 0] for value in (s.x, s.y, s.cos_heading, s.sin_heading))
        dx, dy = s.x[:, 0] - x, s.y[:, 0] - y
        along, aside = dx * c + dy * d, dy * c - dx * d
        before = along.sign() * torch.minimum(aside.abs(), torch.full_like(aside, 8))
        x, y = x + before * c, y + before * d
        ahead, _ = _seen_from(s, x, y)
        distance = torch.hypot(dx, dy)
        wanted = ahead.sign() * distance.clamp(max=PARKING_SPEED)
        throttle = (wanted - s.speed[:, 0]) / 2
        return torch.stack([throttle, _angle(s, x, y) / self.full], 1).clamp(-1, 1)


EXPERTS = {"lane-keeping": LaneFollower, "parking": Parker}  # by family, where IDM cannot drive


def _seen_from(s, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How far ahead of the ego and to its right a point is [m]."""
    dx, dy, c, d = x - s.x[:, 0], y - s.y[:, 0], s.cos_heading[:, 0], s.sin_heading[:, 0]
    return dx * c + dy * d, dy * c - dx * d


def _angle(s, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The steering angle whose circle leads through a point [rad]."""
    ahead, right = _seen_from(s, x, y)
    return torch.atan(2 * LENGTH * right / (ahead**2 + right**2).clamp(min=1e-3))
