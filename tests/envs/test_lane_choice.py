"""Plans of lanes, and what a driver who may change them sees: against the maps' geometry and boxes drawn by hand."""

import math

import numpy as np
import pytest
import torch

from envs.scenarios import stage, staging
from envs.scenarios.stage import Actor, Case
from envs.sensors.lane_choice import AWAY, LANE, TRAFFIC
from envs.sensors.lane_plans import ENDLESS, lane_plans

NORTH = -math.pi / 2


def plans(name, *goals):
    network = stage.MAPS[name]()
    found = lane_plans([network], staging.onward([network], [goals]))
    return network, found


def look(make, case):
    obs, _ = make(stage.of([case]), 1, observation="state", dtype="float64").reset(seed=0)
    lanes = [dict(zip(LANE, row.tolist(), strict=True)) for row in obs["lanes"][0]]
    traffic = [dict(zip(TRAFFIC, row.tolist(), strict=True)) for row in obs["traffic"][0]]
    return lanes, traffic, obs


# --- plans ------------------------------------------------------------------------------------------------------------


def test_changes_to_an_exit_and_the_room_for_them():
    network, found = plans("exit", "exit")
    for place in range(6):
        first, second = network.number(("0", "1", place)), network.number(("1", "2", place))
        assert found.changes[[first, second], 1].tolist() == [6 - place] * 2
        assert found.room[[first, second], 1].tolist() == [500.0, 100.0]
        # Who has missed it goes on along the motorway.
        assert found.through[second, 1] == network.number(("2", "3", place)) and not found.blind[second, 1]
    leads = network.number(("1", "2", 6))
    assert (found.changes[leads, 1], found.room[leads, 1]) == (0, ENDLESS)
    assert found.through[leads, 1] == network.number(("2", "exit", 0))


def test_a_ramp_is_blind():
    network, found = plans("merge")
    for index, room in ((("j", "k", 0), 310.0), (("k", "b", 0), 160.0), (("b", "c", 2), 80.0)):
        number = network.number(index)
        assert (found.changes[number, 0], found.room[number, 0], found.blind[number, 0]) == (1, room, True)
    assert found.changes[network.number(("b", "c", 1)), 0] == 0


def test_only_a_dashed_line_parts_from_oncoming_traffic_that_may_be_met():
    network, found = plans("two-way")
    assert found.oncoming.tolist() == [network.number(("c", "d", 0)), -1]
    assert (plans("road")[1].oncoming == -1).all()


# --- lanes and traffic ------------------------------------------------------------------------------------------------


def test_the_lanes_beside_and_who_is_on_them(make):
    others = (Actor("driver", 130.0, 0.2, speed=18.0), Actor("scripted", 80.0, 7.0, 0.1, 12.0))
    case = Case("test/0-0", "test", "road", 100.0, 3.0, 0.0, 20.0, 25.0, actors=others)
    (own, left, right), (first, second), _ = look(make, case)
    assert (own["there"], left["there"], right["there"]) == (1, 1, 1)
    assert [each["offset"] for each in (own, left, right)] == pytest.approx([0.5, -3.0, 4.0])
    assert own["end"] == pytest.approx(1400) and own["room"] == ENDLESS
    assert (first["along left"], first["across left"]) == pytest.approx((30.0, 0.2))
    assert (second["along right"], second["across right"]) == pytest.approx((-20.0, 0.0))
    assert second["sideways right"] == pytest.approx(12 * math.sin(0.1))
    assert first["across right"] == pytest.approx(-6.8)


def test_the_lane_that_a_ramp_joins_is_seen_from_afar(make):
    cars = (Actor("driver", 170.0, 4.0, speed=20.0), Actor("driver", 140.0, 4.0, speed=20.0))
    case = Case("test/0-0", "test", "merge", 150.0, 14.5, 0.0, 20.0, 20.0, actors=cars)
    (own, left, right), (ahead, behind), _ = look(make, case)
    assert (own["changes"], own["room"], own["blind"]) == (1, 160.0, 1)
    assert (left["there"], left["opens"], left["changes"]) == (1, 80.0, 0) and right["there"] == 0
    assert (ahead["along left"], ahead["across left"]) == pytest.approx((20.0, 0.0))
    assert (behind["along left"], behind["across left"]) == pytest.approx((-10.0, 0.0))
    # Seen from the ramp, which swings towards it, it seems to come nearer; along its own lane it does not.
    assert ahead["sideways left"] == pytest.approx(0, abs=1e-9) and ahead["across right"] == AWAY


