"""The observations against highway-env's own, on scenes that its environments drove into."""

import math
from types import SimpleNamespace

import gymnasium
import highway_env  # noqa: F401  registers its environments
import numpy as np
import pytest
import torch
import warp as wp
from highway_env.envs.common.observation import MultiAgentObservation, observation_factory
from highway_env.road.lane import CircularLane, SineLane, StraightLane
from highway_env.road.spline import LinearSpline2D
from highway_env.vehicle.behavior import IDMVehicle
from highway_env.vehicle.controller import MDPVehicle
from highway_env.vehicle.dynamics import BicycleVehicle
from highway_env.vehicle.kinematics import Vehicle
from highway_env.vehicle.objects import Landmark, Obstacle
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import UserError
from envs.phases import ALL, ENDED
from envs.physics import actions
from envs.roads import general, lanes, network_table
from envs.roads.network import RoadNetwork
from envs.sensors.collision_times import CollisionTimes
from envs.sensors.goal import Goal
from envs.sensors.lidar import Lidar
from envs.sensors.occupancy import OccupancyGrid
from envs.sensors.tracking import Tracking
from envs.sensors.vehicle_list import FEATURES, VehicleList
from envs.state import DYNAMIC, IDM, LANDMARK, META, OBSTACLE, PLAIN, WorldState

pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date")

KINDS = {IDMVehicle: IDM, MDPVehicle: META, Vehicle: PLAIN, BicycleVehicle: DYNAMIC, Obstacle: OBSTACLE}
KINDS[Landmark] = LANDMARK
SLOTS, ROUTE_STEPS = 64, 24


def adapt(lane) -> lanes.Lane:
    """Our lane of highway-env's."""
    options = {"width": lane.width, "priority": lane.priority, "forbidden": lane.forbidden}
    if isinstance(lane, CircularLane):
        return lanes.circular(lane.center, lane.radius, lane.start_phase, lane.end_phase, lane.clockwise, **options)
    if isinstance(lane, SineLane):
        swing = (lane.amplitude, lane.pulsation, lane.phase)
        return lanes.sine(lane.start, lane.end, *swing, **options)
    assert isinstance(lane, StraightLane)
    return lanes.straight(lane.start, lane.end, **options)


class Stub:
    """What sensors need of a simulation of one world."""

    def __init__(self, network: RoadNetwork, dtype: str = "float64", agents: int = 1, policy_frequency: int = 1):
        self.real = wp.float64 if dtype == "float64" else wp.float32
        self.maps, self.num_worlds, self.device = [network], 1, torch.device("cpu")
        self.warp_device = wp.get_device("cpu")
        self.road = network_table.table(self.maps, dtype, "cpu")
        self.scenario = SimpleNamespace(policy_frequency=policy_frequency)
        self.seed = torch.zeros(1, dtype=torch.int64)
        self.controls = actions.build(self.real, general.build(self.real)).Controls()
        self.state = WorldState(1, SLOTS, self.device, dtype, ROUTE_STEPS, agents)


