"""A policy as a teacher, and worlds in which it watches a student: both see every state, each in its own way."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces

import envs
from agents.law_teacher import LawTeacher
from agents.policies import Policy
from agents.wrapped import Wrapped
from envs.errors import UserError

# Standard deviation that a continuous action counts with whose teacher does not say how sure it is, of a range of 2.
DEVIATION = 0.1

Tensors = dict[str, torch.Tensor]


class Teacher:
    """What a policy would do, as a distribution: its own where it explains one, else its action alone.

    Args:
        policy: the one that teaches.
        actions: the space of one world's actions.
    """

    def __init__(self, policy: Policy, actions: spaces.Space):
        self.policy, self.actions = policy, actions
        self.name = policy.name

    def reset(self, done: torch.Tensor | None) -> None:
        """See `agents.policies.Policy.reset`."""
        self.policy.reset(done)

    def close(self) -> None:
        """A policy has nothing to end."""

    def advise(self, obs: Tensors) -> torch.Tensor:
        """What is to be done in N worlds. Shape: (N, A), probabilities of meta-actions; of continuous actions
        (N, 2, K), their means and standard deviations. float32.

        Raises:
            UserError: it takes other actions than these worlds do.
        """
        explained = self.policy.explain(obs) or {}
        if explained and getattr(self.policy, "remembers", False):
            self.policy.act(obs)  # it adds to its memory only what it acts on
        if isinstance(self.actions, spaces.Discrete):
            advice = explained["probabilities"] if "probabilities" in explained else self._certain(obs)
            shape: tuple[int, ...] = (int(self.actions.n),)
        else:
            alone = "mean" not in explained
            mean = torch.as_tensor(self.policy.act(obs)).float() if alone else explained["mean"]
            advice = torch.stack([mean, torch.full_like(mean, DEVIATION) if alone else explained["deviation"]], 1)
            shape = (2, *self.actions.shape)
        count = len(next(iter(obs.values())))
        if advice.shape != (count, *shape):
            raise UserError(
                f"the teacher {self.policy.name} acts by numbers of shape {list(advice.shape[1:])} where these worlds "
                f"take {list(shape)}"
            )
        return advice.float()

    def _certain(self, obs: Tensors) -> torch.Tensor:
        """The chosen meta-actions with probability 1. Shape: (N, A)."""
        chosen, count = torch.as_tensor(self.policy.act(obs)), int(self.actions.n)
        if chosen.is_floating_point() or chosen.ndim != 1 or not ((chosen >= 0) & (chosen < count)).all():
            raise UserError(
                f"the teacher {self.policy.name} does not choose among the {count} meta-actions of these worlds"
            )
        return torch.nn.functional.one_hot(chosen.long(), count)


class TaughtWorlds(Wrapped):
    """`envs.api.VecWorlds` that show a student its part of the observation, and a teacher all of it.

    Nothing is simulated twice: both look at the same state.

    Args:
        worlds: give what either sees.
        teacher: whom `advise` asks.
        names: the entries of the observation that the student sees.
    """

    def __init__(self, worlds, teacher: Teacher | LawTeacher, names: Sequence[str]):
        super().__init__(worlds)
        self.teacher, self.names = teacher, tuple(names)
        seen = worlds.single_observation_space
        self.single_observation_space = spaces.Dict({name: seen[name] for name in self.names})
        self._obs: Tensors = {}

    def advise(self) -> torch.Tensor:
        """What the teacher would do now, see `Teacher.advise`. Call it once a step."""
        return self.teacher.advise(self._obs)

    def reset(self, seed: int | None = None) -> tuple[Tensors, dict[str, Any]]:
        """See VecWorlds; the observation is the student's."""
        self._obs, info = self.worlds.reset(seed=seed)
        self.teacher.reset(None)
        return self._of_student(self._obs), info

    def step(
        self, actions: torch.Tensor, **options: Any
    ) -> tuple[Tensors, torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """See VecWorlds; the observation and info["final_obs"] are the student's."""
        self._obs, reward, terminated, truncated, info = self.worlds.step(actions, **options)
        self.teacher.reset(terminated | truncated)
        final = {"final_obs": self._of_student(info["final_obs"])}
        return self._of_student(self._obs), reward, terminated, truncated, info | final

    def set_state(self, state: Tensors) -> None:
        """See VecWorlds. A teacher that remembers something begins afresh."""
        self._obs = self.worlds.set_state(state)
        self.teacher.reset(None)

    def close(self) -> None:
        """End the threads, the teacher's too."""
        self.teacher.close()
        self.worlds.close()

    def _of_student(self, obs: Tensors) -> Tensors:
        return {name: obs[name] for name in self.names}


def make_taught(policy: Policy, scenario: str, *, observation: str, **options: Any) -> TaughtWorlds:
    """Worlds for a student and its teacher.

    Args:
        policy: the teacher.
        scenario: what is driven.
        observation: what the student sees.
        options: other arguments of `envs.make_vec` as the student needs them.

    Raises:
        UserError: one batch of worlds cannot be as both need it, or the law of drivers cannot teach there.
    """
    wanted = dict(policy.env_options)
    if wanted.get("ego") == "idm":
        worlds = envs.make_vec(scenario, observation=observation, **options)
        return TaughtWorlds(worlds, LawTeacher(worlds), worlds.observed[observation])
    watched = wanted.pop("observation", "camera")
    defaults = {name: parameter.default for name, parameter in inspect.signature(envs.make_vec).parameters.items()}
    for name, value in wanted.items():
        # Without a camera, the student does not mind which one there is.
        if name in options or observation == "camera" or name == "ego":
            if (ours := options.get(name, defaults[name])) != value:
                raise UserError(f"the teacher {policy.name} needs worlds with {name}={value!r}, the student {ours!r}")
        options[name] = value
    worlds = envs.make_vec(scenario, observation=(observation, watched), **options)
    return TaughtWorlds(worlds, Teacher(policy, worlds.single_action_space), worlds.observed[observation])
