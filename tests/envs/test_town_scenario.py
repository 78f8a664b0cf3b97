"""Driving in town: routes against SciPy's, the route sensor against geometry, and traffic that obeys the law."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

import envs
from envs.errors import UserError
from envs.roads import conflicts, town
from envs.roads.network import RoadNetwork
from envs.roads.signals import RED
from envs.scenarios import get, town_people, town_trips
from envs.sensors import route
from envs.simulation import Simulation, resolve_device
from envs.state import IDM, OBSTACLE, WALKER

PLACES = 64
HALF_LENGTH = 2.5  # m, of a car
SLOWER, IDLE, FASTER = 4.0, 1.0, 3.0


def simulate(worlds: int, ego: str = "idm", seed: int = 0, **options) -> Simulation:
    scenario = replace(get("town"), **{"map_count": 4, **options})
    simulation = Simulation(scenario, worlds, resolve_device("cpu"), ego=ego, sensors=scenario.extra_sensors)
    simulation.reset(seed)
    return simulation


def roads_of(simulation: Simulation) -> list[tuple[str, str]]:
    return [road for network in simulation.maps for road in network.roads]


def lanes_of(simulation: Simulation) -> list[tuple[int, tuple[str, str, int]]]:
    """(map, index) of every lane, counted through all maps."""
    return [(m, index) for m, network in enumerate(simulation.maps) for index in network.indices]


def drives(simulation: Simulation) -> torch.Tensor:
    return (simulation.state.kind > 0) & (simulation.state.kind < OBSTACLE)


# --- trips ------------------------------------------------------------------------------------------------------------


def lane_graph(network: RoadNetwork) -> coo_matrix:
    """Metres from a lane's end to the end of each that begins there, for SciPy."""
    starts = np.array([lane.position(0.0) for lane in network.lanes])
    ends = np.array([lane.position(lane.length) for lane in network.lanes])
    lengths = np.array([lane.length for lane in network.lanes])
    a, b = np.nonzero(np.hypot(*(ends[:, None] - starts).transpose(2, 0, 1)) < 1e-6)
    return coo_matrix((lengths[b], (a, b)), shape=(len(lengths), len(lengths))).tocsr()


@pytest.mark.parametrize("seed", range(6))
def test_ways_are_the_shortest_that_keep_to_their_lane(seed):
    made = town.generate(seed)
    found, network = town_trips.ways(made), made.network
    expected = dijkstra(lane_graph(network))
    for goal, node in enumerate(made.destinations):
        last = [k for k, index in enumerate(network.indices) if index[1] == node]
        np.testing.assert_allclose(found.left[:, goal], expected[:, last].min(axis=1))
    for lane, goal in zip(*np.nonzero(found.onward >= 0), strict=True):
        length, k = 0.0, lane
        while found.onward[k, goal] >= 0:
            assert network.indices[found.onward[k, goal]][0] == network.indices[k][1]
            k = found.onward[k, goal]
            length += network.lanes[k].length
        assert network.indices[k][1] == made.destinations[goal]
        assert length == pytest.approx(found.left[lane, goal])


