"""Staged cases: concrete scenes with scripted actors, one a world, for evaluation.

A case says where the ego starts and what everybody else does. World k of a batch lives case `world_id % len(cases)` in
every episode, so a case comes out the same whatever batch it is part of. All lengths are in m, speeds in m/s, times in
s and headings in rad; x runs along the map, y to the right of +x.

Maps, by the name that a case gives (`MAPS`), and where their lanes lie. (from, to, place) names a lane, place 0 the
leftmost of its road; s is the distance from its start.

road: (a, b, 0 to 2), three lanes of 3.5 m along +x from x = 0 to 1500, at y = 0, 3.5 and 7. 36.2 m/s.
road4: the same with a fourth lane at y = 10.5.
two-way: (a, b, 0), 3.5 m wide along +x at y = 0, x from 0 to 800; (c, d, 0) comes towards it at y = -3.5, s = 800 - x.
    A dashed line is between them. 27.8 m/s.
street: (a, b, 0), 3.5 m wide along +x at y = 1.75, x from 0 to 250; (c, d, 0) comes towards it at y = -1.75,
    s = 250 - x. Kerbs at y = -5 and 5, a zebra 4 m wide around x = 125. 13.9 m/s.
merge: a motorway along +x, lanes of 4 m at y = 0 and 4, (a, b, k) to x = 230, (b, c, k) to 310, (c, d, k) to 460. The
    ramp is (j, k, 0) at y = 14.5, x from 0 to 150, (k, b, 0), which swings to y = 8 at x = 230, and (b, c, 2) at y = 8,
    which ends at x = 310; a case may put a barrier there. 30 m/s.
exit: a motorway along +x, six lanes of 4 m at y = 0 to 20, (0, 1, k) to x = 400, (1, 2, k) to 500 with a seventh at
    y = 24, (2, 3, k) to 1000. (2, exit, 0) bends to the right from (500, 24) with a radius of 150. 30 m/s, exit 20.
roundabout: a ring around (0, 0), anticlockwise as drawn, lanes of 4 m at radius 20 (place 0) and 24 (place 1), and arms
    s, e, n and w. From the south (ser, ses, 0) at x = 2, y from 140 to 50; (ses, se, 0) swings onto the ring's outer
    lane at (9.8, 21.9). Back south (sx, sxs, 0) from (-9.8, 21.9) and (sxs, sxr, 0) at x = -2, y from 50 to 140. The
    arms e, n and w are these turned once, twice and three times such that (x, y) becomes (y, -x). The ring goes on
    (se, ex), (ex, ee), (ee, nx), (nx, ne), (ne, wx), (wx, we), (we, sx), (sx, se). Destinations sxr, exr, nxr and wxr.
    Who is on the ring goes first. 13.9 m/s, the ring 8.
crossing: highway-env's four arms with a lane of 4 m each way, 0 south, 1 west, 2 north, 3 east, which meet within 11 m
    of (0, 0). From the south (i0, ir0, 0) at x = 2, y from 111 to 11; straight on (ir0, il2, 0), then (il2, o2, 0) at
    x = 2, y from -11 to -111; left (ir0, il1, 0), right (ir0, il3, 0). Arm k is the south's turned k times such that
    (x, y) becomes (-y, x): from the west along +x at y = 2, from the north along +y at x = -2, from the east along -x
    at y = -2. Destinations o0 to o3. West and east go first, there are no signals. 10 m/s.
signals: four arms s, w, n and e with one lane of 4 m each way, which meet within 16 m of (0, 0), where the stop lines
    are. From the south (x.s.from, x.s.in, 0) at x = 2, y from 144 to 16; straight on (x.s.in, x.n.out, 0), then
    (x.n.out, x.n.to, 0) at x = 2, y from -16 to -144; left to x.w, right to x.e. The others are turned as in
    "crossing". Destinations x.s.to, x.w.to, x.n.to and x.e.to. Phase 0: south and north are green (12 s); 1: amber
    (3 s) and all red (1.5 s) after that; 2: west and east are green; 3: after that. 13.9 m/s.

Where ways bend they are limited to 3.2 m/s2 sideways.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType

import numpy as np

from envs.errors import UserError
from envs.roads.lanes import CIRCULAR, SINE, Lane
from envs.roads.maps import crossings, exit, intersection, merge, roundabout, signalised
from envs.roads.maps.carriageway import markings, straights
from envs.roads.network import LaneIndex, RoadNetwork
from envs.roads.parallel import ParallelRoad
from envs.scenarios import staged, staging
from envs.scenarios.base import ActionSet, Scenario
from envs.sensors.lane_choice import LaneChoice
from envs.sensors.route import Route
from envs.sensors.surroundings import Surroundings
from envs.sensors.vehicle_list import VehicleList


@dataclass(frozen=True)
class Segment:
    """A piece of a script.

    Attributes:
        duration: how long it lasts [s]; the last one of a script goes on for ever.
        acceleration: along the actor's base heading [m/s2]; its speed never falls below 0.
        lateral_speed: to the right of the base heading [m/s].
    """

    duration: float
    acceleration: float = 0.0
    lateral_speed: float = 0.0


@dataclass(frozen=True)
class Trigger:
    """When a script begins: as soon as any of these holds.

    Attributes:
        time: since the episode began [s].
        point: a place [m], used with `arrival`.
        arrival: the ego's straight distance to the point is at most this times its speed, taken as at least 0.1 m/s;
            0 where it is not used [s].
    """

    time: float = math.inf
    point: tuple[float, float] = (0.0, 0.0)
    arrival: float = 0.0


@dataclass(frozen=True)
class Actor:
    """Somebody or something beside the ego.

    Attributes:
        motion: "driver" (IDM along lanes and its route), "scripted" (moves as the script says, whatever happens, until
            it crashes) or "still" (an obstacle).
        x, y: of its centre [m].
        heading: of its body; of a script its base heading [rad]. A driver's is its own at the start.
        speed: at the start [m/s].
        form: what it looks like, among `envs.state.FORMS`.
        size: length, width, height [m].
        target_speed: of a driver [m/s]; None for its start speed.
        destination: of a driver, the node that its route leads to; None to go where the roads lead.
        changes_lanes: whether a driver may.
        script: of a scripted one; without one it keeps its speed.
        trigger: when the script begins. Before that the actor keeps its start speed.
        waits: it stands before the trigger, and then starts with `speed`.
        look: number of its paint or clothing; 0 for the usual random draw.
    """

    motion: str
    x: float
    y: float
    heading: float = 0.0
    speed: float = 0.0
    form: str = "car"
    size: tuple[float, float, float] = (5.0, 2.0, 1.5)
    target_speed: float | None = None
    destination: str | None = None
    changes_lanes: bool = False
    script: tuple[Segment, ...] = ()
    trigger: Trigger = Trigger(time=0.0)
    waits: bool = False
    look: int = 0


@dataclass(frozen=True)
class Case:
    """One concrete scene.

    Attributes:
        id: "family/seed-number".
        family: what it is an instance of.
        map: a name in `MAPS`.
        x, y, heading, speed: the ego's start.
        target_speed: its set speed [m/s].
        destination: the node that its route leads to; None to go where the roads lead.
        actors: the others.
        duration: time limit [s].
        goal: x, y and radius [m] of the place that ends the episode with success; None for no goal.
        phase, phase_time: of the signal plan of the map's first junction at the start.
        parameters: the family's parameters that it was made from.
    """

    id: str
    family: str
    map: str
    x: float
    y: float
    heading: float
    speed: float
    target_speed: float
    destination: str | None = None
    actors: tuple[Actor, ...] = ()
    duration: float = 20.0
    goal: tuple[float, float, float] | None = None
    phase: int = 0
    phase_time: float = 0.0
    parameters: dict[str, float] = field(default_factory=dict, compare=False)


# --- maps -------------------------------------------------------------------------------------------------------------

LANE = 3.5  # m, width of the lanes of the roads that are made here
MOTORWAY_LIMIT, RURAL_LIMIT, TOWN_LIMIT = 36.2, 27.8, 13.9  # m/s: 130, 100 and 50 km/h
BESIDE_EXIT, EXIT_LIMIT = 30.0, 20.0  # m/s
SIDEWAYS = 3.2  # m/s2, to which bends are limited


def _road(lanes: int, length: float = 1500.0) -> RoadNetwork:
    result = RoadNetwork()
    for lane in straights((0.0, 0.0), (length, 0.0), markings(lanes, "left"), LANE, speed_limit=MOTORWAY_LIMIT):
        result.add_lane("a", "b", lane)
    return result


def _two_way(length: float = 800.0) -> RoadNetwork:
    result = RoadNetwork()
    ways = (("a", "b", (0.0, 0.0), (length, 0.0), "dashed"), ("c", "d", (length, -LANE), (0.0, -LANE), "none"))
    for start, end, first, last, middle in ways:
        (lane,) = straights(first, last, [(middle, "solid")], LANE, speed_limit=RURAL_LIMIT)
        result.add_lane(start, end, lane)
    return result


def _limited(network: RoadNetwork, limit: Callable[[Lane], float]) -> RoadNetwork:
    """The same roads with other speed limits [m/s]."""
    for roads in network.graph.values():
        for lanes in roads.values():
            lanes[:] = [replace(lane, speed_limit=limit(lane)) for lane in lanes]
    return network


def _bend_limit(lane: Lane) -> float:
    """The lower of a lane's limit, that of towns, and what its sharpest bend allows [m/s]."""
    curvature = 0.0
    if lane.kind == CIRCULAR:
        curvature = 1.0 / lane.parameters[2]
    elif lane.kind == SINE:
        curvature = abs(lane.parameters[4]) * lane.parameters[5] ** 2
    return min(lane.speed_limit, TOWN_LIMIT, math.sqrt(SIDEWAYS / max(curvature, 1e-6)))


