"""Labels of the probes: closed forms on a road laid out by hand, other ways to measure the same, drawn pictures."""

import math

import numpy as np
import pytest
import torch

import envs
from envs import scenarios
from envs.physics.actions import META_ACTIONS
from envs.roads import lanes
from envs.sensors.rig import SURROUND
from envs.state import FORMS, OBSTACLE
from evaluation.probes import recording, signals
from evaluation.probes.labels import COLOURS, Reader, curvature
from evaluation.probes.wanderers import Wanderers
from evaluation.recorder import newest_picture


@pytest.fixture(scope="module")
def highway():
    env = envs.make_vec("highway", num_worlds=1, device="cpu", observation="camera")
    env.reset(seed=0)
    yield env
    env.close()


def laid_out(env, *cars: tuple[float, float, float], turn: float = 0.0) -> dict[str, float | None]:
    """The labels of a highway with 5 m x 2 m cars at (x, y, speed), the ego first; None where they are not defined."""
    s = env.state
    s.kind[:, 1:], s.time[:] = 0, 5.0
    for slot, (x, y, speed) in enumerate(cars):
        s.x[0, slot], s.y[0, slot], s.speed[0, slot], s.heading[0, slot] = x, y, speed, 0.0
        s.length[0, slot], s.width[0, slot] = 5.0, 2.0
        s.kind[0, slot] = 2 if slot == 0 else 1
    s.heading[0, 0] = turn
    found = Reader(env).read()
    return {name: float(label.value) if label.mask else None for name, label in found.items()}


def test_a_leader_is_as_far_and_as_slow_as_it_was_put(highway):
    # 20 m between the bumpers, 10 m/s faster: 2 s are left, and 10^2 / 40 = 2.5 m/s2 are needed.
    found = laid_out(highway, (100.0, 4.0, 25.0), (125.0, 4.0, 15.0), (180.0, 8.0, 30.0))
    assert (found["lead_presence"], found["lead_distance"]) == (1, pytest.approx(20.0))
    assert (found["lead_speed"], found["own_speed"]) == (pytest.approx(-10.0), 25.0)
    assert (found["ttc_below_3s"], found["brake_needed"]) == (1, 1)
    assert META_ACTIONS[int(found["expert_action"])] == "SLOWER"
    # 45 m: 4.5 s and 1.1 m/s2.
    found = laid_out(highway, (100.0, 4.0, 25.0), (150.0, 4.0, 15.0))
    assert (found["ttc_below_3s"], found["brake_needed"], found["lead_distance"]) == (0, 0, pytest.approx(45.0))
    # Beyond 60 m nobody leads.
    found = laid_out(highway, (100.0, 4.0, 25.0), (165.1, 4.0, 15.0))
    assert (found["lead_presence"], found["lead_distance"], found["lead_speed"]) == (0, None, None)


def test_place_on_the_lane(highway):
    found = laid_out(highway, (100.0, 4.7, 25.0), turn=math.radians(3.0))
    assert found["lane_offset"] == pytest.approx(0.7, abs=1e-5) and found["heading_error"] == pytest.approx(
        3.0, abs=1e-4
    )
    assert found["curvature"] == 0 and found["signal"] is None
    assert laid_out(highway, (100.0, 4.0, 25.0), (102.0, 0.0, 25.0))["left_beside"] == 1
    assert laid_out(highway, (100.0, 4.0, 25.0), turn=math.radians(50.0))["lane_offset"] is None


def test_motion_is_not_asked_of_a_stack_of_one_frame(highway):
    laid_out(highway, (100.0, 4.0, 25.0), (125.0, 4.0, 15.0))
    highway.state.time[:] = 0
    found = Reader(highway).read()
    moving = ("lead_speed", "own_speed", "ttc_below_3s", "brake_needed", "expert_action")
    assert not any(found[name].mask.any() for name in moving)
    assert found["lead_distance"].mask.all()


