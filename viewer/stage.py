"""The whole picture of a session: the scene from above, the panel beside it, plates on top."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pygame

from envs import render
from envs.errors import UserError
from envs.render import METRES_ACROSS, PLATE
from envs.scenarios import SCENARIOS
from envs.sensors.rig import RIGS, of_image
from viewer import familiarity, panels
from viewer.film import Film
from viewer.panels import Picture
from viewer.session import Moment, Session

SIZE = (1360, 656)  # of the window at the start [pixel]
FEWEST_METRES, MOST_METRES = 25.0, 500.0
NARROW = 2 * panels.WIDTH  # a window narrower than this has no panel [pixel]
_UNEXPLAINED = "nobody decides here by pictures that could be explained"
FILMED = {"surround": "the policies' camera, live", "wide": "a wide camera, live"}


@dataclass
class Notes:
    """What is drawn on top for the moment: plates after the title (text, colour), a message, and the page of keys."""

    chips: Sequence[tuple[str, tuple]] = field(default_factory=list)
    message: str = ""
    keys: bool = False


class Stage:
    """Draws a session.

    Attributes:
        session: what is shown.
        metres: how much of the road fits across the scene [m].
        camera: index of the camera that is shown.
        method: of the saliency that is laid on what the policy acted upon, or None.
        familiarity: whether it is shown how unfamiliar that is.
    """

    def __init__(self, session: Session):
        self.session, self.metres, self.camera = session, METRES_ACROSS, 0
        self.method: str | None = None
        self.familiarity = False
        scene = session.now().scene
        scenario = SCENARIOS.get(session.scenario)
        self._films = {}
        if scenario is not None and scenario.slots == len(scene.x):
            self._films = {rig: Film(scenario.name, rig) for rig in FILMED}
        self.cameras: list[Callable[[Moment], Picture]] = [
            lambda moment, rig=rig: Picture(self._films[rig].picture(moment.scene, moment.life), RIGS[rig], FILMED[rig])
            for rig in self._films
        ]
        if scene.camera is not None:
            self.cameras.append(self._as_seen)

    def next_camera(self) -> None:
        """Show the next camera."""
        self.camera = (self.camera + 1) % max(1, len(self.cameras))

    def show_saliency(self, method: str | None) -> None:
        """Lay what spoke for and against the decisions on the picture that they were made upon, or take it away.

        Args:
            method: one of the session's; None for the picture alone.

        Raises:
            UserError: the session cannot say it by this method.
        """
        known = self.session.methods
        if method is not None and method not in known:
            raise UserError(_UNEXPLAINED if not known else f"only '{known[0]}' is recorded, not '{method}'")
        self.method = method
        if method is not None:
            self.camera = self.cameras.index(self._as_seen)

    def next_saliency(self) -> None:
        """Show it by the next method, and after the last one by none. Errors: those of `show_saliency`."""
        choices = (None, *(self.session.methods or ("",)))
        self.show_saliency(choices[(choices.index(self.method) + 1) % len(choices)])

    def show_familiarity(self, shown: bool) -> None:
        """Show how unfamiliar what the policy sees is, or no more.

        Raises:
            UserError: nobody knows.
        """
        if shown and self.session.unwatched:
            raise UserError(self.session.unwatched)
        self.familiarity = shown

    def zoom(self, factor: float) -> None:
        """Show `factor` times as much of the road, within bounds."""
        self.metres = float(np.clip(self.metres * factor, FEWEST_METRES, MOST_METRES))

    def scene_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of the scene in a picture of this size [pixel]."""
        return (size[0] - panels.WIDTH if size[0] >= NARROW else size[0]), size[1]

    def draw(self, size: tuple[int, int], notes: Notes | None = None) -> pygame.Surface:
        """The picture of the present moment.

        Args:
            size: width and height [pixel].
            notes: what is drawn on top.
        """
        notes = notes or Notes()
        session, moment = self.session, self.session.now()
        whole = pygame.Surface(size, 0, 32)
        whole.fill(PLATE)
        width, height = self.scene_size(size)
        seen = moment.scene
        if self._films:  # in the colours that the cameras show
            seen = replace(seen, paint=self._films[next(iter(FILMED))].paint(moment.life))
        scene = render.draw(seen, width, height, width / self.metres)
        panels.draw_plates(scene, session.title, notes.chips)
        if self.familiarity:
            familiarity.draw(scene, moment.unfamiliar)
        if moment.ended:
            panels.draw_ending(scene, moment.ended)
        if notes.message:
            panels.draw_message(scene, notes.message)
        if session.recorded:
            panels.draw_progress(scene, session.position / session.last)
        whole.blit(scene, (0, 0))
        if width < size[0]:
            picture = self.cameras[self.camera](moment) if self.cameras else None
            whole.blit(panels.draw_panel((panels.WIDTH, height), session, moment, picture), (width, 0))
        if notes.keys:
            panels.draw_help(whole)
        return whole

    def _as_seen(self, moment: Moment) -> Picture:
        """The picture that the policy acted upon, under its saliency if that is wanted."""
        pixels, label = moment.scene.camera, "what the policy acted upon"
        look = None if self.method is None else self.session.look(moment, self.method)
        if look is not None:
            pixels, label = look, f"{self.method}: yellow for, blue against"
        return Picture(pixels, of_image(*pixels.shape[:2]), label)

    def close(self) -> None:
        """Let go of the cameras and the session."""
        for film in self._films.values():
            film.close()
        self.session.close()