class Twin(Stub):
    """The same with the state of a live highway-env environment."""

    def __init__(self, env_id: str, seed: int = 0, dtype: str = "float64", **config):
        self.env = gymnasium.make(env_id, config=config).unwrapped
        self.env.reset(seed=seed)
        self.env.action_space.seed(seed)
        self.network = RoadNetwork()
        for (start, end, _), lane in self.env.road.network.lanes_dict().items():
            self.network.add_lane(start, end, adapt(lane))
        super().__init__(self.network, dtype, len(self.env.controlled_vehicles), self.env.config["policy_frequency"])
        speeds = getattr(self.env.vehicle, "target_speeds", (20.0, 30.0))
        self.controls.low, self.controls.high, self.controls.count = speeds[0], speeds[-1], len(speeds)
        self.copy()

    def copy(self) -> None:
        """Take the environment's present state: agents first, then other vehicles, then objects."""
        state, road, agents = self.state, self.env.road, self.env.controlled_vehicles
        things = [*agents, *(vehicle for vehicle in road.vehicles if vehicle not in agents), *road.objects]
        listed = [id(thing) for thing in (*road.vehicles, *road.objects)]
        roads = {pair: number for number, pair in enumerate(self.network.roads)}
        state.kind.zero_()
        for slot, thing in enumerate(things):
            s, r = thing.lane.local_coordinates(thing.position)
            action = getattr(thing, "action", {"steering": 0.0, "acceleration": 0.0})
            values = {
                "kind": KINDS[type(thing)],
                "x": thing.position[0],
                "y": thing.position[1],
                "heading": thing.heading,
                "cos_heading": np.cos(thing.heading),
                "sin_heading": np.sin(thing.heading),
                "speed": thing.speed,
                "length": thing.LENGTH,
                "width": thing.WIDTH,
                "lane": self.network.number(thing.lane_index),
                "lane_s": s,
                "lane_r": r,
                "steering": action["steering"],
                "acceleration": action["acceleration"],
                "lateral_speed": getattr(thing, "lateral_speed", 0.0),
                "yaw_rate": getattr(thing, "yaw_rate", 0.0),
                "speed_index": getattr(thing, "speed_index", 0),
                "sequence": listed.index(id(thing)),
            }
            for name, value in values.items():
                state.tensors[name][0, slot] = value
            route = getattr(thing, "route", None) or []
            state.route_at[0, slot], state.route_end[0, slot] = 0, len(route)
            for step, (start, end, place) in enumerate(route):
                state.route[0, slot, step] = 64 * roads[start, end] + (0 if place is None else 1 + place)
        state.frame[0] = self.env.steps

    def step(self) -> None:
        """Let the environment act at random, and take its state."""
        self.env.step(self.env.action_space.sample())
        self.copy()

    def upstream(self, **config):
        """highway-env's observer of that configuration."""
        observer = observation_factory(self.env, config)
        if isinstance(observer, MultiAgentObservation):
            return lambda: np.stack(observer.observe())
        return observer.observe


def observe(sensor, which: int = ALL) -> dict[str, np.ndarray]:
    """What the sensor sees of the first world."""
    for launch in sensor.launches(which):
        launch.record(wp.get_device("cpu"), 0, 1).launch()
    for name, output in sensor.outputs.items():
        assert output[0].shape == sensor.spaces[name].shape
        assert output.dtype == {np.dtype("uint8"): torch.uint8}.get(sensor.spaces[name].dtype, torch.float32)
    return {name: output[0].numpy().copy() for name, output in sensor.outputs.items()}


def assert_same_views(twin: Twin, sensor, look, steps: int = 8) -> None:
    """Both see the same at the start and after each of some steps."""
    for step in range(steps):
        ours, theirs = observe(sensor)["state"], look()
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6, err_msg=f"step {step}")
        twin.step()


# --- lists of vehicles ------------------------------------------------------------------------------------------------

WITHOUT_NAN = [name for name in FEATURES if name not in ("heading", "long_off", "lat_off", "ang_off")]


def as_upstream(options: dict) -> dict:
    """Our options under highway-env's names."""
    names = {"rows": "vehicles_count", "ranges": "features_range", "intentions": "observe_intentions"}
    names["obstacles"] = "include_obstacles"
    theirs = {names.get(name, name): value for name, value in options.items() if name != "lanes"}
    # pandas takes a tuple for one name.
    return theirs | {"features": list(options["features"])} if "features" in options else theirs


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("merge-v0", {"lanes": 2, "features": WITHOUT_NAN}),
        ("merge-v0", {"lanes": 2, "obstacles": False, "features": FEATURES, "see_behind": True, "rows": 8}),
        ("merge-v0", {"normalize": False, "absolute": True, "rows": 8, "see_behind": True, "features": WITHOUT_NAN}),
        ("roundabout-v0", {"ranges": {name: (-100, 100) for name in ("x", "y")}, "absolute": True}),
        ("roundabout-v0", {"ranges": {"x": (-9, 70), "heading": (-4, 4)}, "features": FEATURES, "intentions": True}),
        ("intersection-v0", {"ranges": {"vx": (-20, 20)}, "rows": 15, "features": FEATURES, "intentions": True}),
        ("intersection-v0", {"ranges": {"cos_d": (0, 9)}, "rows": 15, "features": ["cos_d", "x"], "see_behind": True}),
        ("racetrack-v0", {"normalize": False, "features": FEATURES, "see_behind": True}),
        ("two-way-v0", {"lanes": 2, "clip": False, "rows": 12, "features": FEATURES}),
        ("u-turn-v0", {"lanes": 2, "rows": 12, "see_behind": True, "features": FEATURES}),
        ("highway-fast-v0", {"lanes": 3, "rows": 20, "see_behind": True, "clip": False}),
    ],
)
def test_vehicle_list(env_id, options):
    twin = Twin(env_id)
    look = twin.upstream(type="Kinematics", **as_upstream(options))
    assert_same_views(twin, VehicleList(twin, **options), look)


