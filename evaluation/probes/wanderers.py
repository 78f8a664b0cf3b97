"""Worlds whose egos wander in their lanes, filmed with dense labels beside the pictures: see `perception.wandering`."""

import envs
from envs.scenarios import Scenario
from envs.sensors.rig import Rig
from evaluation.probes.labels import Reader
from perception.wandering import Poses, Wanderer


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
        self.driver = Wanderer(self.worlds, self._poses, seed)
        self.obs, _ = self.worlds.reset(first_world=0)

    def _poses(self) -> Poses:
        offset, turn, bend, _ = self.reader.on_lane()
        return offset, turn, bend

    def step(self) -> None:
        """Every ego acts once."""
        self.worlds.step(self.driver())

    def close(self) -> None:
        """Release the worlds."""
        self.worlds.close()
