"""The signal that an ego drives towards, and how many pixels of the picture its lit lamp takes.

Whether a lamp is seen is not guessed from distances: the picture is drawn again with the same head showing each
other colour. A pixel that differs from both other colours is a pixel of the lit lamp, behind a truck there is none.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from envs.roads.signals import AMBER, GREEN, RED
from evaluation.lanes import Lanes
from evaluation.recorder import newest_picture
from evaluation.ways import Ways

AHEAD = 80.0  # m from the ego's centre to the stop line: a signal farther off is not looked for
SHOWS = (RED, AMBER, GREEN)


class Sight(NamedTuple):
    """The next signal of every world. Every field has shape (N,)."""

    head: Tensor  # int64, counted within the world's map; -1 where there is none
    distance: Tensor  # from the ego's centre to the stop line, along its way [m]
    colour: Tensor  # int64: 0 red, 1 amber, 2 green; -1 where there is none
    pixels: Tensor  # int64, of its lit lamp in the newest picture, all cameras together

    @staticmethod
    def nothing(worlds: int, device: torch.device) -> "Sight":
        """No signal anywhere."""
        none = torch.full((worlds,), -1, dtype=torch.int64, device=device)
        return Sight(none, torch.full((worlds,), torch.inf, device=device), none.clone(), torch.zeros_like(none))


def next_signal(lanes: Lanes, ways: Ways, lane: int, along: float, route: tuple[int, ...]) -> tuple[int, float] | None:
    """The signal head that is obeyed at the first signal on the way, and the distance to its stop line [m].

    Args:
        lanes, ways: of the worlds.
        lane: that the ego is on, counted through all maps.
        along: its place on it [m].
        route: roads of its route, see `Ways.routes`.

    Returns:
        None where there is none within `AHEAD`, or the ego is on the way through a junction already.
    """
    if int(lanes.head[lane]) >= 0:
        return None
    distance = float(lanes.length[lane]) - along
    while distance <= AHEAD:
        following = ways.following(lane, route)
        if following is None:
            return None
        if int(lanes.head[following]) >= 0:
            return int(lanes.head[following]), distance
        lane = following
        distance += float(lanes.length[lane])
    return None


def lamps(env, head: Tensor, colour: Tensor) -> Tensor:
    """Pixels of the lit lamp of one head a world, in the newest picture of all cameras. Shape: (N,) int64.

    Args:
        env: a `VecWorlds` with a camera; its state and pictures are as before afterwards.
        head: counted within each world's map, -1 for none. Shape: (N,).
        colour: that it shows, 0 to 2. Shape: (N,).
    """
    pixels = torch.zeros_like(head)
    worlds = (head >= 0).nonzero()[:, 0]
    if len(worlds) == 0:
        return pixels
    saved = env.get_state()
    pictures = []
    # The one with its own colour too: traffic may have come or gone since the picture was taken.
    for shows in SHOWS:
        env.state.signal[worlds, head[worlds]] = shows
        pictures.append(newest_picture(env.observe()["camera"])[worlds].clone())
    env.set_state(saved)
    pictures = torch.stack(pictures)  # [colour, world, channel, row, column]
    own, at = colour[worlds], torch.arange(len(worlds), device=head.device)
    lit = [(pictures[own, at] != pictures[(own + step) % len(SHOWS), at]).any(1) for step in (1, 2)]
    pixels[worlds] = (lit[0] & lit[1]).flatten(1).sum(1)
    return pixels