def test_exit():
    twin = Twin("exit-v0")
    options = {"rows": 15, "features": ("presence", "x", "y", "vx", "vy", "cos_h", "sin_h"), "clip": False}
    exit_lane = twin.network.number(("1", "2", len(twin.network.graph["1"]["2"]) - 1))
    sensor = VehicleList(twin, **options, exit_lane=exit_lane, lanes=6)
    assert_same_views(twin, sensor, twin.upstream(type="ExitObservation", **as_upstream(options)))


def test_vehicle_list_of_each_agent():
    twin = Twin("intersection-multi-agent-v0", controlled_vehicles=3)
    twin.env.action_space = gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(3)] * 3)
    options = {"rows": 6, "ranges": {"x": (-100, 100)}, "features": FEATURES, "see_behind": True}
    config = {"type": "Kinematics", **as_upstream(options)}
    look = twin.upstream(type="MultiAgentObservation", observation_config=config)
    assert_same_views(twin, VehicleList(twin, **options), look)


def test_what_objects_lack_is_zero():
    twin = Twin("merge-v0", vehicles_count=0)
    features = ["presence", "heading", "long_off", "lat_off", "ang_off"]
    twin.env.road.vehicles = [twin.env.vehicle]
    twin.env.vehicle.position = twin.env.road.objects[0].position - (20, 0)
    twin.copy()
    options = {"features": features, "ranges": {"heading": (0, 1)}, "rows": 2}
    theirs = twin.upstream(type="Kinematics", **as_upstream(options))()
    assert np.isnan(theirs[1, 1:]).all()
    np.testing.assert_allclose(observe(VehicleList(twin, **options))["state"], np.nan_to_num(theirs), atol=1e-6)


@pytest.mark.parametrize("ahead", [-12.0, -9.0, 12.0])
def test_objects_behind_are_never_seen(ahead):
    twin = Twin("merge-v0")
    twin.env.vehicle.position = twin.env.road.objects[0].position - (ahead, 0)
    twin.copy()
    options = {"see_behind": True, "rows": 8, "lanes": 2}
    look = twin.upstream(type="Kinematics", **as_upstream(options))
    np.testing.assert_allclose(observe(VehicleList(twin, **options))["state"], look(), rtol=1e-6, atol=1e-6)


def test_equal_distances_keep_the_order_of_the_list():
    twin = Twin("highway-fast-v0", vehicles_count=6)
    for vehicle in twin.env.road.vehicles[1:]:
        vehicle.position = twin.env.vehicle.position + (10.0, 4.0)
    options = {"features": ["vx"], "normalize": False, "rows": 4}
    look = twin.upstream(type="Kinematics", **as_upstream(options))
    twin.copy()
    sensor = VehicleList(twin, **options)
    np.testing.assert_allclose(observe(sensor)["state"], look(), rtol=1e-6)
    twin.env.road.vehicles.reverse()
    twin.copy()
    np.testing.assert_allclose(observe(sensor)["state"], look(), rtol=1e-6)


def test_shuffled_rows_are_the_first_in_the_list_and_change_places():
    twin = Twin("highway-fast-v0")
    options = {"order": "shuffled", "rows": 6, "see_behind": True, "normalize": False}
    sensor, look = VehicleList(twin, **options), twin.upstream(type="Kinematics", **as_upstream(options))
    orders = set()
    for _ in range(10):
        ours, theirs = observe(sensor)["state"], look()
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)
        order = [int(np.argmin(np.abs(theirs - row).sum(axis=1))) for row in ours]
        # Which of their rows ours are says nothing but that each is there once.
        assert sorted(order) == list(range(6))
        np.testing.assert_allclose(ours, theirs[order], rtol=1e-6, atol=1e-6)
        slots = [int(torch.argmin((twin.state.x[0] - twin.state.x[0, 0] - row[1]).abs())) for row in ours[1:]]
        orders.add(tuple(slots))
        twin.step()
    assert len(orders) > 3


# --- grids ------------------------------------------------------------------------------------------------------------


