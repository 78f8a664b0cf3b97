"""People on foot and the scenario `crossing`, against closed forms and plain geometry."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import envs
from envs.errors import UserError
from envs.physics import walkers
from envs.physics.walkers import LURKS, PAUSES, RUNS, WAITS, WALKS
from envs.roads.maps import crossings
from envs.scenarios.crossing import CROSSING
from envs.state import FORMS, IDM, LANDMARK, OBSTACLE, WALKER

FRAME = 1 / 15
LANE = crossings.WIDTH / 2  # m, middle of the right lane
SLOWER, IDLE, FASTER = range(3)
CRUISE = 0.6  # s, time constant of an agent's speed
REACTION = 3  # frames of a policy step


def street(make, worlds: int, ego: str = "policy") -> envs.VecWorlds:
    """Worlds with nobody on the street but the ego; what fills the slots of traffic is far away."""
    env = make("crossing", worlds, observation="state", ego=ego)
    env.reset(seed=0)
    env.state.kind[:, 1:] = 0
    env.state.kind[:, 1 : 1 + CROSSING.traffic] = LANDMARK
    env.state.x[:, 1 : 1 + CROSSING.traffic] = -1000.0
    return env


def person(env, x, y, goal, speed, mode, margin=0.0, zebra=0, patience=0.0) -> None:
    """An adult in the last slot of every world. Numbers or tensors (N,)."""
    values = {
        "kind": WALKER,
        "form": FORMS.index("person"),
        "x": x,
        "y": y,
        "goal_x": x,
        "goal_y": goal,
        "target_speed": speed,
        "speed": 0.0,
        "route_at": mode,
        "exponent": margin,
        "yields": zebra,
        "patience": patience,
        "length": 0.5,
        "width": 0.6,
        "heading": -np.pi / 2,
        "cos_heading": 0.0,
        "sin_heading": -1.0,
        "speed_index": env.state.slots - 1,
    }
    for name, value in values.items():
        field = env.state.tensors[name][:, -1]
        field.copy_(torch.as_tensor(value).expand(len(field)))


def act(env, action: int) -> tuple:
    """The same action in every world."""
    return env.step(torch.full((env.num_worlds,), action))


def overlaps(state) -> np.ndarray:
    """Whether a driver's box and a person's overlap. Boxes lie along the street or across it. Shape: (N, V, V)."""
    x, y, length, width, kind, sine = (
        state.tensors[name].double().numpy() for name in ("x", "y", "length", "width", "kind", "sin_heading")
    )
    along = np.where(np.abs(sine) > 0.5, width, length)
    across = np.where(np.abs(sine) > 0.5, length, width)
    touch = (np.abs(x[:, :, None] - x[:, None]) < (along[:, :, None] + along[:, None]) / 2) & (
        np.abs(y[:, :, None] - y[:, None]) < (across[:, :, None] + across[:, None]) / 2
    )
    return touch & ((kind > 0) & (kind < OBSTACLE))[:, :, None] & (kind == WALKER)[:, None]


# --- walking ----------------------------------------------------------------------------------------------------------


def test_walking_speeds(make):
    """Bounded by two deviations, with the means and the 15th percentiles of the sources, mixed 4 to 1."""
    env = make("crossing", 1500, observation="state")
    env.reset(seed=1)
    state = env.state
    first = state.speed_index == torch.arange(state.slots)
    speeds = state.target_speed[(state.kind == WALKER) & (state.yields == 1) & first].numpy()
    rng = np.random.default_rng(0)
    deviations = np.clip(rng.standard_normal(200_000), -2, 2)
    mixed = np.where(rng.random(200_000) < 0.2, 1.295 + 0.358 * deviations, 1.445 + 0.286 * deviations)
    assert len(speeds) > 1000
    assert 1.295 - 2 * 0.358 <= speeds.min() + 1e-6 and speeds.max() - 1e-6 <= 1.445 + 2 * 0.286
    assert np.mean(speeds) == pytest.approx(mixed.mean(), abs=0.03)
    for percent in (15, 50, 85):
        assert np.percentile(speeds, percent) == pytest.approx(np.percentile(mixed, percent), abs=0.04)
    # 15th percentiles of younger and older people: 3.77 and 3.03 ft/s.
    for (mean, deviation), feet in ((walkers.ADULT_SPEED, 3.77), (walkers.OLDER_SPEED, 3.03)):
        assert mean - 1.0364 * deviation == pytest.approx(0.3048 * feet, abs=0.005)


def test_a_clear_road_is_crossed_in_length_over_speed(make):
    """First-order response: the way takes its length over the speed, and the time constant."""
    env = street(make, 8)
    speed = torch.linspace(0.6, 2.2, 8)
    person(env, 180.0, 5.6, -5.6, speed, WALKS)
    arrival = np.full(8, np.nan)
    clock = 0

    def look():
        nonlocal clock
        clock += 1
        there = (env.state.y[:, -1] == env.state.goal_y[:, -1]).numpy()
        arrival[there & np.isnan(arrival)] = clock * FRAME

    while np.isnan(arrival).any() and clock < 600:
        env.step(torch.full((8,), SLOWER), on_frame=look)
    np.testing.assert_allclose(arrival, 11.2 / speed.numpy() + walkers.RESPONSE, atol=1.5 * FRAME)
    assert (env.state.speed[:, -1] == 0).all()


def test_gaps_that_are_accepted(make):
    """Out of the kerb when an unhindered car arrives after the way across its path and the margin, and not before."""
    env = street(make, 64)
    distance, margin = torch.linspace(30, 150, 64), torch.arange(64) % 4 * 1.0
    person(env, 30.0 + distance, 5.6, -5.6, 1.4, WAITS, margin)
    act(env, IDLE)
    state = env.state
    speed = state.speed[:, 0].numpy()
    room = (state.x[:, -1] - state.x[:, 0]).numpy() - 2.5 - walkers.CLEARANCE
    across = 5.6 - LANE + (2.0 + 0.5) / 2
    accepted = room / speed >= across / 1.4 + walkers.RESPONSE + margin.numpy()
    assert accepted.any() and not accepted.all()
    np.testing.assert_array_equal(state.route_at[:, -1].numpy() == WALKS, accepted)
    assert (state.route_at[:, -1].numpy()[~accepted] == WAITS).all()


def test_people_wait_out_their_patience(make):
    env = street(make, 1)
    env.state.speed[:, 0] = 0.0
    person(env, 180.0, 5.6, -5.6, 1.4, WAITS, 3.0, patience=1.1)
    modes = []
    for _ in range(8):
        act(env, SLOWER)
        modes.append(int(env.state.route_at[0, -1]))
    assert modes == [WAITS] * 5 + [WALKS] * 3


def test_groups_step_out_together(make):
    env = make("crossing", 300, observation="state", ego="idm")
    env.reset(seed=2)
    state = env.state
    first = state.speed_index.long().clamp(0, state.slots - 1)
    together = (state.kind == WALKER) & (first != torch.arange(state.slots)) & (state.route_at == WAITS)
    assert together.any()
    left = torch.zeros_like(together)
    running = torch.ones(300, dtype=torch.bool)
    for _ in range(60):
        _, _, terminated, truncated, _ = act(env, IDLE)
        running &= ~(terminated | truncated)
        gone = state.route_at != WAITS
        same = gone == gone.gather(1, first)
        assert same[together & running[:, None]].all()
        left |= gone & together & running[:, None]
    assert left.any()


def test_a_person_on_the_road_lets_a_fast_car_pass(make):
    """Who is not yet in front of a car that arrives first, and does not brake, stops beside its way."""
    env = street(make, 1)
    person(env, 50.0, 4.6, -5.6, 1.4, WALKS)
    modes = []
    for _ in range(15):
        act(env, IDLE)
        modes.append(int(env.state.route_at[0, -1]))
        assert not env.state.ego_crashed[0]
    assert PAUSES in modes and modes[-1] == WALKS


# --- drivers ----------------------------------------------------------------------------------------------------------


def test_drivers_hit_only_children_who_run(make):
    """IDM drivers, the ego among them, never touch who looks before stepping out: on zebras and elsewhere."""
    env = make("crossing", 200, observation="state", ego="idm")
    env.reset(seed=4)
    state, seen = env.state, {"zebra": 0, "elsewhere": 0}

    def look():
        touched = overlaps(state).any(axis=1)
        on_road = (state.kind == WALKER) & (state.y.abs() < crossings.WIDTH) & (state.route_at == WALKS)
        seen["zebra"] += int((on_road & (state.yields == 1)).sum())
        seen["elsewhere"] += int((on_road & (state.yields == 0)).sum())
        assert (state.route_at.numpy()[touched] == RUNS).all()

    for _ in range(150):
        env.step(torch.zeros(200, dtype=torch.long), on_frame=look)
    assert min(seen.values()) > 1000


def test_drivers_stop_for_who_steps_on_a_zebra(make):
    """With room to brake at the 6 m/s2 of an IDM driver nobody is hit who simply goes."""
    env = street(make, 64, ego="idm")
    speed = float(env.state.speed[0, 0])
    braking = speed**2 / (2 * 6.0)
    distance = torch.linspace(braking + 6.0, 120.0, 64)
    person(env, 30.0 + distance, LANE + 3.0, -5.6, 1.2, WALKS, zebra=1)
    for _ in range(60):
        _, reward, _, _, info = act(env, IDLE)
        assert not info["crashed"].any()
        assert (reward >= 0).all()


def test_drivers_give_way_at_zebras_only(make):
    """Who waits at a zebra is let across by a driver who can stop in comfort; who waits elsewhere is not."""
    for zebra in (0, 1):
        env = street(make, 1, ego="idm")
        person(env, 110.0, -5.6, 5.6, 1.4, WAITS, margin=3.0, zebra=zebra, patience=2.0)
        slowest = 99.0
        while env.state.x[0, 0] < 108.0 and env.state.time[0] < 20.0:
            act(env, IDLE)
            slowest = min(slowest, float(env.state.speed[0, 0]))
        assert slowest < 9.0 if zebra else slowest > 13.0
        assert env.state.y[0, -1] > LANE if zebra else env.state.y[0, -1] == pytest.approx(-5.6)


# --- the child --------------------------------------------------------------------------------------------------------


def is_hit(distance: float, start: float, goal: float, speed: float, brakes: bool) -> bool:
    """Whether an ego that decides from now on to brake at each step, or not to, meets a child who runs from now on."""
    x, v, target, y, u = 0.0, 13.9, 13.9, start, 0.0
    for frame in range(100):
        if brakes and frame % REACTION == 0:
            target = max(round(v / 6.95) - 1, 0) * 6.95
        x, v = x + v * FRAME, v + (target - v) / CRUISE * FRAME
        u += (speed - u) * (1 - np.exp(-FRAME / walkers.RESPONSE))
        y = max(y - u * FRAME, goal)
        if abs(distance - x) < (5.0 + 0.6) / 2 and abs(y - LANE) < (2.0 + 0.5) / 2:
            return True
    return False


@pytest.mark.parametrize("brakes", [False, True])
def test_a_child_can_be_avoided_where_the_stopping_distance_allows(make, brakes):
    env = street(make, 96)
    distance = np.linspace(4.0, 40.0, 96)
    person(env, torch.as_tensor(30.0 + distance), 3.6, -6.0, walkers.CHILD_SPEED, RUNS)
    hit = np.zeros(96, dtype=bool)
    for _ in range(25):
        _, _, _, _, info = act(env, SLOWER if brakes else IDLE)
        hit |= info["crashed"].numpy()
        if not hit.any() and env.state.time.min() > 5.0:
            break
    # A collision is foreseen by a frame: what differs within one is not asked about.
    cases = np.array([[is_hit(d + e, 3.6, -6.0, walkers.CHILD_SPEED, brakes) for e in (-1, 0, 1)] for d in distance])
    clear = (cases == cases[:, :1]).all(axis=1)
    assert clear.sum() > 60 and cases[clear, 0].any() and not cases[clear, 0].all()
    np.testing.assert_array_equal(hit[clear], cases[clear, 0])


def test_a_child_runs_when_the_ego_is_near(make):
    """The trigger is the time until the ego's front is at the child's path; who stands still triggers nothing."""
    env = street(make, 2)
    person(env, 80.0, 4.6, -6.0, 1.6, LURKS, margin=2.0)
    env.state.speed[1, 0] = 0.0
    for _ in range(12):
        before = env.state.route_at[0, -1].item()
        env.step(torch.tensor([IDLE, SLOWER]))
        until = (80.0 - 2.5 - env.state.x[0, 0].item()) / 13.9
        if before == LURKS:
            assert (env.state.route_at[0, -1].item() == RUNS) == (until <= 2.0)
    assert env.state.route_at[:, -1].tolist() == [RUNS, LURKS]


# --- the scenario -----------------------------------------------------------------------------------------------------


def test_nobody_walks_through_parked_cars_or_off_the_map(make):
    env = make("crossing", 400, observation="state")
    env.reset(seed=7)
    s = {name: tensor.double().numpy() for name, tensor in env.state.tensors.items() if tensor.ndim == 2}
    share = np.linspace(0, 1, 120)[:, None]
    people = 0
    for w in range(400):
        on_foot, parked = s["kind"][w] == WALKER, s["kind"][w] == OBSTACLE
        people += on_foot.sum()
        size = s["length"][w, on_foot] / 2, s["width"][w, on_foot] / 2
        rides = np.abs(s["cos_heading"][w, on_foot]) > 0.5
        half_x, half_y = np.where(rides, *size), np.where(rides, *size[::-1])
        x = s["x"][w, on_foot] + share * (s["goal_x"] - s["x"])[w, on_foot]
        y = s["y"][w, on_foot] + share * (s["goal_y"] - s["y"])[w, on_foot]
        near_x = np.abs(x[..., None] - s["x"][w, parked]) < half_x[:, None] + s["length"][w, parked] / 2
        near_y = np.abs(y[..., None] - s["y"][w, parked]) < half_y[:, None] + s["width"][w, parked] / 2
        assert not (near_x & near_y).any()
        assert (x >= 0).all() and (x <= 250).all() and (np.abs(y) <= crossings.KERB + 2).all()
        # Parked cars are no leaders: drivers see what is within 1 m of their lane.
        assert (np.abs(s["y"][w, parked]) > crossings.WIDTH + 1).all()
    assert people > 800


def test_every_kind_of_person_appears(make):
    env = make("crossing", 400, observation="state")
    env.reset(seed=8)
    state = env.state
    on_foot = state.kind == WALKER
    assert (on_foot & (state.yields == 1)).any(dim=1).float().mean() > 0.5
    assert 0.2 < (on_foot & (state.route_at == LURKS)).any(dim=1).float().mean() < 0.5
    assert (on_foot & (state.form == FORMS.index("cyclist")) & (state.speed > 0)).any()
    assert (on_foot & (state.form == FORMS.index("cyclist")) & (state.route_at == WAITS)).any()
    # People are the last slots, and nobody else is among them.
    count = on_foot.sum(dim=1, keepdim=True)
    assert torch.equal(on_foot, torch.arange(state.slots) >= state.slots - count)


def test_worlds_do_not_depend_on_their_batch(make):
    many, few = make("crossing", 9, observation="state"), make("crossing", 3, observation="state")
    many.reset(seed=11)
    few.reset(seed=11, first_world=6)
    draw = torch.Generator().manual_seed(0)
    for _ in range(160):
        actions = torch.randint(0, 3, (9,), generator=draw)
        many.step(actions)
        few.step(actions[6:])
    for name, tensor in few.state.tensors.items():
        assert torch.equal(tensor, many.state.tensors[name][6:]), name


def test_rewards(make):
    """A crash with a person costs more than one with a car; cutting in at a zebra costs; arriving pays."""
    env = street(make, 3)
    env.state.kind[1, 1] = IDM
    env.state.tensors["x"][1, 1], env.state.tensors["y"][1, 1] = 60.0, LANE
    env.state.tensors["speed"][1, 1] = env.state.tensors["target_speed"][1, 1] = 0.0
    env.state.lane[1, 1], env.state.target_lane[1, 1] = env.state.lane[1, 0], env.state.lane[1, 0]
    person(env, 60.0, LANE, -5.6, 0.1, RUNS)
    env.state.kind[1:, -1] = 0
    rewards = []
    for _ in range(80):
        _, reward, terminated, _, _ = act(env, IDLE)
        rewards.append(reward.numpy())
        if terminated[2]:
            break
    rewards = np.array(rewards)
    ends = [np.argmax(np.abs(rewards[:, w]) > 1) for w in range(3)]
    assert rewards[ends[0], 0] == pytest.approx(-20 + 0.1, abs=0.1)
    assert rewards[ends[1], 1] == pytest.approx(-5 + 0.1, abs=0.1)
    assert rewards[ends[2], 2] == pytest.approx(2 + 0.1, abs=0.01)

    env = street(make, 1)
    person(env, 80.0, 5.6, -5.6, 1.4, WAITS, margin=60.0, zebra=1, patience=-3.0)
    penalties = [float(act(env, IDLE)[1][0]) < -0.5 for _ in range(40)]
    # The box and the strip are together 9 m long.
    assert sum(penalties) in (3, 4) and not any(penalties[:12])


def test_impossible_streets():
    with pytest.raises(UserError, match="from the ends"):
        crossings.network(100.0, (90.0,))
    with pytest.raises(UserError, match="slots"):
        replace(CROSSING, vehicles=10)
