"""Roadworks: what is put on the street, that it can be passed, and what is rewarded."""

import numpy as np
import pytest
import torch

from envs.errors import UserError
from envs.roads.maps import works
from envs.scenarios.roadworks import CLOSURE, ONCOMING, PARKED, ROADWORKS, STRETCHES
from envs.state import FORMS, IDM, OBSTACLE

LEFT, IDLE, RIGHT, FASTER, SLOWER = range(5)
WIDTH = 2.0  # m, of the ego


@pytest.fixture
def street(make):
    """`street(N, **options)`: a batch of N streets, at the start of their episodes."""

    def build(worlds: int, **options):
        env = make("roadworks", worlds, **{"observation": "state"} | options)
        env.reset(seed=7)
        return env

    return build


def boxes(env) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners of every slot's box [m] (N, V, 4, 2), which slots are obstacles (N, V), and their forms (N, V)."""
    state = {name: tensor.numpy().astype(float) for name, tensor in env.state.tensors.items() if tensor.ndim == 2}
    along = np.stack([np.cos(state["heading"]), np.sin(state["heading"])], axis=-1)
    across = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    centre = np.stack([state["x"], state["y"]], axis=-1)
    signs = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)]) / 2
    sizes = state["length"][..., None] * along, state["width"][..., None] * across
    corners = [centre + a * sizes[0] + b * sizes[1] for a, b in signs]
    return np.stack(corners, axis=2), state["kind"] == OBSTACLE, state["form"].astype(int)


def test_a_clear_passage_exists_in_every_episode(street):
    """A search over squares of 0.5 m that the middle of a car may take, with 0.5 m to spare on either side of it."""
    env = street(64)
    for _ in range(2):
        corners, stands, _ = boxes(env)
        assert (stands.sum(axis=1) > 12).all()
        for w in range(env.num_worlds):
            low, high = corners[w, stands[w]].min(axis=1), corners[w, stands[w]].max(axis=1)
            x, y = np.arange(20.0, 400.0, 0.5), np.arange(-1.0, 5.01, 0.5)
            reach = WIDTH / 2 + 0.5
            blocked = (x[None, :, None] > low[:, None, None, 0] - 2.5) & (
                x[None, :, None] < high[:, None, None, 0] + 2.5
            )
            blocked = blocked & (y > low[:, None, None, 1] - reach) & (y < high[:, None, None, 1] + reach)
            free = ~blocked.any(axis=0)
            here = np.abs(y - 4.0) < 0.1
            for column in free:
                # At most one square sideways a square forward.
                here = column & (here | np.roll(here, 1) & (y > y[0]) | np.roll(here, -1) & (y < y[-1]))
            assert here.any()
            assert blocked.any(axis=0)[:, np.abs(y - 4.0) < 0.1].any()  # and straight on there is none
        env.reset()


def test_whoever_drives_on_the_free_side_arrives(street):
    env = street(64)
    env.state.kind[:, 1 : 2 + ONCOMING] = 0
    arrived = torch.zeros(64, dtype=torch.bool)
    actions = torch.full((64,), LEFT)
    for step in range(190):
        _, reward, terminated, truncated, info = env.step(actions)
        arrived |= terminated & ~info["crashed"]
        assert not info["crashed"][~arrived].any()
        if arrived.all():
            break
        actions = torch.full((64,), FASTER if step % 2 else IDLE)
    assert arrived.all()
    assert (reward[terminated] > 10).all()


def test_whoever_drives_straight_on_crashes(street):
    env = street(32)
    env.state.kind[:, 1 : 2 + ONCOMING] = 0
    crashed = torch.zeros(32, dtype=torch.bool)
    for _ in range(190):
        _, reward, terminated, _, info = env.step(torch.full((32,), IDLE))
        assert (reward[info["crashed"]] < -9).all()
        crashed |= info["crashed"]
    assert crashed.all()