def _exit() -> RoadNetwork:
    return _limited(exit.network(), lambda lane: EXIT_LIMIT if lane.kind == CIRCULAR else BESIDE_EXIT)


def _crossing() -> RoadNetwork:
    """Traffic comes from nodes of its own, so that drivers who have arrived do not turn round."""
    network, result = intersection.network(), RoadNetwork()
    for (start, end, _), lane in zip(network.indices, network.lanes, strict=True):
        result.add_lane(start.replace("o", "i") if end.startswith("ir") else start, end, lane)
    return _with_junctions(result)


class _Junctions(RoadNetwork):
    """A map whose drivers obey the law of junctions, by which they see what is beyond the end of their lane.

    They need no connected lanes for that, whose vehicles highway-env measures along the present lane, however the next
    one bends: who stands before a turn would take a car far down the road that it leads to for one right ahead.
    """

    def connections(self, index: LaneIndex) -> list[tuple[int, float]]:
        """See `RoadNetwork.connections`: none."""
        return []


def _with_junctions(network: RoadNetwork) -> RoadNetwork:
    """The same map as one on which drivers give way to each other and slow down for bends."""
    result = _Junctions()
    vars(result).update(vars(network))
    result.yields = True
    return _limited(result, _bend_limit)


# Each is built when it is first asked for, and the same network ever after.
MAPS: dict[str, Callable[[], RoadNetwork]] = {
    name: functools.cache(make)
    for name, make in {
        "road": lambda: _road(3),
        "road4": lambda: _road(4),
        "two-way": _two_way,
        "street": crossings.network,
        "merge": merge.generic,
        "exit": _exit,
        "roundabout": lambda: _with_junctions(roundabout.generic()),
        "crossing": _crossing,
        "signals": lambda: _with_junctions(signalised.network(signalised.Plan((1, 1)))),
    }.items()
}