def as_grid(options: dict) -> dict:
    """Our options under highway-env's names."""
    names = {"size": "grid_size", "step": "grid_step", "ranges": "features_range", "aligned": "align_to_vehicle_axes"}
    return {names.get(name, name): value for name, value in options.items()}


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # empty cells, as an image
@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("racetrack-v0", {"aligned": True}),
        ("racetrack-large-v0", {"aligned": True, "size": ((-33, 31), (-20, 24)), "step": (1.5, 2.5)}),
        ("roundabout-v0", {"aligned": True, "features": ["on_road", "vx", "cos_d", "heading"]}),
        ("u-turn-v0", {"aligned": False, "size": ((-70, 70), (-41, 43)), "step": (4, 3), "clip": False}),
        ("intersection-v0", {"aligned": False, "features": ["x", "on_road", "presence", "ang_off"], "clip": False}),
        ("merge-v0", {"aligned": True, "ranges": {"x": (-90, 100), "y": (-9, 10)}, "features": ["x", "y", "vy"]}),
        ("lane-keeping-v0", {"aligned": True, "size": ((-61, 60), (-50, 51))}),
        ("highway-fast-v0", {"aligned": False, "size": ((-60, 60), (-12, 12)), "as_image": True, "features": ["vx"]}),
        ("racetrack-v0", {"aligned": True, "size": ((-30, 30), (-18, 18)), "as_image": True}),
    ],
)
def test_occupancy_grid(env_id, options):
    twin = Twin(env_id)
    options = {"size": ((-18, 18), (-18, 18)), "step": (3, 3), "features": ["presence", "on_road"]} | options
    look = twin.upstream(type="OccupancyGrid", **as_grid(options))
    assert_same_views(twin, OccupancyGrid(twin, **options), look)


def test_first_vehicle_in_a_cell_is_seen():
    twin = Twin("highway-fast-v0", vehicles_count=6)
    for vehicle in twin.env.road.vehicles:
        vehicle.position = np.array([500.0, 4.0])
    options = {"features": ["vx", "vy"], "ranges": {"vx": (-1, 1)}, "aligned": False, "clip": False}
    look = twin.upstream(type="OccupancyGrid", **as_grid(options | {"size": ((-18, 18), (-18, 18)), "step": (3, 3)}))
    twin.copy()
    sensor = OccupancyGrid(twin, **options)
    np.testing.assert_allclose(observe(sensor)["state"], look(), atol=1e-6)
    twin.env.road.vehicles.reverse()
    twin.copy()
    np.testing.assert_allclose(observe(sensor)["state"], look(), atol=1e-6)


@settings(deadline=None, max_examples=100)
@given(
    turns=st.lists(st.floats(-1.5, 1.5), min_size=3, max_size=12),
    x=st.floats(-40, 40),
    y=st.floats(-40, 40),
    swing=st.floats(1.0, 60.0),
)
def test_no_point_of_the_road_is_skipped(turns, x, y, swing):
    """Against every point on a polyline that winds about and on a steep sine lane."""
    corners = np.concatenate(([(0.0, 0.0)], 11.3 * np.cumsum([(math.cos(t), math.sin(t)) for t in turns], axis=0)))
    wave = SineLane((-40.0, 9.0), (50.0, 20.0), swing, 0.3, 0.1)
    network = RoadNetwork()
    network.add_lane("a", "b", lanes.polyline(corners))
    network.add_lane("b", "c", adapt(wave))
    stub = Stub(network)
    stub.state.x.fill_(x)
    stub.state.y.fill_(y)
    grid = observe(OccupancyGrid(stub, ["on_road"], size=((-9, 9), (-7, 8)), aligned=False))["state"][0]
    expected = np.zeros((6, 5))
    origins = (LinearSpline2D(corners).cartesian_to_frenet((x, y))[0], wave.local_coordinates(np.array((x, y)))[0])
    for lane, origin in zip(network.lanes, origins, strict=True):
        points = lane.position(np.arange(origin - 100, origin + 100, 3).clip(0, lane.length)) - (x, y)
        cells = np.floor((points + (9, 7)) / 3).astype(int)
        inside = ((cells >= 0) & (cells < (6, 5))).all(axis=1)
        expected[tuple(cells[inside].T)] = 1
    np.testing.assert_array_equal(grid, expected)


# --- times to collision -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_id", "horizon", "config"),
    [
        ("two-way-v0", 5, {}),
        ("u-turn-v0", 16, {}),
        ("roundabout-v0", 10, {}),
        ("intersection-v0", 6, {"policy_frequency": 5}),
        ("exit-v0", 10, {}),
        ("merge-v0", 7.5, {"policy_frequency": 2}),
        ("highway-fast-v0", 10, {"lanes_count": 2}),
        ("roundabout-v0", 8, {"action": {"type": "DiscreteMetaAction", "target_speeds": [0, 5, 10, 15]}}),
    ],
)
def test_collision_times(env_id, horizon, config):
    for seed in range(2):
        twin = Twin(env_id, seed, **config)
        assert_same_views(twin, CollisionTimes(twin, horizon), twin.upstream(type="TimeToCollision", horizon=horizon))


