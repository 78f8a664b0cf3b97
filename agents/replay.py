"""The replay buffer of off-policy algorithms, on the device of the worlds."""

import math
from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_obs_shape
from stable_baselines3.common.utils import get_device

from agents.buffers import Observation, bytes_of, torch_dtype
from envs.errors import UserError

# Of the steps: how many final observations are kept. Worlds whose episodes are on average shorter than 8 steps, and
# end by timeout, lose the oldest of those ends.
FINAL_SHARE = 1 / 8
BELOW_ONE = 1 - 1e-15  # keeps a random point inside its interval when sums are rounded


class Batch(NamedTuple):
    """B steps drawn from a replay buffer, each with the n steps that followed or those until its episode ended."""

    observations: Observation  # Shape: (B, *observation)
    actions: torch.Tensor  # Shape: (B,) int64
    returns: torch.Tensor  # discounted sum of the rewards. Shape: (B,)
    discounts: torch.Tensor  # of the value of what was seen after them; 0 where they ended in a terminal state
    next_observations: Observation  # what was seen after them. Shape: (B, *observation)
    weights: torch.Tensor  # of the losses. Shape: (B,)
    rows: torch.Tensor  # where the steps are kept: slot * worlds + world. Shape: (B,)


class ReplayBuffer:
    """The last T steps of N worlds, drawn uniformly. Every observation is kept once: what a step led to is found in the
    slot after it, and what an episode saw when its time ran out in a ring of such observations.

    Everything stays on the device; nothing waits for it. A step is written in two halves, as in
    `agents.buffers.RolloutBuffer`. The newest n slots are not drawn yet: their n-step returns are not complete.

    Args:
        buffer_size: steps over all worlds; T is this over N, rounded down.
        observation_space: of one world.
        action_space: of one world, discrete.
        device: where everything is kept.
        n_envs: N, worlds.
        optimize_memory_usage: for stable-baselines3, which asks for what is always so here.
        n_steps: n, steps of a return.
        gamma: the discount factor of one step.

    Raises:
        UserError: too small for a single n-step return.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        gamma: float = 0.99,
    ):
        self.slots, self.n_envs, self.n_steps, self.gamma = buffer_size // n_envs, n_envs, n_steps, gamma
        if self.slots <= n_steps:
            raise UserError(
                f"a replay of {buffer_size} steps is too small: "
                f"{n_envs} worlds and {n_steps}-step returns take at least {(n_steps + 1) * n_envs}"
            )
        self.device = get_device(device)
        self.rows = self.slots * n_envs
        self.finals = max(n_envs, round(self.rows * FINAL_SHARE))
        self.named = isinstance(observation_space, spaces.Dict)
        parts = observation_space.spaces if self.named else {"": observation_space}
        # Shape of each: (T * N steps, then the ring of final observations, then a row that is never read).
        self.observations = {
            name: torch.zeros(
                (self.rows + self.finals + 1, *get_obs_shape(space)), dtype=torch_dtype(space), device=self.device
            )
            for name, space in parts.items()
        }
        self.actions = torch.zeros(self.rows, dtype=torch.int64, device=self.device)
        self.rewards = torch.zeros(self.rows, device=self.device)
        self.terminated = torch.zeros(self.rows, dtype=torch.bool, device=self.device)
        # Which final observation belongs to a step, counted from 1; 0 where the time did not run out.
        self.final = torch.zeros(self.rows, dtype=torch.int64, device=self.device)
        self.timed_out = torch.zeros(self.rows, dtype=torch.bool, device=self.device)
        self.final_count = torch.zeros((), dtype=torch.int64, device=self.device)
        self.pos = 0  # the slot that is written next
        self.full = False

    @property
    def size(self) -> int:
        """Slots that hold steps."""
        return self.slots if self.full else self.pos

    @property
    def ready(self) -> bool:
        """Whether there is anything to draw."""
        return self.size > self.n_steps

    def add_decision(self, obs: Observation, actions: torch.Tensor) -> None:
        """Write what the policy saw and chose at the current step.

        Args:
            obs: Shape: (N, *observation).
            actions: Shape: (N,).
        """
        rows = self._slot(self.pos)
        for name, stored in self.observations.items():
            stored[rows].copy_(self._part(obs, name).reshape(stored[rows].shape))
        self.actions[rows].copy_(actions)

    def add_outcome(
        self, rewards: torch.Tensor, terminated: torch.Tensor, truncated: torch.Tensor, final_obs: Observation | None
    ) -> None:
        """Write what came of it, and go on to the next step.

        Args:
            rewards: Shape: (N,).
            terminated: True where a terminal state was reached. Shape: (N,).
            truncated: True where the time ran out; the value of the final observation counts there. Shape: (N,).
            final_obs: read in the rows that timed out; None if none did. Shape: (N, *observation).
        """
        rows = self._slot(self.pos)
        timed_out = truncated & ~terminated
        self.rewards[rows].copy_(rewards)
        self.terminated[rows].copy_(terminated)
        self.timed_out[rows].copy_(timed_out)
        self.final[rows].zero_()
        if final_obs is not None:
            self._keep_finals(rows, timed_out, final_obs)
        self.pos = (self.pos + 1) % self.slots
        self.full |= self.pos == 0

    def cut(self, last_obs: Observation | None) -> None:
        """The worlds are reset in the middle of their episodes: the newest step leads to `last_obs`, and not to what
        comes next. Without `last_obs` it is not learnt from."""
        if not self.size:
            return
        rows = self._slot((self.pos - 1) % self.slots)
        timed_out = ~self.terminated[rows] & ~self.timed_out[rows]
        self.timed_out[rows] |= timed_out
        if last_obs is not None:
            self._keep_finals(rows, timed_out, last_obs)

    def _keep_finals(self, rows: slice, timed_out: torch.Tensor, final_obs: Observation) -> None:
        """Put the final observations of a slot's worlds into the ring; those of the others go where nobody reads."""
        if self.device.type == "cpu" and not timed_out.any():
            return
        count = self.final_count + timed_out.cumsum(0)
        self.final[rows] = torch.where(timed_out, count, self.final[rows])
        targets = torch.where(timed_out, self._final_rows(count), self.rows + self.finals)
        for name, stored in self.observations.items():
            part = self._part(final_obs, name)
            stored.index_copy_(0, targets, part.reshape(-1, *stored.shape[1:]).to(stored.dtype))
        self.final_count = count[-1]

    def sample(self, batch_size: int) -> Batch:
        """Steps drawn with replacement, all alike probable."""
        index = torch.randint(self.drawable, (batch_size,), device=self.device)
        return self.at((index + self._oldest) % self.rows)

    @property
    def drawable(self) -> int:
        """Steps that can be drawn."""
        return (self.size - self.n_steps) * self.n_envs

    def at(self, rows: torch.Tensor) -> Batch:
        """The steps in some rows. The weight is 0 where a final observation has been overwritten.

        Args:
            rows: slot * worlds + world. Shape: (B,).
        """
        steps = torch.arange(self.n_steps, device=self.device)
        window = (rows.unsqueeze(1) + steps * self.n_envs) % self.rows  # Shape: (B, n)
        ended = self.terminated[window] | self.timed_out[window]
        earlier = ended.long().cumsum(1) - ended.long()  # ends before each step
        counts = earlier == 0
        returns = (self.rewards[window] * counts * self.gamma**steps).sum(1)
        length = counts.sum(1)

        last = window.gather(1, length.unsqueeze(1) - 1).squeeze(1)
        discounts = self.gamma**length * ~self.terminated[last]
        timed_out, final = self.timed_out[last], self.final[last]
        lost = timed_out & (final <= (self.final_count - self.finals).clamp(min=0))
        following = torch.where(timed_out, self._final_rows(final), (last + self.n_envs) % self.rows)
        return Batch(
            self._observed(rows),
            self.actions[rows],
            returns,
            discounts,
            self._observed(following),
            (~lost).float(),
            rows,
        )

    def newest(self, slots: int) -> Observation:
        """What was seen in the last so many slots. Shape: (slots * N, *observation)."""
        last = torch.arange(-min(slots, self.size), 0, device=self.device) + self.pos
        worlds = torch.arange(self.n_envs, device=self.device)
        return self._observed(((last % self.slots).unsqueeze(1) * self.n_envs + worlds).flatten())

    def get_state(self) -> dict[str, Any]:
        """All that has been written. It waits for the device; nothing is copied."""
        kept = min(int(self.final_count), self.finals)
        rows = self.size * self.n_envs
        return {
            "observations": {name: stored[:rows] for name, stored in self.observations.items()},
            "final_observations": {
                name: stored[self.rows : self.rows + kept] for name, stored in self.observations.items()
            },
            "steps": {name: getattr(self, name)[:rows] for name in self._STEPS},
            "final_count": self.final_count,
            "pos": self.pos,
            "full": self.full,
        }

    _STEPS = ("actions", "rewards", "terminated", "final", "timed_out")

    def set_state(self, state: dict[str, Any]) -> None:
        """Undo `get_state`, in a buffer made with the same arguments."""
        for name, stored in self.observations.items():
            steps, finals = state["observations"][name], state["final_observations"][name]
            stored[: len(steps)].copy_(steps)
            stored[self.rows : self.rows + len(finals)].copy_(finals)
        for name in self._STEPS:
            getattr(self, name)[: len(state["steps"][name])].copy_(state["steps"][name])
        self.final_count = state["final_count"].to(self.device)
        self.pos, self.full = state["pos"], state["full"]

    @property
    def _oldest(self) -> int:
        """The row of the oldest step."""
        return self.pos * self.n_envs if self.full else 0

    def _slot(self, slot: int) -> slice:
        return slice(slot * self.n_envs, (slot + 1) * self.n_envs)

    def _final_rows(self, count: torch.Tensor) -> torch.Tensor:
        return self.rows + (count - 1) % self.finals

    def _part(self, obs: Observation, name: str) -> torch.Tensor:
        return obs[name] if self.named else obs

    def _observed(self, rows: torch.Tensor) -> Observation:
        parts = {name: stored.index_select(0, rows) for name, stored in self.observations.items()}
        return parts if self.named else parts[""]


