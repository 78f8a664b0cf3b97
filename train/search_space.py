"""What a sweep tries: the ranges of the settings that matter, by algorithm. See `train.sweep`.

A range is widened to the setting that stands in `train.settings` or is the command's default, so that the first trial
of every sweep is made with the settings that are in use.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

DIGITS = 3  # of numbers that are drawn: more would only be hard to read


class Dimension(Protocol):
    """What is known of one setting."""

    def holding(self, value: Any) -> "Dimension":
        """The same, widened to a value."""

    def suggest(self, trial: Any, name: str) -> Any:
        """A value, as an `optuna.trial.Trial` draws it or has drawn it."""

    def describe(self) -> str:
        """In words."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; whole ones if both ends are. `log`: drawn by their logarithm."""

    low: float
    high: float
    log: bool = False

    def holding(self, value: float) -> "Range":
        """See `Dimension`; 0 has no logarithm, and the range becomes a linear one."""
        log = self.log and value > 0
        return replace(self, low=min(self.low, value), high=max(self.high, value), log=log)

    def suggest(self, trial: Any, name: str) -> float:
        """See `Dimension`."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        value = trial.suggest_float(name, self.low, self.high, log=self.log)
        return value if value == 0 else round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))

    def describe(self) -> str:
        """See `Dimension`."""
        return f"{self.low:g} to {self.high:g}{', by its logarithm' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[Any, ...]

    def holding(self, value: Any) -> "Choice":
        """See `Dimension`."""
        return self if value in self.values else Choice(tuple(sorted((*self.values, value))))

    def suggest(self, trial: Any, name: str) -> Any:
        """See `Dimension`."""
        return trial.suggest_categorical(name, self.values)

    def describe(self) -> str:
        """See `Dimension`."""
        return " | ".join(map(str, self.values))


COMMON: dict[str, Dimension] = {
    "learning_rate": Range(1e-4, 1e-2, log=True),
    "gamma": Choice((0.9, 0.95, 0.97, 0.98, 0.99, 0.995)),
    "crash_penalty": Range(0.0, 100.0),
}
ROLLOUTS: dict[str, Dimension] = {
    "rollout_steps": Choice((8, 16, 32, 64, 128)),
    "minibatches": Choice((4, 8, 16)),
    "epochs": Range(1, 8),
}
EXPLORATION: dict[str, Dimension] = {
    "exploration_fraction": Range(0.05, 0.4),  # `train.study` compares returns from half of the steps on
    "final_epsilon": Range(0.005, 0.1, log=True),
}
SPACES: dict[str, dict[str, Dimension]] = {
    "ppo": {
        **COMMON,
        **ROLLOUTS,
        "entropy": Range(3e-4, 3e-2, log=True),
        "value": Range(3e-4, 0.5, log=True),
        "gae_lambda": Range(0.8, 0.99),
        "clip_range": Range(0.1, 0.4),
        "target_kl": Range(0.01, 0.1, log=True),
    },
    "dqn": {
        **COMMON,
        **EXPLORATION,
        "n_steps": Range(1, 6),
        "gradient_steps": Choice((2, 4, 8, 16)),
        "batch_size": Choice((64, 128, 256, 512)),
        "target_every": Range(500, 10_000, log=True),
        "quantiles": Choice((1, 8, 32)),
        "prioritised": Choice((False, True)),
    },
    "pqn": {
        **COMMON,
        **ROLLOUTS,
        **EXPLORATION,
        "q_lambda": Range(0.0, 0.95),
    },
}


def space(algorithm: str, base: Any, fixed: set[str]) -> dict[str, Dimension]:
    """What a sweep of an algorithm draws.

    Args:
        algorithm: as "ppo".
        base: the settings of a trial that draws nothing, of the command's class.
        fixed: names of settings that the user has given, which are not drawn.
    """
    names = [name for name in SPACES[algorithm] if name not in fixed]
    return {name: SPACES[algorithm][name].holding(getattr(base, name)) for name in names}
