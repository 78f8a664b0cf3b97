"""What is not the driving's fault: a policy that raises or returns no numbers, and a simulator that fails.

Every episode has a status. "ok"; "policy raised": the policy raised an error or returned what is no action; "not
finite": it returned NaN or infinity; "simulator failed": the simulator raised, or its state is no longer finite. A
fault of one episode leaves the others as they are:

- Worlds for which a policy returns no numbers, or a meta-action that does not exist, are driven on from then on with
  IDLE, or with neither throttle nor steering; the other worlds of the batch get their own actions. Metrics of a "not
  finite" episode are of this drive. A world that was given an action that does not exist has no metrics.
- Where the policy or the simulator raises in a batch, the halves of the batch are rolled again, each on its own, until
  the episodes that raise stand alone. They have no metrics.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from envs.errors import UserError
from evaluation.recorder import Policy, record
from evaluation.trajectory import MOVING, Trajectory

OK, RAISED, NOT_FINITE, SIMULATOR = STATUSES = ("ok", "policy raised", "not finite", "simulator failed")
# Longest text of an error that is kept.
LONGEST = 300

Fault = tuple[str, str]  # status and text


class PolicyRaised(Exception):
    """A policy raised, or returned what is no batch of actions."""


def said(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:LONGEST] if text else type(error).__name__


class Guard:
    """A policy that always gives actions that the worlds can take, and remembers where it did not.

    Args:
        policy: see `evaluation.recorder.Policy`.
        worlds: that it drives.

    Attributes:
        faults: world -> what was wrong with its actions at first, in the episode that was recorded.
    """

    def __init__(self, policy: Policy, worlds):
        self.policy, self.worlds = policy, worlds
        self.name, self.env_options = policy.name, policy.env_options
        self.faults: dict[int, Fault] = {}
        self._running = torch.ones(worlds.num_worlds, dtype=torch.bool)
        # What an ego that drives itself is told is not looked at, and some worlds do not say what they take.
        driven = getattr(worlds, "ego", "") != "idm"
        self._space: spaces.Space | None = getattr(worlds, "single_action_space", None) if driven else None
        names = worlds.action_names
        self._idle = names.index("IDLE") if "IDLE" in names else 0
        if hasattr(policy, "on_frame"):  # most policies do nothing between two decisions
            self.on_frame = self._on_frame

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """The policy's actions, or idle ones where it has none.

        Raises:
            PolicyRaised: it raised, or returned something of another shape.
            UserError: it cannot drive in these worlds at all.
        """
        actions = _asked(self.policy.act, obs)
        return actions if self._space is None else self._checked(actions)

    def reset(self, done: Tensor | None = None) -> None:
        """See `Policy`."""
        _asked(self.policy.reset, done)
        if done is not None:
            self._running &= ~done.cpu()

    def _on_frame(self, worlds) -> None:
        _asked(self.policy.on_frame, worlds)

    def _checked(self, actions: Any) -> Tensor:
        wanted = (self.worlds.num_worlds, *self._space.shape)
        try:
            actions = torch.as_tensor(actions, device=self.worlds.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise PolicyRaised(f"it returned a {type(actions).__name__}, no array of actions ({said(error)})") from None
        if tuple(actions.shape) != wanted:
            raise PolicyRaised(f"it returned actions of shape {tuple(actions.shape)}, where {wanted} is right")
        rows = actions.reshape(len(actions), -1)
        bad = ~rows.isfinite().all(1)
        if not isinstance(self._space, spaces.Box):
            last = _last(self._space)
            bad |= ((rows < 0) | (rows > last) | (rows != rows.round())).any(1)
        for world in bad.nonzero().flatten().tolist():
            self._mark(world, rows[world])
        bad[list(self.faults)] = True
        if bad.any():
            actions = actions.clone()
            actions[bad] = self._idle
        return actions if isinstance(self._space, spaces.Box) else actions.long()

    def _mark(self, world: int, action: Tensor) -> None:
        """Keep what was wrong, unless it was before, or the world is in a later episode."""
        if world in self.faults or not self._running[world]:
            return
        shown = ", ".join(f"{number:g}" for number in action.tolist())
        if not action.isfinite().all():
            self.faults[world] = (NOT_FINITE, f"the policy returned {shown}")
        else:
            self.faults[world] = (RAISED, f"the policy returned {shown}; actions are 0 to {_last(self._space)}")


def _asked(method: Callable, *arguments: Any) -> Any:
    """What a method of a policy returns; what it raises becomes `PolicyRaised`."""
    try:
        return method(*arguments)
    except UserError:
        raise
    except Exception as error:
        raise PolicyRaised(said(error)) from error


def _last(space: spaces.Space) -> int:
    """The highest meta-action."""
    return int(space.n if isinstance(space, spaces.Discrete) else space.nvec[0]) - 1


@dataclass(frozen=True)
class Block:
    """Consecutive episodes that were rolled together.

    Attributes:
        first, count: which.
        worlds, trajectory: of them; None where nothing came of it.
        faults: world -> status and text.
        lost: worlds whose trajectory says nothing.
    """

    first: int
    count: int
    worlds: Any = None
    trajectory: Trajectory | None = None
    faults: dict[int, Fault] = field(default_factory=dict)

    @property
    def lost(self) -> set[int]:
        """Worlds whose trajectory says nothing about the policy."""
        return {world for world, (status, _) in self.faults.items() if status != NOT_FINITE}


def rolled(
    make_worlds: Callable[[int], Any],
    policy: Policy,
    first: int,
    count: int,
    seed: int,
    on_step: Callable[[int], None] = lambda worlds: None,
) -> Iterator[Block]:
    """Roll episodes together; where that fails, the halves, and so on.

    Args:
        make_worlds: number of worlds -> worlds.
        policy: drives the egos.
        first, count: which episodes, by the identities of their worlds in the random streams.
        seed: of all of them.
        on_step: called after every policy step with the number of worlds that took it.

    Yields:
        the episodes in order, in one block or more.

    Raises:
        UserError, OSError: what no episode is to blame for.
    """
    made: dict[int, Any] = {}

    def roll(first: int, count: int) -> Iterator[Block]:
        try:
            if count not in made:
                made[count] = make_worlds(count)
            worlds = made[count]
            guard = Guard(policy, worlds)
            trajectory = record(worlds, guard, seed, first, lambda: on_step(count))
        except (UserError, OSError):
            raise
        except Exception as error:
            fault = (RAISED, str(error)) if isinstance(error, PolicyRaised) else (SIMULATOR, said(error))
            if fault[0] == SIMULATOR and count in made:  # nobody knows what state these are in
                with contextlib.suppress(Exception):
                    made.pop(count).close()
        else:
            yield Block(first, count, worlds, trajectory, guard.faults | _not_finite(trajectory))
            return
        if count == 1:
            yield Block(first, count, faults={0: fault})
            return
        half = (count + 1) // 2
        yield from roll(first, half)
        yield from roll(first + half, count - half)

    try:
        yield from roll(first, count)
    finally:
        for worlds in made.values():
            worlds.close()


def _not_finite(trajectory: Trajectory) -> dict[int, Fault]:
    """World -> fault, where the simulator's numbers are none. They are set to 0, so that metrics of the others work."""
    numbers = {name: getattr(trajectory, name) for name in MOVING if getattr(trajectory, name).is_floating_point()}
    counted = trajectory.present & trajectory.recorded[..., None]
    wrong = {name: ~values.isfinite() & counted for name, values in numbers.items()}
    faults: dict[int, Fault] = {}
    for world in torch.stack([where.any(0).any(-1) for where in wrong.values()]).any(0).nonzero().flatten().tolist():
        places = [
            (*where[:, world].nonzero()[0].tolist(), name) for name, where in wrong.items() if where[:, world].any()
        ]
        frame, slot, name = min(places, key=lambda place: place[0])
        what = f"the {name} of vehicle {slot} is {numbers[name][frame, world, slot]:g} at {frame * trajectory.dt:.2f} s"
        faults[world] = (SIMULATOR, what)
        for values in numbers.values():
            values[:, world].nan_to_num_(0.0, 0.0, 0.0)
    return faults