class PrioritisedReplayBuffer(ReplayBuffer):
    """Steps are drawn in proportion to a power of the error that they were last learnt from with (Schaul et al. 2016,
    https://arxiv.org/abs/1511.05952); new ones as the worst so far.

    Priorities stand in segments of about the square root of their number, whose sums are kept: a draw looks through the
    sums, then through one segment. A tree of sums would take twenty steps instead of two, each a launch on a GPU.

    Args:
        alpha: the power; 0 draws uniformly.
        others: see `ReplayBuffer`.
    """

    def __init__(self, *args: Any, alpha: float = 0.6, **others: Any):
        super().__init__(*args, **others)
        self.alpha = alpha
        self.width = 2 ** round(math.log2(self.rows) / 2)
        segments = -(-self.rows // self.width)
        self.priorities = torch.zeros(segments, self.width, device=self.device)
        self.sums = torch.zeros(segments, dtype=torch.float64, device=self.device)
        self.highest = torch.ones((), device=self.device)

    def add_outcome(
        self, rewards: torch.Tensor, terminated: torch.Tensor, truncated: torch.Tensor, final_obs: Observation | None
    ) -> None:
        """See `ReplayBuffer`; the step whose n-step return this completes can be drawn from now on."""
        written = self.pos
        super().add_outcome(rewards, terminated, truncated, final_obs)
        self._set_slot(written, 0.0)
        if self.ready:
            self._set_slot((written - self.n_steps) % self.slots, self.highest)

    def _set_slot(self, slot: int, priority: torch.Tensor | float) -> None:
        rows = self._slot(slot)
        self.priorities.view(-1)[rows] = priority
        segments = slice(rows.start // self.width, (rows.stop - 1) // self.width + 1)
        self.sums[segments] = self.priorities[segments].sum(1, dtype=torch.float64)

    def sample(self, batch_size: int, beta: float = 1.0) -> Batch:
        """Steps drawn by their priorities, one from each of `batch_size` equal parts of their sum.

        Args:
            batch_size: B.
            beta: how far the weights make up for the unequal probabilities: not at all (0) to fully (1).
        """
        cumulative = self.sums.cumsum(0)
        total = cumulative[-1]
        parts = torch.arange(batch_size, device=self.device)
        points = (parts + torch.rand(batch_size, dtype=torch.float64, device=self.device)) / batch_size * total
        points = torch.minimum(points, total * BELOW_ONE)
        segment = torch.searchsorted(cumulative, points, right=True)

        inside = self.priorities[segment].cumsum(1, dtype=torch.float64)  # Shape: (B, width)
        points = (points - cumulative[segment] + self.sums[segment]).clamp(min=0.0)
        points = torch.minimum(points, inside[:, -1] * BELOW_ONE)
        rows = segment * self.width + torch.searchsorted(inside, points.unsqueeze(1), right=True).squeeze(1)

        batch = self.at(rows)
        probability = self.priorities.view(-1)[rows] / total.float()
        weights = (self.drawable * probability) ** -beta
        return batch._replace(weights=batch.weights * weights / weights.max())

    def update_priorities(self, rows: torch.Tensor, errors: torch.Tensor) -> None:
        """Take in how wrong the values of drawn steps were.

        Args:
            rows: of a batch that was drawn after the last step was added. Shape: (B,).
            errors: at least 0. Shape: (B,).
        """
        priorities = (errors + 1e-6) ** self.alpha
        self.highest = torch.maximum(self.highest, priorities.max())
        self.priorities.view(-1)[rows] = priorities
        segments = rows // self.width
        self.sums[segments] = self.priorities[segments].sum(1, dtype=torch.float64)

    def get_state(self) -> dict[str, Any]:
        """See `ReplayBuffer`."""
        return super().get_state() | {"priorities": self.priorities, "sums": self.sums, "highest": self.highest}

    def set_state(self, state: dict[str, Any]) -> None:
        """See `ReplayBuffer`."""
        super().set_state(state)
        for name in ("priorities", "sums"):
            getattr(self, name).copy_(state[name])
        self.highest = state["highest"].to(self.device)


def bytes_needed(buffer_size: int, observation_space: spaces.Space) -> int:
    """Memory of the observations of a replay of so many steps, in bytes."""
    return round(buffer_size * (1 + FINAL_SHARE)) * bytes_of(observation_space)