def test_the_view_agrees_with_that_of_the_other_drivers_where_the_route_is_kept(make):
    cars = tuple(Actor("driver", x, y, speed=15.0, destination="3") for x, y in ((240.0, 16.0), (180.0, 20.0)))
    case = Case("test/0-0", "test", "exit", 200.0, 12.0, 0.0, 20.0, 20.0, destination="exit", actors=cars)
    lanes, _, obs = look(make, case)
    torch.testing.assert_close(obs["traffic"][..., :10], obs["surroundings"])
    assert [lane["changes"] for lane in lanes] == [3, 4, 2] and lanes[0]["room"] == 300.0


def test_a_missed_exit_is_looked_past(make):
    """Behind it the motorway's lanes count, not the bend that the route had in mind."""
    cars = (Actor("driver", 560.0, 16.0, speed=15.0, destination="3"),)
    case = Case("test/0-0", "test", "exit", 490.0, 16.0, 0.0, 25.0, 25.0, destination="exit", actors=cars)
    env = make(stage.of([case]), 1, observation="state", dtype="float64")
    env.reset(seed=0)
    for _ in range(10):
        obs, *_ = env.step(torch.zeros(1, 2))
    gap = (env.state.x[0, 1] - env.state.x[0, 0]).item()
    assert obs["traffic"][0, 0, 1:3].tolist() == pytest.approx([gap, 0.0], abs=1e-4)
    assert obs["lanes"][0, 0, LANE.index("changes")] == 0 and abs(obs["lanes"][0, 0, 1]) < 1e-4


# --- meetings ---------------------------------------------------------------------------------------------------------


def corners(x, y, heading):
    c, s = math.cos(heading), math.sin(heading)
    return np.array([(x + a * c - b * s, y + a * s + b * c) for a in (-2.5, 2.5) for b in (-1.0, 1.0)])


@pytest.mark.parametrize("away", [30.0, 45.0])
def test_where_a_left_turn_meets_who_comes_towards_it(make, away):
    """Boxes of the ego along its arc against the strip that the other sweeps down its lane."""
    other = Actor("scripted", -2.0, -away, math.pi / 2, 10.0)
    start = 20.0
    case = Case("test/0-0", "test", "crossing", 2.0, start, NORTH, 5.0, 5.0, destination="o1", actors=(other,))
    _, (meets,), _ = look(make, case)
    network = stage.MAPS["crossing"]()
    lanes = [network.lane(index) for index in (("i0", "ir0", 0), ("ir0", "il1", 0), ("il1", "o1", 0))]
    begin = lanes[0].length - (start - 11.0)
    inside, theirs = [], []
    for s in np.arange(0.0, 40.0, 0.1):
        here, lane = begin + s, 0
        while here > lanes[lane].length:
            here, lane = here - lanes[lane].length, lane + 1
        box = corners(*lanes[lane].position(here), float(lanes[lane].heading_at(here)))
        if box[:, 0].min() < -1.0 and box[:, 0].max() > -3.0:
            inside.append(s)
            theirs += [box[:, 1].min() + away - 2.5, box[:, 1].max() + away + 2.5]
    assert meets["meets"] == 1
    assert min(inside) - 0.55 <= meets["way in"] <= min(inside) + 0.05
    assert max(inside) - 0.05 <= meets["way out"] <= max(inside) + 0.65
    assert meets["other in"] == pytest.approx(min(theirs), abs=0.3)
    assert meets["other out"] == pytest.approx(max(theirs), abs=0.3)


def test_who_stays_on_its_side_is_not_met(make):
    cases = {
        "straight on": Case("test/0-0", "test", "crossing", 2.0, 20.0, NORTH, 5.0, 5.0, destination="o2",
                            actors=(Actor("scripted", -2.0, -30.0, math.pi / 2, 10.0),)),
        "it stands": Case("test/0-0", "test", "crossing", 2.0, 20.0, NORTH, 5.0, 5.0, destination="o1",
                          actors=(Actor("scripted", -2.0, -30.0, math.pi / 2, 0.0),)),
        "from the side": Case("test/0-0", "test", "crossing", 2.0, 20.0, NORTH, 5.0, 5.0, destination="o1",
                              actors=(Actor("scripted", -30.0, 2.0, 0.0, 10.0),)),
    }  # fmt: skip
    for case in cases.values():
        _, (other,), _ = look(make, case)
        assert other["meets"] == 0
