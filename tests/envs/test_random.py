"""Random draws: the same on host and device, uniform, independent; and episodes that begin as highway-env's do."""

import functools

import gymnasium
import highway_env  # noqa: F401  registers its environments
import numpy as np
import pytest
import torch
import warp as wp
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import envs
from envs import random

# Every test is of fixed seeds: a p-value below this is a defect, not bad luck.
ALPHA = 1e-3


@functools.cache
def draw_kernel(real: type) -> wp.Kernel:
    draw = random.build(real)

    @wp.kernel(module="unique")
    def draws(seed: wp.uint64, keys: wp.array2d(dtype=wp.int32), n: int, bits: wp.array(dtype=wp.uint64),
              uniform: wp.array(dtype=real), below: wp.array(dtype=wp.int32)):  # fmt: skip
        t = wp.tid()
        world, episode, purpose, index = keys[t, 0], keys[t, 1], keys[t, 2], keys[t, 3]
        bits[t] = draw.bits(seed, world, episode, purpose, index)
        uniform[t] = draw.uniform(seed, world, episode, purpose, index)
        below[t] = draw.below(seed, world, episode, purpose, index, n)

    return draws


def draw(seed: int, keys, n: int = 2, real: type = wp.float64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bits, uniform numbers and integers below n of every row (world, episode, purpose, index) of keys."""
    keys = np.ascontiguousarray(keys, dtype=np.int32)
    bits, integers = wp.zeros(len(keys), dtype=wp.uint64, device="cpu"), wp.zeros(len(keys), dtype=int, device="cpu")
    uniform = wp.zeros(len(keys), dtype=real, device="cpu")
    inputs = [wp.uint64(seed), wp.array(keys, device="cpu"), n, bits, uniform, integers]
    wp.launch(draw_kernel(real), len(keys), inputs, device="cpu")
    return bits.numpy(), uniform.numpy(), integers.numpy()


def grid(worlds: int, episodes: int, purposes: int, indices: int) -> np.ndarray:
    """Keys of consecutive numbers, as simulations use them: the hardest case for a hash. Shape: (n, 4)."""
    axes = np.meshgrid(*map(np.arange, (worlds, episodes, purposes, indices)), indexing="ij")
    return np.stack([axis.ravel() for axis in axes], axis=1)


key = st.integers(0, 2**31 - 2)


@given(st.integers(0, 2**64 - 1), key, key, st.integers(1, 3), key)
def test_host_and_device_draw_the_same_bits(seed, world, episode, purpose, index):
    bits, uniform, _ = draw(seed, [[world, episode, purpose, index]])
    expected = random.hash_key(seed, world, episode, purpose, index)
    assert int(bits[0]) == expected
    assert uniform[0] == (expected >> 11) * 2.0**-53


@pytest.mark.parametrize("real", [wp.float32, wp.float64])
def test_draws_are_uniform(real):
    keys = grid(25, 8, 4, 50)
    bits, uniform, integers = draw(7, keys, n=6, real=real)
    assert uniform.min() >= 0 and uniform.max() < 1
    assert stats.kstest(uniform.astype(np.float64), "uniform").pvalue > ALPHA
    assert stats.chisquare(np.bincount(integers, minlength=6)).pvalue > ALPHA
    # Every bit is a fair coin, and no two rows share their bits.
    ones = [np.count_nonzero(bits >> np.uint64(k) & np.uint64(1)) for k in range(64)]
    assert min(stats.binomtest(count, len(keys)).pvalue for count in ones) > ALPHA / 64
    assert len(np.unique(bits)) == len(keys)


@pytest.mark.parametrize("axis", range(4), ids=["world", "episode", "purpose", "index"])
def test_neighbouring_draws_are_independent(axis):
    """Draws whose keys differ by one in one place do not tell of each other: correlation, and a table of pairs."""
    sizes = [20, 20, 20, 20]
    sizes[axis] += 1
    values = draw(3, grid(*sizes))[1].reshape(sizes)
    first = np.take(values, range(20), axis).ravel()
    second = np.take(values, range(1, 21), axis).ravel()
    assert stats.pearsonr(first, second).pvalue > ALPHA
    pairs = np.histogram2d(first, second, bins=8, range=[[0, 1], [0, 1]])[0]
    assert stats.chi2_contingency(pairs).pvalue > ALPHA


def test_seeds_and_neighbouring_seeds_differ():
    keys = grid(10, 10, 2, 50)
    values = [draw(seed, keys)[1] for seed in (0, 1, 2**64 - 1)]
    for a, b in ((0, 1), (0, 2)):
        assert stats.pearsonr(values[a], values[b]).pvalue > ALPHA


# --- the start of episodes --------------------------------------------------------------------------------------------


def ours(scenario: str, worlds: int) -> dict[str, np.ndarray]:
    """Fresh worlds, as arrays. Shape: (worlds, vehicles)."""
    env = envs.make_vec(scenario, worlds, observation="state", device="cpu", seed=11)
    env.reset()
    names = ("x", "speed", "lane", "exponent", "timer", "target_speed", "heading", "checks_collisions", "speed_index")
    columns = {name: env.state.tensors[name].numpy().copy() for name in names}
    env.close()
    return columns


def theirs(env_id: str, resets: int) -> dict[str, np.ndarray]:
    """The same of highway-env."""
    nothing = {"observation": {"type": "AttributesObservation", "attributes": []}}  # observing would take longer
    env = gymnasium.make(env_id, config=nothing, disable_env_checker=True).unwrapped
    rows = []
    for seed in range(resets):
        env.reset(seed=seed)
        vehicles = env.road.vehicles
        rows.append(
            {
                "x": [v.position[0] for v in vehicles],
                "speed": [v.speed for v in vehicles],
                "lane": [v.lane_index[2] for v in vehicles],
                "exponent": [getattr(v, "DELTA", 4.0) for v in vehicles],
                "timer": [getattr(v, "timer", 0.0) for v in vehicles],
                "target_speed": [v.target_speed for v in vehicles],
                "heading": [v.heading for v in vehicles],
                "checks_collisions": [v.check_collisions for v in vehicles],
                "speed_index": [getattr(v, "speed_index", 0) for v in vehicles],
            }
        )
    return {name: np.array([row[name] for row in rows], dtype=float) for name in rows[0]}


@pytest.mark.parametrize(("scenario", "env_id"), [("highway", "highway-v0"), ("highway-fast", "highway-fast-v0")])
def test_episodes_begin_as_highway_envs_do(scenario, env_id):
    mine, other = ours(scenario, 400), theirs(env_id, 200)
    same = {
        "ego's position": lambda worlds: worlds["x"][:, 0],
        "gaps": lambda worlds: np.diff(worlds["x"]).ravel(),
        "speeds": lambda worlds: worlds["speed"][:, 1:].ravel(),
        "exponents": lambda worlds: worlds["exponent"][:, 1:].ravel(),
        "timers": lambda worlds: worlds["timer"][:, 1:].ravel(),
    }
    for name, of in same.items():
        assert stats.ks_2samp(of(mine), of(other)).pvalue > ALPHA, name
    lanes = [np.bincount(worlds["lane"].ravel().astype(int)) for worlds in (mine, other)]
    assert stats.chi2_contingency(lanes).pvalue > ALPHA
    # Lanes are drawn vehicle by vehicle: the next one's does not depend on this one's.
    pairs = np.histogram2d(mine["lane"][:, :-1].ravel(), mine["lane"][:, 1:].ravel(), bins=len(lanes[0]))[0]
    assert stats.chi2_contingency(pairs).pvalue > ALPHA
    for name in ("speed", "target_speed", "speed_index"):
        assert np.unique(mine[name][:, 0]).tolist() == np.unique(other[name][:, 0]).tolist()
    for worlds in (mine, other):
        np.testing.assert_allclose(worlds["target_speed"][:, 1:], worlds["speed"][:, 1:])
        assert (worlds["heading"] == 0).all()
    np.testing.assert_array_equal(mine["checks_collisions"][0], other["checks_collisions"][0])


def test_worlds_and_episodes_begin_differently():
    env = envs.make_vec("highway-fast", 64, observation="state", device="cpu", seed=5)
    starts = []
    for _ in range(4):
        env.reset()
        starts.append(env.state.x[:, 1].clone())
    assert len(torch.unique(torch.cat(starts))) == 4 * 64
    env.reset(seed=5)
    assert torch.equal(env.state.x[:, 1], starts[0])
    env.close()
