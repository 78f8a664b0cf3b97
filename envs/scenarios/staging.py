"""The host's side of staged cases: what is wrong with an impossible one, and the tables that kernels read."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from envs.errors import UserError, unknown
from envs.physics.bicycle import MAX_SPEED
from envs.physics.scripted import COLUMNS, NEVER, SEGMENT
from envs.roads.network import RoadNetwork
from envs.scenarios.placing import CAR_SIZE
from envs.state import FORMS, IDM, OBSTACLE, PLAIN

if TYPE_CHECKING:
    from envs.scenarios.stage import Actor, Case

MOTIONS = {"driver": IDM, "scripted": PLAIN, "still": OBSTACLE}
MOST_ACTORS = 60
BESIDE = 0.5  # m, how far beyond a lane's edge the centre of who drives on it may start
SPACING = 0.5  # m, of centre lines where the closest lane is sought

# Columns of the tables of cases and of actors.
CASE_INTS = ("map", "destination", "actors", "phase", "has_goal")
CASE_REALS = (
    "x", "y", "heading", "speed", "target_speed", "duration", "goal_x", "goal_y", "goal_radius", "phase_time",
)  # fmt: skip
ACTOR_INTS = ("kind", "form", "destination", "changes_lanes", "look")
ACTOR_REALS = ("x", "y", "heading", "speed", "target_speed", "length", "width", "height")


class Places:
    """Finds the lanes of a map.

    Args:
        network: the map.
    """

    def __init__(self, network: RoadNetwork):
        self.network = network
        count = [max(2, math.ceil(lane.length / SPACING) + 1) for lane in network.lanes]
        s = [np.linspace(0.0, lane.length, n) for lane, n in zip(network.lanes, count, strict=True)]
        self._points = np.concatenate([lane.position(at) for lane, at in zip(network.lanes, s, strict=True)])
        self._headings = np.concatenate([lane.heading_at(at) for lane, at in zip(network.lanes, s, strict=True)])
        self._lane = np.repeat(np.arange(len(network.lanes)), count)

    def lane_at(self, x: float, y: float, heading: float) -> int | None:
        """Number of the lane that somebody there drives on, None for none."""
        away = np.hypot(*(self._points - (x, y)).T)
        turned = np.abs((heading - self._headings + math.pi) % (2 * math.pi) - math.pi)
        nearest = int(np.argmin(away + turned))
        number = int(self._lane[nearest])
        return number if away[nearest] <= self.network.lanes[number].width / 2 + BESIDE + SPACING / 2 else None

    def roads_to(self, lane: int, destination: str) -> int:
        """How many roads a route has that begins on a lane.

        Raises:
            UserError: no such node, or no road leads there.
        """
        node = self.network.indices[lane][1]
        if destination not in self.network.nodes:
            raise unknown("destination", destination, self.network.nodes)
        return len(self.network.shortest_path(node, destination))


# --- checks -----------------------------------------------------------------------------------------------------------


def check(case: "Case", maps: dict[str, Callable[[], RoadNetwork]]) -> int:
    """Roads on the longest route of a case.

    Args:
        case: what is checked.
        maps: that there are, by name.

    Raises:
        UserError: it cannot be staged; the message names the case and what is wrong.
    """
    try:
        if case.map not in maps:
            raise unknown("map", case.map, maps)
        _check_ego(case, maps[case.map]())
        for actor in case.actors:
            _check_actor(actor)
        if len(case.actors) > MOST_ACTORS:
            raise UserError(f"at most {MOST_ACTORS} actors, not {len(case.actors)}")
        _check_overlaps(case)
        return _check_places(case, places(maps[case.map]))
    except UserError as error:
        raise UserError(f"case '{case.id}': {error}") from None


@functools.cache
def places(make: Callable[[], RoadNetwork]) -> Places:
    """`Places` of a map, made once."""
    return Places(make())


def _check_ego(case: "Case", network: RoadNetwork) -> None:
    _require_finite("the ego's start", case.x, case.y, case.heading, case.speed, case.target_speed, case.phase_time)
    _require_speed("the ego's speed", case.speed)
    if not 0 < case.target_speed <= MAX_SPEED:
        raise UserError(f"the ego's set speed must be above 0 and at most {MAX_SPEED:g} m/s, not {case.target_speed:g}")
    if not 0 < case.duration < math.inf:
        raise UserError(f"its duration must be above 0 s, not {case.duration:g} s")
    if case.goal is not None and (len(case.goal) != 3 or not case.goal[2] > 0):
        raise UserError(f"its goal must be x, y and a radius above 0 m, not {case.goal}")
    phases = 2 * len(network.junctions[0].phases) if network.junctions else 1
    if not 0 <= case.phase < phases or case.phase_time < 0:
        raise UserError(f"its signal phase must be 0 to {phases - 1} since 0 s or more, not {case.phase}")


def _check_actor(actor: "Actor") -> None:
    who = f"the {actor.form} at ({actor.x:g}, {actor.y:g})"
    if actor.motion not in MOTIONS:
        raise unknown("motion", actor.motion, MOTIONS)
    if actor.form not in FORMS:
        raise unknown("form", actor.form, FORMS)
    _require_finite(who, actor.x, actor.y, actor.heading, actor.speed, *actor.size)
    _require_speed(f"the speed of {who}", actor.speed)
    if len(actor.size) != 3 or not min(actor.size) > 0:
        raise UserError(f"{who} needs a length, a width and a height above 0 m, not {actor.size}")
    if actor.motion != "scripted" and actor.script:
        raise UserError(f"{who} has a script, but its motion is '{actor.motion}' and not 'scripted'")
    if actor.motion == "still" and actor.speed:
        raise UserError(f"{who} stands still: its speed must be 0, not {actor.speed:g} m/s")
    if actor.target_speed is not None:
        _require_speed(f"the target speed of {who}", actor.target_speed)
    for segment in actor.script:
        _require_finite(f"the script of {who}", segment.acceleration, segment.lateral_speed)
        if not segment.duration > 0 or abs(segment.lateral_speed) > MAX_SPEED:
            raise UserError(f"a segment of {who} needs a duration above 0 s and a possible speed, not {segment}")
    if math.isnan(actor.trigger.time) or not 0 <= actor.trigger.arrival < math.inf:
        raise UserError(f"the trigger of {who} needs a time and an arrival of 0 s or more, not {actor.trigger}")
    _require_finite(f"the trigger of {who}", *actor.trigger.point)


def _require_finite(what: str, *numbers: float) -> None:
    if not all(math.isfinite(number) for number in numbers):
        raise UserError(f"the numbers of {what} must be finite, not {numbers}")


def _require_speed(what: str, speed: float) -> None:
    if not 0 <= speed <= MAX_SPEED:
        raise UserError(f"{what} must be 0 to {MAX_SPEED:g} m/s, not {speed:g}")


def _check_places(case: "Case", known: Places) -> int:
    """Roads on the longest route. Raises where somebody who drives is on no lane, or has no way to its destination."""
    drivers = [actor for actor in case.actors if actor.motion == "driver"]
    longest = 1
    for who, name in [(case, "the ego"), *((actor, f"the {actor.form}") for actor in drivers)]:
        lane = known.lane_at(who.x, who.y, who.heading)
        if lane is None:
            raise UserError(f"{name} at ({who.x:g}, {who.y:g}) is on no lane of the map '{case.map}'")
        if who.destination is not None:
            longest = max(longest, known.roads_to(lane, who.destination))
    return longest


def _check_overlaps(case: "Case") -> None:
    bodies = [("the ego", case.x, case.y, case.heading, CAR_SIZE)]
    bodies += [(f"the {a.form} at ({a.x:g}, {a.y:g})", a.x, a.y, a.heading, a.size) for a in case.actors]
    for one, two in itertools.combinations(bodies, 2):
        reach = math.hypot(*one[4][:2]) / 2 + math.hypot(*two[4][:2]) / 2
        if math.hypot(one[1] - two[1], one[2] - two[2]) < reach and _overlap(one, two):
            raise UserError(f"{one[0]} and {two[0]} overlap at the start")


def _overlap(one: tuple, two: tuple) -> bool:
    """Whether two boxes do: no axis of either separates them."""
    corners = []
    for _, x, y, heading, (length, width, _) in (one, two):
        c, s = math.cos(heading), math.sin(heading)
        corners.append(
            np.array(
                [
                    (x + a * c - b * s, y + a * s + b * c)
                    for a in (-length / 2, length / 2)
                    for b in (-width / 2, width / 2)
                ]
            )
        )
    for heading in (one[3], one[3] + math.pi / 2, two[3], two[3] + math.pi / 2):
        axis = np.array([math.cos(heading), math.sin(heading)])
        a, b = corners[0] @ axis, corners[1] @ axis
        if a.max() <= b.min() or b.max() <= a.min():
            return False
    return True


# --- tables -----------------------------------------------------------------------------------------------------------


def destinations(cases: Sequence["Case"], names: Sequence[str]) -> list[list[str]]:
    """For each of the maps `names` the nodes that routes lead to in some case, by which they are counted."""
    found: dict[str, dict[str, None]] = {name: {} for name in names}
    for case in cases:
        for who in (case, *case.actors):
            if who.destination is not None:
                found[case.map][who.destination] = None
    return [list(found[name]) for name in names]


def task_tables(cases: Sequence["Case"], names: Sequence[str], slots: int) -> dict[str, np.ndarray]:
    """The tables of `Task`, by the columns above.

    Args:
        cases: of the stage.
        names: of its maps, in their order.
        slots: the ego's included.

    Returns:
        case_ints [case, column], case_reals, actor_ints [case, slot, column] and actor_reals; slot 0 is empty.
    """
    goals = [{node: k for k, node in enumerate(nodes)} for nodes in destinations(cases, names)]
    number = {name: k for k, name in enumerate(names)}
    actor_ints = np.zeros((len(cases), slots, len(ACTOR_INTS)), dtype=np.int32)
    actor_reals = np.zeros((len(cases), slots, len(ACTOR_REALS)))
    case_ints, case_reals = [], []
    for k, case in enumerate(cases):
        goal_of = {None: -1} | goals[number[case.map]]
        goal = case.goal or (0.0, 0.0, 0.0)
        case_ints.append(
            (number[case.map], goal_of[case.destination], len(case.actors), case.phase, case.goal is not None)
        )
        case_reals.append(
            (case.x, case.y, case.heading, case.speed, case.target_speed, case.duration, *goal, case.phase_time)
        )
        for slot, actor in enumerate(case.actors, start=1):
            kind, form, goal = MOTIONS[actor.motion], FORMS.index(actor.form), goal_of[actor.destination]
            actor_ints[k, slot] = kind, form, goal, actor.changes_lanes, actor.look
            speed = 0.0 if actor.waits and kind == PLAIN else actor.speed
            target = actor.speed if actor.target_speed is None else actor.target_speed
            actor_reals[k, slot] = actor.x, actor.y, actor.heading, speed, target, *actor.size
    return {
        "case_ints": np.array(case_ints, dtype=np.int32),
        "case_reals": np.array(case_reals, dtype=float),
        "actor_ints": actor_ints,
        "actor_reals": actor_reals,
    }


def scripts(cases: Sequence["Case"], slots: int) -> np.ndarray:
    """The table `Road.scripts`. Shape: (cases, slots, columns), see `envs.physics.scripted`."""
    longest = max((len(actor.script) for case in cases for actor in case.actors), default=0)
    result = np.zeros((len(cases), slots, len(COLUMNS) + len(SEGMENT) * longest))
    for row, case in zip(result, cases, strict=True):
        for numbers, actor in zip(row[1:], case.actors, strict=False):
            if actor.motion == "scripted":
                trigger = actor.trigger
                flat = [
                    x
                    for segment in actor.script
                    for x in (segment.duration, segment.acceleration, segment.lateral_speed)
                ]
                begins = (min(trigger.time, NEVER), *trigger.point, trigger.arrival, len(actor.script))
                head = (1, actor.x, actor.y, actor.heading, actor.speed, actor.waits, *begins)
                numbers[: len(head) + len(flat)] = (*head, *flat)
    # Durations without end are sums of what there is; the last segment's is never read.
    return np.minimum(result, NEVER)


def onward(networks: Sequence[RoadNetwork], goals: Sequence[Sequence[str]]) -> np.ndarray:
    """The lane after each lane on the way to each destination of its map, -1 for none; lanes through all maps.

    Shape: (lanes, 1 + most destinations); column 0 is for who has no destination and goes on to the closest.
    """
    count = 1 + max(len(nodes) for nodes in goals)
    result = np.full((sum(len(network.lanes) for network in networks), count), -1, dtype=np.int32)
    base = 0
    for network, nodes in zip(networks, goals, strict=True):
        for number, (_, node, place) in enumerate(network.indices):
            following = network.graph.get(node, {})
            width = len(network.graph[network.indices[number][0]][node])
            choices = {end: _continue(network, number, (node, end), place, width) for end in following}
            if choices:
                end = network.lanes[number].position(network.lanes[number].length)
                gaps = {k: float(np.hypot(*(network.lanes[k].position(0.0) - end))) for k in choices.values()}
                result[base + number, 0] = base + min(gaps, key=gaps.get)
            for column, goal in enumerate(nodes, start=1):
                ahead = _next_node(network, node, goal)
                if ahead in choices:
                    result[base + number, column] = base + choices[ahead]
        base += len(network.lanes)
    return result


def _continue(network: RoadNetwork, number: int, road: tuple[str, str], place: int, width: int) -> int:
    """The lane of a road that continues a lane: at the same place where both roads have as many, else the closest."""
    lanes = network.graph[road[0]][road[1]]
    if len(lanes) != width:
        end = network.lanes[number].position(network.lanes[number].length)
        place = int(np.argmin([np.hypot(*(lane.position(0.0) - end)) for lane in lanes]))
    return network.number((*road, place))


def _next_node(network: RoadNetwork, node: str, goal: str) -> str | None:
    """The node after `node` on the shortest path to `goal`, None where that is reached or out of reach."""
    try:
        path = network.shortest_path(node, goal)
    except UserError:
        return None
    return path[1] if len(path) > 1 else None