def test_everybody_begins_on_a_street_with_a_route_to_the_border():
    simulation = simulate(32, traffic=20, vehicles=26)
    state, roads, lanes = simulation.state, roads_of(simulation), lanes_of(simulation)
    towns = simulation.scenario.towns()
    lengths = []
    assert set(state.map.tolist()) == {0, 1, 2, 3}
    for w, i in drives(simulation).nonzero().tolist():
        m, index = lanes[int(state.lane[w, i])]
        made = towns[m]
        path = [roads[k // PLACES] for k in state.route[w, i, : int(state.route_end[w, i])].tolist()]
        assert m == int(state.map[w]) and path[0] == index[:2] and index[:2] not in made.turns
        assert all(a[1] == b[0] for a, b in zip(path, path[1:], strict=False))
        assert path[-1][1] in made.destinations
        if i == 0:
            lengths.append(sum(made.network.lane((*road, 0)).length for road in path[1:]))
    assert 250 <= min(lengths) and max(lengths) <= 600 and np.ptp(lengths) > 200


def test_nobody_stands_in_another_at_the_start_and_all_can_stop():
    simulation = simulate(64)
    state = simulation.state
    for w in range(64):
        slots = drives(simulation)[w].nonzero()[:, 0]
        assert len(slots) > 20
        place = torch.stack((state.x[w, slots], state.y[w, slots]), dim=1)
        lane = state.lane[w, slots]
        apart = torch.cdist(place, place) + 1e3 * torch.eye(len(slots)) + 1e3 * (lane[:, None] != lane)
        assert float(apart.min()) >= 12 - 1e-3
        length = torch.tensor([simulation.maps[m].lane(index).length for m, index in lanes_of(simulation)])[lane.long()]
        assert torch.all(state.speed[w, slots] ** 2 / (2 * 2.5) <= length - state.lane_s[w, slots] + 1e-3)


def test_training_and_held_out_towns_are_the_seeds_of_their_split():
    training, held_out = replace(get("town"), map_count=24), replace(get("town-held-out"), map_count=3)
    seeds = range(60)
    for scenario, split in ((training, False), (held_out, True)):
        wanted = [seed for seed in seeds if town.is_held_out(seed) == split][: scenario.map_count]
        assert [made.network.lanes for made in scenario.towns()] == [town.generate(k).network.lanes for k in wanted]
    apart = [made.network.lanes for made in training.towns()]
    assert all(made.network.lanes not in apart for made in held_out.towns())
    assert replace(training, first_seed=5).towns()[0].network.lanes not in apart[:5]


def test_impossible_arguments_are_refused():
    scenario = get("town")
    for options in (
        {"map_count": 0},
        {"first_seed": -1},
        {"traffic": 25, "people": 6},
        {"people": -1},
        {"trip": (5000.0, 6000.0), "map_count": 1},
        {"network": town.generate(0).network},
    ):
        with pytest.raises(UserError):
            replace(scenario, **options).task_values(scenario.maps()[:1], IDM)


# --- the route sensor -------------------------------------------------------------------------------------------------


def manoeuvre_of(network: RoadNetwork, road: tuple[str, str]) -> str | None:
    """What a road is, by its shape and its name: streets and rings are nothing."""
    start, end = (node.split(".")[-1] for node in road)
    if (start, end) == ("in", "join") or (start, end) == ("leave", "out"):
        return "roundabout"
    if {start, end} <= {"join", "leave"} or start in ("out", "from"):
        return None
    if "right" in (start, end):
        return "right"
    lane = network.lane((*road, 0))
    turned = math.remainder(float(lane.heading_at(lane.length) - lane.heading_at(0.0)), 2 * math.pi)
    return "straight" if abs(turned) < 0.1 else "left" if turned < 0 else "right"


def expected_route(simulation: Simulation, w: int) -> list[float]:
    """The sensor's row, by what the map says of the ego's route and where the ego is."""
    state, network = simulation.state, simulation.maps[int(simulation.state.map[w])]
    at, end = int(state.route_at[w, 0]), int(state.route_end[w, 0])
    path = [roads_of(simulation)[k // PLACES] for k in state.route[w, 0, at:end].tolist()]
    lane = network.lane((*path[0], lanes_of(simulation)[int(state.target_lane[w, 0])][1][2]))
    dx, dy = float(state.x[w, 0]) - lane.parameters[0], float(state.y[w, 0]) - lane.parameters[1]
    a, b = lane.parameters[2:4]
    s = dx * a + dy * b
    if lane.kind == 1:
        s = lane.parameters[4] * math.remainder(math.atan2(dy, dx) - b, 2 * math.pi) * a
    ends = np.cumsum([lane.length - s] + [network.lane((*road, 0)).length for road in path[1:]])
    starts = [0.0, *ends[:-1]]
    coming = [(manoeuvre_of(network, road), away) for road, away in zip(path, starts, strict=True)]
    what, away = next(((m, d) for m, d in coming if m), ("arrive", ends[-1]))
    names = [*route.MANOEUVRES, "arrive"]
    return [*(float(name == what) for name in names), min(max(away / 100, 0.0), 1.0), ends[-1] / 500]


def test_the_route_sensor_says_what_comes_next():
    simulation = simulate(12, duration=1e9)
    seen = set()
    for step in range(150):
        simulation.step()
        row = simulation.sensors[0].outputs["route"]
        for w in range(step % 3, 12, 3):
            expected = expected_route(simulation, w)
            np.testing.assert_allclose(row[w].numpy(), expected, atol=1e-4)
            seen.add(int(np.argmax(expected[:5])))
    assert seen == set(range(5))


def test_every_observation_has_the_route(make):
    for observation in ("camera", "state"):
        env = make("town", num_worlds=2, observation=observation)
        obs, _ = env.reset(seed=3)
        assert obs["route"].shape == (2, 7) and obs["route"].dtype == torch.float32
        assert env.single_observation_space["route"].shape == (7,)
        assert torch.all(obs["route"][:, :5].sum(dim=1) == 1)
        obs, *_ = env.step(torch.ones(2, dtype=torch.int64))
        assert env.single_observation_space["route"].contains(obs["route"][0].numpy())
    assert "town-held-out" in envs.list_scenarios()


# --- the ego ----------------------------------------------------------------------------------------------------------


def run(simulation: Simulation, seconds: float, action=lambda state: IDLE) -> dict[str, float]:
    """Count how the first episodes of all worlds end, and sum their rewards."""
    state, worlds = simulation.state, simulation.num_worlds
    open_, ends = torch.ones(worlds, dtype=torch.bool), dict.fromkeys(("arrived", "crashed", "lost", "late"), 0)
    rewards = torch.zeros(worlds)
    for _ in range(round(seconds * 3)):
        simulation.commands[:, 0] = action(state)
        simulation.step()
        rewards += torch.where(open_, state.reward, torch.zeros(()))
        done = open_ & ((state.terminated | state.truncated) != 0)
        arrived, crashed = done & (state.success != 0), done & (state.ego_crashed != 0)
        ends["arrived"] += int(arrived.sum())
        ends["crashed"] += int(crashed.sum())
        ends["lost"] += int((done & (state.terminated != 0) & ~arrived & ~crashed).sum())
        ends["late"] += int((done & (state.terminated == 0)).sum())
        open_ &= ~done
    return {**ends, "reward": float(rewards.mean())}


def test_meta_actions_follow_the_route_to_its_end_in_an_empty_town():
    def at_eight(state):
        speed = state.speed[:, 0]
        return torch.where(speed < 6, FASTER, torch.where(speed > 10, SLOWER, IDLE))

    simulation = simulate(32, "meta", traffic=0, people=0, red_light_reward=0.0, yield_reward=0.0)
    ends = run(simulation, 120, at_eight)
    assert (ends["arrived"], ends["crashed"], ends["lost"]) == (32, 0, 0)
    assert ends["reward"] > 4


def test_an_ego_that_heeds_no_signal_runs_red_lights_and_pays_for_it():
    def fast(state):
        return torch.where(state.speed[:, 0] < 10, FASTER, IDLE)

    options = {"traffic": 0, "people": 0, "progress_reward": 0.0, "arrived_reward": 0.0, "yield_reward": 0.0}
    simulation = simulate(32, "meta", **options, blocking_reward=0.0, duration=40.0)
    run_ = []

    def keep(state):
        run_.append(state.red_lights.clone())
        return fast(state)

    ends = run(simulation, 39, keep)
    assert ends["crashed"] == ends["lost"] == 0
    reds = torch.stack(run_)
    # A world's count falls to 0 with a new episode; the first one's rewards are -2 for each.
    assert int(reds.max()) >= 2
    assert ends["reward"] < -0.5


def test_an_ego_that_waits_at_a_green_light_or_forever_earns_nothing():
    simulation = simulate(16, "meta", traffic=0, people=0, duration=30.0)
    ends = run(simulation, 31, lambda state: SLOWER)
    assert ends["late"] == 16
    assert ends["reward"] < 1


def test_an_ego_that_steers_itself_off_its_route_loses():
    simulation = simulate(16, "plain", traffic=0, people=0)
    simulation.commands[:, 1] = 0.0
    state, rewards = simulation.state, []
    for _ in range(60):
        simulation.commands[:, 0] = torch.where(state.speed[:, 0] < 10, 0.3, 0.0)
        simulation.commands[:, 1] = 0.0
        simulation.step()
        rewards += state.reward[(state.terminated != 0) & (state.success == 0)].tolist()
    assert len(rewards) >= 12
    assert all(reward < -4 for reward in rewards)


# --- traffic ----------------------------------------------------------------------------------------------------------


class Watch:
    """Counts crashes and red lights frame by frame, from positions."""

    def __init__(self, simulation: Simulation):
        self.simulation, state = simulation, simulation.state
        lanes = lanes_of(simulation)
        self.length = torch.tensor([simulation.maps[m].lane(index).length for m, index in lanes])
        stops = {(m, index) for m, network in enumerate(simulation.maps) for index in network.stop_lines}
        self.stops = torch.tensor([lane in stops for lane in lanes])
        self.lanes, self.roads = lanes, roads_of(simulation)
        self.subject = [
            {network.indices[way.lanes[0]] for way in conflicts.ways(network)} for network in simulation.maps
        ]
        self.crashed = torch.zeros_like(state.crashed, dtype=torch.bool)
        self.before = None
        self.crashes, self.reds, self.passed = 0, 0, 0

    def forget(self) -> None:
        self.crashed = (self.simulation.state.crashed != 0) & drives(self.simulation)
        self.before = None

    def __call__(self) -> None:
        state = self.simulation.state
        crashed = (state.crashed != 0) & drives(self.simulation)
        self.crashes += int((crashed & ~self.crashed).sum())
        self.crashed = crashed
        lane = state.lane.long()
        left = self.length[lane] - state.lane_s - HALF_LENGTH
        if self.before is not None:
            old_lane, old_left, shown = self.before
            passing = drives(self.simulation) & self.stops[lane] & (lane == old_lane) & (left < 0) & (old_left >= 0)
            for w, i in passing.nonzero().tolist():
                head = self.head(w, i)
                self.passed += head >= 0
                self.reds += head >= 0 and int(shown[w, head]) == RED
        self.before = lane, left, state.signal.clone()

    def head(self, w: int, i: int) -> int:
        """The head that a vehicle at a stop line obeys, by the road that follows on its route; -1 for none.

        Lanes through a junction that meet no other lane are not subject to the law of junctions.
        """
        state = self.simulation.state
        m, (start, end, place) = self.lanes[int(state.lane[w, i])]
        network = self.simulation.maps[m]
        path = [self.roads[k // PLACES] for k in state.route[w, i, : int(state.route_end[w, i])].tolist()]
        road = path[path.index((start, end)) + 1]
        movement = (*road, place if len(network.graph[road[0]][road[1]]) > 1 else 0)
        if movement not in self.subject[m]:
            return -1
        return next(k for k, signal in enumerate(network.signals) if movement in signal.movements)


def watch(simulation: Simulation, seconds: float) -> tuple[Watch, dict[str, int]]:
    counts, state = Watch(simulation), simulation.state
    ends = {"arrived": 0, "episodes": 0}
    for _ in range(round(seconds * 3)):
        simulation.step(counts)
        counts.forget()
        done = (state.terminated | state.truncated) != 0
        ends["arrived"] += int((done & (state.success != 0)).sum())
        ends["episodes"] += int(done.sum())
    return counts, ends


def test_who_obeys_arrives_without_a_crash_or_a_red_light():
    simulation = simulate(64, people=0)
    counts, ends = watch(simulation, 120)
    assert (counts.crashes, counts.reds) == (0, 0)
    assert counts.passed > 1000
    assert ends["arrived"] >= 60 and ends["arrived"] >= 0.9 * ends["episodes"]
    assert int(simulation.state.red_lights.sum()) == 0


@pytest.mark.slow
def test_traffic_flows_for_minutes_in_many_towns():
    simulation = simulate(64, people=0, map_count=32, seed=1)
    counts, ends = watch(simulation, 300)
    assert (counts.crashes, counts.reds) == (0, 0)
    assert ends["arrived"] >= 0.9 * ends["episodes"] > 150
    moving = simulation.state.speed[drives(simulation)]
    assert float(moving.mean()) > 5


@pytest.mark.slow
def test_crashes_with_people_about_are_rare():
    simulation = simulate(64, map_count=16)
    counts, ends = watch(simulation, 300)
    # 5.3 hours of 25 vehicles: a few, where cars wait for people within a junction.
    assert counts.crashes <= 8 and counts.reds == 0
    assert ends["arrived"] >= 0.85 * ends["episodes"]


def test_the_number_of_vehicles_stays_and_they_come_and_go():
    simulation = simulate(16, people=0, duration=1e9)
    state = simulation.state
    state.kind[:, 0] = 0  # so that no episode ends
    first = drives(simulation).sum(dim=1).float().mean()
    for _ in range(3 * 60):
        simulation.step()
    assert float(first) > 22
    assert 20 < float(drives(simulation).sum(dim=1).float().mean()) <= 24
    assert int(state.arrivals.min()) > 27


# --- people -----------------------------------------------------------------------------------------------------------


def test_people_are_around_the_ego_and_cross():
    simulation = simulate(16, duration=1e9)
    state = simulation.state
    people = slice(state.slots - 6, state.slots)
    assert torch.all(state.kind[:, people] == WALKER) and torch.all(state.kind[:, : state.slots - 6] != WALKER)
    walked = torch.zeros(16, 6)
    for _ in range(3 * 40):
        simulation.step()
        walked += state.speed[:, people] / 3
    away = torch.hypot(state.x[:, people] - state.x[:, :1], state.y[:, people] - state.y[:, :1])
    assert float(away.median()) < town_people.FAR
    assert float(walked.sum(dim=1).min()) > 8
    assert torch.all(state.kind[:, people] == WALKER)


def test_people_at_signals_set_out_at_red():
    simulation = simulate(24, duration=1e9)
    state = simulation.state
    people = range(state.slots - 6, state.slots)
    tables = town_people.table(simulation.maps)
    starts, before = 0, None
    for _ in range(3 * 40):
        mode, shown = state.route_at.clone(), state.signal.clone()
        before = mode, state.x.clone(), state.y.clone(), shown, state.episode.clone()
        simulation.step()
        for w in range(24):
            for j in people:
                left = before[0][w, j] == 2 and int(state.route_at[w, j]) == 0 and state.episode[w] == before[4][w]
                if not left or int(state.yields[w, j]) == 1 or float(state.speed[w, j]) > 0.01:
                    continue
                m = int(state.map[w])
                rows = slice(*tables["first_walk"][m : m + 2])
                ends = tables["walk"][rows].reshape(-1, 2, 2)
                away = np.hypot(*(ends - [float(state.x[w, j]), float(state.y[w, j])]).transpose(2, 0, 1)).min(axis=1)
                head = tables["head"][rows][away.argmin()]
                assert tables["zebra"][rows][away.argmin()] == 0 and head >= 0
                assert RED in (int(before[3][w, head]), int(state.signal[w, head]))
                starts += 1
    assert starts > 5


def test_signals_stand_beside_the_crossings_that_they_protect():
    networks = [town.generate(seed).network for seed in range(20)]
    tables = town_people.table(networks)
    assert np.all((tables["head"] >= 0) == (tables["zebra"] == 0))
    assert len(tables["walk"]) == sum(len(network.crossings) for network in networks)


# --- batches ----------------------------------------------------------------------------------------------------------


def test_a_world_lives_the_same_life_alone_and_in_a_batch():
    together, alone = simulate(6), simulate(1)
    alone.state.world_id.fill_(4)
    alone.reset(0)
    for _ in range(60):
        together.step()
        alone.step()
    for name in ("x", "y", "speed", "kind", "lane", "route_at", "patience", "map", "arrivals", "time"):
        assert torch.equal(together.state.tensors[name][4], alone.state.tensors[name][0]), name
    heads = len(alone.maps[int(alone.state.map[0])].signals)
    assert torch.equal(together.state.signal[4, :heads], alone.state.signal[0, :heads])


@pytest.mark.slow
def test_256_towns_load_in_time():
    start = time.perf_counter()
    simulation = simulate(2, map_count=256)
    assert len(simulation.maps) == 256
    assert time.perf_counter() - start < 120
