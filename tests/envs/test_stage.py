"""Staged cases: scripts against closed forms, routes, triggers, signals, the privileged sensor, impossible cases."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from envs.errors import UserError
from envs.roads.signals import AMBER, PERMISSIVE, RED
from envs.scenarios import get, stage
from envs.scenarios.stage import Actor, Case, Segment, Trigger
from envs.sensors.surfaces import CYCLIST, PERSON
from envs.state import FORMS

NORTH = -math.pi / 2  # up the map, against y
PERSON_SIZE = (0.6, 0.6, 1.75)
FRAME = 0.05  # s
PLAIN_CASE = Case("free/0-0000", "free", "road", 100.0, 3.5, 0.0, speed=20.0, target_speed=25.0)


def with_actors(*actors: Actor, **changes) -> Case:
    return replace(PLAIN_CASE, actors=actors, **changes)


def still(env) -> torch.Tensor:
    """Neither throttle nor steering: the ego keeps its velocity."""
    return torch.zeros(env.num_worlds, 2)


def recorded(env, steps: int, *fields: str, action=still) -> dict[str, np.ndarray]:
    """Fields of world 0 at every frame, the start included. Shape: (1 + frames, ...) each."""
    rows = {name: [] for name in fields}

    def keep() -> None:
        for name in fields:
            rows[name].append(getattr(env.state, name)[0].numpy().copy())

    env.reset(seed=0)
    keep()
    for _ in range(steps):
        env.step(action(env), on_frame=keep)
    return {name: np.array(values) for name, values in rows.items()}


# --- scripts ----------------------------------------------------------------------------------------------------------


def test_a_cut_in_that_brakes_moves_as_its_closed_form(make):
    begins, moves, speed, lateral, braking = 0.53, 2.0, 18.0, 1.75, 6.0
    script = (Segment(moves, lateral_speed=lateral), Segment(1.0, -braking))
    actor = Actor("scripted", 200.0, 0.0, 0.0, speed, script=script, trigger=Trigger(time=begins))
    rows = recorded(make(stage.of([with_actors(actor)]), 1, ego="policy", observation="state", dtype="float64"), 70,
                    "x", "y", "speed", "heading", "acceleration")  # fmt: skip
    t = FRAME * np.arange(141)
    sideways = np.clip(t - begins, 0.0, moves)
    brakes = np.clip(t - begins - moves, 0.0, speed / braking)
    x = 200.0 + speed * np.minimum(t, begins + moves) + speed * brakes - braking / 2 * brakes**2
    np.testing.assert_allclose(rows["x"][:, 1], x, atol=1e-6)
    np.testing.assert_allclose(rows["y"][:, 1], lateral * sideways, atol=1e-6)
    changing = (sideways > 0) & (sideways < moves)
    along = speed - braking * brakes
    np.testing.assert_allclose(rows["speed"][:, 1], np.hypot(along, lateral * changing), atol=1e-6)
    np.testing.assert_allclose(rows["heading"][:, 1], np.arctan2(lateral * changing, along) * (along > 0), atol=1e-6)
    slows = (brakes > 0) & (brakes < speed / braking)
    np.testing.assert_allclose(rows["acceleration"][:, 1], -braking * slows, atol=1e-6)
    assert rows["speed"][-1, 1] == 0.0


def test_a_person_sets_out_when_the_ego_is_as_near_as_its_trigger_says(make):
    person = Actor(
        "scripted", 180.0, 12.0, NORTH, 1.5, form="person", size=PERSON_SIZE, waits=True,
        script=(Segment(2.0), Segment(9.0, 0.5)), trigger=Trigger(point=(180.0, 3.5), arrival=3.0),
    )  # fmt: skip
    env = make(stage.of([with_actors(person)]), 1, observation="state", dtype="float64")
    rows = recorded(env, 38, "x", "y", "speed")
    t = FRAME * np.arange(77)
    np.testing.assert_allclose(rows["x"][:, 0], 100.0 + 20.0 * t, atol=1e-6)
    begins = t[np.argmax(180.0 - rows["x"][:, 0] <= 3.0 * 20.0)]
    assert begins == pytest.approx(1.0)
    on_foot = np.maximum(t - begins, 0.0)
    faster = np.maximum(on_foot - 2.0, 0.0)
    np.testing.assert_allclose(rows["y"][:, 1], 12.0 - 1.5 * on_foot - 0.25 * faster**2, atol=1e-6)
    np.testing.assert_allclose(rows["x"][:, 1], 180.0, atol=1e-6)
    assert (rows["speed"][t < begins, 1] == 0).all()


def test_whichever_trigger_holds_first_begins_a_script(make):
    def begins(**trigger) -> float:
        actor = Actor("scripted", 300.0, 0.0, 0.0, 10.0, script=(Segment(9.0, -5.0),), trigger=Trigger(**trigger))
        env = make(stage.of([with_actors(actor)]), 1, observation="state", dtype="float64")
        x = recorded(env, 40, "x")["x"][:, 1]
        return (x[-1] - 300.0 - 10.0) / 10.0 if x[-1] < 339.9 else math.inf

    # Once it brakes it stands after 10 m: the rest of its way says when it began.
    near = {"point": (200.0, 3.5), "arrival": 4.5}
    assert begins(time=1.2) == pytest.approx(1.2)
    assert begins(time=1.2, **near) == pytest.approx(0.5)
    assert begins(time=0.2, **near) == pytest.approx(0.2)
    assert begins(point=(2000.0, 0.0), arrival=1.0) == math.inf


def test_nobody_is_faster_than_the_model_allows_or_rolls_back(make):
    racer = Actor("scripted", 200.0, 0.0, 0.0, 38.0, script=(Segment(9.0, 4.0),))
    stopper = Actor("scripted", 200.0, 7.0, 0.0, 3.0, script=(Segment(9.0, -4.0),))
    env = make(stage.of([with_actors(racer, stopper)]), 1, observation="state", dtype="float64")
    rows = recorded(env, 30, "x", "speed")
    assert rows["speed"][-1, 1] == pytest.approx(40.0)
    assert rows["x"][-1, 1] == pytest.approx(200.0 + 38.0 * 0.5 + 2.0 * 0.5**2 + 40.0 * 2.5)
    assert rows["speed"][-1, 2] == 0
    assert rows["x"][-1, 2] == pytest.approx(200.0 + 3.0**2 / 8.0)


def test_a_crash_ends_a_script(make):
    into = Actor("scripted", 200.0, 0.0, 0.0, 15.0, script=(Segment(9.0),))
    env = make(stage.of([with_actors(into, Actor("still", 215.0, 0.0))]), 1, observation="state", dtype="float64")
    rows = recorded(env, 30, "x", "speed", "crashed")
    hit = int(np.argmax(rows["crashed"][:, 1]))
    assert 0.6 < hit * FRAME < 0.75
    assert rows["speed"][hit + 20, 1] < 0.5 * rows["speed"][hit, 1]
    assert rows["x"][-1, 1] < 225.0


# --- cases ------------------------------------------------------------------------------------------------------------


def many_cases() -> list[Case]:
    """Eight different ones on five maps."""
    person = Actor("scripted", 125.0, 4.3, NORTH, 1.4, form="person", size=PERSON_SIZE, script=(Segment(9.0),))
    cases = [
        replace(PLAIN_CASE, id=f"lead/0-{k}", actors=(Actor("driver", 140.0 + 5 * k, 3.5, 0.0, 15.0),))
        for k in range(4)
    ]
    cases.append(Case("walk/0-0", "walk", "street", 90.0, 1.75, 0.0, 8.0, 10.0, actors=(person,)))
    cases.append(Case("ring/0-0", "ring", "roundabout", 2.0, 70.0, NORTH, 8.0, 10.0, destination="nxr"))
    cases.append(Case("light/0-0", "light", "signals", 2.0, 40.0, NORTH, 8.0, 10.0, destination="x.w.to", phase=2))
    cross = Actor("driver", -30.0, 2.0, 0.0, 8.0, destination="o3")
    cases.append(Case("turn/0-0", "turn", "crossing", 2.0, 40.0, NORTH, 8.0, 10.0, destination="o1", actors=(cross,)))
    return cases


def test_a_case_is_the_same_whatever_batch_it_is_part_of(make):
    stage_of_all = stage.of(many_cases())
    batch, alone = (make(stage_of_all, n, ego="idm", observation="state", dtype="float64") for n in (8, 1))
    start = {name: tensor.clone() for name, tensor in batch.reset(seed=1)[0].items()}
    names = ("x", "y", "heading", "speed", "lane", "kind", "form")
    states = []
    for _ in range(25):
        obs = {name: tensor.clone() for name, tensor in batch.step(still(batch))[0].items()}
        states.append(({name: getattr(batch.state, name).clone() for name in names}, obs))
    for k in range(8):
        first, _ = alone.reset(seed=7, first_world=k + 8)
        assert all(torch.equal(first[name][0], start[name][k]) for name in start)
        for state, obs in states:
            seen, *_ = alone.step(still(alone))
            assert all(torch.equal(getattr(alone.state, name)[0], state[name][k]) for name in names)
            assert all(torch.equal(seen[name][0], obs[name][k]) for name in seen)


def test_kernels_of_a_gpu_give_the_same(make):
    fused, split = (make(stage.of(many_cases()), 8, ego="idm", observation="state", dtype="float64") for _ in range(2))
    sim = split.sim
    sim.device = torch.device("cuda")
    launches = [*sim.step_phases(), *sim.score_phases(), *sim.traffic_phases(), *sim.renewal_phases()]
    sim.device = torch.device("cpu")
    commands = [launch.record(sim.warp_device, 0, sim.num_worlds) for launch in launches]
    sim.step = lambda on_frame: [command.launch() for command in commands]
    for env in (fused, split):
        env.reset(seed=2)
    for _ in range(60):
        for env in (fused, split):
            env.step(still(env))
        saved = [env.get_state() for env in (fused, split)]
        for name, tensor in saved[0].items():
            assert torch.equal(tensor, saved[1][name]), name


ARRIVALS = (
    ("roundabout", (2.0, 70.0, NORTH), "nxr", (2.0, -140.0)),
    ("roundabout", (2.0, 70.0, NORTH), "exr", (140.0, 2.0)),
    ("crossing", (2.0, 60.0, NORTH), "o1", (-100.0, -2.0)),
    ("crossing", (2.0, 60.0, NORTH), "o3", (100.0, 2.0)),
    ("signals", (2.0, 60.0, NORTH), "x.w.to", (-130.0, -2.0)),
    ("exit", (420.0, 24.0, 0.0), "exit", (650.0, 160.0)),
)


@pytest.mark.parametrize("steered", [False, True], ids=["drivers", "by the sensor"])
def test_routes_lead_to_their_destinations(make, steered):
    """Actors as drivers; and egos that do no more than follow the sensor's steering, set speed and hold."""
    cases = []
    for name, start, node, (x, y) in ARRIVALS:
        case = Case(
            f"{name}/0-{node}", name, name, *start, 8.0, 10.0, destination=node, duration=50.0, goal=(x, y, 8.0)
        )
        if not steered:
            far = {"roundabout": (-2.0, 120.0), "crossing": (-2.0, 100.0), "exit": (900.0, 0.0)}.get(
                name, (-2.0, 120.0)
            )
            driver = Actor("driver", *start, 8.0, target_speed=10.0, destination=node)
            heading = 0.0 if name == "exit" else -NORTH
            case = replace(case, x=far[0], y=far[1], heading=heading, speed=0.0, destination=None, actors=(driver,))
        cases.append(case)
    env = make(stage.of(cases), len(cases), observation="state")
    obs, _ = env.reset(seed=0)
    arrived = torch.zeros(len(cases), dtype=torch.bool)
    goals = torch.tensor([case.goal for case in cases])
    worst = torch.zeros(len(cases))
    for _ in range(400):
        ego = obs["ego"]
        speed, wanted = ego[:, 0], torch.minimum(ego[:, 2], ego[:, 7])
        throttle = (torch.minimum((wanted - speed).clamp(-3.0, 2.0), -ego[:, 6] + (ego[:, 6] == 0) * 9.0)) / 10.0
        worst = torch.where(arrived, worst, torch.maximum(worst, ego[:, 3].abs()))
        command = torch.stack([throttle, ego[:, 5]], dim=1) if steered else still(env)
        obs, _, terminated, _, info = env.step(command)
        if steered:
            arrived |= info["success"]
            assert not (terminated & ~info["success"] & ~arrived).any()
        else:
            place = torch.stack([env.state.x[:, 1], env.state.y[:, 1]], dim=1)
            arrived |= (place - goals[:, :2]).norm(dim=1) < goals[:, 2]
            assert not env.state.crashed.any()
        if arrived.all():
            break
    assert arrived.all()
    if steered:
        assert worst.max() < 1.0