@pytest.mark.parametrize(
    "lane",
    [
        lanes.straight((0.0, 0.0), (80.0, 30.0)),
        lanes.circular((3.0, 4.0), 15.0, 0.5, 3.0),
        lanes.circular((3.0, 4.0), 25.0, 3.0, 0.5, clockwise=False),
        lanes.sine((0.0, 0.0), (100.0, 10.0), 4.0, 2 * math.pi / 60, 0.3),
    ],
    ids=["straight", "right", "left", "sine"],
)
def test_curvature_is_that_of_the_circle_through_three_points(lane):
    for s in np.linspace(2.0, lane.length - 2.0, 9):
        a, b, c = (lane.position(s + step) for step in (-0.05, 0.0, 0.05))
        # Menger: four times the triangle's area over the product of its sides. y points down, so right is positive.
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        sides = math.dist(a, b) * math.dist(b, c) * math.dist(a, c)
        assert curvature(lane, float(s)) == pytest.approx(2 * area / sides, abs=1e-4)


def test_curvature_of_a_polyline_is_that_of_the_arc_it_stands_for():
    phase = np.linspace(0.0, 2.0, 200)
    arc = lanes.polyline(np.stack([20 * np.sin(phase), 20 * (1 - np.cos(phase))], 1))
    assert curvature(arc, 18.3) == pytest.approx(1 / 20, rel=0.1)


def test_place_on_a_network_is_that_of_the_trajectory_metrics():
    env = envs.make_vec("roundabout", num_worlds=8, device="cpu", ego="idm")
    env.reset(seed=1)
    reader, apart = Reader(env), []
    for _ in range(6):
        env.step(torch.zeros(8, dtype=torch.int64))
        pose, places = reader.on_lane(), reader._trajectory().on_lane
        turned = torch.remainder(pose.turn - places.heading[0] + math.pi, 2 * math.pi) - math.pi
        apart.append(torch.stack([pose.offset - places.across[0], turned.rad2deg()])[:, pose.on])
    env.close()
    offset, turned = torch.cat(apart, 1)
    # Those take bends for straight pieces of 1 m: up to 1.5 degrees at the radius of 20 m. Across a lane that is a sine
    # curve the simulator measures square to its axis.
    assert len(offset) > 20 and offset.abs().max() < 0.15 and offset.abs().median() < 0.02
    assert turned.abs().max() < 3.0 and turned.abs().median() < 1.0


def test_the_lane_to_be_kept_is_found_without_the_simulators_help():
    env = envs.make_vec("lane-keeping", num_worlds=2, device="cpu")
    env.reset(seed=0)
    lane, s = env.road.lane(("c", "d", 0)), 61.3
    (x, y), heading = lane.position(s), float(lane.heading_at(s))
    state = env.state
    state.x[:, 0], state.y[:, 0] = float(x - 0.4 * math.sin(heading)), float(y + 0.4 * math.cos(heading))
    state.heading[:, 0] = heading + math.radians(5.0)
    pose = Reader(env).on_lane()
    env.close()
    assert pose.on.all() and pose.offset.tolist() == pytest.approx([0.4] * 2, abs=0.02)
    assert pose.turn.rad2deg().tolist() == pytest.approx([5.0] * 2, abs=0.3)
    assert pose.bend.tolist() == pytest.approx([curvature(lane, s)] * 2, abs=2e-3)


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def junction():
    """Egos that obey signals, after some time; and what they read, step by step."""
    env = envs.make_vec("intersection-signals", num_worlds=8, device="cpu", ego="idm")
    env.reset(seed=2)
    reader, seen = Reader(env), []
    for step in range(24):
        env.step(torch.zeros(8, dtype=torch.int64))
        if step % 3 == 2:
            picture = newest_picture(env.get_state()["obs.camera"])
            sight = reader._signals(reader._trajectory().routes)
            seen.append((sight, picture, env.state.speed[:, 0].clone(), reader.read()))
    yield env, reader, seen
    env.close()


def test_who_stands_alone_at_a_stop_line_stands_at_a_light_that_is_not_green(junction):
    _, _, seen = junction
    colours = [
        int(sight.colour[w])
        for sight, _, speed, labels in seen
        for w in range(8)
        if speed[w] < 0.2 and 2.0 < sight.distance[w] < 8.0 and not labels["lead_distance"].mask[w]
    ]
    assert len(colours) >= 3 and COLOURS.index("green") not in colours