def test_collision_times_of_each_agent():
    twin = Twin("intersection-multi-agent-v0")
    twin.env.action_space = gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(3)] * 2)
    config = {"type": "TimeToCollision", "horizon": 8}
    look = twin.upstream(type="MultiAgentObservation", observation_config=config)
    assert_same_views(twin, CollisionTimes(twin, 8), look)


def test_collision_times_count_the_lanes_of_the_first_agent():
    twin = Twin("merge-v0")
    env = twin.env
    ramp = env.road.network.get_lane(("j", "k", 0))
    second = MDPVehicle(env.road, ramp.position(60.0, 0.0), ramp.heading_at(60.0), 25.0)
    env.road.vehicles.append(second)
    env.controlled_vehicles.append(second)
    twin.state = WorldState(1, SLOTS, twin.device, "float64", ROUTE_STEPS, 2)
    twin.copy()
    config = {"type": "TimeToCollision", "horizon": 8}
    look = twin.upstream(type="MultiAgentObservation", observation_config=config)
    np.testing.assert_array_equal(observe(CollisionTimes(twin, 8))["state"], look())


# --- lidar ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_id", "options", "config"),
    [
        ("roundabout-v0", {}, {}),
        ("intersection-v0", {"cells": 32, "maximum_range": 45.5, "normalize": False}, {}),
        ("merge-v0", {"cells": 5, "normalize": False}, {}),
        ("parking-v0", {"cells": 64}, {"vehicles_count": 12}),
        ("parking-v0", {"cells": 3, "normalize": False}, {"vehicles_count": 12}),
        ("u-turn-v0", {"cells": 128, "maximum_range": 100.0}, {}),
        ("highway-fast-v0", {"cells": 16}, {"vehicles_density": 2}),
    ],
)
def test_lidar(env_id, options, config):
    twin = Twin(env_id, **config)
    assert_same_views(twin, Lidar(twin, **options), twin.upstream(type="LidarObservation", **options))


def test_lidar_among_boxes_everywhere():
    """Above, below, around and inside of boxes of every size and direction."""
    twin = Twin("parking-v0", vehicles_count=12)
    random = np.random.default_rng(0)
    for cells in (1, 2, 4, 16, 50):
        sensor, look = Lidar(twin, cells=cells), twin.upstream(type="LidarObservation", cells=cells)
        for _ in range(20):
            for thing in (*twin.env.road.vehicles[1:], *twin.env.road.objects):
                thing.position = random.uniform(-40, 40, 2)
                thing.heading = random.uniform(-7, 7)
                thing.LENGTH, thing.WIDTH = random.uniform(0.5, 12, 2)
                thing.speed = random.uniform(-10, 10)
            twin.copy()
            np.testing.assert_allclose(observe(sensor)["state"], look(), rtol=1e-6, atol=1e-6)


# --- goals and tracking -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agents", [1, 2])
def test_goal(agents):
    config = {"type": "KinematicsGoal", "features": ["x", "y", "vx", "vy", "cos_h", "sin_h"]}
    config["scales"] = [100, 100, 5, 5, 1, 1]
    twin = Twin("parking-v0", controlled_vehicles=agents)
    sensor = Goal(twin)
    landmarks = [slot for slot in range(SLOTS) if twin.state.kind[0, slot] == LANDMARK]
    same = Goal(twin, goals=landmarks)
    for _ in range(5):
        observers = [observation_factory(twin.env, config) for _ in range(agents)]
        for observer, vehicle in zip(observers, twin.env.controlled_vehicles, strict=True):
            observer.observer_vehicle = vehicle
        theirs = [observer.observe() for observer in observers]
        for ours in (observe(sensor), observe(same)):
            for name, values in ours.items():
                expected = np.stack([one[name] for one in theirs])
                np.testing.assert_allclose(values, expected if agents > 1 else expected[0], rtol=1e-6, atol=1e-6)
        twin.step()


