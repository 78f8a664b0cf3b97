import numpy as np
import pytest
import torch

import envs
from evaluation.replay import Replay
from viewer.session import Live
from viewer.stage import Stage

FASTER = 3


class Always:
    """Takes one action, sure of it."""

    name = "always"

    def __init__(self, action: int = FASTER, observation: str = "state"):
        self.action, self.env_options = action, {"observation": observation}
        self.forgotten = 0

    def act(self, obs: dict) -> torch.Tensor:
        return torch.tensor([self.action])

    def explain(self, obs: dict) -> dict:
        probabilities = torch.full((1, 5), 0.05)
        probabilities[0, self.action] = 0.8
        return {"probabilities": probabilities, "value": torch.tensor([3.5])}

    def reset(self, done: torch.Tensor | None = None) -> None:
        self.forgotten += done is None or bool(done[0])


@pytest.fixture
def always() -> type:
    return Always


@pytest.fixture
def live():
    """Makes live sessions of highway-fast and closes them."""
    made = []

    def make(policy="always", seed: int = 5) -> Live:
        policy = Always() if policy == "always" else policy
        options = {"observation": "state"} if policy is None else policy.env_options
        made.append(Live(envs.make_vec("highway-fast", 1, device="cpu", **options), policy, seed))
        return made[-1]

    yield make
    for session in made:
        session.close()


@pytest.fixture
def stage(live):
    """A stage with a live session, which is closed with the session."""
    stages = []

    def make(session=None) -> Stage:
        stages.append(Stage(session or live()))
        return stages[-1]

    yield make
    for one in stages:
        for film in one._films.values():
            film.close()


@pytest.fixture
def replay() -> Replay:
    """3 decisions of 5 frames, 0.2 s apart: the ego at 25 m/s comes up to a car at 20 m/s, 15 m ahead at the start."""
    time = np.arange(16) * 0.2
    x = np.stack([25.0 * time, 20.0 + 20.0 * time], axis=1)
    crashed = np.zeros((16, 2), dtype=bool)
    crashed[-1] = True

    def rows(values) -> np.ndarray:
        return np.tile(np.float32(values), (16, 1))

    return Replay(
        x=x.astype(np.float32),
        y=rows([4.0, 4.0]),
        heading=rows([0.0, 0.0]),
        speed=rows([25.0, 20.0]),
        acceleration=rows([0.0, 0.0]),
        lane=rows([1, 1]).astype(np.int32),
        target_lane=rows([1, 1]).astype(np.int32),
        crashed=crashed,
        kind=np.ones((16, 2), dtype=np.int8),
        length=rows([5.0, 5.0]),
        width=rows([2.0, 2.0]),
        height=rows([1.5, 1.5]),
        form=rows([0, 0]).astype(np.int8),
        signal=np.zeros((16, 0), dtype=np.int8),
        ttc=np.float32(3.0 - time),
        headway=np.float32((15.0 - 5.0 * time) / 25.0),
        actions=np.array([1, 3, 4]),
        rewards=np.array([0.5, 0.25, 0.0], dtype=np.float32),
        scenario="highway-fast",
        title="a recording",
        dt=0.2,
        frames_per_step=5,
        action_names=("LANE_LEFT", "IDLE", "LANE_RIGHT", "FASTER", "SLOWER"),
        lanes=tuple((np.array([[0.0, 4.0 * k], [1000.0, 4.0 * k]]), "solid", "solid", 4.0) for k in range(2)),
    )