def test_a_lamp_that_is_seen_shines_in_its_colour(junction):
    _, _, seen = junction
    counts = {"green": 0, "other": 0}
    for sight, picture, _, labels in seen:
        red, green, blue = picture.int().unbind(1)
        shines = ((green > 150) & (green > 1.5 * red) & (green > 1.3 * blue)).flatten(1).any(1)
        asked = labels["signal"].mask
        assert shines[asked & (sight.colour == COLOURS.index("green"))].all()
        counts["green"] += int((asked & (sight.colour == 2)).sum())
        counts["other"] += int((asked & (sight.colour != 2)).sum())
    assert min(counts.values()) >= 3


def test_a_lamp_behind_a_wall_is_not_seen_and_looking_changes_nothing(junction):
    env, reader, seen = junction
    saved = env.get_state()
    routes = reader._trajectory().routes
    sight = reader._signals(routes)
    after = env.get_state()
    assert all(torch.equal(saved[name], after[name]) for name in saved)
    worlds = (sight.pixels >= 2).nonzero()[:, 0]
    assert len(worlds) > 0
    s = env.state
    for w in worlds.tolist():
        c, d = float(s.cos_heading[w, 0]), float(s.sin_heading[w, 0])
        slot = s.slots - 1
        s.used[w] = s.slots
        for name, value in (("x", s.x[w, 0] + 4 * c), ("y", s.y[w, 0] + 4 * d), ("heading", s.heading[w, 0])):
            getattr(s, name)[w, slot] = value
        s.cos_heading[w, slot], s.sin_heading[w, slot] = c, d
        s.length[w, slot], s.width[w, slot], s.height[w, slot] = 0.5, 60.0, 12.0
        s.kind[w, slot], s.form[w, slot] = OBSTACLE, FORMS.index("wall")
    assert (signals.lamps(env, sight.head, sight.colour)[worlds] == 0).all()
    env.set_state(saved)


# --- maps -------------------------------------------------------------------------------------------------------------


def test_cells_that_are_taken_are_those_under_boxes():
    wandering = Wanderers(scenarios.get("highway"), 12, "cpu", 2, 7, SURROUND)
    for _ in range(4):
        wandering.step()
    taken = recording.occupancy(wandering.obs["bev"])
    s = wandering.worlds.state
    rows, columns = taken.shape[1:]
    ahead = recording.DEPTH - recording.CELL * (torch.arange(rows) + 0.5)
    right = recording.CELL * (torch.arange(columns) + 0.5) - recording.SIDE
    c, d = s.cos_heading[:, :1], s.sin_heading[:, :1]
    dx, dy = s.x - s.x[:, :1], s.y - s.y[:, :1]
    forward, side = dx * c + dy * d, dy * c - dx * d
    turn = s.heading - s.heading[:, :1]
    u = ahead[None, :, None, None] - forward[:, None, None]
    v = right[None, None, :, None] - side[:, None, None]
    along = (u * turn.cos()[:, None, None] + v * turn.sin()[:, None, None]).abs() - s.length[:, None, None] / 2
    across = (v * turn.cos()[:, None, None] - u * turn.sin()[:, None, None]).abs() - s.width[:, None, None] / 2
    others = s.kind != 0
    others[:, 0] = False
    # How far a cell's middle is inside the nearest box, negative, or outside.
    off = torch.where(others[:, None, None], torch.maximum(along, across), torch.inf).amin(-1)
    wandering.close()
    assert (off < -0.5).sum() > 10
    assert taken[off < -0.5].all() and not taken[off > 1.5].any()


def test_who_wanders_shows_offsets_and_headings_on_its_lane():
    wandering = Wanderers(scenarios.get("highway"), 16, "cpu", 2, 7, SURROUND)
    poses = []
    for _ in range(12):
        wandering.step()
        poses.append(wandering.reader.on_lane())
    wandering.close()
    on, offset, turn = (torch.cat([getattr(pose, name) for pose in poses]) for name in ("on", "offset", "turn"))
    assert on.float().mean() > 0.95
    assert offset[on].std() > 0.5 and 1.0 < turn[on].rad2deg().std() < 8.0
