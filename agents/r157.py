"""The four driver models of UN Regulation 157: how a good driver brakes in an emergency.

What they avoid is what an automated vehicle has to avoid. They look at one other vehicle (a leader, one that cuts in,
or one that stands in the lane), answer with an acceleration along the lane, and never steer:

    cc      competent and careful human: a time to collision of 2 s or less, once the boxes overlap sideways
    reg157  the regulation's own formula (paragraph 5.2.5.2), from a lateral clearance of .5 m on
    rss     Responsibility-Sensitive Safety: longitudinal and lateral safe distances
    fsm     fuzzy safety model: brakes gently before it is late, hard when it is

All are pure functions of tensors with a value per vehicle. What a driver remembers is a `Memory` that goes in and
comes out:

    memory = model.start(speed)
    acceleration, memory = model.react(scene, memory, dt)
    speed = (speed + acceleration * dt).clamp_min(0)

The laws and figures are those of the program that the Joint Research Centre of the European Commission published
with Mattas et al., "Driver models for the definition of safety requirements of automated vehicles in international
regulations", Accident Analysis & Prevention 174 (2022), and that ECE/TRANS/WP.29/2022/59 describes. docs/r157.md
says how they compare with it.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

GRAVITY = 9.81  # m/s2
WANDERING = 0.375  # m that a vehicle strays from the middle of its lane without anybody taking it for a lane change
_ROUNDING = 1e-9  # s; a delay that is a whole number of steps ends with them
_TABLE = ((7.2, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0), (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6))  # km/h, s


class Scene(NamedTuple):
    """The ego and the other vehicle at one moment. Every field is a tensor of one shape (N,), or broadcasts to it."""

    speed: torch.Tensor
    """Of the ego along the lane [m/s]."""
    acceleration: torch.Tensor
    """Of the ego over the last step [m/s2]."""
    other_speed: torch.Tensor
    """Of the other along the lane [m/s]."""
    gap: torch.Tensor
    """From the ego's front to the other's rear along the lane [m]; negative where the boxes overlap lengthwise, or the
    ego is in front."""
    length: torch.Tensor
    """Half the length of the ego's box and half that of the other's [m]."""
    clearance: torch.Tensor
    """Between the boxes across the lane [m]; negative where they overlap sideways."""
    approach: torch.Tensor
    """Speed of the other across the lane, towards the ego [m/s]; negative where it moves away."""


class Memory(NamedTuple):
    """What a driver remembers between steps. Every field is a tensor of shape (N,)."""

    delay: torch.Tensor
    """Until the brakes act [s]; runs only while there is danger, and is not wound up again."""
    braking: torch.Tensor
    """Deceleration of the last step with danger [m/s2]."""
    reacted: torch.Tensor
    """There has been danger before. From then on these drivers hold their speed where there is none."""

    def where(self, mask: torch.Tensor, other: "Memory") -> "Memory":
        """This memory where `mask` (N,), else the other's. To forget: `model.start(speed).where(done, memory)`."""
        return Memory(*(torch.where(mask, mine, theirs) for mine, theirs in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Driver:
    """What the four models have in common: brakes that act late and come on at a limited rate."""

    delay: float = 0.75
    """From danger to braking [s]."""
    jerk: float = 12.65
    """At which the brakes come on [m/s3]."""
    hardest: float = 0.774 * GRAVITY
    """Deceleration [m/s2]."""
    release: float = 0.0
    """Deceleration during the delay, of a foot that leaves the accelerator [m/s2]."""

    def start(self, speed: torch.Tensor) -> Memory:
        """The memory of drivers who have seen no danger yet, with the shape, type and device of `speed`."""
        zero = torch.zeros_like(speed)
        return Memory(zero + self.delay, zero, zero > 0)

    def danger(self, scene: Scene) -> torch.Tensor:
        """Whether the other vehicle calls for braking. Shape: (N,) bool."""
        raise NotImplementedError

    def danger_ahead(self, scene: Scene) -> torch.Tensor:
        """The same of a leader that is known to brake, or a vehicle that stands in the lane. Shape: (N,) bool."""
        return self.danger(scene)

    def harmless(self, scene: Scene) -> torch.Tensor:
        """Whether the driver takes a cut-in for harmless from now on. Shape: (N,) bool."""
        return torch.zeros_like(scene.speed, dtype=torch.bool)

    def wanted(self, scene: Scene) -> torch.Tensor:
        """The deceleration that suits the danger [m/s2]. Shape: (N,)."""
        return torch.full_like(scene.speed, self.hardest)

    def keeps(self, speed: torch.Tensor) -> torch.Tensor:
        """The distance to a leader of the same speed that the driver keeps [m]. Shape: as `speed` [m/s]."""
        return 2 * speed

    def react(
        self, scene: Scene, memory: Memory, dt: float = 0.1, danger: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Memory]:
        """One step of `dt` seconds.

        Args:
            scene: what is.
            memory: what was.
            dt: length of the step [s]; the published results are of .1 s.
            danger: (N,) bool, where somebody else has decided it already. By default `self.danger(scene)`.

        Returns:
            The acceleration [m/s2], (N,), never positive and 0 where there is no danger, and the memory for the next
            step. A speed below 0 is for the caller to prevent.
        """
        if danger is None:
            danger = self.danger(scene)
        waits = memory.delay > _ROUNDING
        rising = (memory.braking + self.jerk * dt).clamp_max(self.hardest)
        braking = torch.where(waits, self.release, torch.minimum(rising, self.wanted(scene)))
        delay = torch.where(waits & danger, memory.delay - dt, memory.delay)
        acceleration = torch.where(danger, -braking, torch.zeros_like(braking))
        return acceleration, Memory(delay, torch.where(danger, braking, memory.braking), memory.reacted | danger)


@dataclass(frozen=True)
class CCHuman(Driver):
    """Competent and careful human driver (UN R157, Annex 4, Appendix 3)."""

    release: float = 0.4
    critical: float = 2.0
    """Time to collision that calls for full braking [s]."""

    def danger(self, scene: Scene) -> torch.Tensor:
        """The boxes overlap sideways and the time to collision is at most `critical`. See `Driver.danger`."""
        return _in_front(scene) & (scene.clearance <= 0) & ~(_ttc(scene) > self.critical)

    def danger_ahead(self, scene: Scene) -> torch.Tensor:
        """Always: this driver has a law for cut-ins alone. See `Driver.danger_ahead`."""
        return torch.ones_like(scene.speed, dtype=torch.bool)

    def harmless(self, scene: Scene) -> torch.Tensor:
        """The boxes overlap sideways, and there is more time than `critical`. See `Driver.harmless`."""
        return _in_front(scene) & (scene.clearance <= 0) & (_ttc(scene) > self.critical)


@dataclass(frozen=True)
class Reg157(Driver):
    """The braking that UN R157 paragraph 5.2.5.2 demands of a system when somebody cuts in."""

    delay: float = 0.35
    jerk: float = math.inf
    hardest: float = 6.0
    near: float = 0.5
    """Lateral clearance from which on a vehicle counts as cutting in [m]."""
    margin: float = 0.1
    """Added to the critical time to collision [s]."""

    def danger(self, scene: Scene) -> torch.Tensor:
        """Within the lateral clearance and at most the time that delay and braking take. See `Driver.danger`."""
        critical = (scene.speed - scene.other_speed) / (2 * self.hardest) + self.delay + self.margin
        return _in_front(scene) & (scene.clearance <= self.near) & ~(_ttc(scene) > critical)

    def danger_ahead(self, scene: Scene) -> torch.Tensor:
        """Always: this driver has a law for cut-ins alone. See `Driver.danger_ahead`."""
        return torch.ones_like(scene.speed, dtype=torch.bool)


@dataclass(frozen=True)
class RSS(Driver):
    """Responsibility-Sensitive Safety (Shalev-Shwartz et al. 2017), with the figures used beside UN R157."""

    speeds_up: float = 3.0
    """Acceleration that the ego could have during the delay [m/s2]."""
    brakes: float = 6.0
    """Deceleration of either vehicle afterwards [m/s2]."""
    sideways: float = 1.0
    """Acceleration across the lane that the other could have, and could be stopped with [m/s2]."""
    lateral_margin: float = 0.3
    """mu [m]."""

    def danger(self, scene: Scene) -> torch.Tensor:
        """Both the longitudinal and the lateral distance are below the safe ones. See `Driver.danger`."""
        near = scene.gap < self._stopping(scene.speed) - scene.other_speed.square() / (2 * self.brakes)
        across = scene.approach.abs()
        drifted = across + self.sideways * self.delay
        lateral = self.lateral_margin + (across + drifted) * self.delay / 2 + drifted.square() / (2 * self.sideways)
        return _in_front(scene) & near & (scene.clearance < lateral)

    def keeps(self, speed: torch.Tensor) -> torch.Tensor:
        """A distance that is still safe when the leader has braked for the length of the delay. See `Driver.keeps`."""
        leader = (speed - self.delay * self.brakes).clamp_min(0)
        lost = self.brakes * self.delay**2 / 2
        return self._stopping(speed) - leader.square() / (2 * self.brakes) + lost

    def _stopping(self, speed: torch.Tensor) -> torch.Tensor:
        faster = speed + self.delay * self.speeds_up
        return (speed + faster) * self.delay / 2 + faster.square() / (2 * self.brakes)


@dataclass(frozen=True)
class FSM(Driver):
    """Fuzzy safety model (Mattas et al. 2020): braking in proportion to how unsafe the distance is."""

    gentle: float = 4.0
    """Deceleration that suffices where the distance is safe [m/s2]."""
    firm: float = 6.0
    """Deceleration without which the distance is unsafe [m/s2]."""
    leader: float = 7.0
    """Deceleration that is expected of the other [m/s2]."""
    margin: float = 2.0
    """Between the vehicles when both stand [m]."""
    safe_margin: float = 2.0
    """Added to it for a distance that is entirely safe [m]."""

    def danger(self, scene: Scene) -> torch.Tensor:
        """The other is, or will be, in the way, and either metric is above 0. See `Driver.danger`."""
        return self._in_the_way(scene) & (self.proactive(scene) + self.critical(scene) > 0)

    def wanted(self, scene: Scene) -> torch.Tensor:
        """From `gentle` to `firm` with the critical metric; where it is 0, up to `gentle` with the proactive one."""
        critical = self.critical(scene)
        urgent = self.gentle + critical * (self.firm - self.gentle)
        return torch.where(critical > 0, urgent, self.proactive(scene) * self.gentle)

    def proactive(self, scene: Scene) -> torch.Tensor:
        """PFS, 0 to 1: how little the distance suffices should the leader brake. Shape: (N,)."""
        leader = scene.other_speed.square() / (2 * self.leader)
        rolled = scene.speed * self.delay
        safe = rolled + scene.speed.square() / (2 * self.gentle) - leader + self.safe_margin
        unsafe = rolled + scene.speed.square() / (2 * self.firm) - leader
        return _fuzzy(scene.gap - self.margin, safe, unsafe)

    def critical(self, scene: Scene) -> torch.Tensor:
        """CFS, 0 to 1: how little it suffices should the leader hold its speed and the ego its acceleration."""
        closing = scene.speed - scene.other_speed
        acceleration = scene.acceleration.clamp_min(-self.gentle)
        after = closing + acceleration * self.delay
        rolled = (closing + acceleration * self.delay / 2) * self.delay
        braking = after.square() / 2
        fuzzy = _fuzzy(scene.gap, rolled + braking / self.gentle, rolled + braking / self.firm)
        meeting = closing.square() / (2 * scene.acceleration).abs()  # where the ego is the slower one before it reacts
        fuzzy = torch.where(after < 0, (scene.gap < meeting).to(fuzzy.dtype), fuzzy)
        return torch.where(closing > 0, fuzzy, torch.zeros_like(fuzzy))

    def keeps(self, speed: torch.Tensor) -> torch.Tensor:
        """The distance that is entirely safe. See `Driver.keeps`."""
        rolled, leader = speed * self.delay, speed.square() / (2 * self.leader)
        return rolled + speed.square() / (2 * self.gentle) - leader + self.safe_margin + self.margin

    def _in_the_way(self, scene: Scene) -> torch.Tensor:
        """The boxes overlap sideways, or will by the time at which the ego has passed the other, and .1 s."""
        arrives = scene.clearance / scene.approach
        passes = (scene.gap + 2 * scene.length) / (scene.speed - scene.other_speed)
        cuts_in = (scene.approach > 0) & ~(arrives > passes + 0.1)
        return _in_front(scene) & ((scene.clearance <= 0) | cuts_in)


MODELS: dict[str, Driver] = {"cc": CCHuman(), "reg157": Reg157(), "rss": RSS(), "fsm": FSM()}


def following_distance(speed: torch.Tensor) -> torch.Tensor:
    """The least distance to a leader that UN R157 paragraph 5.2.3.3 allows [m].

    Speed times a time gap that the regulation tabulates from 1.0 s at 7.2 km/h to 1.6 s at 60 km/h and interpolates
    linearly, at least 2 m. Above the table, 1.6 s.

    Args:
        speed: [m/s], of any shape.
    """
    kmh, gaps = (torch.tensor(column, dtype=speed.dtype, device=speed.device) for column in _TABLE)
    at = (speed * 3.6).clamp(kmh[0], kmh[-1])
    k = (torch.searchsorted(kmh, at.contiguous(), right=True) - 1).clamp(0, len(kmh) - 2)
    gap = gaps[k] + (gaps[k + 1] - gaps[k]) * (at - kmh[k]) / (kmh[k + 1] - kmh[k])
    return (speed * gap).clamp_min(2.0)


def _in_front(scene: Scene) -> torch.Tensor:
    """The other's centre is not behind the ego's."""
    return scene.gap >= -scene.length


def _ttc(scene: Scene) -> torch.Tensor:
    """Gap over difference of speeds, whichever is the faster [s]; infinite at the same speed."""
    return (scene.gap / (scene.speed - scene.other_speed)).abs()


def _fuzzy(distance: torch.Tensor, safe: torch.Tensor, unsafe: torch.Tensor) -> torch.Tensor:
    """0 from the safe distance on, 1 up to the unsafe one, linear between."""
    share = (distance - safe) / (unsafe - safe)
    return torch.where(distance > safe, torch.zeros_like(share), torch.where(distance <= unsafe, 1.0, share))