def test_the_built_in_driver_drives_cases(make):
    follows = with_actors(
        Actor("driver", 140.0, 3.5, 0.0, 10.0), Actor("still", 140.0, 0.0), Actor("still", 140.0, 7.0), duration=12.0
    )
    env = make(stage.of([replace(PLAIN_CASE, duration=12.0), follows]), 2, ego="idm", observation="state")
    env.reset(seed=0)
    for step in range(120):
        _, _, terminated, truncated, info = env.step(still(env))
        assert not terminated.any()
        assert truncated.tolist() == [step == 119] * 2
    assert info["speed"][0] == pytest.approx(25.0, abs=0.5)
    assert info["success"].all()


def test_endings(make):
    goal = replace(PLAIN_CASE, goal=(120.0, 3.5, 2.0))
    wall = with_actors(Actor("still", 130.0, 3.5, form="wall", size=(1.0, 6.0, 2.0)), goal=(200.0, 3.5, 2.0))
    leaves = replace(PLAIN_CASE, x=1480.0)
    late = replace(PLAIN_CASE, duration=1.5, goal=(900.0, 0.0, 2.0))
    env = make(stage.of([goal, wall, leaves, late]), 4, observation="state")
    env.reset(seed=0)
    ends = {}
    for step in range(1, 16):
        _, reward, terminated, truncated, info = env.step(still(env))
        assert reward[0] == pytest.approx(0.8, abs=0.2) or reward[1] < 0
        for world in torch.nonzero(terminated | truncated)[:, 0].tolist():
            how = (bool(terminated[world]), bool(info["crashed"][world]), int(env.state.success[world]))
            ends.setdefault(world, (step, *how))
    assert ends[0] == (9, True, False, 1)
    assert ends[1][1:] == (True, True, 0)
    assert ends[2][1:] == (True, False, -1)
    assert ends[3] == (15, False, False, 0)


