"""Trajectory: what happened in a batch of episodes, at the simulation's frequency, as arrays."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from evaluation.geometry import Boxes, first_contact

# Arrays of one value a frame, world and vehicle, under the names that the simulator's state gives them.
MOVING = ("x", "y", "heading", "speed", "acceleration", "lane", "target_lane", "crashed")
SIZES = ("length", "width", "height")


class Leader(NamedTuple):
    """The nearest vehicle ahead in the ego's way. Every field has shape (T, N)."""

    gap: Tensor  # distance the ego can go straight along the road before its box touches the leader's [m]; inf: none
    slot: Tensor  # its vehicle slot; 0 where there is none
    closing: Tensor  # speed of the ego along the road minus the leader's [m/s]; 0 where there is none


@dataclass(frozen=True)
class Trajectory:
    """N episodes, one a world. T: recorded frames, V: vehicle slots (slot 0 is the ego), S: policy steps.

    Frame 0 is the start of the episode; frame 1 + k is the state after the k-th simulation frame.

    Attributes:
        x, y: centres of the boxes [m]; the road runs along +x, y grows to the right. Shape: (T, N, V).
        heading: [rad]. Shape: (T, N, V).
        speed: [m/s]. Shape: (T, N, V).
        acceleration: [m/s2]. Shape: (T, N, V).
        lane, target_lane: int. Shape: (T, N, V).
        crashed: bool, True from the frame of a vehicle's first collision on. Shape: (T, N, V).
        present: bool, False for a slot without a vehicle. Shape: (T, N, V).
        length, width, height: of the boxes at the start [m]. Shape: (N, V).
        frames: number of valid frames, the start included. Shape: (N,).
        actions: of the policy, int64. Shape: (S, N).
        rewards: Shape: (S, N).
        steps: number of valid policy steps. Shape: (N,).
        dt: time between two frames [s].
        frames_per_step: simulation frames in a policy step.
        camera: the newest picture that the policy saw when it acted, uint8, or None without a camera.
            Shape: (S, N, 3, H, W).
    """

    x: Tensor
    y: Tensor
    heading: Tensor
    speed: Tensor
    acceleration: Tensor
    lane: Tensor
    target_lane: Tensor
    crashed: Tensor
    present: Tensor
    length: Tensor
    width: Tensor
    height: Tensor
    frames: Tensor
    actions: Tensor
    rewards: Tensor
    steps: Tensor
    dt: float
    frames_per_step: int
    camera: Tensor | None = None

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
        """True for vehicles that are there and are not the ego, while driving. Shape: (T, N, V)."""
        others = self.present & self.driving[..., None]
        others[..., 0] = False
        return others

    def boxes(self, frame: Tensor, world: Tensor, slot: Tensor) -> Boxes:
        """The boxes of the vehicles with these indices. Shape of each argument and of each field: (P,)."""
        at, who = (frame, world, slot), (world, slot)
        return Boxes(self.x[at], self.y[at], self.heading[at], self.length[who], self.width[who])

    @cached_property
    def leader(self) -> Leader:
        """The leader in every frame: of the vehicles that the ego's box would touch if it went straight along the road,
        while they stand still, the first one. Exact for boxes of any heading."""
        # Bounds of the boxes, cheap and never too small, tell most pairs apart; only the rest is swept.
        reach = 0.5 * (self.length + self.width)
        halfway = 0.5 * (self.length * self.heading.sin().abs() + self.width)
        ahead = self.x - self.x[..., :1] > -(reach + reach[:, :1])
        in_the_way = (self.y - self.y[..., :1]).abs() < halfway + halfway[..., :1]
        frame, world, slot = (self.others & ahead & in_the_way).nonzero(as_tuple=True)
        gaps = torch.full_like(self.x, torch.inf)
        gaps[frame, world, slot] = first_contact(
            self.boxes(frame, world, torch.zeros_like(slot)), self.boxes(frame, world, slot), 1.0, 0.0
        )
        gap, nearest = gaps.min(-1)
        theirs = nearest[..., None]
        speed = self.speed.gather(-1, theirs) * self.heading.gather(-1, theirs).cos()
        closing = self.speed[..., 0] * self.heading[..., 0].cos() - speed[..., 0]
        return Leader(gap, nearest, torch.where(gap.isfinite(), closing, 0.0))
