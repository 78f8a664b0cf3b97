"""Trajectory: what happened in a batch of episodes, at the simulation's frequency, as arrays."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from envs.state import LANDMARK, OBSTACLE, WALKER
from evaluation.geometry import first_contact
from evaluation.lanes import Lanes
from evaluation.pairs import HORIZON, Finder, Nearness, Pairs
from evaluation.ways import AHEAD, Places, Ways

# Arrays of one value a frame, world and vehicle, under the names that the simulator's state gives them.
MOVING = ("x", "y", "heading", "speed", "acceleration", "lane", "target_lane", "crashed", "kind")
BODIES = ("length", "width", "height", "form")
# Arrays of one value a frame and world: what the simulator counts about the ego.
COUNTERS = ("red_lights", "box_time", "green_wait")
OFF = 0.3  # m: a corner so far off the road is off it (nuPlan)
BEHIND = math.cos(math.radians(150.0))  # of the angle from the ego's heading: whom nuPlan takes to be behind
STANDS = 0.1  # m/s: an ego as slow as this has braked as it should
NEAR = 100.0  # m: vehicles within this distance of the ego count as the traffic around it


class Leader(NamedTuple):
    """The nearest vehicle ahead in the ego's way. Every field has shape (T, N)."""

    gap: Tensor  # distance the ego can go along its way before its box touches the leader's [m]; inf: none
    slot: Tensor  # its vehicle slot; 0 where there is none
    closing: Tensor  # speed of the ego along its way minus the leader's [m/s]; 0 where there is none


