"""Signals and junctions: plans against closed forms, conflicts against cars' boxes, and traffic that obeys both."""

import functools
import itertools
import math
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import warp as wp
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.physics import actions as acting
from envs.physics import idm, junctions
from envs.roads import conflicts, general, network_table, town
from envs.roads.maps import roundabout, signalised
from envs.roads.maps.signalised import PLANS, Plan
from envs.roads.network import RoadNetwork
from envs.roads.signals import AMBER, GREEN, PERMISSIVE, RED
from envs.scenarios import get, placing
from envs.simulation import Simulation, resolve_device
from envs.state import IDM, META, world_struct

FRAMES = 15  # a second
HALF_LENGTH, HALF_WIDTH = 2.5, 1.0  # m, of a car
real = wp.float32


@functools.cache
def kernels() -> dict[str, wp.Kernel]:
    roads = general.build(real)
    act = acting.build(real, roads)
    setting = placing.build(real, roads, act)
    crossing = junctions.build(real, roads, idm.build(real))
    World, Road, Controls, idm_kind = world_struct(real), roads.Road, act.Controls, IDM

    @wp.kernel(module="unique")
    def start(world: World, road: Road, late: wp.array(dtype=real)):
        w = wp.tid()
        crossing.start(world, road, w, late[w])

    @wp.kernel(module="unique")
    def put(
        world: World, road: Road, controls: Controls, i: int, kind: int, lane: int, s: real, speed: real, goal: int
    ):
        setting.put_on(world, road, 0, i, idm_kind, lane, s, speed)
        setting.plan(world, road, 0, i, goal)
        world.vehicle[0, i].target_speed = wp.max(speed, real(10.0))
        world.vehicle[0, i].changes_lanes = 0
        if kind != idm_kind:
            setting.engage(world, road, controls, 0, i, kind)

    return {"start": start, "put": put}


def simulate(worlds: int, plans=PLANS, ego: str = "idm", seed: int = 0, **options) -> Simulation:
    scenario = replace(get("intersection-signals"), plans=tuple(plans), duration=1e9, **options)
    simulation = Simulation(scenario, worlds, resolve_device("cpu"), ego=ego)
    simulation.reset(seed)
    return simulation


@pytest.fixture
def empty():
    """A crossing without vehicles whose plan is at its beginning; `empty(plan)`."""

    def make(plan: Plan, ego: str = "idm") -> Simulation:
        simulation = simulate(1, [plan], ego, rate=0.0, density=0.0)
        state = simulation.state
        for field in (state.kind, state.phase, state.phase_time, state.yields):
            field.zero_()
        return simulation

    return make


def drive(simulation: Simulation, seconds: float, on_frame=lambda: None) -> None:
    for _ in range(round(seconds * FRAMES / simulation.scenario.frames_per_step)):
        simulation.step(on_frame)


def put(simulation: Simulation, i: int, arm: int, place: int, left: float, speed: float, to: int, kind=IDM) -> None:
    """A car on an approach, its centre so far before the end [m], on its way to an arm."""
    network = simulation.maps[0]
    lane = network.number(signalised.approach(arm, place))
    s = network.lanes[lane].length - left
    inputs = [simulation.state.warp, simulation.road, simulation.controls, i, kind, lane, s, speed, to]
    wp.launch(kernels()["put"], 1, inputs, device="cpu")


def left_to(simulation: Simulation, i: int, arm: int, place: int = 0) -> float:
    """How far a car's front is from the line at the end of an approach, negative beyond it [m]."""
    lane = simulation.maps[0].lane(signalised.approach(arm, place))
    x, y, a, b = lane.parameters[:4]
    state = simulation.state
    s = (float(state.x[0, i]) - x) * a + (float(state.y[0, i]) - y) * b
    return lane.length - s - HALF_LENGTH


# --- plans ------------------------------------------------------------------------------------------------------------