def test_the_closure_is_as_the_manual_has_it(street):
    """One-lane, two-way tapers: 50 to 100 feet, with cones at about 20 feet; cones of 0.7 m and more."""
    env = street(64)
    corners, stands, forms = boxes(env)
    first = 2 + ONCOMING + PARKED
    for w in range(64):
        mine = slice(first, first + CLOSURE)
        cones = stands[w, mine] & (forms[w, mine] == FORMS.index("cone"))
        x, y = corners[w, mine][cones].mean(axis=1).T
        assert (np.diff(x) > 0).all() and (np.diff(y) <= 1e-4).all()
        taper = x[: np.argmin(np.diff(y) < -1e-3) + 1] if (np.diff(y) > -1e-3).any() else x
        assert 15 <= np.ptp(taper) <= 31 and np.diff(taper).max() < 6.2
        assert np.diff(x).max() < 12.1
        for form in ("barrier", "truck", "person"):
            assert (forms[w, mine][stands[w, mine]] == FORMS.index(form)).sum() == 1
    assert (
        env.state.height[:, first : first + CLOSURE][torch.tensor(forms[:, first : first + CLOSURE]) == 6] > 0.7
    ).all()


def test_episodes_differ_and_hold_everything_there_is(street):
    env = street(128)
    _, stands, forms = boxes(env)
    first = 2 + ONCOMING + PARKED
    seen = [tuple(sorted(forms[w, first:][stands[w, first:]])) for w in range(128)]
    assert len(set(seen)) > 12
    assert {FORMS[form] for one in seen for form in one} == {
        "car", "van", "truck", "person", "cone", "barrier", "debris"
    }  # fmt: skip
    x = env.state.x[:, first].numpy()
    starts = [((x > 90 + 100 * k) & (x < 190 + 100 * k)).mean() for k in range(STRETCHES)]
    assert sum(starts) == 1 and min(starts) > 0.2  # the closure is on every stretch as often
    coming = (env.state.kind[:, 2 : 2 + ONCOMING] == IDM).sum(dim=1)
    assert set(coming.tolist()) >= {1, 2, 3, 4}


def test_drivers_come_along_and_come_again(street):
    env = street(16)
    env.state.kind[:, 1] = 0
    lane = env.road.number(("c", "d", 0))
    coming = env.state.kind[:, 2 : 2 + ONCOMING] == IDM
    before, returned = env.state.x[:, 2 : 2 + ONCOMING].clone(), 0
    for _ in range(190):
        env.state.x[:, 0] = -50.0  # out of their way
        env.state.y[:, 0] = 30.0
        env.state.kind[:, 0] = 0
        env.step(torch.full((16,), IDLE))
        x = env.state.x[:, 2 : 2 + ONCOMING].clone()
        moved = (before - x)[coming]
        returned += int((moved < 0).sum())
        assert ((moved > 1.0) | (moved < -600)).all()  # nothing holds them up: 5 m/s and more
        assert (env.state.lane[:, 2 : 2 + ONCOMING][coming] == lane).all()
        before = x
    assert returned > 5
    assert not env.state.crashed[:, 2 : 2 + ONCOMING].any()


def test_long_standing_costs(street):
    env = street(4)
    env.state.kind[:, 1 : 2 + ONCOMING] = 0
    rewards = torch.stack([env.step(torch.full((4,), SLOWER))[1] for _ in range(60)])
    stood = (rewards[:, 0] < 0.02).nonzero()[0, 0]
    assert rewards[-1].tolist() == pytest.approx([-0.5] * 4, abs=0.02)
    cheap = ((rewards[:, 0] > -0.1) & (torch.arange(60) >= stood)).sum() / ROADWORKS.policy_frequency
    assert cheap == pytest.approx(ROADWORKS.patience, abs=0.7)


@pytest.mark.parametrize(("offset", "speed", "feet"), [(12, 25, 125), (12, 30, 180), (12, 45, 540), (12, 60, 720)])
def test_taper_lengths_are_those_of_the_manuals_table(offset, speed, feet):
    """Table 6H-4 of the MUTCD, in feet and miles an hour."""
    foot, mile = 0.3048, 1.609344
    assert works.taper_length(offset * foot, speed * mile) / foot == pytest.approx(feet, rel=0.02)


def test_impossible_streets_and_tapers_are_refused():
    with pytest.raises(UserError, match="'length'"):
        works.network(0.0)
    with pytest.raises(UserError, match="positive offset"):
        works.taper_length(0.0, 50.0)
