"""Rules of junctions: lights, stop lines, and boxes that are to be kept clear."""

from typing import NamedTuple

import torch
from torch import Tensor

from envs.roads.signals import AMBER
from evaluation.metrics.base import Metric, Result
from evaluation.trajectory import Trajectory

COMFORT = 3.0  # m/s2: who could have stopped for an amber light without braking harder should have
BEFORE = 5.0  # m before a stop line in which to stop
STANDS = 0.5  # m/s


class Line(NamedTuple):
    """The ego crossing the end of a lane that has a signal or a stop line."""

    world: int
    frame: int  # the first in which the front of its box is beyond the line
    head: int  # the signal head that it has to obey, counted within its map; -1 at a stop line


def crossings(trajectory: Trajectory) -> list[Line]:
    """Where the ego drove over a line at which a signal or a stop sign stands, while driving.

    The front crosses before the lane closest to the centre changes: by as far as it is beyond the line then. Of the
    ways that begin at a line the one counts that was the closest lane last.
    """
    t, lanes = trajectory, trajectory.lanes
    if lanes is None or not (lanes.stop.any() or (lanes.head >= 0).any()):
        return []
    lane = t.lane[..., 0].long().cpu()
    before, after = lane[:-1], lane[1:]
    over = (lanes.end[before] == lanes.start[after]) & ((lanes.head[after] >= 0) | lanes.stop[before])
    way = torch.cat([t.travelled.new_zeros(1, lane.shape[1]), t.travelled.cumsum(0)]).cpu()
    along, half = t.on_lane.along.cpu(), 0.5 * t.length[0, :, 0].cpu()
    found = []
    for frame, world in (over & t.driving[1:].cpu()).nonzero().tolist():
        beyond = float(along[frame, world] + half[world] - lanes.length[lane[frame, world]])
        past = (way[:, world] >= way[frame, world] - beyond) if beyond > 0 else torch.arange(len(way)) > frame
        ways = lane[frame + 1 :, world]
        others = (lanes.start[ways] != lanes.start[ways[0]]).nonzero()
        last = int(others[0]) - 1 if len(others) else len(ways) - 1
        found.append(Line(world, int(past.int().argmax()), int(lanes.head[ways[last]])))
    return found


def _flags(trajectory: Trajectory, found: list[int]) -> Tensor:
    value = torch.zeros_like(trajectory.hit, dtype=torch.float32)
    value[torch.tensor(found, dtype=torch.int64)] = 1.0
    return value


def _where(trajectory: Trajectory, maps: Tensor) -> Tensor:
    """Whether the map of each world is one of these. Shape: (N,), bool."""
    if trajectory.map is None:
        return maps[0].to(trajectory.hit.device).expand(len(trajectory.hit))
    return maps.to(trajectory.map.device)[trajectory.map.long()]


def _counted(trajectory: Trajectory, counter: Tensor | None, law: str) -> Result:
    """What a counter of the simulator gained over the episode, where maps have such a law."""
    if counter is None or trajectory.lanes is None:
        return Result(torch.zeros_like(trajectory.hit, dtype=torch.float32), torch.zeros_like(trajectory.hit))
    end = counter.gather(0, trajectory.hit_frame[None])[0]
    return Result((end - counter[0]).float(), _where(trajectory, getattr(trajectory.lanes, law)))


def red_lights(trajectory: Trajectory) -> Result:
    """Red lights that the ego ran in an episode: its front passed the line while its way's signal was red. No unit.
    Threshold: any. Valid where there are signals.

    Source: CARLA leaderboard, running a red light; counted by the simulator, see `envs.physics.junctions`.
    """
    return _counted(trajectory, trajectory.red_lights, "signals")


def blocked_box(trajectory: Trajectory) -> Result:
    """Time that the ego stood inside a junction [s]. No threshold. Valid where junctions have a law.

    Source: UNECE Convention on Road Traffic (1968), article 18.3: not to enter a junction in which one may have to
    stop; counted by the simulator, see `envs.physics.junctions`.
    """
    return _counted(trajectory, trajectory.box_time, "ruled")


def amber_run(trajectory: Trajectory) -> Result:
    """1 where the ego crossed a line while its signal was amber, and could have stopped before it with 3 m/s2 from the
    moment that amber began, else 0: v^2 <= 2 * 3 m/s2 * distance of its front from the line. Threshold: any. Valid
    where there are signals.

    Source: UNECE Convention on Road Signs and Signals (1968), article 23: amber means stop, unless one cannot in
    safety.
    """
    t = trajectory
    if t.lanes is None or t.signal is None:
        return Result(torch.zeros_like(t.hit, dtype=torch.float32), torch.zeros_like(t.hit))
    found = []
    for line in crossings(t):
        if line.head < 0 or t.signal[line.frame, line.world, line.head] != AMBER:
            continue
        other = (t.signal[: line.frame, line.world, line.head] != AMBER).nonzero()
        since = int(other[-1]) + 1 if len(other) else 0
        distance = t.travelled[since : line.frame, line.world].sum()
        if t.speed[since, line.world, 0] ** 2 <= 2 * COMFORT * distance:
            found.append(line.world)
    return Result(_flags(t, found), _where(t, t.lanes.signals))


def stop_line(trajectory: Trajectory) -> Result:
    """1 where the ego crossed a stop line without a signal and had not stood, slower than 0.5 m/s, with its front
    within 5 m before it, else 0. Threshold: any. Valid where it crossed one.

    Source: CARLA leaderboard, running a stop sign.
    """
    t = trajectory
    lines = [line for line in crossings(t) if line.head < 0]
    found = []
    for line in lines:
        way = t.travelled[: line.frame, line.world].flip(0).cumsum(0).flip(0)  # still to go, in every frame before
        near = way <= BEFORE
        if not (t.speed[: line.frame, line.world, 0][near].abs() < STANDS).any():
            found.append(line.world)
    return Result(_flags(t, found), _flags(t, [line.world for line in lines]).bool())


RED_LIGHTS = Metric(
    "red_lights",
    "Red lights run",
    "",
    "mean",
    "lower",
    "How many red lights the ego ran, in an episode.",
    red_lights,
    source="CARLA leaderboard, running a red light",
    everywhere=False,
)
AMBER_RUN = Metric(
    "amber_run",
    "Amber light run",
    "",
    "rate",
    "lower",
    "Share of episodes in which the ego drove on at an amber light for which it could have stopped with 3 m/s2.",
    amber_run,
    source="UNECE Convention on Road Signs and Signals 1968, article 23",
    everywhere=False,
)
STOP_LINE = Metric(
    "stop_line",
    "Stop line run",
    "",
    "rate",
    "lower",
    "Share of episodes in which the ego crossed a stop line without having stood before it; over those with one.",
    stop_line,
    source="CARLA leaderboard, running a stop sign",
    everywhere=False,
)
BLOCKED_BOX = Metric(
    "blocked_box",
    "Stood in a junction",
    "s",
    "mean",
    "lower",
    "Time that the ego stood inside a junction.",
    blocked_box,
    source="UNECE Convention on Road Traffic 1968, article 18.3",
    digits=1,
    everywhere=False,
)