# --- the scenario -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage(Scenario):
    """A scenario of staged cases. Make it with `of`.

    Attributes:
        cases: the scenes; world k lives number `world_id % len(cases)`.
        like: the scenario whose actions and state observation are taken over, that of a policy; or None.
    """

    cases: tuple[Case, ...] = field(default=(), repr=False)
    like: Scenario | None = None

    @property
    def task(self) -> ModuleType:
        """See `Scenario.task`."""
        return staged

    @property
    def longest(self) -> float:
        """No diagonal of anything is longer [m]."""
        sizes = [actor.size for case in self.cases for actor in case.actors]
        return max([Scenario.longest, *(math.hypot(length, width) for length, width, _ in sizes)])

    @property
    def map_names(self) -> list[str]:
        """The maps that cases use, in the order in which they are counted."""
        return list(dict.fromkeys(case.map for case in self.cases))

    def make_maps(self) -> list[RoadNetwork]:
        """See `Scenario.make_maps`."""
        return [MAPS[name]() for name in self.map_names]

    def destinations(self, maps: list[RoadNetwork]) -> list[list[str]]:
        """See `Scenario.destinations`."""
        return staging.destinations(self.cases, self.map_names)

    def scripts(self) -> np.ndarray:
        """What scripted actors do, see `envs.physics.scripted`. Shape: (cases, slots, columns)."""
        return staging.scripts(self.cases, self.slots)

    def task_values(self, maps: list[RoadNetwork], ego_kind: int) -> dict:
        """See `Scenario.task_values`."""
        tables = staging.task_tables(self.cases, self.map_names, self.slots)
        return tables | {"ego_kind": ego_kind, "step_duration": self.frames_per_step / self.simulation_frequency}

    def observation(self, simulation) -> list:
        """See `Scenario.observation`: that of `like`.

        Raises:
            UserError: what `like` observes needs its own map.
        """
        if self.like is None:
            return []
        road = self.like.road()
        if isinstance(road, ParallelRoad):
            # The same rows and columns, of which the sensor for parallel roads can make none here.
            return [VehicleList(simulation, lanes=road.lanes)]
        try:
            return self.like.observation(simulation)
        except (AttributeError, KeyError, ValueError, UserError) as error:
            raise UserError(
                f"the state observation of '{self.like.name}' needs its own map, staged cases have others: {error}"
            ) from None

    def extra_sensors(self, simulation) -> list:
        """See `Scenario.extra_sensors`: "surroundings" and "ego", "lanes" and "traffic"; "route" as `like` has it."""
        own = [Surroundings(simulation), LaneChoice(simulation)]
        if self.like is not None and self.like.tells_route:
            own.append(Route(simulation, self.manoeuvres(simulation.maps)))
        return own


