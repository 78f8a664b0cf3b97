"""Families of staged cases: parameters with ranges, numbered draws from them, and what their builders share.

A family turns a few numbers, in the units of its source, into one scene (`envs.scenarios.stage.Case`). Draw `number`
under `seed` is a function of the family's name, the seed and the number alone: the shares of the ranges are words of
the counter-based generator Philox, keyed by name and seed, with the number in its counter. So draws are independent of
each other, as the statistics of rates assume, a longer list begins with the shorter one, and a case can be made again
from its id "family/seed-number".
"""

import bisect
import functools
import itertools
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from envs.errors import UserError
from envs.roads.lanes import Lane
from envs.roads.network import LaneIndex
from envs.scenarios.stage import MAPS, Actor, Case

# m, of the ego and of every car.
LENGTH, WIDTH = 5.0, 2.0
MOST_TRIES = 10_000  # draws of parameters for one case
ID = re.compile(r"([a-z0-9]+(?:-[a-z0-9]+)*)/(0|[1-9]\d*)-(\d{4}|[1-9]\d{4,})")

Parameters = dict[str, float]


@dataclass(frozen=True)
class Range:
    """What values a parameter has.

    Attributes:
        low, high: the least and the greatest.
        unit: for people to read.
        step: between two values; None where every value between low and high is equally likely.
    """

    low: float
    high: float
    unit: str = ""
    step: float | None = None

    def __post_init__(self):
        if not self.low <= self.high or (self.step is not None and not self.step > 0):
            raise UserError(f"a range needs low <= high and a positive step, not {self.low}, {self.high}, {self.step}")

    def at(self, share: float) -> float:
        """The value at a share of the range, 0 <= share < 1."""
        if self.step is None:
            return self.low + share * (self.high - self.low)
        values = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        return self.low + self.step * math.floor(share * values)

    def __contains__(self, value: float) -> bool:
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return self.low <= value <= self.high and abs(steps - round(steps)) < 1e-6


def always(parameters: Parameters) -> bool:
    """Every combination of parameters makes sense."""
    return True


@dataclass(frozen=True)
class Family:
    """Scenes of one kind.

    Attributes:
        name: the first part of their ids.
        title: what happens, in one line.
        source: the document and what of it; "own choice" where a number has none.
        parameters: their ranges.
        build: makes the case of an id and of parameters. Raises a `UserError` for a scene that does not fit on its map.
        valid: which combinations make sense; draws that do not are drawn again.
    """

    name: str
    title: str
    source: str
    parameters: dict[str, Range]
    build: Callable[[str, Parameters], Case]
    valid: Callable[[Parameters], bool] = always


# --- draws ------------------------------------------------------------------------------------------------------------


def drawn(family: Family, seed: int, number: int) -> Case:
    """Case `number` of a family under a seed; both from 0 on."""
    if min(seed, number) < 0 or max(seed, number) >= 2**64:
        raise UserError(f"seeds and numbers of cases must be whole numbers from 0 on, not {seed} and {number}")
    words = np.random.Philox(key=[zlib.crc32(family.name.encode()), seed], counter=[0, number, 0, 0])
    for _ in range(MOST_TRIES):
        shares = (words.random_raw(len(family.parameters)) >> np.uint64(11)) * 2.0**-53
        parameters = {
            name: each.at(share) for (name, each), share in zip(family.parameters.items(), shares.tolist(), strict=True)
        }
        if family.valid(parameters):
            return family.build(f"{family.name}/{seed}-{number:04d}", parameters)
    raise UserError(f"'{family.name}' has hardly any valid parameters in its ranges; widen them")


def draw(family: Family, count: int, seed: int) -> list[Case]:
    """The first `count` cases of a family under a seed."""
    return [drawn(family, seed, number) for number in range(count)]


def parse(id: str) -> tuple[str, int, int]:
    """Family, seed and number of an id.

    Raises:
        UserError: it is none.
    """
    found = ID.fullmatch(id)
    if not found:
        raise UserError(f"'{id}' is no id of a case: they look like 'cut-in/1000000-0042', family / seed - number")
    return found[1], int(found[2]), int(found[3])


# --- what builders share ----------------------------------------------------------------------------------------------


def metres_per_second(speed: float) -> float:
    """A speed in km/h, as the sources give it, in m/s."""
    return speed / 3.6


def scene(
    id: str, parameters: Parameters, map: str, start: tuple[float, float, float], speed: float, actors, **more
) -> Case:
    """A case in which the ego starts at x, y, heading [m, rad] and wants to keep its speed [m/s].

    Raises:
        UserError: somebody would start beside the map.
    """
    actors = tuple(actors)
    x0, y0, x1, y1 = _bounds(map)
    for x, y in (start[:2], *((actor.x, actor.y) for actor in actors)):
        if not (x0 <= x <= x1 and y0 <= y <= y1):
            raise UserError(f"case '{id}' does not fit on the map '{map}': somebody would start at ({x:.1f}, {y:.1f})")
    x, y, heading = start
    return Case(
        id=id, family=id.partition("/")[0], map=map, x=x, y=y, heading=heading, speed=speed, target_speed=speed,
        actors=actors, parameters=dict(parameters), **more,
    )  # fmt: skip


@functools.cache
def _bounds(map: str) -> tuple[float, float, float, float]:
    """Those of the lanes, and 4 m more, where people stand and cars are parked."""
    x0, y0, x1, y1 = MAPS[map]().bounds()
    return x0 - 4.0, y0 - 4.0, x1 + 4.0, y1 + 4.0


def robot(x: float, y: float, speed: float, heading: float = 0.0, **more) -> Actor:
    """A car that follows a script, by default that it keeps its speed."""
    return Actor("scripted", x, y, heading, speed, **more)


def standing(x: float, y: float, **more) -> Actor:
    """A car that stands for the whole case."""
    return robot(x, y, 0.0, **more)


class Way:
    """Lanes of a map that follow each other, as one line. The map is built when it is first asked for.

    Args:
        map: its name.
        lanes: their indices, in order.
    """

    def __init__(self, map: str, *lanes: LaneIndex):
        self._map, self._indices = map, lanes

    @functools.cached_property
    def _lanes(self) -> list[Lane]:
        return [MAPS[self._map]().lane(index) for index in self._indices]

    @functools.cached_property
    def starts(self) -> list[float]:
        """Where each lane begins, and where the last one ends [m]."""
        return [0.0, *itertools.accumulate(lane.length for lane in self._lanes)]

    @property
    def length(self) -> float:
        """Of all of it [m]."""
        return self.starts[-1]

    def at(self, s: float, r: float = 0.0) -> tuple[float, float, float]:
        """x, y [m] and heading [rad] at s m along the way, r m to its right."""
        k = min(max(bisect.bisect_right(self.starts, s) - 1, 0), len(self._lanes) - 1)
        lane, s = self._lanes[k], s - self.starts[k]
        x, y = lane.position(s, r).tolist()
        return x, y, float(lane.heading_at(s))


def stream(count: int, spacing: float, first: float, ends: tuple[float, float]) -> list[float]:
    """Places of vehicles one spacing apart, from the first one on backwards, without those beyond the ends [m]."""
    places = (first - k * spacing for k in range(count))
    return [place for place in places if ends[0] + LENGTH <= place <= ends[1] - LENGTH]
