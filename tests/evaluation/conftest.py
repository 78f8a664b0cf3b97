"""A tiny world whose every number is known in closed form, with the interface of `envs.api.VecWorlds`."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

FRAMES_PER_STEP, FREQUENCY, DURATION = 5, 5, 8.0


class FakeWorlds:
    """The ego drives at 25 m/s in lane 0; slot 1 drives ahead of it at 20 m/s, slot 2 is absent.

    World k under seed s starts with slot 1 at 20 + (s + k) % 40 m, centre to centre; boxes are 5 m long. The first
    frame in which they overlap is a collision; its policy step ends the episode. Reward: 1 a step.
    """

    scenario = SimpleNamespace(
        name="fake",
        simulation_frequency=FREQUENCY,
        policy_frequency=1,
        frames_per_step=FRAMES_PER_STEP,
        duration=DURATION,
    )
    road = SimpleNamespace(polylines=lambda: [(np.array([[0.0, 0.0], [1000.0, 0.0]]), "solid", "solid", 4.0)])
    action_names = ("LANE_LEFT", "IDLE", "LANE_RIGHT", "FASTER", "SLOWER")
    device = torch.device("cpu")

    def __init__(self, num_worlds: int):
        self.num_worlds, self.first, self.closed = num_worlds, 0, False
        real = {name: torch.zeros(num_worlds, 3) for name in ("x", "y", "heading", "speed", "acceleration")}
        whole = {name: torch.zeros(num_worlds, 3, dtype=torch.int32) for name in ("lane", "target_lane", "crashed")}
        self.state = SimpleNamespace(
            **real,
            **whole,
            kind=torch.tensor([2, 1, 0], dtype=torch.int32).repeat(num_worlds, 1),
            length=torch.full((num_worlds, 3), 5.0),
            width=torch.full((num_worlds, 3), 2.0),
            height=torch.full((num_worlds, 3), 1.5),
            form=torch.zeros(num_worlds, 3, dtype=torch.int32),
            time=torch.zeros(num_worlds),
        )

    def _begin(self, where: torch.Tensor) -> None:
        state = self.state
        start = 20.0 + (self.first + torch.arange(self.num_worlds)) % 40
        state.x[where] = torch.stack([torch.zeros_like(start), start, torch.zeros_like(start)], 1)[where]
        state.speed[where] = torch.tensor([25.0, 20.0, 0.0])
        state.crashed[where] = 0
        state.time[where] = 0.0

    def reset(self, seed: int, first_world: int):
        self.first = seed + first_world
        self._begin(torch.ones(self.num_worlds, dtype=torch.bool))
        return {"speed": self.state.speed[:, :1] / 40}, {}

    def step(self, actions: torch.Tensor, on_frame=lambda: None):
        state = self.state
        for _ in range(FRAMES_PER_STEP):
            state.x += state.speed / FREQUENCY
            overlap = (state.x[:, 1] - state.x[:, 0]).abs() < 5.0
            state.crashed[:, :2] |= overlap[:, None]
            on_frame()
        state.time += 1.0
        terminated = state.crashed[:, 0] > 0
        truncated = ~terminated & (state.time >= DURATION)
        self._begin(terminated | truncated)
        return {"speed": state.speed[:, :1] / 40}, torch.ones(self.num_worlds), terminated, truncated, {}

    def close(self) -> None:
        self.closed = True


class FakePolicy:
    """Counts the worlds that it was told to forget, and drives straight on."""

    name, env_options = "straight", {}

    def __init__(self):
        self.resets = []

    def act(self, obs: dict) -> torch.Tensor:
        return torch.ones(len(obs["speed"]), dtype=torch.int64)

    def reset(self, done: torch.Tensor | None) -> None:
        self.resets.append(None if done is None else int(done.sum()))


@pytest.fixture
def make_worlds():
    return FakeWorlds


@pytest.fixture
def policy():
    return FakePolicy()
