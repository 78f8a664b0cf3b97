"""Trajectory: what happened in a batch of episodes, at the simulation's frequency, as arrays."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from envs.state import LANDMARK, OBSTACLE
from evaluation.geometry import Boxes, first_contact
from evaluation.ways import Places, Ways

# Arrays of one value a frame, world and vehicle, under the names that the simulator's state gives them.
MOVING = ("x", "y", "heading", "speed", "acceleration", "lane", "target_lane", "crashed", "kind")
BODIES = ("length", "width", "height", "form")


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
        signal: what each signal head shows, or None. Shape: (T, N, heads).
        success: 1 where the episode ended at its goal, 0 where not, -1 where the scenario has none; or None.
            Shape: (N,).
        ways: over the networks that are driven on; None on a parallel road, which runs along +x.
        routes: roads that each ego's route takes, see `Ways.routes`.
        map: number of the network that each world drives on, or None. Shape: (N,).
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
    signal: Tensor | None = None
    success: Tensor | None = None
    ways: Ways | None = None
    routes: tuple[tuple[int, ...], ...] = ()
    map: Tensor | None = None

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
    def traffic(self) -> Tensor:
        """True for the other vehicles, while driving. Shape: (T, N, V)."""
        return self.others & (self.kind < OBSTACLE)

    @cached_property
    def lane_changed(self) -> Tensor:
        """True where the lane closest to the ego is another than in the frame before, and not just the one that
        follows: both are of one road, or it crosses over as it goes on to the next. Shape: (T - 1, N)."""
        lane = self.lane[..., 0]
        changed = lane[1:] != lane[:-1]
        if self.ways is None:
            return changed
        for before, after in torch.stack([lane[:-1][changed], lane[1:][changed]], 1).unique(dim=0).tolist():
            if not self.ways.beside(before, after):
                changed &= (lane[:-1] != before) | (lane[1:] != after)
        return changed

    @cached_property
    def places(self) -> Places:
        """Where everything is along and across the ego's way. On a parallel road that is the plane itself."""
        if self.ways is None:
            return Places(self.x, self.y, self.heading)
        wanted = self.others.clone()
        wanted[..., 0] = self.driving
        return self.ways.places(self.x, self.y, self.heading, self.lane[..., 0], wanted, self.routes)

    def boxes(self, frame: Tensor, world: Tensor, slot: Tensor) -> Boxes:
        """The boxes of the vehicles with these indices, in `places`. Shape of each argument and field: (P,)."""
        at = (frame, world, slot)
        return Boxes(*(part[at] for part in self.places), self.length[at], self.width[at])

    @cached_property
    def leader(self) -> Leader:
        """The leader in every frame: of what the ego's box would touch if it went on along its way, at its distance
        from the way's middle, while everything stands still, the first. Exact for boxes of any heading on a straight
        road; where the way bends it is bent straight, and the boxes in it keep their shape."""
        x, y, heading = self.places
        # Bounds of the boxes, cheap and never too small, tell most pairs apart; only the rest is swept.
        reach = 0.5 * (self.length + self.width)
        halfway = 0.5 * (self.length * heading.sin().abs() + self.width)
        ahead = x - x[..., :1] > -(reach + reach[..., :1])
        in_the_way = (y - y[..., :1]).abs() < halfway + halfway[..., :1]
        frame, world, slot = (self.others & ahead & in_the_way).nonzero(as_tuple=True)
        gaps = torch.full_like(self.x, torch.inf)
        gaps[frame, world, slot] = first_contact(
            self.boxes(frame, world, torch.zeros_like(slot)), self.boxes(frame, world, slot), 1.0, 0.0
        )
        gap, nearest = gaps.min(-1)
        theirs = nearest[..., None]
        speed = self.speed.gather(-1, theirs) * heading.gather(-1, theirs).cos()
        closing = self.speed[..., 0] * heading[..., 0].cos() - speed[..., 0]
        return Leader(gap, nearest, torch.where(gap.isfinite(), closing, 0.0))
