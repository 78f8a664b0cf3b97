"""What speaks for and against a decision, laid on the picture that it was made upon; see `agents.saliency`."""

import numpy as np
import pygame

from envs.render import FAINT_TEXT, write

# From hardly anything to the largest share.
FOR = np.array([[255.0, 70.0, 0.0], [255.0, 235.0, 70.0]])
AGAINST = np.array([[60.0, 20.0, 255.0], [130.0, 250.0, 255.0]])
OPAQUE = 0.75  # what the largest share hides of the picture
BAR = 8  # height of the legend's bar [pixel]


def overlay(picture: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """A picture under the colours of its shares.

    Args:
        picture: uint8. Shape: (H, W, 3).
        shares: from 1, yellow, what speaks most for the decision, to -1, light blue, what speaks most against it.
            Shape: (H, W).

    Returns:
        uint8. Shape: (H, W, 3).
    """
    much = np.abs(shares)[..., None]
    faint, strong = (np.where(shares[..., None] > 0, FOR[k], AGAINST[k]) for k in (0, 1))
    colours = faint + much * (strong - faint)
    return (picture + OPAQUE * much * (colours - picture)).astype(np.uint8)


def draw_legend(surface: pygame.Surface, box: pygame.Rect, size: int) -> None:
    """What the colours mean: a bar along the top of a box, and words below it in letters of a size [pixel]."""
    shares = np.linspace(-1.0, 1.0, box.width)[None]
    bar = overlay(np.zeros((1, box.width, 3), dtype=np.uint8), shares)
    image = pygame.surfarray.make_surface(np.repeat(bar, BAR, axis=0).swapaxes(0, 1))
    surface.blit(image, box.topleft)
    write(surface, "speaks against it", (box.left, box.top + BAR + 5), size, FAINT_TEXT)
    write(surface, "speaks for it", (box.right, box.top + BAR + 5), size, FAINT_TEXT, align="right")