@dataclass(frozen=True)
class Trajectory:
    """N episodes, one a world. T: recorded frames, V: vehicle slots (slot 0 is the ego), S: policy steps.

    Frame 0 is the start of the episode; frame 1 + k is the state after the k-th simulation frame.

    Attributes:
        x, y: centres of the boxes [m]; y grows to the right of +x. Shape: (T, N, V).
        heading: [rad]. Shape: (T, N, V).
        speed: [m/s]. Shape: (T, N, V).
        acceleration: [m/s2]. Shape: (T, N, V).
        lane, target_lane: int, counted through all maps. Shape: (T, N, V).
        crashed: bool, True from the frame of a vehicle's first collision on. Shape: (T, N, V).
        kind: what is in a slot, see `envs.state.KINDS`; 0 where nothing is. Shape: (T, N, V).
        length, width, height: of the boxes [m]. Shape: (T, N, V).
        form: what they look like, an index into `envs.state.FORMS`. Shape: (T, N, V).
        frames: number of valid frames, the start included. Shape: (N,).
        actions: of the policy: int64 meta-actions, or float32 throttle and steering. Shape: (S, N), of several agents
            (S, N, A), of continuous actions with K more at the end.
        rewards: Shape: (S, N).
        steps: number of valid policy steps. Shape: (N,).
        dt: time between two frames [s].
        frames_per_step: simulation frames in a policy step.
        camera: the newest picture that the policy saw when it acted, uint8, or None without a camera.
            Shape: (S, N, 3, H, W).
        route: what the policy was told of its route when it acted, see `envs.sensors.route`, or None. Shape: (S, N, 7).
        signal: what each signal head shows, or None. Shape: (T, N, heads).
        success: 1 where the episode ended at its goal, 0 where not, -1 where the scenario has none; or None.
            Shape: (N,).
        ways: over the networks that are driven on; None on a parallel road, which runs along +x.
        routes: roads that each ego's route takes, see `Ways.routes`.
        map: number of the network that each world drives on, or None. Shape: (N,).
        lanes: that are driven on; None where drivers do not keep to any.
        red_lights, box_time, green_wait: what the simulator has counted about the ego since the episode began, or
            None: red lights run, time [s] stood inside a junction, and at a green light with a free road ahead.
            Shape: (T, N).
    """

    x: Tensor
    y: Tensor
    heading: Tensor
    speed: Tensor
    acceleration: Tensor
    lane: Tensor
    target_lane: Tensor
    crashed: Tensor
    kind: Tensor
    length: Tensor
    width: Tensor
    height: Tensor
    form: Tensor
    frames: Tensor
    actions: Tensor
    rewards: Tensor
    steps: Tensor
    dt: float
    frames_per_step: int
    camera: Tensor | None = None
    route: Tensor | None = None
    signal: Tensor | None = None
    success: Tensor | None = None
    ways: Ways | None = None
    routes: tuple[tuple[int, ...], ...] = ()
    map: Tensor | None = None
    lanes: Lanes | None = None
    red_lights: Tensor | None = None
    box_time: Tensor | None = None
    green_wait: Tensor | None = None

    @cached_property
    def present(self) -> Tensor:
        """False for a slot in which nothing is. Shape: (T, N, V)."""
        return self.kind != 0

    @cached_property
    def recorded(self) -> Tensor:
        """True for the frames of the episode itself. Shape: (T, N)."""
        return torch.arange(self.x.shape[0], device=self.x.device)[:, None] < self.frames

    @cached_property
    def hit(self) -> Tensor:
        """True in episodes in which the ego collided. Shape: (N,)."""
        return (self.crashed[..., 0] & self.recorded).any(0)

    @cached_property
    def hit_frame(self) -> Tensor:
        """Frame of the ego's collision, or the last frame of an episode without one. Shape: (N,)."""
        first = (self.crashed[..., 0] & self.recorded).int().argmax(0)
        return torch.where(self.hit, first, self.frames - 1)

    @cached_property
    def driving(self) -> Tensor:
        """True up to and with the frame of the ego's collision, or to the end. Shape: (T, N)."""
        return torch.arange(self.x.shape[0], device=self.x.device)[:, None] <= self.hit_frame

    @cached_property
    def others(self) -> Tensor:
        """True for what is solid and not the ego: vehicles, people and obstacles, while driving. Shape: (T, N, V)."""
        others = self.present & (self.kind != LANDMARK) & self.driving[..., None]
        others[..., 0] = False
        return others

    @cached_property
    def lane_changed(self) -> Tensor:
        """True where the lane closest to the ego is another than in the frame before, and not just the one that
        follows: both are of one road, or it crosses over as it goes on to the next. Shape: (T - 1, N)."""
        lane = self.lane[..., 0]
        changed = lane[1:] != lane[:-1]
        if self.ways is None:
            return changed
        changed &= self.driving[1:]
        kinds, which = torch.stack([lane[:-1][changed], lane[1:][changed]], 1).unique(dim=0, return_inverse=True)
        beside = [self.ways.beside(before, after) for before, after in kinds.tolist()]
        changed[changed.clone()] = torch.tensor(beside, dtype=torch.bool, device=lane.device)[which]
        return changed

    @cached_property
    def on_lane(self) -> Places:
        """The ego's place on the lane closest to it, while driving: along it, to the right of its middle, and turned
        from its direction (-pi to pi). NaN elsewhere, and without lanes. Shape: (T, N)."""
        place = Places(*(torch.full_like(self.x[..., 0], torch.nan) for _ in range(3)))
        if self.lanes is not None:
            at = self.driving
            ego = (part[..., 0][at] for part in (self.x, self.y, self.heading))
            for part, values in zip(place, self.lanes.places(self.lane[..., 0][at].long(), *ego), strict=True):
                part[at] = values
        return place

    @cached_property
    def travelled(self) -> Tensor:
        """How far the ego has gone along its lanes since the frame before [m]: its movement in their direction, on a
        parallel road along +x. Negative against it, and NaN where there is no lane. Shape: (T - 1, N)."""
        dx, dy = self.x[..., 0].diff(dim=0), self.y[..., 0].diff(dim=0)
        if self.lanes is None:
            return torch.where(self.driving[1:], dx, 0.0) if self.ways is None else torch.full_like(dx, torch.nan)
        direction = (self.heading[..., 0] - self.on_lane.heading)[:-1]
        return torch.where(self.driving[1:], dx * direction.cos() + dy * direction.sin(), 0.0)

    @cached_property
    def outside(self) -> Tensor:
        """True where a corner of the ego is more than 0.3 m off everything that may be driven on, while driving. Shape:
        (T, N)."""
        found = torch.zeros_like(self.driving)
        if self.lanes is not None:
            at = self.driving
            box = [part[..., 0][at] for part in (self.x, self.y, self.heading, self.length, self.width)]
            place = Places(*(part[at] for part in self.on_lane))
            found[at] = self.lanes.outside(self.lane[..., 0][at].long(), place, box, OFF)
        return found

    @cached_property
    def against(self) -> Tensor:
        """True where the ego is on a lane, and on none that leads its way, while driving. Shape: (T, N)."""
        found = torch.zeros_like(self.driving)
        if self.lanes is not None:
            at = self.driving
            ego = (part[..., 0][at] for part in (self.x, self.y, self.heading))
            place = Places(*(part[at] for part in self.on_lane))
            found[at] = self.lanes.against(self.lane[..., 0][at].long(), place, *ego)
        return found

    @cached_property
    def in_one_lane(self) -> Tensor:
        """True where the ego's box is wholly within the lane closest to it, bends taken as straight. Shape: (T, N)."""
        if self.lanes is None:
            return torch.zeros_like(self.driving)
        turn = self.on_lane.heading
        reach = 0.5 * (self.length[..., 0] * turn.sin().abs() + self.width[..., 0] * turn.cos().abs())
        return self.on_lane.across.abs() + reach <= 0.5 * self.lanes.width.to(reach)[self.lane[..., 0].long()]

    @cached_property
    def traffic_speed(self) -> tuple[Tensor, Tensor]:
        """Mean speed of the vehicles within 100 m of the ego [m/s], and whether there are any. Shape: (T, N) each."""
        mean, some = torch.zeros_like(self.x[..., 0]), torch.zeros_like(self.driving)
        for part in self.finder.chunks():
            x, y, kind = self.x[part], self.y[part], self.kind[part]
            dx, dy = x - x[..., :1], y - y[..., :1]
            near = (dx * dx + dy * dy <= NEAR**2) & (kind > 0) & (kind < OBSTACLE) & self.driving[part, :, None]
            near[..., 0] = False
            count = near.sum(-1)
            mean[part] = (self.speed[part] * near).sum(-1) / count.clamp(min=1)
            some[part] = count > 0
        return mean, some

    # --- the ego and others -------------------------------------------------------------------------------------------

    @cached_property
    def finder(self) -> Finder:
        """Finds the few others that matter to a measure."""
        return Finder(self)

    @cached_property
    def concerning(self) -> Pairs:
        """Who may be in the ego's way, or nearer to it than RSS has it, on the ego's way."""
        return self.finder.on_the_way(self.finder.concerning)

    @cached_property
    def nearness(self) -> Nearness:
        """How near other vehicles and obstacles are on the ego's way, and how fast, while the ego moves."""
        pairs = self.concerning
        counts = self.kind.reshape(-1)[pairs.index] < WALKER
        pairs = pairs.where(counts & (self.speed[..., 0].reshape(-1)[pairs.row].abs() > STANDS))
        ego, other = pairs.ego, pairs.other
        speed, other_speed = self.speed[..., 0].reshape(-1)[pairs.row], self.speed.reshape(-1)[pairs.index]
        side = torch.where(other.y < ego.y, -1.0, 1.0)
        return Nearness(
            row=pairs.row,
            ahead=other.x > 0,
            gap=other.x.abs() - ego.half_extent(1.0, 0.0) - other.half_extent(1.0, 0.0),
            beside=(other.y - ego.y).abs() - ego.half_extent(0.0, 1.0) - other.half_extent(0.0, 1.0),
            along=speed * ego.heading.cos(),
            other_along=other_speed * other.heading.cos(),
            sideways=side * speed * ego.heading.sin(),
            other_sideways=-side * other_speed * other.heading.sin(),
            crosses=other.heading.sin().abs() > math.sin(math.pi / 4),
        )

    @cached_property
    def leader(self) -> Leader:
        """The leader in every frame: of what the ego's box would touch if it went on along its way, at its distance
        from the way's middle, while everything stands still, the first. Exact for boxes of any heading on a straight
        road; where the way bends it is bent straight, and the boxes in it keep their shape. On a network it is no more
        than 100 m away."""
        pairs = self.concerning
        # Bounds of the boxes, never too small, tell most pairs apart; only the rest is swept.
        reach = 0.5 * sum(part for box in (pairs.ego, pairs.other) for part in box[3:])
        halves = (0.5 * (box.length * box.heading.sin().abs() + box.width) for box in (pairs.ego, pairs.other))
        possible = (pairs.other.x > -reach) & ((pairs.other.y - pairs.ego.y).abs() < sum(halves))
        if self.ways is not None:
            at = (part.reshape(-1)[pairs.index] - part[..., 0].reshape(-1)[pairs.row] for part in (self.x, self.y))
            possible &= torch.hypot(*at) <= AHEAD
        # Nobody leads who is behind another whose inner circle is in the way.
        inner = sum(0.5 * torch.minimum(box.length, box.width) for box in (pairs.ego, pairs.other))
        surely = possible & (pairs.other.x > 0) & ((pairs.other.y - pairs.ego.y).abs() < inner)
        bound = torch.where(surely, pairs.other.x, torch.inf)
        bound = bound.new_full((self.driving.numel(),), torch.inf).scatter_reduce(0, pairs.row, bound, "amin")
        pairs = pairs.where(possible & (pairs.other.x - reach <= bound[pairs.row]))
        gaps = first_contact(pairs.ego, pairs.other, 1.0, 0.0)

        shape, rows = self.driving.shape, self.driving.numel()
        gap = gaps.new_full((rows,), torch.inf).scatter_reduce(0, pairs.row, gaps, "amin")
        nearest = (gaps == gap[pairs.row]) & gaps.isfinite()
        index, row = pairs.index[nearest], pairs.row[nearest]
        # Of several at one distance it is the one in the first slot.
        none = index.new_full((rows,), self.x.numel())
        first = none.scatter_reduce(0, row, index, "amin")
        there = first < self.x.numel()
        slot = torch.where(there, first % self.x.shape[-1], 0)
        closing = torch.zeros_like(gap)
        own, other = pairs.ego.heading[nearest], pairs.other.heading[nearest]
        speeds = self.speed.reshape(-1)[index], self.speed[..., 0].reshape(-1)[row]
        mine = index == first[row]
        closing[row[mine]] = (speeds[1] * own.cos() - speeds[0] * other.cos())[mine]
        return Leader(gap.view(shape), slot.view(shape), closing.view(shape))

    @cached_property
    def meeting(self) -> Tensor:
        """Time until the ego's box meets another's if both keep their velocity in the plane, up to 3 s [s]; infinite
        where it meets none. Who is behind the ego, by nuPlan's angle of 150 degrees, is not asked. Shape: (T, N)."""
        pairs = self.finder.in_the_plane(self.finder.closing)
        cos, sin = pairs.ego.heading.cos(), pairs.ego.heading.sin()
        pairs = pairs.where(pairs.other.x * cos + pairs.other.y * sin >= BEHIND * torch.hypot(*pairs.other[:2]))
        speed, own = self.speed.reshape(-1)[pairs.index], self.speed[..., 0].reshape(-1)[pairs.row]
        vx = own * pairs.ego.heading.cos() - speed * pairs.other.heading.cos()
        vy = own * pairs.ego.heading.sin() - speed * pairs.other.heading.sin()
        times = first_contact(pairs.ego, pairs.other, vx, vy)
        least = times.new_full((self.driving.numel(),), torch.inf).scatter_reduce(0, pairs.row, times, "amin")
        return torch.where(least <= HORIZON, least, torch.inf).view(self.driving.shape)
