"""Egos that wander in their lane: who keeps to its middle shows neither an offset nor a heading that could be read.

Each steers towards an offset from the middle that it draws anew every few seconds, with some noise, and sometimes does
with its pedals what it likes. Otherwise it keeps its distance as the cautious driver of `perception.drivers` does. It
sees signals no more than that one.
"""

import torch
from torch import Tensor

import envs
from envs.physics.actions import ACCELERATION_RANGE, META_ACTIONS, STEERING_RANGE
from envs.physics.control import HALF_LENGTH
from envs.scenarios import Scenario
from envs.sensors.rig import Rig
from evaluation.probes.labels import Reader
from perception.drivers import cautious

OFFSET = 1.4  # m: the farthest from the middle that is steered to
REDRAWN = 0.25  # chance a second that the offset is drawn anew, and as much that the pedals are
TURN = 0.15  # rad: the largest heading error that is steered to
SWAY = 1.0  # m/s sideways: standard deviation of the noise, up to TURN
WILFUL = 0.25  # share of the worlds that just now do with their pedals what they like
PEDALS = {"FASTER": 2.0, "SLOWER": -4.0}  # m/s2
SLOWEST = 2.0  # m/s: below, steering is as at this speed
MARGIN = 5.0  # m/s by which speeds may be out of the range of the scenario's target speeds


class Wanderers:
    """Worlds of one scenario whose egos wander, filmed by randomised cameras, with dense labels beside the pictures.

    Args:
        scenario: what is simulated; of several agents there is one.
        num_worlds: how many, N.
        device: as in `envs.make_vec`.
        frames: camera frames stacked in one picture.
        seed: of the worlds and of what the egos draw.
        rig: the cameras.

    Attributes:
        worlds: the `VecWorlds`.
        reader: of their labels.
        obs: "camera", "semantic" and "bev" of the present, see `envs.make_vec`: the simulator's own buffers.
    """

    def __init__(self, scenario: Scenario, num_worlds: int, device: str, frames: int, seed: int, rig: Rig):
        self.worlds = envs.make_vec(
            scenario,
            num_worlds=num_worlds,
            device=device,
            observation=("camera", "bev"),
            channels=("rgb", "semantic"),
            seed=seed,
            frames=frames,
            ego="continuous",
            randomize=True,
            rig=rig,
            agents=1,
        )
        self.reader = Reader(self.worlds)
        self.paced = not scenario.actions.names and not scenario.actions.throttle  # only steering is up to them
        self.generator = torch.Generator(self.worlds.device).manual_seed(seed)
        self.offset, self.pedals = self._uniform(-OFFSET, OFFSET), self._uniform(-4.0, 3.0)
        self.wilful = self._uniform(0, 1) < WILFUL
        self.obs, _ = self.worlds.reset(first_world=0)

    def _uniform(self, low: float, high: float) -> Tensor:
        drawn = torch.rand(self.worlds.num_worlds, generator=self.generator, device=self.worlds.device)
        return low + (high - low) * drawn

    def step(self) -> None:
        """Every ego acts once."""
        period = 1.0 / self.worlds.scenario.policy_frequency
        anew = self._uniform(0, 1) < REDRAWN * period
        self.offset = torch.where(anew, self._uniform(-OFFSET, OFFSET), self.offset)
        anew = self._uniform(0, 1) < REDRAWN * period
        self.wilful = torch.where(anew, self._uniform(0, 1) < WILFUL, self.wilful)
        self.pedals = torch.where(anew, self._uniform(-4.0, 3.0), self.pedals)
        actions = torch.stack([self._acceleration() / ACCELERATION_RANGE[1], self._steering(period)], 1)
        self.worlds.step(actions.clamp(-1, 1))

    def _acceleration(self) -> Tensor:
        """What the pedals are told [m/s2]. Shape: (N,)."""
        state, (low, high, _) = self.worlds.state, self.worlds.scenario.target_speeds
        meant = torch.tensor([PEDALS.get(name, 0.0) for name in META_ACTIONS], device=state.speed.device)
        told = torch.where(self.wilful, self.pedals, meant[cautious(self.worlds)])
        speed = state.speed[:, 0]
        if self.paced:
            return torch.zeros_like(speed)
        told = torch.where(speed > high + MARGIN, told.clamp(max=0.0), told)
        told = torch.where(speed < max(low - MARGIN, 0.0), told.clamp(min=1.0), told)
        return torch.maximum(told, -speed.clamp(min=0.0))  # nobody reverses

    def _steering(self, period: float) -> Tensor:
        """Steering that leads to the wanted heading within a step, as a share of all of it. Shape: (N,)."""
        offset, turn, bend, _ = self.reader.on_lane()
        speed = self.worlds.state.speed[:, 0].clamp(min=SLOWEST)
        noise = torch.randn(turn.shape, generator=self.generator, device=turn.device)
        missing = self.offset - offset - speed * turn * period / 2
        wanted = (missing / speed).clamp(-TURN, TURN) + noise * (SWAY / speed).clamp(max=TURN)
        rate = speed * bend + (wanted - turn) / period
        sin_slip = (rate * HALF_LENGTH / speed).clamp(-0.6, 0.6)
        return torch.atan(2 * torch.tan(torch.asin(sin_slip))) / STEERING_RANGE[1]

    def close(self) -> None:
        """Release the worlds."""
        self.worlds.close()
