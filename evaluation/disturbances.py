"""Disturbances of the other road users: what scripted actors do, second by second, beyond their scripts.

Time is cut into intervals, and in each an actor has an acceleration along its base heading and a speed to the right of
it on top of its script's. A case with disturbances is a case with other scripts: nothing in the simulator knows of
them, and whatever drives cases drives it. An actor is disturbed from the start of the episode on; where it waits, or
its script begins when the ego gets somewhere, from when the script begins. Who stands for the whole case is not.

The prior: all of them are independent and normal with a mean of 0. Standard deviations and bounds are our choice.

                  standard deviation    disturbance alone     script and disturbance    speed it leads to
    cars          1 m/s2, 0.3 m/s       -8 to 8 m/s2          -8 to 4 m/s2              0 to the model's top speed
                                        -1 to 1 m/s, and at most 0.1 of the speed along
    people        0.3 m/s2, 0.2 m/s     -1.5 to 1.5 m/s2      -1.5 to 1.5 m/s2          0 to 3 m/s
                                        -0.6 to 0.6 m/s, and at most the speed along

A script that is beyond a bound by itself may be as it is, but no disturbance takes it farther.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from envs.errors import UserError
from envs.physics.bicycle import MAX_SPEED
from envs.scenarios.stage import Actor, Case, Segment, Trigger

DIGITS = 4  # of disturbances [m/s2, m/s], so that a file says exactly what was driven
INSTANT = 1e-9  # s, pieces of a script shorter than this are left out
MOST_INTERVALS = 1000


@dataclass(frozen=True)
class Kind:
    """How actors of a kind are disturbed.

    Attributes:
        deviations: standard deviations of the acceleration and of the lateral speed [m/s2, m/s].
        most: greatest of either, both ways [m/s2, m/s].
        accelerations: least and greatest of script and disturbance together [m/s2].
        top_speed: to which disturbances lead at most [m/s].
        slip: greatest lateral speed as a share of the speed along.
    """

    deviations: tuple[float, float]
    most: tuple[float, float]
    accelerations: tuple[float, float]
    top_speed: float
    slip: float


CAR = Kind((1.0, 0.3), (8.0, 1.0), (-8.0, 4.0), MAX_SPEED, 0.1)
PERSON = Kind((0.3, 0.2), (1.5, 0.6), (-1.5, 1.5), 3.0, 1.0)


def kind_of(actor: Actor) -> Kind:
    """How an actor is disturbed."""
    return PERSON if actor.form == "person" else CAR


def movers(case: Case) -> tuple[int, ...]:
    """Numbers of the actors of a case that can be disturbed: those that follow a script and ever move."""
    return tuple(
        number
        for number, actor in enumerate(case.actors)
        if actor.motion == "scripted"
        and (actor.speed > 0.0 or any(piece.acceleration > 0.0 or piece.lateral_speed for piece in actor.script))
    )


# --- a case with them -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Disturbances:
    """Of a case. K: intervals.

    Attributes:
        interval: how long each lasts [s].
        actors: number of an actor -> its accelerations and lateral speeds [m/s2, m/s]. Shape: (K, 2).
    """

    interval: float
    actors: dict[int, np.ndarray]

    def of(self, case: Case) -> Case:
        """The case with these disturbances, kept within the bounds."""
        actors = list(case.actors)
        for number, table in self.actors.items():
            if table.any():
                actors[number] = _disturbed(actors[number], self.interval, table.tolist())
        return replace(case, actors=tuple(actors))

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "interval": self.interval,
            "actors": {str(number): table.tolist() for number, table in self.actors.items() if table.any()},
        }

    @staticmethod
    def read(case: Case, found: Any) -> "Disturbances":
        """From what `document` gives, for a case.

        Raises:
            UserError: they are none, or none of this case.
        """
        try:
            interval = float(found["interval"])
            actors = {int(number): np.array(table, dtype=float) for number, table in found["actors"].items()}
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise UserError(f"disturbances are an interval and tables by the actor's number: {error!r}") from None
        if not 0.0 < interval < math.inf:
            raise UserError(f"the interval of disturbances must be above 0 s, not {interval:g}")
        for number, table in actors.items():
            if number not in movers(case):
                known = ", ".join(map(str, movers(case))) or "none"
                raise UserError(f"actor {number} cannot be disturbed; those that follow a script and move: {known}")
            if table.ndim != 2 or table.shape[1] != 2 or not np.isfinite(table).all():
                raise UserError(f"actor {number} needs [acceleration, lateral speed] for every interval")
            if len(table) > MOST_INTERVALS:
                raise UserError(f"actor {number} has {len(table)} intervals; {MOST_INTERVALS} are the most")
        return Disturbances(interval, actors)


def _disturbed(actor: Actor, interval: float, table: list[list[float]]) -> Actor:
    kind, script, trigger = kind_of(actor), actor.script, actor.trigger
    if trigger.arrival == 0.0 and not actor.waits:
        # It keeps its speed until its script begins, which is a piece of a script like any other.
        if trigger.time > 0.0:
            script = (Segment(trigger.time), *script) if script else ()
        trigger = Trigger(time=0.0)
    speed, pieces = actor.speed, []
    for lasts, piece, (acceleration, lateral_speed) in _cut(script or (Segment(1.0),), interval, table):
        if math.isinf(lasts):
            pieces.append(replace(piece, duration=1.0))  # the last one goes on for ever
            break
        least, most = kind.accelerations
        total = piece.acceleration + acceleration
        total = min(max(total, min(least, piece.acceleration)), max(most, piece.acceleration))
        total = min(total, max(piece.acceleration, (max(kind.top_speed, speed) - speed) / lasts))
        after = min(max(speed + total * lasts, 0.0), MAX_SPEED)
        aside = min(kind.most[1], kind.slip * min(speed, after))
        pieces.append(Segment(lasts, total, piece.lateral_speed + min(max(lateral_speed, -aside), aside)))
        speed = after
    return replace(actor, script=tuple(pieces), trigger=trigger)


def _cut(
    script: tuple[Segment, ...], interval: float, table: list[list[float]]
) -> Iterator[tuple[float, Segment, list[float]]]:
    """A script cut where its pieces and where intervals end: how long each part lasts, of which piece it is, and its
    disturbance. The last one has no end."""
    now, k, j, ends = 0.0, 0, 0, math.inf
    piece_ends = script[0].duration if len(script) > 1 else math.inf
    while True:
        interval_ends = (j + 1) * interval if j < len(table) else math.inf
        ends = min(piece_ends, interval_ends)
        if ends - now > INSTANT:
            yield ends - now, script[k], table[j] if j < len(table) else [0.0, 0.0]
        if math.isinf(ends):
            return
        now = ends
        j += interval_ends <= ends
        if piece_ends <= ends:
            k += 1
            piece_ends = piece_ends + script[k].duration if k + 1 < len(script) else math.inf


# --- all that a case can have -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sequences:
    """Disturbances of a case as points, whose D coordinates the prior makes independent standard normals.

    Attributes:
        case: whose actors are disturbed.
        interval: how long a disturbance lasts [s].

    Raises:
        UserError: nobody in the case can be disturbed, or the interval is impossible.
    """

    case: Case
    interval: float

    def __post_init__(self):
        if not self.case.duration / MOST_INTERVALS <= self.interval < math.inf:
            raise UserError(f"an interval of {self.interval:g} s cuts a case of {self.case.duration:g} s into no parts")
        if not movers(self.case):
            raise UserError(f"'{self.case.id}' has no scripted actor that moves: there is nobody to disturb")

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Actors, intervals, and 2 for acceleration and lateral speed."""
        return len(movers(self.case)), math.ceil(self.case.duration / self.interval - INSTANT), 2

    @cached_property
    def dimension(self) -> int:
        """D."""
        return math.prod(self.shape)

    @cached_property
    def _deviations(self) -> np.ndarray:
        kinds = [kind_of(self.case.actors[number]) for number in movers(self.case)]
        return np.array([kind.deviations for kind in kinds])[:, None, :]

    @cached_property
    def most(self) -> np.ndarray:
        """Greatest of every coordinate, either way. Shape: (D,)."""
        kinds = [kind_of(self.case.actors[number]) for number in movers(self.case)]
        most = np.array([kind.most for kind in kinds])[:, None, :] / self._deviations
        return np.broadcast_to(most, self.shape).reshape(-1)

    def at(self, point: np.ndarray) -> Disturbances:
        """Those of a point (D,), in as many digits as files have."""
        tables = np.round(point.reshape(self.shape) * self._deviations, DIGITS) + 0.0
        return Disturbances(self.interval, dict(zip(movers(self.case), tables, strict=True)))

    def log_likelihood(self, disturbances: Disturbances) -> float:
        """log(p(disturbances) / p(none)) under the prior: minus half the sum of their squared standard scores."""
        tables = np.stack([disturbances.actors[number] for number in movers(self.case)])
        return -0.5 * float(((tables / self._deviations) ** 2).sum())