def test_signals_begin_where_a_case_has_them(make):
    case = Case("light/0-0", "light", "signals", 2.0, 120.0, NORTH, 0.0, 10.0, phase=0, phase_time=9.5)
    env = make(stage.of([case, replace(case, phase=1, phase_time=3.5)]), 2, observation="state")
    env.reset(seed=0)
    south, west = 0, 2
    shown = []
    for _ in range(100):
        shown.append(env.state.signal[:, [south, west]].tolist())
        env.step(still(env))
    assert shown[0] == [[PERMISSIVE, RED], [RED, RED]]
    # 2.5 s of green are left in the one, 1 s of red in the other.
    assert [k for k in range(1, 100) if shown[k][0] != shown[k - 1][0]] == [25, 55, 70]
    assert shown[25][0] == [AMBER, RED] and shown[55][0] == [RED, RED] and shown[70][0] == [RED, PERMISSIVE]
    assert [k for k in range(1, 40) if shown[k][1] != shown[k - 1][1]] == [10]


# --- what is observed -------------------------------------------------------------------------------------------------


def test_surroundings_on_a_straight_road(make):
    lead = Actor("scripted", 130.0, 2.0, 0.1, 12.0, script=(Segment(9.0, -2.0),))
    behind = Actor("driver", 60.0, 7.0, 0.0, 18.0, form="truck", size=(10.0, 2.5, 3.0))
    person = Actor("scripted", 160.0, 10.0, NORTH, 1.5, form="cyclist", size=(1.8, 0.6, 1.75))
    block = Actor("still", 170.0, 5.6, 0.7, form="barrier", size=(3.0, 1.0, 1.0))
    env = make(
        stage.of([with_actors(lead, behind, person, block), PLAIN_CASE]), 2, observation="state", dtype="float64"
    )
    env.reset(seed=0)
    for _ in range(6):
        obs, *_ = env.step(torch.tensor([[-0.2, 0.01]] * 2))
    s = {name: getattr(env.state, name)[0].numpy() for name in env.state.tensors if name != "signal"}
    others = slice(1, None)
    c, d = np.cos(s["heading"][others]), np.sin(s["heading"][others])
    length, width = s["length"][others], s["width"][others]
    across = s["y"][others] - s["y"][0]
    reach = length * abs(d) + width * abs(c)
    expected = np.stack(
        [
            np.ones(4), s["x"][others] - s["x"][0], across, s["speed"][others] * c, s["speed"][others] * d,
            s["acceleration"][others] * c, length * abs(c) + width * abs(d), reach, [0, 0, 1, 2],
            abs(across) < (reach + 2.0) / 2,
        ],
        axis=1,
    )  # fmt: skip
    np.testing.assert_allclose(obs["surroundings"][0], expected, atol=1e-5)
    assert expected[:, 9].tolist() == [1, 0, 0, 1]
    assert (obs["surroundings"][1] == 0).all()
    slip = math.atan(math.tan(0.01 * math.pi / 4) / 2)
    heading = s["heading"][0]
    own = [s["speed"][0], -2.0, 25.0, s["y"][0] - 3.5, s["speed"][0] * math.sin(heading + slip)]
    np.testing.assert_allclose(obs["ego"][0, :5], own, atol=1e-4)
    # Back to the middle, by highway-env's proportional controllers.
    reference = math.asin(-(s["y"][0] - 3.5) / 0.6 / s["speed"][0])
    steering = math.atan(2 * math.tan(math.asin(2.5 / s["speed"][0] * 5.0 * (reference - heading))))
    assert obs["ego"][0, 5] == pytest.approx(steering / (math.pi / 4), abs=1e-4)
    assert obs["ego"][0, 6:].tolist() == pytest.approx([0.0, 36.2])