TARGET_SPEEDS = (0.0, 40.0, 9)  # m/s, steps of 5
# Emergency braking is harder than the brakes of `envs.scenarios.base.CONTINUOUS`.
ACTIONS = ActionSet(kind="plain", names=(), acceleration_range=(-10.0, 10.0))


def of(cases: Sequence[Case], like: Scenario | None = None) -> Stage:
    """A scenario of these cases.

    Args:
        cases: at least one.
        like: the scenario that the policy to be tested was trained on. Its actions, frequencies, target speeds and
            state observation are taken over, but that meta-actions choose among 0, 5 ... 40 m/s. Without one there
            are continuous actions of -10 to 10 m/s2, decided on 10 times a second of 20 frames, and no "state".

    Raises:
        UserError: there are no cases, or one is impossible; the message names it.
    """
    cases = tuple(cases)
    if not cases:
        raise UserError("a stage needs at least one case")
    longest_route = max(staging.check(case, MAPS) for case in cases)
    taken = {"family": "stage", "actions": ACTIONS, "simulation_frequency": 20, "policy_frequency": 10}
    if like is not None:
        taken = {name: getattr(like, name) for name in taken}
    speeds = TARGET_SPEEDS
    if like is not None and like.actions.kind != "meta":
        speeds = like.target_speeds
    return Stage(
        name="stage",
        vehicles=max(1, *(len(case.actors) for case in cases)),
        duration=max(case.duration for case in cases),
        target_speeds=speeds,
        connected_lanes=True,
        route_steps=longest_route,
        cases=cases,
        like=like,
        **taken,
    )
