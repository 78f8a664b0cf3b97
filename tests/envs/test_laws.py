"""The laws against closed forms and against highway-env's own functions, on random states."""

import functools
import math

import numpy as np
import pytest
import torch
import warp as wp
from highway_env import utils
from highway_env.road.road import Road, RoadNetwork
from highway_env.vehicle.behavior import IDMVehicle
from highway_env.vehicle.controller import ControlledVehicle, MDPVehicle
from highway_env.vehicle.kinematics import Vehicle
from hypothesis import example, given, settings
from hypothesis import strategies as st

from envs.physics import actions, bicycle, collision, control, idm
from envs.physics.idm import DriverModel
from envs.roads import parallel
from envs.scenarios.highway import Highway
from envs.simulation import Simulation, resolve_device
from envs.state import IDM, META, PLAIN, WorldState, world_struct

real = wp.float64
CPU = torch.device("cpu")
FRAME = 1 / 15


def number(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers of a range, none so small that its square is not a normal one."""
    return st.floats(low, high).map(lambda value: 0.0 if abs(value) < 1e-9 else value)


@functools.cache
def kernels() -> dict[str, wp.Kernel]:
    """The laws as kernels: one thread, results in arrays."""
    road_law, drivers, tracking = parallel.build(real), idm.build(real), control.build(real)
    motion, contact, act = bicycle.build(real), collision.build(real), actions.build(real, parallel.build(real))
    World, Road, Driver, Speeds = world_struct(real), road_law.Road, drivers.Driver, act.Controls

    @wp.kernel(module="unique")
    def integrate(world: World, dt: real, frames: int, path: wp.array2d(dtype=real)):
        for frame in range(frames):
            path[frame, 0] = world.vehicle[0, 0].x
            path[frame, 1] = world.vehicle[0, 0].y
            path[frame, 2] = world.vehicle[0, 0].speed
            path[frame, 3] = world.vehicle[0, 0].heading
            motion.integrate(world, 0, 0, dt)

    @wp.kernel(module="unique")
    def car_following(driver: Driver, speed: real, target: real, limit: real, exponent: real, lead_speed: real,
                      gap: real, out: wp.array(dtype=real)):  # fmt: skip
        out[0] = drivers.free_acceleration(driver, speed, target, limit, exponent)
        out[1] = drivers.interaction(driver, speed, speed - lead_speed, gap)

    @wp.kernel(module="unique")
    def track(lateral: real, heading: real, speed: real, target: real, out: wp.array(dtype=real)):
        out[0] = tracking.lane_keeping(lateral, real(0.0), heading, speed)
        out[1] = tracking.cruise(target, speed)

    @wp.kernel(module="unique")
    def overlap(world: World, dt: real, out: wp.array(dtype=real)):
        found = contact.overlap(world, 0, 0, 1, dt)
        out[0] = real(found.now)
        out[1] = real(found.soon)
        out[2] = found.x
        out[3] = found.y

    @wp.kernel(module="unique")
    def neighbours(world: World, road: Road, out: wp.array3d(dtype=wp.int32)):
        road_law.sort(world, 0)
        for i in range(world.slots):
            for lane in range(road.lanes):
                out[i, lane, 0] = road_law.front(world, road, 0, i, lane)
                out[i, lane, 1] = road_law.behind(world, road, 0, i, lane, wp.vec2i(-1, -1))

    @wp.kernel(module="unique")
    def leaders(world: World, road: Road, swept: wp.array2d(dtype=wp.int32), walked: wp.array3d(dtype=wp.int32)):
        """Who is ahead on every lane, by the sweep over all vehicles and by the surroundings of each."""
        road_law.sort(world, 0)
        frontmost = road_law.nobody()
        for last in range(world.slots):
            r = world.slots - 1 - last
            i = world.vehicle[0, r].order
            for lane in range(road.lanes):
                swept[i, lane] = road_law.front_at(world, road, 0, r, lane, frontmost)
                right = wp.where(lane < road.lanes - 1, lane + 1, -1)
                near = road_law.surroundings(world, road, 0, i, lane - 1, lane, right)
                walked[i, lane, 0] = near.left[0]
                walked[i, lane, 1] = near.own[0]
                walked[i, lane, 2] = near.right[0]
            road_law.pass_by(world, road, 0, i, frontmost)

    @wp.kernel(module="unique")
    def on_road(world: World, road: Road, lane: int, out: wp.array(dtype=wp.int32)):
        road_law.closest_lane(world, road, 0, 0)
        out[0] = wp.where(road_law.on_lane(road, lane, world.vehicle[0, 0].x, world.vehicle[0, 0].y, real(0.0)), 1, 0)
        out[1] = wp.where(road_law.reachable(world, road, 0, 0, lane), 1, 0)

    @wp.kernel(module="unique")
    def meta(world: World, road: Road, speeds: Speeds, action: int):
        act.meta(world, road, speeds, 0, 0, action)

    return {k: v for k, v in locals().items() if isinstance(v, wp.Kernel)}


def launch(name: str, *inputs) -> None:
    wp.launch(kernels()[name], 1, list(inputs), device="cpu")


def world_of(**columns: list[float]) -> WorldState:
    """One world whose slots have these values; cars of 5 m by 2 m unless told otherwise."""
    slots = len(next(iter(columns.values())))
    state = WorldState(1, slots, CPU, "float64")
    defaults = {"length": [5.0] * slots, "width": [2.0] * slots, "kind": [IDM] * slots, "heading": [0.0] * slots}
    for name, values in (defaults | columns).items():
        state.tensors[name][0] = torch.tensor(values, dtype=torch.float64)
    state.cos_heading.copy_(state.heading.cos())
    state.sin_heading.copy_(state.heading.sin())
    return state


def road_struct(lanes: int, length: float = 10_000.0):
    road = parallel.build(real).Road()
    road.lanes, road.lane_width, road.length, road.speed_limit = lanes, 4.0, length, 30.0
    return road


def driver_struct(model: DriverModel):
    driver = idm.build(real).Driver()
    idm.fill(driver, model)
    return driver


def highway(lanes: int, length: float = 10_000.0) -> Road:
    """highway-env's road of that shape, empty."""
    network = RoadNetwork.straight_road_network(lanes, length=length, speed_limit=30)
    return Road(network, np_random=np.random.RandomState(0))


# --- the bicycle model ------------------------------------------------------------------------------------------------


@given(number(-30, 30), number(-math.pi, math.pi), number(-6, 6), st.integers(2, 40))
@settings(max_examples=60)
def test_bicycle_goes_straight_without_steering(speed, heading, acceleration, frames):
    """Distance of n frames: n v dt + a dt^2 n (n - 1) / 2, along the heading."""
    state = world_of(x=[3.0], y=[-7.0], heading=[heading], speed=[speed], acceleration=[acceleration])
    path = torch.zeros(frames, 4, dtype=torch.float64)
    launch("integrate", state.warp, FRAME, frames, wp.from_torch(path))
    n = np.arange(frames)
    # Speeds beyond 40 m/s are bounded; up to there the law is that of a uniformly accelerated body.
    free = np.abs(path[:, 2].numpy()) < 40
    n, path = n[free], path.numpy()[free]
    distance = n * speed * FRAME + acceleration * FRAME**2 * n * (n - 1) / 2
    np.testing.assert_allclose(path[:, 0], 3 + distance * math.cos(heading), atol=1e-9)
    np.testing.assert_allclose(path[:, 1], -7 + distance * math.sin(heading), atol=1e-9)
    np.testing.assert_allclose(path[:, 2], speed + acceleration * FRAME * n, atol=1e-9)
    assert (path[:, 3] == heading).all()


@given(number(1, 38), number(-math.pi, math.pi), number(-0.6, 0.6).filter(lambda slip: abs(slip) > 1e-3))
@settings(max_examples=60)
def test_bicycle_turns_on_a_circle(speed, heading, slip):
    """Points of constant slip are a geometric sum: chords of v dt that turn by v sin(slip) / 2.5 dt."""
    frames = 30
    state = world_of(x=[0.0], y=[0.0], heading=[heading], speed=[speed], sin_slip=[math.sin(slip)])
    path = torch.zeros(frames, 4, dtype=torch.float64)
    launch("integrate", state.warp, FRAME, frames, wp.from_torch(path))
    turn = speed * math.sin(slip) / 2.5 * FRAME
    n = np.arange(frames)
    chord = speed * FRAME * np.exp(1j * (heading + slip))
    expected = chord * (1 - np.exp(1j * turn * n)) / (1 - np.exp(1j * turn))
    np.testing.assert_allclose(path[:, 0] + 1j * path[:, 1], expected, atol=1e-8)
    np.testing.assert_allclose(path[:, 3], heading + turn * n, atol=1e-9)


def test_bicycle_radius_tends_to_that_of_the_continuous_model():
    """dt -> 0: the centre's path is a circle of radius 2.5 m / sin(slip)."""
    slip, speed, dt, frames = 0.4, 20.0, 1e-4, 20_000
    state = world_of(x=[0.0], y=[0.0], speed=[speed], sin_slip=[math.sin(slip)])
    path = torch.zeros(frames, 4, dtype=torch.float64)
    launch("integrate", state.warp, dt, frames, wp.from_torch(path))
    radius = 2.5 / math.sin(slip)
    centre = radius * np.array([-math.sin(slip), math.cos(slip)])
    distance = np.hypot(*(path[:, :2].numpy() - centre).T)
    np.testing.assert_allclose(distance, radius, rtol=1e-3)
    assert path[:, 3].max() > 2  # a good part of the circle was driven


def test_bicycle_stops_a_crashed_car():
    path = torch.zeros(31, 4, dtype=torch.float64)
    state = world_of(x=[0.0], y=[0.0], speed=[20.0], crashed=[1], acceleration=[6.0], sin_slip=[0.3])
    launch("integrate", state.warp, FRAME, 31, wp.from_torch(path))
    np.testing.assert_allclose(path[:, 2], 20 * (1 - FRAME) ** np.arange(31), rtol=1e-12)
    assert (path[:, 1] == 0).all()


@given(number(-60, 60), number(-6, 6), number(-1, 1), number(-math.pi, math.pi), st.booleans(), st.booleans())
@settings(max_examples=100)
def test_bicycle_equals_highway_envs(speed, acceleration, steering, heading, crashed, hit):
    """Beyond the top speed, after a crash and with the impact of one pending, too."""
    car = Vehicle(highway(1), [50, 0], heading, speed)
    car.act({"acceleration": acceleration, "steering": steering})
    car.crashed, car.impact = crashed, np.array([0.3, -0.2]) if hit else None
    state = world_of(x=[50.0], y=[0.0], heading=[heading], speed=[speed], acceleration=[acceleration],
                     sin_slip=[math.sin(math.atan(math.tan(steering) / 2))], crashed=[int(crashed)],
                     has_impact=[int(hit)], impact_x=[0.3], impact_y=[-0.2])  # fmt: skip
    path = torch.zeros(12, 4, dtype=torch.float64)
    launch("integrate", state.warp, FRAME, 12, wp.from_torch(path))
    theirs = []
    for _ in range(12):
        theirs.append([*car.position, car.speed, car.heading])
        car.step(FRAME)
    np.testing.assert_allclose(path, theirs, rtol=0, atol=1e-9)
    assert bool(state.crashed.item()) == car.crashed


# --- IDM --------------------------------------------------------------------------------------------------------------


@given(number(0, 28), number(3.5, 4.5), number(29, 40))
@settings(max_examples=60)
def test_idm_is_at_rest_at_its_equilibrium_gap(speed, exponent, target):
    """d = (d0 + T v) / sqrt(1 - (v / v0)^delta), v0 capped by the speed limit of 30 m/s."""
    gap = (10 + 1.5 * speed) / math.sqrt(1 - (speed / min(target, 30)) ** exponent)
    out = torch.zeros(2, dtype=torch.float64)
    driver = driver_struct(DriverModel())
    launch("car_following", driver, speed, target, 30.0, exponent, speed, gap, wp.from_torch(out))
    assert out[0].item() == pytest.approx(out[1].item(), abs=1e-9)


@given(number(-3, 40), number(-3, 40), number(-10, 200), number(0, 40), number(3.5, 4.5))
@settings(max_examples=100)
def test_idm_equals_highway_envs_acceleration(speed, lead_speed, gap, target, exponent):
    road = highway(1)
    follower = IDMVehicle(road, [100, 0], speed=speed)
    follower.target_speed, follower.DELTA = target, exponent
    lead = IDMVehicle(road, [100 + gap, 0], speed=lead_speed)
    out = torch.zeros(2, dtype=torch.float64)
    driver = driver_struct(DriverModel())
    gap = lead.position[0] - follower.position[0]
    launch("car_following", driver, speed, target, 30.0, exponent, lead_speed, gap, wp.from_torch(out))
    assert out[0].item() == pytest.approx(follower.acceleration(follower), rel=1e-9, abs=1e-9)
    assert (out[0] - out[1]).item() == pytest.approx(follower.acceleration(follower, lead), rel=1e-9, abs=1e-9)


def test_a_platoon_settles_at_the_equilibrium_gap():
    """The laws together: three cars behind one of constant speed, on one lane."""
    speed = 18.0
    scenario = Highway("platoon", "highway", "", lanes=1, vehicles=3, duration=1e9)
    simulation = Simulation(scenario, 1, resolve_device("cpu"), "float64", "plain")
    simulation.reset(0)
    state = simulation.state
    state.x[0] = torch.tensor([400.0, 370, 330, 280])
    state.y.zero_()
    state.speed[0] = torch.tensor([speed, 25, 20, 22])
    state.target_speed[0, 1:] = torch.tensor([30.0, 26, 23])
    for array in (state.lane, state.target_lane):
        array.zero_()
    simulation.commands.zero_()
    for _ in range(300):
        simulation.step_once()
    exponent, target = state.exponent[0, 1:].numpy(), state.target_speed[0, 1:].numpy()
    expected = (10 + 1.5 * speed) / np.sqrt(1 - (speed / target) ** exponent)
    np.testing.assert_allclose(state.x[0, :-1] - state.x[0, 1:], expected, rtol=1e-4)
    np.testing.assert_allclose(state.speed[0], speed, rtol=1e-5)
    assert not state.crashed.any()
    simulation.close()


# --- control and actions ----------------------------------------------------------------------------------------------


@given(number(-6, 6), number(-4, 4), number(-5, 45), number(0, 40))
@example(0.0, 0.0, 0.0, 0.0)
@settings(max_examples=150)
def test_lane_keeping_equals_highway_envs_steering(lateral, heading, speed, target):
    car = ControlledVehicle(highway(1), [100, lateral], heading=heading, speed=speed)
    steering = car.steering_control(("0", "1", 0))
    out = torch.zeros(2, dtype=torch.float64)
    launch("track", lateral, heading, speed, target, wp.from_torch(out))
    # The slip angle that highway-env's bicycle model makes of the steering angle.
    slip = math.atan(math.tan(steering) / 2)
    assert out[0].item() == pytest.approx(math.sin(slip), abs=1e-9)
    assert out[1].item() == pytest.approx(car.speed_control(target), abs=1e-9)


@given(st.integers(0, 4), st.integers(0, 3), number(-3, 15), st.sampled_from([0.0, 20, 22.5, 25, 27.5, 30, 33]))
@settings(max_examples=100)
def test_meta_actions_equal_highway_envs(action, target_lane, y, speed):
    car = MDPVehicle(highway(4), [100, y], speed=speed, target_lane_index=("0", "1", target_lane))
    state = world_of(x=[100.0], y=[y], speed=[speed], kind=[META], target_lane=[target_lane])
    state.speed_index[0, 0], state.target_speed[0, 0] = car.speed_index, car.target_speed
    speeds = actions.build(real, parallel.build(real)).Controls()
    speeds.low, speeds.high, speeds.count = 20.0, 30.0, 3
    launch("meta", state.warp, road_struct(4), speeds, action)
    car.act(actions.META_ACTIONS[action])
    assert state.target_lane.item() == car.target_lane_index[2]
    assert (state.speed_index.item(), state.target_speed.item()) == (car.speed_index, car.target_speed)


# --- collisions -------------------------------------------------------------------------------------------------------


def boxes(draw_angle: st.SearchStrategy[float]):
    """A box: centre, heading, speed, length, width."""
    return st.tuples(number(-6, 6), number(-6, 6), draw_angle, number(-30, 45), number(1, 8), number(0.5, 3))


angles = number(-math.pi, math.pi)
nearly_aligned = st.one_of(st.just(0.0), number(-0.3, 0.3))


@given(st.one_of(st.tuples(boxes(angles), boxes(angles)), st.tuples(boxes(nearly_aligned), boxes(nearly_aligned))))
@settings(max_examples=400)
def test_overlap_equals_highway_envs(pair):
    state = world_of(
        x=[100 + box[0] for box in pair],
        y=[box[1] for box in pair],
        heading=[box[2] for box in pair],
        speed=[box[3] for box in pair],
        length=[box[4] for box in pair],
        width=[box[5] for box in pair],
    )
    road, cars = highway(1), []
    for x, y, heading, speed, length, width in pair:
        car = Vehicle(road, [100 + x, y], heading, speed)
        car.LENGTH, car.WIDTH = length, width
        cars.append(car)
    a, b = cars
    moves = (a.velocity * FRAME, b.velocity * FRAME)
    now, soon, translation = utils.are_polygons_intersecting(a.polygon(), b.polygon(), *moves)
    # Boxes that touch within rounding may count either way.
    if not _clearly(a, b, np.zeros(2)) or not _clearly(a, b, moves[0] - moves[1]):
        return
    out = torch.zeros(4, dtype=torch.float64)
    launch("overlap", state.warp, FRAME, wp.from_torch(out))
    assert (out[0].item(), out[1].item()) == (now, soon)
    if soon:
        # Where two translations are equally short, either may be chosen; and either side, where the centres are level.
        assert out[2:].norm().item() == pytest.approx(np.linalg.norm(translation), abs=1e-9)
        shortest = _translations(a, b, moves[0] - moves[1])
        if shortest[1] - shortest[0] > 1e-6 and _offset(a, b) > 1e-6:
            np.testing.assert_allclose(out[2:], translation, atol=1e-9)


def _axes(a: Vehicle, b: Vehicle) -> list[np.ndarray]:
    return [axis for car in (a, b) for axis in (car.direction, np.array([-car.direction[1], car.direction[0]]))]


def _penetrations(a: Vehicle, b: Vehicle, move: np.ndarray) -> list[float]:
    """How deep the boxes are in each other along each axis, a's stretched by its motion; negative where apart."""
    depths = []
    for axis in _axes(a, b):
        p, q, sweep = a.polygon() @ axis, b.polygon() @ axis, move @ axis
        low, high = p.min() + min(sweep, 0), p.max() + max(sweep, 0)
        depths.append(min(high - q.min(), q.max() - low))
    return depths


def _clearly(a: Vehicle, b: Vehicle, move: np.ndarray) -> bool:
    return abs(min(_penetrations(a, b, move))) > 1e-9


def _translations(a: Vehicle, b: Vehicle, move: np.ndarray) -> list[float]:
    """Lengths of the translations that would part the boxes along axes of different direction, shortest first."""
    depths = _penetrations(a, b, move)
    if abs(np.sin(2 * (a.heading - b.heading))) < 1e-9:
        # Parallel or perpendicular boxes have two axes, each met twice.
        turned = abs(np.cos(a.heading - b.heading)) < 0.5
        depths = [min(depths[0], depths[3 if turned else 2]), min(depths[1], depths[2 if turned else 3])]
    return sorted(depths)


def _offset(a: Vehicle, b: Vehicle) -> float:
    """The least distance between the centres along any axis."""
    return min(abs((a.position - b.position) @ axis) for axis in _axes(a, b))


# --- neighbours -------------------------------------------------------------------------------------------------------


def our_neighbours(positions: list[tuple[float, float]], lanes: int, length: float) -> np.ndarray:
    """Slots ahead and behind of every vehicle on every lane, -1 for none. Shape: (V, lanes, 2)."""
    state = world_of(x=[x for x, _ in positions], y=[y for _, y in positions])
    out = torch.zeros(len(positions), lanes, 2, dtype=torch.int32)
    launch("neighbours", state.warp, road_struct(lanes, length), wp.from_torch(out))
    return out.numpy()


def slot(road: Road, vehicle: Vehicle | None) -> int:
    return -1 if vehicle is None else next(k for k, other in enumerate(road.vehicles) if other is vehicle)


# Few different values, so that several vehicles are level, on lane borders and at the ends of the road.
places = st.tuples(
    st.sampled_from([-6.0, -5.0, -1.0, 0.0, 10.0, 10.5, 11.0, 60.0, 104.0, 105.0, 106.0]),
    st.sampled_from([-3.5, -3.0, -1.0, 0.0, 1.0, 2.0, 2.9, 3.0, 3.1, 4.0, 6.5, 8.0, 11.0, 11.5]),
)


@given(st.lists(st.one_of(places, st.tuples(number(-10, 110), number(-5, 15))), min_size=1, max_size=9))
@settings(max_examples=150)
def test_neighbours_equal_highway_envs(positions):
    lanes, length = 3, 100.0
    road = highway(lanes, length)
    road.vehicles = [Vehicle(road, position) for position in positions]
    ours = our_neighbours(positions, lanes, length)
    for i, vehicle in enumerate(road.vehicles):
        for lane in range(lanes):
            front, rear = road.neighbour_vehicles(vehicle, ("0", "1", lane))
            assert ours[i, lane].tolist() == [slot(road, front), slot(road, rear)]


@pytest.mark.parametrize("lanes", [1, 3, 6])
@given(st.lists(st.one_of(places, st.tuples(number(-10, 110), number(-5, 25))), min_size=1, max_size=9))
@settings(max_examples=60)
def test_short_cuts_find_the_same_leaders(lanes, positions):
    """However many lanes there are: a sweep keeps track of some, and walks on the others."""
    ahead = our_neighbours(positions, lanes, 100.0)[:, :, 0]
    state = world_of(x=[x for x, _ in positions], y=[y for _, y in positions])
    swept = torch.zeros(len(positions), lanes, dtype=torch.int32)
    walked = torch.zeros(len(positions), lanes, 3, dtype=torch.int32)
    launch("leaders", state.warp, road_struct(lanes, 100.0), wp.from_torch(swept), wp.from_torch(walked))
    assert swept.tolist() == ahead.tolist()
    assert walked[:, 1:, 0].tolist() == ahead[:, :-1].tolist()
    assert walked[:, :, 1].tolist() == ahead.tolist()
    assert walked[:, :-1, 2].tolist() == ahead[:, 1:].tolist()


@given(number(-10, 110), st.one_of(number(-6, 15), st.sampled_from([-2.0, 2.0, 6.0, 8.0])), st.integers(0, 2))
@settings(max_examples=150)
def test_lanes_equal_highway_envs(x, y, lane):
    network = highway(3, 100.0).network
    out = torch.zeros(2, dtype=torch.int32)
    state = world_of(x=[x], y=[y])
    launch("on_road", state.warp, road_struct(3, 100.0), lane, wp.from_torch(out))
    theirs = network.get_lane(("0", "1", lane))
    assert state.lane.item() == network.get_closest_lane_index(np.array([x, y]))[2]
    assert bool(out[0]) == theirs.on_lane(np.array([x, y]))
    assert bool(out[1]) == theirs.is_reachable_from(np.array([x, y]))


def test_absent_slots_are_nobodys_neighbours():
    state = world_of(x=[50.0, 60, 70, 40, 30], y=[0.0] * 5, kind=[PLAIN, 0, IDM, 0, IDM])
    out = torch.zeros(5, 1, 2, dtype=torch.int32)
    launch("neighbours", state.warp, road_struct(1), wp.from_torch(out))
    assert out[0, 0].tolist() == [2, 4]