def test_surroundings_follow_the_way_round_a_ring(make):
    """An arc of the ring away on the ring's outer lane, of which the first piece ends in between."""
    radius, here, away = 24.0, math.radians(50.0), math.radians(55.0)

    def at(angle: float) -> tuple[float, float, float]:
        return radius * math.cos(angle), radius * math.sin(angle), angle - math.pi / 2

    actors = (Actor("driver", *at(here - away), 7.0), Actor("driver", -2.0, 100.0, -NORTH, 7.0))
    case = Case("ring/0-0", "ring", "roundabout", *at(here), 7.0, 8.0, destination="nxr", actors=actors)
    obs, _ = make(stage.of([case]), 1, observation="state", dtype="float64").reset(seed=0)
    ahead, elsewhere = obs["surroundings"][0]
    assert ahead[:5].tolist() == pytest.approx([1.0, radius * away, 0.0, 7.0, 0.0], abs=1e-4)
    assert ahead[9] == 1
    assert elsewhere[9] == 0


def test_a_red_light_is_something_to_brake_for(make):
    case = Case("light/0-0", "light", "signals", 2.0, 50.0, NORTH, 10.0, 10.0, destination="x.n.to")
    env = make(stage.of([replace(case, phase=2), replace(case, phase=0)]), 2, observation="state")
    env.reset(seed=0)
    obs, *_ = env.step(still(env))
    hold = obs["ego"][:, 6]
    assert hold[0] > 1.0
    assert hold[1] == 0


