"""The maps against the road networks that highway-env builds, lane by lane."""

import math

import gymnasium
import highway_env  # noqa: F401  registers its environments
import numpy as np
import pytest
from highway_env.road.lane import LineType
from highway_env.vehicle.objects import Obstacle

from envs.errors import UserError
from envs.roads.maps import (
    exit,
    intersection,
    lane_keeping,
    merge,
    parking,
    racetrack,
    roundabout,
    two_way,
    u_turn,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date")

STYLES = {
    LineType.NONE: "none",
    LineType.STRIPED: "dashed",
    LineType.CONTINUOUS: "solid",
    LineType.CONTINUOUS_LINE: "solid",
}
# Our sums round differently here and there.
TOLERANCE = 1e-12
# Of places along a lane, as parts of its length, and across it [m]: beyond its ends and sides too.
ALONG = (-0.1, 0.0, 0.15, 0.3, 0.5, 0.7, 0.85, 1.0, 1.1)
ACROSS = (-2.5, 0.0, 1.0)


def upstream(env_id: str, build: str = "", arguments: dict | None = None, **config):
    """A live environment's road; with `build` after calling that method of it, which makes another one."""
    env = gymnasium.make(env_id, config=config).unwrapped
    env.reset(seed=0)
    if build:
        getattr(env, build)(**arguments)
    return env.road


def assert_equal(ours, theirs) -> None:
    """Both have the same nodes in the same order, and the same lanes in every respect."""
    graph = theirs.network.graph
    assert list(ours.graph) == list(graph)
    for start, roads in graph.items():
        assert list(ours.graph[start]) == list(roads)
        for end, lanes in roads.items():
            assert len(ours.graph[start][end]) == len(lanes), (start, end)
            for place, lane in enumerate(lanes):
                assert_equal_lane(ours.graph[start][end][place], lane, (start, end, place))


def assert_equal_lane(ours, theirs, index) -> None:
    limit = math.inf if theirs.speed_limit is None else theirs.speed_limit
    assert ours.length == pytest.approx(theirs.length, rel=0, abs=TOLERANCE), index
    assert (ours.width, ours.speed_limit) == pytest.approx((theirs.width, limit), rel=1e-15), index
    assert (ours.priority, ours.forbidden) == (theirs.priority, theirs.forbidden), index
    assert ours.lines == tuple(STYLES[style] for style in theirs.line_types), index
    for s in theirs.length * np.array(ALONG):
        assert ours.heading_at(s) == pytest.approx(theirs.heading_at(s), rel=0, abs=TOLERANCE), index
        for r in ACROSS:
            np.testing.assert_allclose(
                ours.position(s, r), theirs.position(s, r), rtol=0, atol=TOLERANCE, err_msg=str(index)
            )


@pytest.mark.parametrize(
    ("env_id", "network"),
    [
        ("merge-v0", merge.network),
        ("merge-generic-v0", merge.generic),
        ("roundabout-v0", roundabout.network),
        ("roundabout-generic-v0", roundabout.generic),
        ("intersection-v0", intersection.network),
        ("exit-v0", exit.network),
        ("racetrack-v0", racetrack.network),
        ("racetrack-large-v0", racetrack.large),
        ("racetrack-oval-v0", racetrack.oval),
        ("two-way-v0", two_way.network),
        ("u-turn-v0", u_turn.network),
        ("parking-v0", parking.network),
        ("lane-keeping-v0", lane_keeping.network),
    ],
)
def test_default_maps(env_id, network):
    assert_equal(network(), upstream(env_id))


@pytest.mark.parametrize("lanes", [1, 3, 5])
def test_generic_merge(lanes):
    lengths = {"before": 120.5, "converge": 60, "parallel": 45, "after": 90}
    config = {f"{part}_merge_length": length for part, length in lengths.items()}
    assert_equal(merge.generic(lanes, **lengths), upstream("merge-generic-v0", lanes_count=lanes, **config))


@pytest.mark.parametrize(("lanes", "radius"), [(1, 20), (3, 20), (2, 35.5), (4, 60), (1, 3)])
def test_generic_roundabout(lanes, radius):
    theirs = upstream("roundabout-generic-v0", roundabout_lanes=lanes, roundabout_radius=radius, vehicles_count=0)
    assert_equal(roundabout.generic(lanes, radius), theirs)


@pytest.mark.parametrize(("lanes", "length"), [(2, 100), (3, 150), (6, 87.5)])
def test_other_ovals(lanes, length):
    assert_equal(racetrack.oval(lanes, length), upstream("racetrack-oval-v0", no_lanes=lanes, length=length))


@pytest.mark.parametrize("speed_limit", [25.0, None])
def test_another_speed_limit_on_the_large_track(speed_limit):
    env = gymnasium.make("racetrack-large-v0").unwrapped
    env.config["speed_limit"] = speed_limit
    env._make_road()
    assert_equal(racetrack.large(math.inf if speed_limit is None else speed_limit), env.road)


@pytest.mark.parametrize("lanes", [1, 3, 7])
def test_other_exits(lanes):
    theirs = upstream(
        "exit-v0",
        "_create_road",
        {"road_length": 500, "exit_position": 220.5, "exit_length": 80},
        lanes_count=lanes,
        vehicles_count=0,
    )
    assert_equal(exit.network(lanes, 500, 220.5, 80), theirs)


def test_other_lengths():
    assert_equal(two_way.network(333.5), upstream("two-way-v0", "_make_road", {"length": 333.5}))
    assert_equal(u_turn.network(75), upstream("u-turn-v0", "_make_road", {"length": 75}))


@pytest.mark.parametrize("spots", [1, 5, 20])
def test_other_numbers_of_spots(spots):
    assert_equal(parking.network(spots), upstream("parking-v0", "_create_road", {"spots": spots}))


@pytest.mark.parametrize(
    ("env_id", "config", "expected"),
    [
        ("merge-v0", {}, merge.obstacles()),
        ("merge-generic-v0", {}, merge.obstacles()),
        (
            "merge-generic-v0",
            {"lanes_count": 4, "before_merge_length": 90, "converge_merge_length": 50, "parallel_merge_length": 70},
            merge.obstacles(4, 90, 50, 70),
        ),
        ("racetrack-oval-v0", {}, racetrack.obstacles()),
        ("racetrack-oval-v0", {"block_lane": True}, racetrack.obstacles(block_lane=True)),
        (
            "racetrack-oval-v0",
            {"length": 180, "block_lane": True, "force_decision": True},
            racetrack.obstacles(180, block_lane=True, force_decision=True),
        ),
        ("parking-v0", {}, parking.obstacles()),
        *((env_id, {}, []) for env_id in ("roundabout-v0", "intersection-v0", "exit-v0", "racetrack-v0", "u-turn-v0")),
    ],
)
def test_obstacles(env_id, config, expected):
    objects = [thing for thing in upstream(env_id, **config).objects if isinstance(thing, Obstacle)]
    theirs = [(*thing.position, thing.heading, thing.LENGTH, thing.WIDTH) for thing in objects]
    np.testing.assert_allclose(np.reshape(expected, (-1, 5)), np.reshape(theirs, (-1, 5)), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("network", "miss"),
    [
        (merge.network, 0.0),
        (merge.generic, 0.0),
        (roundabout.network, 7.72),
        (roundabout.generic, 0.0),
        (intersection.network, 4.0),
        (racetrack.network, 2.62),
        (racetrack.large, 1.31),
        (racetrack.oval, 1.0),
        (two_way.network, 0.0),
        (u_turn.network, 0.0),
    ],
    ids=lambda case: f"{case.__module__.split('.')[-1]}.{case.__name__}" if callable(case) else "",
)
def test_lanes_meet(network, miss):
    """As well as they do in highway-env, whose lanes miss each other by up to `miss` m."""
    network().check(tolerance=miss + 1e-9)


@pytest.mark.parametrize("network", [parking.network, lane_keeping.network])
def test_maps_whose_roads_lead_nowhere(network):
    with pytest.raises(UserError, match="must meet"):
        network().check()


@pytest.mark.parametrize(
    ("network", "arguments", "message"),
    [
        (merge.generic, {"lanes": 0}, "at least 1 lane, not 0"),
        (merge.generic, {"converge": 0}, "'converge' must be more than 0 m"),
        (merge.generic, {"after": 89}, "'after' must be at least 90 m, not 89 m"),
        (roundabout.generic, {"lanes": 0}, "at least 1 lane"),
        (roundabout.generic, {"radius": -2}, "'radius' must be more than 0 m, not -2 m"),
        (exit.network, {"lanes": 0}, "at least 1 lane"),
        (exit.network, {"lanes": 8}, "at most 7 lanes, not 8"),
        (exit.network, {"exit_length": 0}, "'exit_length' must be more than 0 m"),
        (exit.network, {"length": 500}, "'length' must be more than the 500 m"),
        (racetrack.large, {"speed_limit": 0}, "'speed_limit' must be more than 0 m/s"),
        (racetrack.oval, {"lanes": 1}, "at least 2 lanes, not 1"),
        (racetrack.oval, {"straight": math.nan}, "'straight' must be more than 0 m"),
        (two_way.network, {"length": 0}, "'length' must be more than 0 m"),
        (u_turn.network, {"length": -1}, "'length' must be more than 0 m"),
        (parking.network, {"spots": 0}, "at least one spot"),
    ],
)
def test_impossible_maps(network, arguments, message):
    with pytest.raises(UserError, match=message):
        network(**arguments)
