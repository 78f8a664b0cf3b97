"""Who is ahead and who behind, on networks of any shape, against highway-env's own `Road.neighbour_vehicles`.

The cases are those that highway-env tests itself on: neighbours on one segment, across connected straight segments and
curves, several lanes, missing connections. Each is set up in highway-env and, lane by lane and vehicle by vehicle, in
our network; both must name the same vehicles, and those that the case expects.
"""

import numpy as np
import pytest
import torch
import warp as wp
from highway_env.road.lane import CircularLane, SineLane, StraightLane
from highway_env.road.road import Road as UpstreamRoad
from highway_env.road.road import RoadNetwork as UpstreamNetwork
from highway_env.vehicle.kinematics import Vehicle
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.roads import general, lanes, network, network_table
from envs.state import PLAIN, WorldState, world_struct

real = wp.float64
functions = general.build(real)
World, Road = world_struct(real), functions.Road


@wp.kernel(module="unique")
def find(world: World, road: Road, i: int, lane: int, found: wp.array(dtype=wp.int32)):
    for j in range(world.slots):
        functions.locate(world, road, 0, j)
    pair = functions.neighbours(world, road, 0, i, lane)
    found[0] = pair[0]
    found[1] = pair[1]


def adapt(lane) -> lanes.Lane:
    """Our lane of highway-env's."""
    if isinstance(lane, CircularLane):
        return lanes.circular(tuple(lane.center), lane.radius, lane.start_phase, lane.end_phase, lane.clockwise)
    if isinstance(lane, SineLane):
        return lanes.sine(tuple(lane.start), tuple(lane.end), lane.amplitude, lane.pulsation, lane.phase)
    return lanes.straight(tuple(lane.start), tuple(lane.end))


class Case:
    """One scene in both simulators."""

    def __init__(self, roads: list[tuple[str, str, object]], vehicles: list[tuple[tuple, float]], connected: bool):
        upstream, self.ours = UpstreamNetwork(), network.RoadNetwork()
        for start, end, lane in roads:
            upstream.add_lane(start, end, lane)
            self.ours.add_lane(start, end, adapt(lane))
        self.road = UpstreamRoad(
            upstream, np_random=np.random.RandomState(0), neighbour_vehicles_connected_lanes=connected
        )
        self.connected = connected
        for index, s in vehicles:
            lane = upstream.get_lane(index)
            vehicle = Vehicle(self.road, lane.position(s, 0), lane.heading_at(s), 10)
            vehicle.lane_index, vehicle.lane = index, lane
            self.road.vehicles.append(vehicle)

    def upstream(self, i: int, index: tuple) -> tuple[int, int]:
        pair = self.road.neighbour_vehicles(self.road.vehicles[i], index)
        return tuple(-1 if vehicle is None else self.road.vehicles.index(vehicle) for vehicle in pair)

    def neighbours(self, i: int, index: tuple) -> tuple[int, int]:
        state = WorldState(1, len(self.road.vehicles), torch.device("cpu"), "float64")
        position = torch.tensor(np.array([vehicle.position for vehicle in self.road.vehicles]))
        state.x[0], state.y[0] = position[:, 0], position[:, 1]
        state.kind.fill_(PLAIN)
        found = wp.zeros(2, dtype=wp.int32, device="cpu")
        state.heading[0] = torch.tensor([vehicle.heading for vehicle in self.road.vehicles])
        road = network_table.table([self.ours], "float64", "cpu", self.connected)
        inputs = [state.warp, road, i, self.ours.number(index), found]
        wp.launch(find, 1, inputs, device="cpu")
        return tuple(found.numpy().tolist())


def two_segments():
    return [("a", "b", StraightLane([0, 0], [50, 0])), ("b", "c", StraightLane([50, 0], [100, 0]))]


def three_segments():
    return [*two_segments(), ("c", "d", StraightLane([100, 0], [150, 0]))]


def straight_then_curve():
    curve = CircularLane([50, -20], 20, np.pi / 2, 0, clockwise=False)
    return [("a", "b", StraightLane([0, 0], [50, 0])), ("b", "c", curve)]


def two_lanes():
    segments = (("a", "b", 0), ("b", "c", 50))
    return [(start, end, StraightLane([x, y], [x + 50, y])) for start, end, x in segments for y in (0, 4)]


AB, BC, CD = ("a", "b", 0), ("b", "c", 0), ("c", "d", 0)
CASES = {
    "front and rear on one segment": (two_segments, [(AB, 25), (AB, 40), (AB, 10)], False, 0, AB, (1, 2)),
    "alone": (two_segments, [(AB, 25)], False, 0, AB, (-1, -1)),
    "only front": (two_segments, [(AB, 10), (AB, 40)], False, 0, AB, (1, -1)),
    "only rear": (two_segments, [(AB, 40), (AB, 10)], False, 0, AB, (-1, 1)),
    "next segment ignored by default": (two_segments, [(AB, 48), (BC, 10)], False, 0, AB, (-1, -1)),
    "front on the next segment": (two_segments, [(AB, 48), (BC, 5)], True, 0, AB, (1, -1)),
    "rear on the previous segment": (two_segments, [(BC, 5), (AB, 45)], True, 0, BC, (-1, 1)),
    "front on a curve": (straight_then_curve, [(AB, 48), (BC, 5)], True, 0, AB, (1, -1)),
    "closer on the same segment": (two_segments, [(AB, 30), (AB, 45), (BC, 10)], True, 0, AB, (1, -1)),
    "both across connections": (three_segments, [(AB, 45), (BC, 5), (CD, 5)], True, 1, BC, (2, 0)),
    "same lane of the next road": (two_lanes, [(AB, 48), (BC, 5), (("b", "c", 1), 3)], True, 0, AB, (1, -1)),
    "no next segment": (lambda: two_segments()[:1], [(AB, 48)], True, 0, AB, (-1, -1)),
    "no previous segment": (lambda: two_segments()[1:], [(BC, 5)], True, 0, BC, (-1, -1)),
    "far on the next segment": (two_segments, [(AB, 25), (BC, 40)], True, 0, AB, (1, -1)),
}


@pytest.mark.parametrize("name", CASES)
def test_highway_envs_cases(name):
    roads, vehicles, connected, i, index, expected = CASES[name]
    case = Case(roads(), vehicles, connected)
    assert case.upstream(i, index) == expected
    assert case.neighbours(i, index) == expected


def test_a_lane_that_is_not_there_is_an_error_as_none_is_in_highway_env():
    """highway-env returns no neighbours for a vehicle without a lane; a network cannot be asked about one."""
    case = Case(two_segments(), [(AB, 25)], False)
    case.road.vehicles[0].lane_index = None
    assert case.road.neighbour_vehicles(case.road.vehicles[0]) == (None, None)
    with pytest.raises(Exception, match="no lane"):
        case.ours.number(("a", "z", 0))


@settings(max_examples=60, deadline=None)
@given(
    places=st.lists(st.tuples(st.integers(0, 4), st.floats(0, 45, width=32)), min_size=2, max_size=8),
    asked=st.integers(0, 4),
    connected=st.booleans(),
)
def test_random_scenes_equal_highway_env(places, asked, connected):
    roads = [
        *two_lanes(),
        ("c", "d", SineLane([100, 0], [150, 0], 3.0, 0.2, 0.5)),
    ]
    indices = [("a", "b", 0), ("a", "b", 1), ("b", "c", 0), ("b", "c", 1), ("c", "d", 0)]
    case = Case(roads, [(indices[k], s) for k, s in places], connected)
    assert case.neighbours(0, indices[asked]) == case.upstream(0, indices[asked])
