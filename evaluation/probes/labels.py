"""What a probe is to read off a picture, from the simulator's state; docs/probes.md has every formula.

A label is defined where it means something, and masked elsewhere: nobody has a lane offset on a car park.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from envs.physics.actions import META_ACTIONS
from envs.roads.lanes import CIRCULAR, SINE, STRAIGHT, Lane
from envs.roads.signals import AMBER, GREEN, PERMISSIVE, RED
from evaluation.lanes import Lanes
from evaluation.metrics.surrogates import required_deceleration
from evaluation.probes.signals import Sight, lamps, next_signal
from evaluation.recorder import maps_of
from evaluation.trajectory import MOVING, Trajectory
from evaluation.ways import TURNED, Ways
from perception import probes
from perception.drivers import cautious
from perception.probes import RANGE, Label

BRAKES = 1.3  # m/s2: who brakes harder has stop lamps lit (UN Regulation 13-H)
COMFORT = 3.0  # m/s2: who would have to brake harder for an amber light may go on, as in `metrics.rules`
WAITS = 6.0  # m before the stop line of a red light in which the expert keeps standing
COLOURS = ("red", "amber", "green")
COLOUR_OF = {RED: 0, AMBER: 1, GREEN: 2, PERMISSIVE: 2}
PIXELS = 2  # of a lit lamp, in the newest picture of all cameras: fewer, and its colour is not asked
NEAREST = 0.1  # m between points of a lane among which the nearest is sought
SETTLED = 1.0  # s after the start of an episode: before, the stacked frames are one and show no motion


@dataclass(frozen=True)
class Kind:
    """What a label is.

    Attributes:
        kind: "presence" (0 or 1), "distance" [m], "amount", "class", or "map": dense, read by a decoder.
        unit: of an amount.
        classes: names of the classes.
    """

    kind: str
    unit: str = ""
    classes: tuple[str, ...] = ()


LABELS = {
    "lead_presence": Kind("presence"),
    "lead_distance": Kind("distance", "m"),
    "lead_speed": Kind("amount", "m/s"),
    "own_speed": Kind("amount", "m/s"),
    "lane_offset": Kind("amount", "m"),
    "heading_error": Kind("amount", "deg"),
    "curvature": Kind("amount", "1/m"),
    "signal": Kind("class", classes=COLOURS),
    "ttc_below_3s": Kind("presence"),
    "brake_needed": Kind("presence"),
    "left_beside": Kind("presence"),
    "right_beside": Kind("presence"),
    "expert_action": Kind("class", classes=META_ACTIONS),
    "occupancy": Kind("map"),
    "segmentation": Kind("map"),
}


class Pose(NamedTuple):
    """Where an ego is on the lane closest to it. Every field has shape (N,)."""

    offset: Tensor  # from the middle, positive to the right [m]
    turn: Tensor  # from the lane's direction, positive to the right [rad]
    bend: Tensor  # curvature of the lane there, positive to the right [1/m]
    on: Tensor  # bool: it is on that lane, less than 45 degrees turned from it, and the lane is of its route


class Reader:
    """Reads the labels of the first agents of a batch of worlds.

    Args:
        env: a `VecWorlds` that is seen through a camera.
    """

    def __init__(self, env):
        self.env = env
        maps = maps_of(env)
        self.ways = Ways(maps, env.scenario.uses_lanes) if maps else None
        self.lanes = Lanes(maps or [env.road])
        # Every lane, counted through all maps as the simulator does.
        self.shapes: list[Lane] = [lane for network in maps or () for lane in network.lanes]
        self.keeps = env.scenario.family == "lane-keeping"  # a lane that it is told, whatever is closest

    def read(self) -> dict[str, Label]:
        """The labels of all worlds now, but for those that are maps. Shape: (N,) each."""
        now, state = self._trajectory(), self.env.state
        everywhere = torch.ones(self.env.num_worlds, dtype=torch.bool, device=self.env.device)
        gap, _, closing = (part[0] for part in now.leader)
        present = gap <= RANGE
        settled = (state.time >= SETTLED) | (self.env.frames == 1)
        moved = settled & (self.env.frames > 1)
        sight, pose = self._signals(now.routes), self.on_lane()
        brake, action = self._decisions(now, sight)
        result = {
            "lead_presence": Label(present.float(), everywhere, "presence"),
            "lead_distance": Label(gap, present, "distance"),
            "lead_speed": Label(-closing, present & moved, "amount"),
            "own_speed": Label(state.speed[:, 0], moved, "amount"),
            "signal": Label(sight.colour.float(), sight.pixels >= PIXELS, "class"),
            "ttc_below_3s": Label(now.meeting[0].isfinite().float(), settled, "presence"),
            "brake_needed": Label(brake.float(), settled, "presence"),
            "lane_offset": Label(pose.offset, pose.on, "amount"),
            "heading_error": Label(pose.turn.rad2deg(), pose.on, "amount"),
            "curvature": Label(pose.bend, pose.on, "amount"),
        }
        beside = probes.labels(self.env)
        result |= {name: beside[name] for name in ("left_beside", "right_beside")}
        result["expert_action"] = Label(action, settled & self.env.scenario.uses_lanes, "class")
        return {
            name: Label(torch.where(label.mask, label.value, 0).float(), label.mask.clone(), label.kind)
            for name, label in result.items()
        }

    def _trajectory(self) -> Trajectory:
        """The present state as a trajectory of one frame, for what is defined on those."""
        state, worlds = self.env.state, self.env.num_worlds
        ones = torch.ones(worlds, dtype=torch.int64, device=self.env.device)
        roads = {}
        if self.ways is not None:
            roads = {"ways": self.ways, "routes": Ways.routes(state.route, state.route_end), "map": state.map}
        return Trajectory(
            **{name: getattr(state, name)[None] for name in (*MOVING, "length", "width", "height", "form")}
            | {"crashed": state.crashed[None] != 0},
            **roads,
            frames=ones,
            steps=ones,
            actions=ones[None],
            rewards=ones[None].float(),
            dt=1.0 / self.env.scenario.simulation_frequency,
            frames_per_step=1,
            lanes=self.lanes,
        )

    def on_lane(self) -> Pose:
        """Where each ego is on the lane that is closest to it, or that it is to keep."""
        state = self.env.state
        if self.ways is None:
            lane = (state.y[:, 0] / self.env.road.lane_width).round().clamp(0, self.env.road.lanes - 1)
            offset = state.y[:, 0] - lane * self.env.road.lane_width
            nothing, everywhere = torch.zeros_like(offset), torch.ones_like(offset, dtype=torch.bool)
            return self._pose(offset, nothing, nothing, torch.full_like(offset, self.env.road.lane_width), everywhere)
        lanes = (state.reference_lane if self.keeps else state.lane[:, 0]).tolist()
        if self.keeps:
            places = zip(lanes, state.x[:, 0].tolist(), state.y[:, 0].tolist(), strict=True)
            along, across = zip(*(located(self.shapes[lane], x, y) for lane, x, y in places), strict=True)
        else:
            along, across = state.lane_s[:, 0].tolist(), state.lane_r[:, 0].tolist()
        shapes = [(self.shapes[lane], s) for lane, s in zip(lanes, along, strict=True)]
        rows = [(float(shape.heading_at(s)), curvature(shape, s), shape.width) for shape, s in shapes]
        direction, bend, width = torch.tensor(rows).to(state.x).unbind(1)
        # Within a junction ways overlap, and the closest may be one that the ego does not take.
        routes = Ways.routes(state.route, state.route_end)
        own = [not route or int(self.ways.road[lane]) in route for lane, route in zip(lanes, routes, strict=True)]
        return self._pose(torch.tensor(across).to(width), direction, bend, width, torch.tensor(own).to(state.x.device))

    def _pose(self, offset: Tensor, direction: Tensor, bend: Tensor, width: Tensor, own: Tensor) -> Pose:
        turn = torch.remainder(self.env.state.heading[:, 0] - direction + math.pi, 2 * math.pi) - math.pi
        kept = own & (self.env.scenario.uses_lanes or self.keeps)
        return Pose(offset, turn, bend, kept & (offset.abs() <= width / 2) & (turn.abs() <= TURNED))

    def _signals(self, routes: tuple[tuple[int, ...], ...]) -> Sight:
        """The signal that each ego drives towards, and how it is seen."""
        worlds, device = self.env.num_worlds, self.env.device
        found = Sight.nothing(worlds, device)
        if self.ways is None or not self.lanes.signals.any():
            return found
        state = self.env.state
        rows = zip(state.lane[:, 0].tolist(), state.lane_s[:, 0].tolist(), routes, strict=True)
        for world, (lane, along, route) in enumerate(rows):
            ahead = next_signal(self.lanes, self.ways, lane, along, route)
            if ahead is not None:
                found.head[world], found.distance[world] = ahead
        there = found.head >= 0
        shown = state.signal.gather(1, found.head.clamp(min=0)[:, None])[:, 0]
        colours = torch.tensor([COLOUR_OF[k] for k in range(len(COLOUR_OF))], device=device)
        found.colour[there] = colours[shown.long()][there]
        found.pixels.copy_(lamps(self.env, found.head, found.colour))
        return found

    def _decisions(self, now: Trajectory, sight: Sight) -> tuple[Tensor, Tensor]:
        """Whether braking is needed (N,) bool, and the expert's action (N,) int64.

        Braking is needed not to touch the leader, or to stop at a light that is red, or amber and allows it. The expert
        goes SLOWER then, and where such a light is near; elsewhere it is the cautious driver of `perception.drivers`.
        """
        speed = self.env.state.speed[:, 0]
        line = (sight.distance - self.env.state.length[:, 0] / 2).clamp(min=0.1)
        for_line = speed.square() / (2 * line)
        red, amber = (sight.colour == COLOURS.index(name) for name in ("red", "amber"))
        stops = red | (amber & (for_line <= COMFORT))
        needed = torch.maximum(required_deceleration(now)[0], torch.where(stops, for_line, 0.0)) > BRAKES
        near = stops & (line <= speed.square() / (2 * BRAKES) + WAITS)
        return needed, torch.where(needed | near, META_ACTIONS.index("SLOWER"), cautious(self.env))


def located(lane: Lane, x: float, y: float) -> tuple[float, float]:
    """The place on a lane that is nearest to a point: how far along it, and how far to its right the point is [m]."""
    s = np.linspace(0.0, lane.length, math.ceil(lane.length / NEAREST) + 1)
    at = float(s[np.hypot(*(lane.position(s) - (x, y)).T).argmin()])
    dx, dy = (x, y) - lane.position(at)
    heading = float(lane.heading_at(at))
    return at, float(dy * math.cos(heading) - dx * math.sin(heading))


def curvature(lane: Lane, s: float) -> float:
    """Curvature of a lane's centre line, positive where it bends to the right [1/m].

    Of a polyline, whose direction jumps every metre, the mean over 4 m.
    """
    if lane.kind == STRAIGHT:
        return 0.0
    if lane.kind == CIRCULAR:
        return lane.parameters[4] / lane.parameters[2]
    if lane.kind == SINE:
        amplitude, pulsation, phase = lane.parameters[4:7]
        slope = amplitude * pulsation * math.cos(pulsation * s + phase)
        return -amplitude * pulsation**2 * math.sin(pulsation * s + phase) / (1 + slope**2) ** 1.5
    low, high = max(s - 2.0, 0.0), min(s + 2.0, lane.length)
    turn = float(lane.heading_at(high) - lane.heading_at(low))
    return math.remainder(turn, 2 * math.pi) / (high - low)
