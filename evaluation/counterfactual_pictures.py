"""Pictures of a change: the camera's before and after it, where they differ, the saliency, and the scene from above."""

import io
from dataclasses import dataclass, replace

import numpy as np
import pygame
from imageio.v3 import imwrite

from envs.render import draw
from envs.scene import Scene, View
from evaluation import page
from evaluation.counterfactual_changes import Change
from evaluation.counterfactual_episode import Saliency
from evaluation.counterfactual_studio import Moment, Observation, Studio
from evaluation.overlay import overlay

ABOVE_WIDTH, ABOVE_HEIGHT, METRES = 640, 224, 110.0  # [pixel], [m] across
RING, MARK = 4.5, (255, 120, 20)  # [m], RGB
FADED, GREY = 0.25, 110.0  # what is left of a pixel's colour that does not differ, and what it is mixed with


@dataclass(frozen=True)
class Pictures:
    """Of one change, as addresses that hold their content; None without a camera or a saliency.

    Attributes:
        before, after: the newest picture of the camera.
        differing: the first one, faded where the second is the same.
        salient: the first one, yellow where it speaks for the action and light blue where it speaks against it.
        above: the scene from above, in the camera's colours, with a ring around what is changed.
    """

    before: str | None
    after: str | None
    differing: str | None
    salient: str | None
    above: str


def take(moment: Moment, change: Change, studio: Studio, saliency: Saliency | None = None) -> Pictures:
    """Take the pictures of a change in a moment."""
    shown = studio.show(moment, [change])
    scene = Scene.of(studio.worlds, 0)
    if "sensor.paint" in moment.state:  # the colours that the camera sees
        scene = replace(scene, paint=moment.state["sensor.paint"][0].cpu().numpy())
    above = _above(scene, change)
    if "camera" not in shown:
        return Pictures(None, None, None, None, above)
    before, after = newest(shown, 0), newest(shown, 1)
    salient = None
    if saliency is not None:
        salient = _png(overlay(before, saliency(moment.obs, moment.action)[0].cpu().numpy()))
    return Pictures(_png(before), _png(after), _png(_faded(before, after)), salient, above)


def newest(obs: Observation, row: int) -> np.ndarray:
    """The newest picture of a world. Shape: (H, W, 3) uint8."""
    return obs["camera"][row, -3:].permute(1, 2, 0).cpu().numpy()


def _faded(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    same = (before == after).all(2, keepdims=True)
    return np.where(same, FADED * before + (1 - FADED) * GREY, before).astype(np.uint8)


def _above(scene: Scene, change: Change) -> str:
    zoom = ABOVE_WIDTH / METRES
    picture = draw(scene, ABOVE_WIDTH, ABOVE_HEIGHT, zoom)
    if change.place is not None:
        at = View.following(scene, ABOVE_WIDTH, ABOVE_HEIGHT, zoom).to_pixels(change.place)
        pygame.draw.circle(picture, MARK, at.tolist(), RING * zoom, 3)
    return _png(pygame.surfarray.array3d(picture).swapaxes(0, 1))


def _png(picture: np.ndarray) -> str:
    file = io.BytesIO()
    imwrite(file, np.ascontiguousarray(picture), extension=".png")
    return page.data("image/png", file.getvalue())
