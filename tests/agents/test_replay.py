"""The device replay buffer against plain NumPy, and the prioritised draw against its probabilities."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.replay import PrioritisedReplayBuffer, ReplayBuffer, bytes_needed
from envs.errors import UserError

WORLDS, GAMMA = 3, 0.9
VECTOR = spaces.Box(-np.inf, np.inf, (2,), np.float32)


class Stream:
    """Random episodes of several worlds, kept as lists of (seen, action, reward, terminated, truncated, led to)."""

    def __init__(self, seed: int = 0, ending: float = 0.15, timeout: float = 0.15):
        self.rng = np.random.default_rng(seed)
        self.ending, self.timeout = ending, timeout
        self.seen = self.rng.normal(size=(WORLDS, 2)).astype(np.float32)
        self.history = [[] for _ in range(WORLDS)]

    def into(self, buffer: ReplayBuffer, steps: int, wrap=lambda obs: obs) -> None:
        for _ in range(steps):
            actions = self.rng.integers(5, size=WORLDS)
            rewards = self.rng.normal(size=WORLDS).astype(np.float32)
            terminated = self.rng.random(WORLDS) < self.ending
            truncated = self.rng.random(WORLDS) < self.timeout
            led_to = self.rng.normal(size=(WORLDS, 2)).astype(np.float32)
            begun = self.rng.normal(size=(WORLDS, 2)).astype(np.float32)
            for w in range(WORLDS):
                step = (self.seen[w], actions[w], rewards[w], terminated[w], truncated[w], led_to[w])
                self.history[w].append(step)
            ended = terminated | truncated
            final = np.where(ended[:, None], led_to, np.nan)  # what nobody may read
            buffer.add_decision(wrap(torch.tensor(self.seen)), torch.tensor(actions))
            flags = torch.tensor(terminated), torch.tensor(truncated)
            buffer.add_outcome(torch.tensor(rewards), *flags, wrap(torch.tensor(final)))
            self.seen = np.where(ended[:, None], begun, led_to)

    def outcome(self, world: int, step: int, n: int) -> tuple[float, float, np.ndarray]:
        """n-step return, discount and observation after it, by definition."""
        total, discount = 0.0, 1.0
        for _, _, reward, terminated, truncated, led_to in self.history[world][step : step + n]:
            total += discount * reward
            discount *= GAMMA
            if terminated:
                return total, 0.0, led_to
            if truncated:
                break
        return total, discount, led_to


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritisedReplayBuffer])
@pytest.mark.parametrize("n_steps", [1, 3, 5])
@pytest.mark.parametrize("steps", [9, 40, 47], ids=["filling", "full", "wrapped"])
@pytest.mark.parametrize("named", [False, True])
def test_every_step_that_can_be_drawn_is_right(kind, n_steps, steps, named):
    space = spaces.Dict({"state": VECTOR}) if named else VECTOR
    slots = 20
    buffer = kind(slots * WORLDS + 1, space, spaces.Discrete(5), "cpu", WORLDS, n_steps=n_steps, gamma=GAMMA)
    buffer.finals = buffer.rows - WORLDS  # so that none is lost
    buffer.observations = {name: torch.zeros(buffer.rows + buffer.finals + 1, 2) for name in buffer.observations}
    stream = Stream(steps + n_steps)
    stream.into(buffer, steps, lambda obs: {"state": obs} if named else obs)
    batch = buffer.sample(4000)
    first = max(steps - slots, 0)
    seen = set()
    parts = [batch.observations, batch.next_observations]
    obs, following = (part["state"] if named else part for part in parts)
    for k, row in enumerate(batch.rows.tolist()):
        slot, world = divmod(row, WORLDS)
        step = first + (slot - first) % slots
        if (step, world) in seen:
            continue
        seen.add((step, world))
        kept = stream.history[world][step]
        total, discount, led_to = stream.outcome(world, step, n_steps)
        np.testing.assert_array_equal(obs[k], kept[0])
        assert batch.actions[k] == kept[1] and batch.weights[k] > 0
        assert batch.returns[k].item() == pytest.approx(total, rel=1e-5, abs=1e-6)
        assert batch.discounts[k].item() == pytest.approx(discount, rel=1e-5)
        if discount:
            np.testing.assert_array_equal(following[k], led_to)
    # 4000 draws of at most 60 rows: all that have n steps after them were drawn, and no other.
    assert seen == {(step, world) for step in range(first, steps - n_steps) for world in range(WORLDS)}


def test_uniform_draws_are_alike_probable():
    buffer = ReplayBuffer(30, VECTOR, spaces.Discrete(5), "cpu", WORLDS, n_steps=2)
    Stream().into(buffer, 14)
    counts = torch.bincount(buffer.sample(24_000).rows, minlength=30)
    drawn = counts[counts > 0]
    assert len(drawn) == 24 and buffer.drawable == 24
    assert (drawn - 1000).abs().max() < 5 * 1000**0.5


def test_ends_whose_observation_was_overwritten_weigh_nothing():
    """Every step times out; of 60 final observations the ring keeps 8."""
    buffer = ReplayBuffer(60, VECTOR, spaces.Discrete(5), "cpu", WORLDS)
    stream = Stream(ending=0.0, timeout=1.0)
    stream.into(buffer, 20)
    batch = buffer.at(torch.arange(buffer.rows - WORLDS))
    assert buffer.finals == 8 and batch.weights.tolist() == [0.0] * 52 + [1.0] * 5
    for row in range(52, 57):
        np.testing.assert_array_equal(batch.next_observations[row], stream.history[row % 3][row // 3][5])


@pytest.mark.parametrize("known", [True, False])
def test_worlds_that_are_reset_do_not_join_two_episodes(known):
    buffer = ReplayBuffer(60, VECTOR, spaces.Discrete(5), "cpu", WORLDS, n_steps=3, gamma=GAMMA)
    stream = Stream(ending=0.0, timeout=0.0)
    stream.into(buffer, 4)
    last = torch.tensor(stream.seen)
    buffer.cut(last if known else None)
    Stream(1, ending=0.0, timeout=0.0).into(buffer, 4)
    batch = buffer.at(torch.arange(3 * WORLDS, 4 * WORLDS))  # the last step before the reset
    np.testing.assert_allclose(batch.returns, [stream.history[w][3][2] for w in range(WORLDS)])
    if known:
        torch.testing.assert_close(batch.next_observations, last)
        torch.testing.assert_close(batch.discounts, torch.full((WORLDS,), GAMMA))
    assert batch.weights.tolist() == [float(known)] * WORLDS


def test_small_types_are_stored_as_they_come():
    space = spaces.Dict(
        {"camera": spaces.Box(0, 255, (3, 4, 4), np.uint8), "speed": spaces.Box(-np.inf, np.inf, (1,), np.float16)}
    )
    buffer = ReplayBuffer(80, space, spaces.Discrete(5), "cpu", 2)
    assert buffer.observations["camera"].dtype == torch.uint8
    assert buffer.observations["speed"].dtype == torch.float16
    kept = sum(tensor[:-1].nbytes for tensor in buffer.observations.values())
    assert kept == bytes_needed(80, space) == 90 * (48 + 2)


def test_too_small_for_one_return():
    with pytest.raises(UserError, match="3 worlds and 4-step returns take at least 15"):
        ReplayBuffer(14, VECTOR, spaces.Discrete(5), "cpu", WORLDS, n_steps=4)


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritisedReplayBuffer])
@pytest.mark.parametrize("steps", [7, 33])
def test_state_round_trip(kind, steps):
    def make():
        return kind(60, VECTOR, spaces.Discrete(5), "cpu", WORLDS, n_steps=3)

    whole, again = make(), make()
    stream = Stream()
    stream.into(whole, steps)
    if kind is PrioritisedReplayBuffer:
        whole.update_priorities(torch.tensor([3, 4]), torch.tensor([0.1, 7.0]))
    again.set_state(whole.get_state())
    for buffer in (whole, again):
        Stream(5).into(buffer, 3)
        torch.manual_seed(1)
        buffer.drawn = buffer.sample(500)
    for ours, theirs in zip(whole.drawn, again.drawn, strict=True):
        assert torch.equal(ours, theirs)


def prioritised(steps: int) -> PrioritisedReplayBuffer:
    buffer = PrioritisedReplayBuffer(60, VECTOR, spaces.Discrete(5), "cpu", WORLDS, n_steps=2, alpha=0.5)
    Stream().into(buffer, steps)
    return buffer


@pytest.mark.parametrize("steps", [15, 31])
def test_draws_follow_the_priorities(steps):
    buffer = prioritised(steps)
    rows = (torch.arange(buffer.drawable) + (steps % 20 * WORLDS if steps > 20 else 0)) % buffer.rows
    errors = torch.rand(len(rows)) ** 4
    errors[:3] = 0.0  # drawn seldom, but not never
    buffer.update_priorities(rows, errors)
    expected = torch.zeros(buffer.rows, dtype=torch.float64)
    expected[rows] = (errors + 1e-6).double() ** 0.5
    expected /= expected.sum()

    draws = 200_000
    batch = buffer.sample(draws, beta=0.7)
    found = torch.bincount(batch.rows, minlength=buffer.rows) / draws
    assert (found - expected).abs().max() < 5 * (expected.max() / draws) ** 0.5
    assert (found[expected == 0] == 0).all()
    weights = (buffer.drawable * expected[batch.rows]) ** -0.7
    torch.testing.assert_close(batch.weights.double(), weights / weights.max(), rtol=1e-4, atol=1e-6)


def test_sums_stay_those_of_the_priorities():
    buffer = prioritised(0)
    stream = Stream()
    for _ in range(30):
        stream.into(buffer, 3)
        rows = buffer.sample(16).rows
        buffer.update_priorities(rows, torch.rand(len(rows)))
    torch.testing.assert_close(buffer.sums, buffer.priorities.double().sum(1))
    assert (buffer.priorities.view(-1)[: buffer.rows] > 0).sum() == buffer.drawable


def test_new_steps_are_as_probable_as_the_worst():
    buffer = prioritised(10)
    buffer.update_priorities(torch.tensor([0, 1]), torch.tensor([16.0, 4.0]))
    Stream().into(buffer, 1)
    written = buffer.priorities.view(-1)[8 * WORLDS : 9 * WORLDS]
    torch.testing.assert_close(written, torch.full((WORLDS,), 4.0))


def test_a_step_without_priority_is_never_drawn():
    """However the sums are rounded."""
    buffer = prioritised(20)
    buffer.priorities.zero_()
    buffer.sums.zero_()
    buffer.update_priorities(torch.tensor([41]), torch.tensor([1e-8]))
    assert (buffer.sample(5000).rows == 41).all()
