"""The raster from above against geometry: areas and places of what stands there, roads, routes, stop lines."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from envs.errors import UserError
from envs.launch import Launch
from envs.phases import ALL
from envs.roads.ground import SHOULDER
from envs.roads.signals import AMBER, GREEN, PERMISSIVE, RED
from envs.sensors.birdseye import CHANNELS, BirdsEye
from envs.state import FORMS, KINDS

HEIGHT = WIDTH = 64
CELL = 1.0
AHEAD = 43  # rows ahead of the observer


def centres() -> tuple[np.ndarray, np.ndarray]:
    """How far ahead and to the right the middle of every pixel is [m]. Shape: (H, W) each."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return (AHEAD - rows) * CELL, (columns - WIDTH / 2) * CELL


@pytest.fixture(scope="module")
def plain():
    """A network's world with an ego at (200, 300), heading 0.7, and nothing else but what a test puts in slot 1."""
    env = envs.make_vec("intersection", 1, device="cpu", observation="bev")
    env.reset(seed=0)
    state = env.state
    state.kind[0, 1:] = 0
    set_slot(state, 0, x=200.0, y=300.0, heading=0.7, speed=8.0)
    yield env
    env.close()


def set_slot(state, slot: int, **values) -> None:
    for name, value in values.items():
        state.tensors[name][0, slot] = value
    state.cos_heading.copy_(state.heading.cos())
    state.sin_heading.copy_(state.heading.sin())


def seen(env) -> dict[str, np.ndarray]:
    """The channels of the first world's raster as floats. Shape: (H, W) each."""
    return dict(zip(CHANNELS, env.observe()["bev"][0].numpy().astype(float), strict=True))


def put(env, ahead: float, right: float, turned: float, **values) -> None:
    """Place slot 1 relative to the ego."""
    state = env.state
    x, y, heading = (state.tensors[name][0, 0].item() for name in ("x", "y", "heading"))
    c, s = math.cos(heading), math.sin(heading)
    place = {"x": x + ahead * c - right * s, "y": y + ahead * s + right * c, "heading": heading + turned}
    set_slot(state, 1, **{"kind": KINDS["idm"], "form": 0, "speed": 0.0, "length": 5.0, "width": 2.0} | place | values)


@settings(deadline=None, max_examples=60)
@given(
    ahead=st.floats(-15, 35),
    right=st.floats(-25, 25),
    turned=st.floats(-math.pi, math.pi),
    length=st.floats(3, 12),
    width=st.floats(1.5, 3),
)
def test_a_vehicles_pixels_are_its_box(plain, ahead, right, turned, length, width):
    put(plain, ahead, right, turned, length=length, width=width)
    share = seen(plain)["vehicle"] / 255
    assert share.sum() * CELL**2 == pytest.approx(length * width, rel=0.06)
    forward, aside = centres()
    weights = share / share.sum()
    assert (weights * forward).sum() == pytest.approx(ahead, abs=0.12)
    assert (weights * aside).sum() == pytest.approx(right, abs=0.12)
    # Pixels wholly inside the box are full, those wholly outside empty.
    along = (forward - ahead) * math.cos(turned) + (aside - right) * math.sin(turned)
    across = (aside - right) * math.cos(turned) - (forward - ahead) * math.sin(turned)
    beyond = np.maximum(np.abs(along) - length / 2, np.abs(across) - width / 2)
    diagonal = CELL * math.sqrt(2) / 2
    assert (share[beyond > diagonal] == 0).all()
    assert (share[beyond < -diagonal] == 1).all()


def test_the_observer_is_where_it_is_told_to_be(plain):
    plain.state.kind[0, 1] = 0
    ego = seen(plain)["ego"] / 255
    assert ego.sum() * CELL**2 == pytest.approx(10.0, rel=1e-2)
    rows, columns = np.nonzero(ego)
    assert (rows.min(), rows.max()) == (AHEAD - 3, AHEAD + 2) and (columns.min(), columns.max()) == (31, 32)
    assert AHEAD == HEIGHT - HEIGHT // 3


def test_velocities_are_those_of_the_map_in_the_observers_directions(plain):
    for turned in (0.0, 1.0, -2.5):
        put(plain, 12.0, 4.0, turned, speed=13.0)
        channels = seen(plain)
        there = channels["vehicle"] > 0
        for name, speed in (("forward", 13 * math.cos(turned)), ("right", 13 * math.sin(turned))):
            assert (channels[name][there] - 128) * 40 / 127 == pytest.approx(speed, abs=0.16)
            assert (channels[name][~there] == 0).all()


