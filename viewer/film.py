"""What the ego's camera sees at any moment of a scene, recorded or interpolated, not only when a policy looked."""

import numpy as np
import torch

import envs
from envs.scene import Scene
from envs.state import FORMS, IDM, LANDMARK
from evaluation.recorder import newest_picture


class Film:
    """One world's camera that is shown scenes from outside.

    Args:
        scenario: name of the scenario that the scenes are of.
        rig: name of the rig to film with, see `envs.sensors.rig`.
    """

    def __init__(self, scenario: str, rig: str):
        self._worlds = envs.make_vec(scenario, 1, device="cpu", frames=1, rig=rig)
        self._life: tuple[int, int, int] | None = None
        self._paint = np.zeros((self.slots, 3))

    @property
    def slots(self) -> int:
        """Number of vehicle slots that a scene must have."""
        return self._worlds.scenario.slots

    def paint(self, life: tuple[int, int, int]) -> np.ndarray:
        """The colours of the cars in a life: seed, world and episode. Shape: (V, 3), from 0 to 255."""
        if self._life != life:
            seed, world, episode = self._life = life
            self._worlds.reset(seed=seed, first_world=world)
            self._worlds.state.episode.fill_(episode)
            self._worlds.observe()
            self._paint = self._worlds.get_state()["sensor.paint"][0].numpy()
        return self._paint

    def picture(self, scene: Scene, life: tuple[int, int, int]) -> np.ndarray:
        """Film a scene.

        Args:
            scene: what to film; it has `slots` vehicle slots.
            life: seed, world and episode, which decide on the colours of the cars.

        Returns:
            uint8 [h, w, 3].
        """
        self.paint(life)
        columns = {
            "x": scene.x,
            "y": scene.y,
            "heading": scene.heading,
            "cos_heading": np.cos(scene.heading),
            "sin_heading": np.sin(scene.heading),
            "acceleration": scene.acceleration,
            "lane": scene.lane,
            "target_lane": scene.target_lane,
            "length": scene.length,
            "width": scene.width,
        }
        kind = np.where(scene.present, IDM, 0)
        if scene.form is not None:
            columns["form"] = scene.form
            kind = np.where(scene.present & (scene.form == FORMS.index("ground marking")), LANDMARK, kind)
        if scene.height is not None:
            columns["height"] = scene.height
        state = self._worlds.state
        for name, values in (columns | {"kind": kind}).items():
            state.tensors[name][0].copy_(torch.from_numpy(np.ascontiguousarray(values)))
        state.map[0] = scene.map
        state.signal[0, : len(scene.signals)] = torch.from_numpy(scene.signals[:, 3]).int()
        obs = self._worlds.observe()
        return newest_picture(obs["camera"])[0].permute(1, 2, 0).numpy()

    def close(self) -> None:
        """End its threads."""
        self._worlds.close()