def test_nobody_waits_at_a_junction_for_who_stands_at_the_kerb(make):
    person = Actor("scripted", 5.6, 25.0, math.pi, 0.0, form="person", size=PERSON_SIZE)
    case = Case("kerb/0-0", "kerb", "crossing", 2.0, 40.0, NORTH, 8.0, 8.0, destination="o2", actors=(person,))
    env = make(stage.of([case]), 1, ego="idm", observation="state")
    env.reset(seed=0)
    for _ in range(50):
        obs, *_ = env.step(still(env))
        assert obs["ego"][0, 6] == 0
        assert obs["surroundings"][0, 0, 0] == 1
    assert env.state.y[0, 0] < 10.0


def test_a_highway_policy_sees_what_it_knows(make):
    """highway-env's default Kinematics: rows by distance along the road, nothing more than 10 m behind."""
    actors = [
        Actor("driver", 100.0 + d, 3.5 * (k % 3), 0.0, 18.0 + k) for k, d in enumerate((-25, 30, -8, 12, 90, 260))
    ]
    case = with_actors(*actors)
    env = make(stage.of([case], get("highway")), 1, observation="state", dtype="float64")
    obs, _ = env.reset(seed=0)
    assert env.action_names == get("highway").actions.names
    scales = np.array([200.0, 16.0, 80.0, 80.0])
    rows = [[1, 1.0 * min(100 / 200, 1), 3.5 / 16, 20 / 80, 0]]
    near = sorted((a for a in actors if -10 < a.x - 100 < 200), key=lambda a: abs(a.x - 100))
    rows += [[1, *(np.array([a.x - 100, a.y - 3.5, a.speed - 20, 0.0]) / scales)] for a in near]
    np.testing.assert_allclose(obs["state"][0], rows, atol=1e-6)