@pytest.mark.parametrize(
    ("kind", "form", "channel"),
    [
        ("idm", "truck", "vehicle"),
        ("idm", "cyclist", "person"),
        ("walker", "person", "person"),
        ("obstacle", "cone", "obstacle"),
        ("obstacle", "car", "obstacle"),
        ("landmark", "car", "route"),
    ],
)
def test_everything_has_its_channel(plain, kind, form, channel):
    plain.state.kind[0, 1] = 0
    nothing = seen(plain)
    put(plain, 10.0, -20.0, 0.4, kind=KINDS[kind], form=FORMS.index(form))
    channels = seen(plain)
    changed = {name for name in CHANNELS if (channels[name] != nothing[name]).any()}
    assert changed - {"forward", "right"} == {channel}
    assert ("forward" in changed) == (channel in ("vehicle", "person"))


def test_a_person_is_a_pixel_at_least(plain):
    for right in np.linspace(3.0, 4.0, 7):
        for turned in (0.0, 0.8):
            put(plain, 20.0, right, turned, kind=KINDS["walker"], length=0.4, width=0.55)
            person = seen(plain)["person"] / 255
            assert person.sum() == pytest.approx(1.0, abs=0.25) and person.max() > 0.2


# --- the ground -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turned", [0.0, 0.5, -2.0])
def test_the_ground_of_a_highway(make, turned):
    """Asphalt reaches a shoulder beyond the outer lines; of the target lane all is route."""
    env = make("highway", 1, observation="bev")
    env.reset()
    set_slot(env.state, 0, y=5.0, heading=turned)
    env.state.target_lane[0, 0] = 2
    channels = seen(env)
    forward, aside = centres()
    y = 5.0 + forward * math.sin(turned) + aside * math.cos(turned)
    inside = np.minimum(y + 2 + SHOULDER, 3 * 4 + 2 + SHOULDER - y)
    assert (channels["road"][inside > 1.3] == 255).all()
    assert (channels["road"][inside < -1.3] == 0).all()
    within = 2.0 - np.abs(y - 8.0)
    assert (channels["route"][within > 0.75] == 255).all()
    assert (channels["route"][within < -0.75] == 0).all()
    # A line of 0.2 m covers a fifth of a pixel's width: 2 solid ones, and 3 of which 4 m in 16 m are painted.
    area = channels["marking"].sum() / 255
    solid, dashed = (0.2 * sum((np.floor(y - at + 0.5) == 0).sum() for at in lines) for lines in ((-2, 14), (2, 6, 10)))
    assert area == pytest.approx(solid + dashed / 4, rel=0.2)


@pytest.mark.parametrize("scenario", ["intersection", "roundabout", "racetrack"])
def test_the_ground_of_a_network(make, scenario):
    """Road is what is within half a lane and a shoulder of a centre line, whichever way the observer looks."""
    env = make(scenario, 1, observation="bev", seed=4)
    env.reset()
    state = env.state
    for turned in (0.0, 1.1):
        set_slot(state, 0, heading=state.heading[0, 0].item() + turned)
        road = seen(env)["road"]
        x, y, heading = (state.tensors[name][0, 0].item() for name in ("x", "y", "heading"))
        forward, aside = centres()
        points = np.stack(
            (
                x + forward * math.cos(heading) - aside * math.sin(heading),
                y + forward * math.sin(heading) + aside * math.cos(heading),
            ),
            axis=-1,
        )
        inside = np.full(forward.shape, -np.inf)
        for lane in env.road.lanes:
            line = lane.position(np.arange(0.0, lane.length, 0.5))
            distance = np.sqrt(((points[:, :, None] - line) ** 2).sum(axis=-1)).min(axis=-1)
            inside = np.maximum(inside, lane.width / 2 + SHOULDER - distance)
        assert (inside > 1.5).any()
        assert (road[inside > 1.5] >= 254).all()
        assert (road[inside < -2.0] == 0).all()


def test_a_route_is_where_it_leads(make):
    """From the road that the ego is on to the one that leaves the junction, and nowhere else."""
    env = make("intersection", 1, observation="bev", seed=2)
    env.reset()
    network, state = env.road, env.state
    route = seen(env)["route"]
    x, y, heading = (state.tensors[name][0, 0].item() for name in ("x", "y", "heading"))
    forward, aside = centres()
    points = np.stack(
        (
            x + forward * math.cos(heading) - aside * math.sin(heading),
            y + forward * math.sin(heading) + aside * math.cos(heading),
        ),
        axis=-1,
    )
    # The ego comes from o0 and goes to o1, by its destination.
    path = network.shortest_path("o0", "o1")
    away = np.full(forward.shape, np.inf)
    for a, b in zip(path, path[1:], strict=False):
        line = network.lane((a, b, 0)).position(np.linspace(0.0, network.lane((a, b, 0)).length, 400))
        away = np.minimum(away, np.sqrt(((points[:, :, None] - line) ** 2).sum(axis=-1)).min(axis=-1))
    assert (route[away < 1.2] == 255).all()
    assert (route[away > 2.9] == 0).all()


