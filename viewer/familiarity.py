"""How unfamiliar what the policy sees is: the share of familiar frames that score lower, as a bar on the scene."""

from pathlib import Path

import pygame

from agents import familiarity
from agents.familiarity import Watch, encoder_of
from envs.errors import UserError
from envs.render import FAINT_TEXT, PLATE, TEXT, write
from envs.vehicle_shapes import CRASH
from viewer.panels import TRACK, WARNING
from viewer.session import Live, Session

DOUBTFUL, UNFAMILIAR = 0.95, 0.99  # of familiar frames one in 20 and one in 100 is beyond
BOX = (236, 46)  # pixel
MARGIN = 12


def watch(session: Session, who: str | None, path: Path | None) -> None:
    """Let a session say how unfamiliar what its policy sees is, from its start.

    Args:
        session: what is shown.
        who: drives: the policy's specification.
        path: of what python -m train.familiarity wrote; by default the file in the policy's folder.

    Raises:
        UserError: nobody drives by a frozen encoder, or what is familiar to it is not known.
    """
    if not isinstance(session, Live):
        raise UserError("a recording does not say how unfamiliar what was seen is")
    encoder = encoder_of(session.policy)
    known, _ = familiarity.read(path or familiarity.folder_of(who) / familiarity.NAME, encoder, session.worlds.device)
    session.watch = Watch(session.policy, known, session.action_names)
    session.unwatched = ""
    session.restart()


def draw(scene: pygame.Surface, share: float | None) -> None:
    """The bar, in the upper right corner.

    Args:
        scene: to be drawn on.
        share: of familiar frames that score lower; None where nothing is known yet.
    """
    box = pygame.Rect(scene.get_width() - BOX[0] - MARGIN, MARGIN, *BOX)
    plate = pygame.Surface(box.size, pygame.SRCALPHA)
    pygame.draw.rect(plate, (*PLATE, 200), plate.get_rect(), border_radius=6)
    scene.blit(plate, box)
    known = share is not None
    colour = TEXT if not known or share < DOUBTFUL else WARNING if share < UNFAMILIAR else CRASH
    left, right = box.left + 10, box.right - 10
    write(scene, "less familiar than", (left, box.top + 7), 12, FAINT_TEXT)
    text = f"{100 * share:.1f} % of frames" if known else "not known yet"
    write(scene, text, (right, box.top + 7), 12, colour, align="right")
    track = pygame.Rect(left, box.bottom - 17, right - left, 8)
    pygame.draw.rect(scene, TRACK, track, border_radius=4)
    filled = round(share * track.width) if known else 0
    if filled >= 1:
        pygame.draw.rect(scene, colour, (*track.topleft, max(4, filled), track.height), border_radius=4)
