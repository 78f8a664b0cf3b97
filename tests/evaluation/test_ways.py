"""Ways over road networks: bends against closed forms, lanes and roads against the simulator's own table."""

import math

import pytest
import torch

import envs
from agents import policies
from envs.roads.lanes import circular, straight
from envs.roads.network import RoadNetwork
from evaluation import metrics
from evaluation.recorder import record
from evaluation.trajectory import Trajectory
from evaluation.ways import Ways

RADIUS = 30.0
IDM = 1


def bend() -> RoadNetwork:
    """20 m straight on along +x, a quarter of a circle to the right, then along +y; a side road goes on straight."""
    network = RoadNetwork()
    network.add_lane("a", "b", straight((0, 0), (20, 0)))
    network.add_lane("b", "c", circular((20, RADIUS), RADIUS, -math.pi / 2, 0.0))
    network.add_lane("b", "side", straight((20, 0), (80, 0)))
    network.add_lane("c", "d", straight((20 + RADIUS, RADIUS), (20 + RADIUS, RADIUS + 50)))
    return network


def on_bend(s: float, r: float = 0.0, turned: float = 0.0) -> tuple[float, float, float]:
    """x, y and heading of a place on the way from a to d, r to the right of its middle."""
    if s < 20:
        return s, r, turned
    angle = (s - 20) / RADIUS
    if angle < math.pi / 2:
        reach = RADIUS - r
        return 20 + reach * math.sin(angle), RADIUS - reach * math.cos(angle), angle + turned
    return 20 + RADIUS - r, RADIUS + s - 20 - RADIUS * math.pi / 2, math.pi / 2 + turned


def moment(places, speeds, lane: int, ways: Ways, route: tuple[int, ...], kinds=None) -> Trajectory:
    """One frame of one world with boxes of 5 m by 2 m."""
    x, y, heading = (torch.tensor(column).view(1, 1, -1) for column in zip(*places, strict=True))
    one = torch.ones_like(x)
    return Trajectory(
        x=x,
        y=y,
        heading=heading,
        speed=torch.tensor(speeds).view(1, 1, -1),
        acceleration=0 * one,
        lane=torch.full_like(x, lane, dtype=torch.int32),
        target_lane=torch.full_like(x, lane, dtype=torch.int32),
        crashed=torch.zeros_like(x, dtype=torch.bool),
        kind=torch.tensor(kinds or [IDM] * len(places)).view(1, 1, -1),
        length=5 * one,
        width=2 * one,
        height=one,
        form=0 * one,
        frames=torch.tensor([1]),
        actions=torch.zeros(1, 1, dtype=torch.int64),
        rewards=torch.zeros(1, 1),
        steps=torch.tensor([1]),
        dt=0.1,
        frames_per_step=1,
        ways=ways,
        routes=(route,),
        map=torch.tensor([0]),
    )


@pytest.fixture(scope="module")
def ways() -> Ways:
    return Ways([bend()])


ROUTE = (0, 1, 3)  # a-b, b-c, c-d


@pytest.mark.parametrize("start", [2.0, 15.0, 25.0, 40.0])
@pytest.mark.parametrize("gap", [3.0, 25.0, 50.0])
def test_the_gap_to_a_leader_is_measured_along_the_bend(ways, start, gap):
    lane = 0 if start < 20 else 1
    ahead = start + 5 + gap
    seen = moment([on_bend(start), on_bend(ahead)], [10.0, 8.0], lane, ways, ROUTE)
    assert float(seen.leader.gap) == pytest.approx(gap, abs=0.05)
    assert float(seen.leader.closing) == pytest.approx(2.0, abs=0.01)
    ttc = metrics.METRICS["minimum_time_to_collision"].compute(seen)
    assert float(ttc.value) == pytest.approx(gap / 2, rel=0.02)


def test_the_route_says_who_leads_at_a_fork(ways):
    on_side_road = (50.0, 0.0, 0.0)
    assert moment([on_bend(10.0), on_side_road], [10.0, 8.0], 0, ways, ROUTE).leader.gap.isinf()
    assert float(moment([on_bend(10.0), on_side_road], [10.0, 8.0], 0, ways, (0, 2)).leader.gap) == pytest.approx(35.0)


@pytest.mark.parametrize(
    ("other", "kind"),
    [(on_bend(45.0, r=4.0), IDM), (on_bend(45.0, r=-4.0), IDM), (on_bend(45.0), 6), (on_bend(3.0), IDM)],
)
def test_who_is_no_leader_on_a_bend(ways, other, kind):
    seen = moment([on_bend(25.0), other], [10.0, 0.0], 1, ways, ROUTE, [IDM, kind])
    assert seen.leader.gap.isinf()


def test_off_its_lane_a_car_goes_straight(ways):
    # Beside the road, turned towards +y: 20 m of free ground.
    seen = moment([(5.0, 10.0, math.pi / 2), (5.0, 35.0, 0.0)], [10.0, 0.0], 0, ways, ROUTE)
    assert float(seen.leader.gap) == pytest.approx(25.0 - 2.5 - 1.0, abs=1e-4)
    assert seen.concerning.other.x.tolist() == pytest.approx([25.0])


def test_without_a_route_the_lane_that_begins_nearest_follows():
    parallel = RoadNetwork()
    for k in range(2):
        parallel.add_lane("a", "b", straight((0, 4 * k), (50, 4 * k)))
    for k in range(2):
        parallel.add_lane("b", "c", straight((50, 4 * k), (100, 4 * k)))
    ways = Ways([parallel])
    assert [ways.following(lane, ()) for lane in range(4)] == [2, 3, None, None]


@pytest.mark.parametrize("name", ["merge", "crossing", "racetrack"])
def test_lanes_belong_to_the_roads_of_the_simulator(name):
    worlds = envs.make_vec(name, 1, device="cpu", observation="state")
    assert Ways(worlds.sim.maps).road.tolist() == worlds.sim.road.of_lane.numpy()["road"].tolist()
    worlds.close()


def test_lane_changes_are_counted_across_the_ground_and_not_from_road_to_road():
    driver = policies.load("random", scenario="merge")
    worlds = envs.make_vec("merge", 16, device="cpu", **driver.env_options)
    driven = record(worlds, driver, seed=3)
    worlds.close()
    # The lanes of this map lie 4 m apart along +x, whatever road they belong to.
    across = (driven.y[..., 0] / 4).round().clamp(min=0)
    expected = ((across[1:] != across[:-1]) & driven.driving[1:]).sum(0)
    found = metrics.METRICS["lane_changes"].compute(driven).value
    lane = driven.lane[..., 0]
    assert torch.equal(found.long(), expected) and expected.sum() > 5
    assert (((lane[1:] != lane[:-1]) & driven.driving[1:]).sum(0) > found).any()


@pytest.mark.parametrize("name", ["merge", "roundabout", "highway-fast"])
def test_success_is_the_scenarios_own_where_it_has_a_goal(name):
    driver = policies.load("idm", scenario=name)
    worlds = envs.make_vec(name, 8, device="cpu", **driver.env_options)
    result = metrics.METRICS["success"].compute(record(worlds, driver, seed=3))
    worlds.close()
    assert result.valid.all() == (name == "merge") == result.valid.any()
    if name == "merge":  # IDM merges, and nothing but a crash ends an episode before
        assert result.value.mean() > 0.5