def test_meta_actions_of_a_slow_case(make):
    env = make(stage.of([replace(PLAIN_CASE, speed=10.0)], get("highway")), 1, observation="state")
    env.reset(seed=0)
    for _ in range(3):
        _, _, _, _, info = env.step(torch.tensor([env.action_names.index("SLOWER")]))
    assert info["speed"][0] < 1.0


def test_the_camera_sees_people(make):
    person = Actor("scripted", 112.0, 4.8, NORTH, 1.0, form="person", size=PERSON_SIZE)
    rider = Actor("scripted", 110.0, 6.5, 0.0, 2.0, form="cyclist", size=(1.8, 0.6, 1.75))
    env = make(stage.of([with_actors(person, rider), PLAIN_CASE]), 2, channels=("rgb", "semantic"))
    obs, _ = env.reset(seed=0)
    assert env.state.form[0, 1] == FORMS.index("person")
    seen = [set(np.unique(obs["semantic"][world].numpy())) for world in range(2)]
    assert {PERSON, CYCLIST} <= seen[0]
    assert not {PERSON, CYCLIST} & seen[1]


# --- what is impossible -----------------------------------------------------------------------------------------------

IMPOSSIBLE = (
    (replace(PLAIN_CASE, map="moon"), "map"),
    (replace(PLAIN_CASE, y=60.0), "no lane"),
    (replace(PLAIN_CASE, destination="z"), "destination"),
    (replace(PLAIN_CASE, map="two-way", y=0.0, destination="d"), "no road leads"),
    (replace(PLAIN_CASE, duration=0.0), "duration"),
    (replace(PLAIN_CASE, speed=math.nan), "finite"),
    (replace(PLAIN_CASE, target_speed=0.0), "set speed"),
    (replace(PLAIN_CASE, goal=(1.0, 2.0, 0.0)), "radius"),
    (replace(PLAIN_CASE, phase=1), "phase"),
    (with_actors(Actor("driver", 200.0, 30.0)), "no lane"),
    (with_actors(Actor("driver", 104.0, 3.5)), "overlap"),
    (with_actors(Actor("still", 200.0, 0.0), Actor("still", 203.0, 1.0, 0.5)), "overlap"),
    (with_actors(Actor("flying", 200.0, 0.0)), "motion"),
    (with_actors(Actor("still", 200.0, 0.0, form="tree")), "form"),
    (with_actors(Actor("still", 200.0, 0.0, script=(Segment(1.0),))), "script"),
    (with_actors(Actor("scripted", 200.0, 0.0, script=(Segment(0.0),))), "duration"),
    (with_actors(Actor("scripted", 200.0, 0.0, speed=-1.0)), "speed"),
    (with_actors(*(Actor("still", 200.0 + 10 * k, 0.0) for k in range(61))), "actors"),
)


@pytest.mark.parametrize(("case", "complaint"), IMPOSSIBLE, ids=[complaint for _, complaint in IMPOSSIBLE])
def test_impossible_cases_are_named(case, complaint):
    with pytest.raises(UserError, match=f"free/0-0000.*{complaint}"):
        stage.of([PLAIN_CASE, case])


def test_a_stage_needs_cases():
    with pytest.raises(UserError, match="at least one case"):
        stage.of([])


def test_an_observation_that_needs_its_own_map_is_refused(make):
    with pytest.raises(UserError, match="exit"):
        make(stage.of([PLAIN_CASE], get("exit")), 1, observation="state")