def test_stop_lines_show_their_signals(make):
    env = make("intersection-signals", 12, observation="bev", seed=0)
    env.reset()
    state = env.state
    waited = 0
    for w in range(12):
        network = env.road_of(w)
        for index in network.stop_lines[::2]:
            lane = network.lane(index)
            x, y = lane.position(lane.length - 20.0)
            heading = float(lane.heading_at(0.0))
            for name, value in (("x", x), ("y", y), ("heading", heading)):
                state.tensors[name][w, 0] = float(value)
            state.cos_heading.copy_(state.heading.cos())
            state.sin_heading.copy_(state.heading.sin())
            heads = {
                head
                for head, signal in enumerate(network.signals)
                for move in signal.movements
                if np.hypot(*(network.lane(move).position(0.0) - lane.position(lane.length))) < 0.1
            }
            if len(heads) > 1:
                continue
            (head,) = heads
            waited += 1
            for shown, stop, go in ((RED, 255, 0), (AMBER, 128, 0), (GREEN, 0, 255), (PERMISSIVE, 0, 128)):
                state.signal[w, head] = shown
                raster = dict(zip(CHANNELS, env.observe()["bev"][w].numpy(), strict=True))
                # The two metres before the line, 18 to 20 m ahead, across the lane of 4 m or less.
                ahead = slice(AHEAD - 20, AHEAD - 18), slice(31, 33)
                assert (raster["stop"][ahead] == stop).all() and (raster["go"][ahead] == go).all()
                assert raster["stop"][AHEAD - 16 : AHEAD, 31:33].max() == 0
    assert waited > 10


# --- every scenario ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", envs.list_scenarios())
@pytest.mark.parametrize("observation", ["bev", "lidar", "grid"])
def test_every_scenario_can_be_observed_in_every_way(make, scenario, observation):
    if observation == "grid" and scenario.startswith("highway"):
        with pytest.raises(UserError, match="'bev' or 'lidar'"):
            make(scenario, 2, observation=observation)
        return
    env = make(scenario, 3, observation=observation)
    obs = env.reset()[0]
    assert obs.keys() - {"route"} == {observation, "speed"}
    agents = (env.scenario.agents,) if env.scenario.agents > 1 else ()
    shape = {"bev": (len(CHANNELS), 64, 64), "lidar": (16, 2), "grid": (4, 12, 12)}[observation]
    assert obs[observation].shape == (3, *agents, *shape)
    for name, rows in obs.items():
        assert env.single_observation_space[name].contains(rows[2].numpy())
    env.single_action_space.seed(0)
    actions = np.stack([env.single_action_space.sample() for _ in range(3)])
    after = env.step(torch.as_tensor(actions))[0]
    assert all(torch.isfinite(rows.float()).all() for rows in after.values())


def test_each_agent_has_a_raster_of_its_own(make):
    """Both are in the other's, at places that are each other's mirror images."""
    env = make("parking", 1, observation="bev", agents=2)
    raster = env.reset()[0]["bev"][0].numpy().astype(float)
    forward, aside = centres()
    state = env.state
    for a in range(2):
        other = 1 - a
        dx, dy = (float(state.tensors[n][0, other] - state.tensors[n][0, a]) for n in ("x", "y"))
        c, s = float(state.cos_heading[0, a]), float(state.sin_heading[0, a])
        weights = raster[a, CHANNELS.index("vehicle")]
        weights = weights / weights.sum()
        assert (weights * forward).sum() == pytest.approx(dx * c + dy * s, abs=0.1)
        assert (weights * aside).sum() == pytest.approx(dy * c - dx * s, abs=0.1)


def test_rows_may_be_drawn_by_threads_of_their_own(make):
    """As a GPU draws them."""
    env = make("intersection-signals", 4, observation="bev")
    obs = env.reset()[0]["bev"]
    drawn = obs.clone()
    sensor = env.sim.sensors[0]
    gather, draw = sensor.launches(ALL)
    inputs = (*draw.inputs[:6], 64, ALL)
    obs.fill_(77)
    for launch in (gather, Launch(draw.kernel, (1, 64), inputs)):
        launch.record(env.sim.warp_device, 0, 4).launch()
    assert torch.equal(obs, drawn)


def test_rasters_that_cannot_be_drawn_are_told(plain):
    for options, named in (
        ({"width": 40}, "multiple of 16"),
        ({"height": 2}, "multiple of 16"),
        ({"cell": 0.01}, "0.125 m or more"),
    ):
        with pytest.raises(UserError, match=named):
            BirdsEye(plain.sim, **options)