def test_tracking():
    twin = Twin("lane-keeping-v0", state_noise=0.0, derivative_noise=0.0)
    lane = torch.zeros(1, dtype=torch.int32)
    exact, noisy = Tracking(twin, lane, noise=0.0), Tracking(twin, lane, noise=0.05)
    errors = []
    for _ in range(60):
        road = twin.env.road.network
        number = next(k for k, (a, b, i) in enumerate(twin.network.indices) if road.graph[a][b][i] is twin.env.lane)
        lane.fill_(number)
        ours, theirs, disturbed = observe(exact), twin.env.observation_type.observe(), observe(noisy)
        for name in ("state", "derivative", "reference_state"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-6, atol=2e-6)
        np.testing.assert_array_equal(disturbed["reference_state"], ours["reference_state"])
        errors += [disturbed[name] - ours[name] for name in ("state", "derivative")]
        twin.step()
    errors = np.concatenate(errors)
    assert np.abs(errors).max() < 0.05 + 1e-5
    # Uniform errors: their deviation within five standard errors.
    assert errors.std() == pytest.approx(0.05 / math.sqrt(3), rel=5 * math.sqrt(0.2 / errors.size))
    assert abs(errors.mean()) < 5 * 0.05 / math.sqrt(3 * errors.size)


# --- all of them ------------------------------------------------------------------------------------------------------

SENSORS = {
    "list": lambda twin: VehicleList(twin, lanes=2),
    "grid": OccupancyGrid,
    "times": CollisionTimes,
    "lidar": Lidar,
    "goal": Goal,
    "tracking": lambda twin: Tracking(twin, torch.zeros(1, dtype=torch.int32)),
}


@pytest.mark.parametrize("make", SENSORS.values(), ids=SENSORS)
def test_only_worlds_that_ended_are_observed(make):
    twin = Twin("roundabout-v0")
    sensor = make(twin)
    for output in sensor.outputs.values():
        output.fill_(7)
    assert all((output == 7).all() for output in observe(sensor, ENDED).values())
    twin.state.truncated.fill_(1)
    assert not all((output == 7).any() for output in observe(sensor, ENDED).values())


@pytest.mark.parametrize("make", SENSORS.values(), ids=SENSORS)
def test_single_precision_sees_the_same(make):
    double, single = Twin("roundabout-v0"), Twin("roundabout-v0", dtype="float32")
    double.step()
    single.step()
    ours, exact = observe(make(single)), observe(make(double))
    for name, values in ours.items():
        close = np.isclose(values, exact[name], rtol=1e-4, atol=1e-4)
        assert close.mean() > 0.97  # a point within rounding of a cell's edge may fall to either side


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda twin: VehicleList(twin, ["presence", "speed"], lanes=2), "unknown feature 'speed'.*known: ang_off"),
        (lambda twin: VehicleList(twin, ranges={"xx": (0, 1)}), "unknown feature 'xx'"),
        (lambda twin: VehicleList(twin, ranges={"x": (1, 1)}), "range of 'x'"),
        (lambda twin: VehicleList(twin, []), "needs 'lanes'"),
        (lambda twin: VehicleList(twin, [], lanes=1), "at least one feature"),
        (lambda twin: VehicleList(twin, order="sort", lanes=1), "did you mean 'sorted'"),
        (lambda twin: VehicleList(twin, rows=0, lanes=1), "rows must be at least 1"),
        (lambda twin: OccupancyGrid(twin, ["on_rod"]), "did you mean 'on_road'"),
        (lambda twin: OccupancyGrid(twin, step=(50, 3)), "has no cells"),
        (lambda twin: OccupancyGrid(twin, ["vx"], size=((0, 9), (0, 9)), as_image=True), "multiple of 4 bytes"),
        (lambda twin: CollisionTimes(twin, 0.5), "at least a decision of 1 s"),
        (lambda twin: Lidar(twin, 0), "needs cells"),
        (lambda twin: Goal(twin, ["heading"], [1.0]), "unknown feature of a goal 'heading'"),
        (lambda twin: Goal(twin, ["x"], [0.0]), "scales must be 1 numbers"),
        (lambda twin: Goal(twin, goals=[99]), "a slot for each of 1 agents"),
        (lambda twin: Tracking(twin, torch.zeros(1)), r"lane must be int32 of shape \(1,\)"),
        (lambda twin: Tracking(twin, torch.zeros(1, dtype=torch.int32), -1.0), "noise must be at least 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(UserError, match=message):
        make(Twin("two-way-v0"))


def test_parallel_roads_are_refused():
    twin = Twin("two-way-v0")
    twin.maps = None
    with pytest.raises(UserError, match="VehicleList observes road networks"):
        VehicleList(twin, lanes=2)