def phase_at(network: RoadNetwork, t: float) -> tuple[int, float, float]:
    """(phase, time since it began, time to its end) of a fixed plan, in closed form."""
    (junction,) = network.junctions
    lasts = [d for phase in junction.phases for d in (phase.green, junction.amber + junction.all_red)]
    t = t % sum(lasts)
    ends = np.cumsum(lasts)
    k = int(np.searchsorted(ends, t, side="right"))
    return k, t - ends[k] + lasts[k], ends[k] - t


@pytest.mark.parametrize("plan", [plan for plan in PLANS if not plan.actuated])
def test_fixed_plans_equal_their_closed_form(empty, plan):
    simulation = empty(plan)
    (network,), state = simulation.maps, simulation.state
    (junction,) = network.junctions
    seen, frame = set(), itertools.count(1)

    def check():
        k, since, left = phase_at(network, next(frame) / FRAMES)
        if min(since, left, abs(since - junction.amber) if k % 2 else 1.0) < 1.5 / FRAMES:
            return
        phase = junction.phases[k // 2]
        expected = np.full(len(network.signals), RED)
        going = AMBER if k % 2 and since < junction.amber else RED if k % 2 else None
        expected[list(phase.protected)] = GREEN if going is None else going
        expected[list(phase.permissive)] = PERMISSIVE if going is None else going
        assert state.signal[0, : len(expected)].tolist() == expected.tolist()
        seen.add(k)

    drive(simulation, 150, check)
    assert seen == set(range(2 * len(junction.phases)))


def test_a_start_puts_the_plan_where_its_closed_form_is():
    late = np.linspace(0, 200, 41, dtype=np.float32) + np.float32(0.01)
    simulation = simulate(len(late), PLANS[3:4])
    state = simulation.state
    wp.launch(kernels()["start"], len(late), [state.warp, simulation.road, wp.array(late, device="cpu")], device="cpu")
    for w, t in enumerate(late.tolist()):
        k, since, _ = phase_at(simulation.maps[0], t)
        assert int(state.phase[w, 0]) == k
        assert float(state.phase_time[w, 0]) == pytest.approx(since, abs=1e-3)


def test_amber_lasts_three_seconds_and_comes_before_every_red():
    simulation = simulate(24, rate=0.3)
    state, shown = simulation.state, []
    state.kind[:, 0] = 0
    drive(simulation, 60, lambda: shown.append(state.signal.clone()))
    shown = torch.stack(shown).numpy()
    lengths = Counter()
    for heads in shown.reshape(len(shown), -1).T:
        runs = [(colour, len(list(run))) for colour, run in itertools.groupby(heads.tolist())]
        for (before, _), (colour, length), (after, _) in zip(runs, runs[1:], runs[2:], strict=False):
            assert (after == RED) == (colour == AMBER)
            assert before in (GREEN, PERMISSIVE) if colour == AMBER else True
            if colour == AMBER:
                lengths[length] += 1
    assert sum(lengths.values()) > 100
    assert set(lengths) <= {44, 45, 46}


def test_an_actuated_green_lasts_while_somebody_comes(empty):
    plan = PLANS[4]

    def green(cars: int) -> float:
        simulation = empty(plan)
        state, frames = simulation.state, []
        for k in range(cars):
            put(simulation, 1 + k, 0, 1, 4.0 + 8.0 * k, 0.0, 2)
        drive(simulation, 20, lambda: frames.append(int(state.signal[0, 0])))
        return frames.index(AMBER) / FRAMES

    assert green(0) == pytest.approx(signalised.LEAST, abs=0.1)
    assert signalised.LEAST + 2 < green(6) < signalised.LONGEST + 0.1
    assert green(14) == pytest.approx(signalised.LONGEST, abs=0.1)


def test_no_two_greens_meet_but_permissive_left_turns():
    for plan in PLANS:
        network = signalised.network(plan)
        head = {network.number(m): k for k, signal in enumerate(network.signals) for m in signal.movements}
        pairs = {(way.lanes[0], c.other) for way in conflicts.ways(network) for c in way.conflicts}
        (junction,) = network.junctions
        for phase, (a, b) in itertools.product(junction.phases, pairs):
            if {head[a], head[b]} <= {*phase.protected, *phase.permissive}:
                left = [turned(network, lane) < -0.1 and head[lane] in phase.permissive for lane in (a, b)]
                assert any(left)


def turned(network: RoadNetwork, lane: int) -> float:
    """By how much a lane turns, clockwise [rad]."""
    shape = network.lanes[lane]
    return math.remainder(float(shape.heading_at(shape.length) - shape.heading_at(0.0)), 2 * math.pi)


# --- conflicts --------------------------------------------------------------------------------------------------------

town_of = functools.cache(town.generate)
ways_of = functools.cache(lambda seed: conflicts.ways(town_of(seed).network))


def box(network: RoadNetwork, way: conflicts.Way, s: float) -> np.ndarray:
    """The corners of a car whose centre is at s on a way. Shape: (4, 2)."""
    lanes = [network.lanes[k] for k in way.lanes]
    lane, s = (lanes[0], s) if s < lanes[0].length else (lanes[-1], s - way.length + lanes[-1].length)
    heading = float(lane.heading_at(s))
    along = np.array((math.cos(heading), math.sin(heading)))
    across = np.array((-along[1], along[0]))
    signs = np.array(((1, 1), (1, -1), (-1, -1), (-1, 1)))
    return lane.position(s) + signs[:, :1] * HALF_LENGTH * along + signs[:, 1:] * HALF_WIDTH * across


def touch(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two boxes overlap: no side of either parts them."""
    for corners in (a, b):
        for side in np.diff(corners[:3], axis=0):
            p, q = a @ side, b @ side
            if p.max() < q.min() or q.max() < p.min():
                return False
    return True


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 9), st.data())
def test_cars_that_are_not_both_in_a_conflict_do_not_touch(seed, data):
    network, ways = town_of(seed).network, ways_of(seed)
    a = data.draw(st.sampled_from(ways))
    near = [w for w in ways if network.indices[w.lanes[0]][0][:3] == network.indices[a.lanes[0]][0][:3]]
    b = data.draw(st.sampled_from(near))
    if np.allclose(network.lanes[a.lanes[0]].position(0.0), network.lanes[b.lanes[0]].position(0.0)):
        return
    s, t = (data.draw(st.floats(HALF_LENGTH, way.length - HALF_LENGTH)) for way in (a, b))
    follows = a.onto == b.lanes[0] or b.onto == a.lanes[0]
    meet = any(
        c.other == b.lanes[0]
        and c.begins - HALF_LENGTH <= s <= c.ends + HALF_LENGTH
        and c.other_begins - HALF_LENGTH <= t <= c.other_ends + HALF_LENGTH
        for c in a.conflicts
    )
    assert meet or follows or not touch(box(network, a, s), box(network, b, t))


def test_the_conflict_of_two_ways_that_cross_is_where_they_cross():
    """South to north at x = 2, west to east at y = 2, both from 16 m before the centre."""
    network = signalised.network(PLANS[1])
    ways = {network.indices[way.lanes[0]][:2]: way for way in conflicts.ways(network)}
    north, east = ways["x.s.in", "x.n.out"], ways["x.w.in", "x.e.out"]
    (conflict,) = [c for c in north.conflicts if c.other == east.lanes[0]]
    for begins, ends, middle in (
        (conflict.begins, conflict.ends, 14.0),
        (conflict.other_begins, conflict.other_ends, 18.0),
    ):
        assert middle - 4 < begins < middle - 2 and middle + 2 < ends < middle + 4
    assert not conflict.merges and north.crosses and north.wait == -1.25


def test_conflicts_are_mutual_and_at_junctions_only():
    for seed in range(10):
        made = town_of(seed)
        found = {(way.lanes[0], c.other): c for way in ways_of(seed) for c in way.conflicts}
        for (a, b), c in found.items():
            back = found[b, a]
            assert (back.begins, back.ends, back.merges) == (c.other_begins, c.other_ends, c.merges)
        assert all(made.network.indices[way.lanes[0]][:2] in made.turns for way in ways_of(seed))
        assert all(way.onto >= 0 for way in ways_of(seed))


def test_the_ways_of_a_town_are_found_quickly():
    def seconds(seed: int) -> float:
        start = time.perf_counter()
        conflicts.ways(town_of(seed).network)
        return time.perf_counter() - start

    assert max(min(seconds(seed) for _ in range(3)) for seed in range(5)) < 0.1


def test_highway_envs_maps_have_no_ways():
    road = network_table.table([roundabout.network()], "float32", "cpu")
    assert road.ways.present.numpy().tolist() == [0] and set(road.ways.of_lane.numpy()) == {-1}


# --- traffic ----------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_traffic_gets_through_without_a_crash_or_a_red_light():
    """Two minutes of dense traffic on every plan; who passes a line is taken from positions alone."""
    simulation = simulate(60, rate=0.45)
    state = simulation.state
    state.kind[:, 0] = 0
    lanes = [
        (m, index, lane)
        for m, net in enumerate(simulation.maps)
        for index, lane in zip(net.indices, net.lanes, strict=True)
    ]
    ends = torch.tensor([lane.length if index[1].endswith(".in") else 1e9 for _, index, lane in lanes])
    head = torch.full((len(lanes),), -1)
    first = np.cumsum([0] + [len(net.lanes) for net in simulation.maps])
    for m, net in enumerate(simulation.maps):
        for k, signal in enumerate(net.signals):
            head[[int(first[m]) + net.number(movement) for movement in signal.movements]] = k
    before, passed = None, Counter()
    # (world, slot) -> what the world's signals showed when the front passed the line.
    waiting: dict[tuple[int, int], tuple[int, torch.Tensor]] = {}

    def check():
        nonlocal before
        beyond = state.lane_s + HALF_LENGTH >= ends[state.lane.long()]
        if before is not None:
            new = beyond & ~before[0] & (state.sequence == before[1]) & (state.kind == IDM)
            for w, i in new.nonzero().tolist():
                waiting[w, i] = (int(state.lane[w, i]), state.signal[w].clone())
        before = beyond, state.sequence.clone()
        for (w, i), (approach, shown) in list(waiting.items()):
            lane = int(state.target_lane[w, i])
            if lane != approach:
                del waiting[w, i]
                assert shown[head[lane]] != RED
                passed[lanes[lane][0], lanes[lane][1][0]] += 1

    drive(simulation, 120, check)
    assert int(state.crashed.sum()) == 0
    for m, net in enumerate(simulation.maps):
        for node in {index[1] for index in net.stop_lines}:
            assert passed[m, node] > 10


def test_who_comes_to_a_red_light_stops_a_metre_before_the_line(empty):
    simulation = empty(PLANS[1])
    put(simulation, 1, 1, 0, 90.0, 13.0, 3)
    drive(simulation, 14)
    assert 0.5 < left_to(simulation, 1, 1) < 2.0 and abs(float(simulation.state.speed[0, 1])) < 0.1
    drive(simulation, 8)
    assert left_to(simulation, 1, 1) < 0


@pytest.mark.parametrize("turn", ["left", "straight", "right"])
@pytest.mark.parametrize("away", [20.0, 30.0, 40.0, 50.0, 60.0, 70.0])
def test_nobody_passes_the_line_on_red_wherever_amber_finds_them(empty, turn, away):
    simulation = empty(PLANS[1])
    state, out = simulation.state, {"left": 1, "straight": 2, "right": 3}[turn]
    state.phase_time[0, 0] = signalised.GREEN - 0.5
    put(simulation, 1, 0, 0, away, 13.0, out)
    fronts = []
    drive(simulation, 8, lambda: fronts.append((left_to(simulation, 1, 0), int(state.signal[0, 0]))))
    before = 1.0
    for left, shown in fronts:
        assert not (before > 0 >= left and shown == RED)
        before = left


def test_a_permissive_left_turn_lets_oncoming_traffic_pass(empty):
    simulation = empty(PLANS[1])
    state = simulation.state
    put(simulation, 1, 0, 0, 6.0, 0.0, 1)
    put(simulation, 2, 2, 0, 35.0, 12.0, 0)
    order = []

    def note():
        # The oncoming car has left the crossing's middle; the turning one has passed its line.
        order.extend(["past"] * (float(state.y[0, 2]) > 8 and "past" not in order))
        order.extend(["turns"] * (left_to(simulation, 1, 0) < 0 and "turns" not in order))

    drive(simulation, 10, note)
    assert order == ["past", "turns"] and int(state.crashed.sum()) == 0


def test_a_permissive_left_turn_goes_when_nobody_comes(empty):
    simulation = empty(PLANS[1])
    put(simulation, 1, 0, 0, 6.0, 0.0, 1)
    drive(simulation, 4)
    assert left_to(simulation, 1, 0) < 0


def test_nobody_enters_a_junction_that_cannot_be_left(empty):
    """A car stands just behind the crossing."""
    simulation = empty(PLANS[1])
    state, network = simulation.state, simulation.maps[0]
    put(simulation, 2, 0, 0, 20.0, 0.0, 2)
    lane = network.number(("x.n.out", "x.n.to", 0))
    inputs = [state.warp, simulation.road, simulation.controls, 2, IDM, lane, 4.0, 0.0, 2]
    wp.launch(kernels()["put"], 1, inputs, device="cpu")
    state.target_speed[0, 2] = 0.0
    put(simulation, 1, 0, 0, 40.0, 10.0, 2)
    drive(simulation, 10)
    assert 0.5 < left_to(simulation, 1, 0) < 2.0


# --- the scenario -----------------------------------------------------------------------------------------------------


def test_an_agent_that_runs_a_red_light_is_recorded_and_penalised_once(empty):
    simulation = empty(PLANS[1], ego="meta")
    state, rewards = simulation.state, []
    put(simulation, 0, 1, 0, 40.0, 13.0, 3, kind=META)
    for _ in range(10):
        simulation.commands.zero_()
        simulation.commands[:, 0] = 1
        simulation.step()
        rewards.append(float(state.reward[0]))
    assert int(state.red_lights[0]) == 1
    assert sum(reward < -1 for reward in rewards) == 1


def test_an_agent_that_stands_is_recorded(empty):
    simulation = empty(PLANS[1], ego="meta")
    state = simulation.state
    put(simulation, 0, 0, 0, 20.0, 0.0, 2, kind=META)
    simulation.commands[:, 0] = 1
    drive(simulation, 5)
    assert float(state.green_wait[0]) == pytest.approx(5.0, abs=0.2) and float(state.box_time[0]) == 0
    assert float(state.reward[0]) == pytest.approx(-0.1, abs=1e-3)


def test_every_plan_and_every_turn_is_drawn():
    simulation = simulate(200)
    state = simulation.state
    assert set(state.map.tolist()) == set(range(len(PLANS)))
    last = state.route[:, 0].gather(1, (state.route_end[:, :1] - 1).long())
    assert bool((state.route_end[:, 0] >= 3).all()) and len(set(last.flatten().tolist())) == 4 * len(PLANS)
    away = torch.tensor([signalised.APPROACH]) - state.lane_s[:, 0]
    assert float(away.min()) >= 60 and float(away.max()) <= 110 and float(away.max() - away.min()) > 40
