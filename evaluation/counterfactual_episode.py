"""An episode asked about: at every moment, what each change of the scene would have done to the action."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from agents.policies import Policy
from evaluation.counterfactual_changes import SCENE, Change, State, changes
from evaluation.counterfactual_influence import ask
from evaluation.counterfactual_studio import Moment, Studio, drive

# Where an object is, by its centre in the ego's frame: |right| up to the first is "in line", up to the second "beside".
IN_LINE, BESIDE = 2.0, 6.0  # m
DISTANCES = (15.0, 30.0, 60.0)  # m, ends of the bins

# Observations and actions of N moments to what in the pictures speaks for the actions and against them, (N, H, W).
Saliency = Callable[[dict[str, Tensor], Tensor], Tensor]


@dataclass(frozen=True)
class Effect:
    """A change of which the policy observes something, and what it does.

    Attributes:
        change: what is otherwise.
        influence: see `evaluation.counterfactual_influence`.
        measures: name -> figure, the influence among them.
        changes_action: whether another action is chosen.
        told: what the policy's action comes from after the change. Shape: (A,) or (K,).
        ahead, right: of the object in the ego's frame [m]; None for the whole scene.
        pixels: share of the picture's pixels that differ in one of its frames; None without a camera.
        saliency: share of the picture's saliency on these pixels, or None.
    """

    change: Change
    influence: float
    measures: dict[str, float]
    changes_action: bool
    told: np.ndarray
    ahead: float | None = None
    right: float | None = None
    pixels: float | None = None
    saliency: float | None = None

    @property
    def where(self) -> str:
        """The place of the object, for a person."""
        if self.ahead is None:
            return "the whole scene"
        along = f"{abs(self.ahead):.0f} m {'ahead' if self.ahead >= 0 else 'behind'}"
        return f"{along}, {abs(self.right):.0f} m to the {'right' if self.right >= 0 else 'left'}"

    @property
    def bin(self) -> tuple[str, int]:
        """The place of the object, for a table: its direction, and the number of its distance in `DISTANCES`."""
        aside = abs(self.right)
        lane = "in line" if aside <= IN_LINE else "beside" if aside <= BESIDE else "farther aside"
        reach = sum(abs(self.ahead) >= end for end in DISTANCES)
        return f"{'ahead' if self.ahead >= 0 else 'behind'}, {lane}", reach


@dataclass(frozen=True)
class Instant:
    """A moment and the effects of the changes.

    Attributes:
        moment: what was driven.
        told: what the action came from. Shape: (A,) or (K,).
        value: discounted return that was expected, or None.
        effects: of the changes that are observed.
        hidden: number of changes of which nothing is observed; their influence is zero.
    """

    moment: Moment
    told: np.ndarray
    value: float | None
    effects: tuple[Effect, ...]
    hidden: int


@dataclass(frozen=True)
class Episode:
    """What was found in an episode.

    Attributes:
        instants: one a policy step.
        kind: how the policy explains itself, a key of `evaluation.counterfactual_influence.MEASURES`.
        action_names: of meta-actions; empty where actions are continuous.
    """

    instants: tuple[Instant, ...]
    kind: str
    action_names: tuple[str, ...]

    def effects(self, *kinds: str) -> Iterator[tuple[Instant, Effect]]:
        """All effects of some kinds of changes, moment by moment."""
        for instant in self.instants:
            for effect in instant.effects:
                if effect.change.kind in kinds:
                    yield instant, effect

    def action(self, instant: Instant) -> str:
        """The action that was taken, as a word."""
        return said(instant.moment.action[0], self.action_names)


def said(action: Tensor, names: Sequence[str]) -> str:
    """An action as a word, or as numbers where it is continuous."""
    if action.is_floating_point():
        return ", ".join(f"{number:+.2f}" for number in action.flatten().tolist())
    return names[int(action)]


def explain(
    worlds,
    studio: Studio,
    policy: Policy,
    seed: int,
    first: int = 0,
    saliency: Saliency | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> Episode:
    """Drive an episode and ask about every moment of it.

    Args:
        worlds: one world that is driven.
        studio: where moments are shown again.
        policy: drives and is asked.
        seed, first: of the episode, see `evaluation.counterfactual_studio.drive`.
        saliency: `agents.saliency.Saliency.shares` of the policy; None to leave it out.
        on_step: called after every moment.

    Raises:
        UserError: the policy does not explain itself, or a moment cannot be shown again.
    """
    instants, kind = [], ""
    for moment in drive(worlds, policy, seed, first):
        instant, kind = at(moment, studio, policy, saliency)
        instants.append(instant)
        on_step()
    return Episode(tuple(instants), kind, tuple(worlds.action_names))


def at(
    moment: Moment,
    studio: Studio,
    policy: Policy,
    saliency: Saliency | None = None,
    wanted: Sequence[Change] | None = None,
) -> tuple[Instant, str]:
    """Ask about one moment.

    Args:
        moment, studio, policy, saliency: see `explain`.
        wanted: the changes; by default all that there are.

    Returns:
        what was found, and how the policy explains itself.
    """
    wanted = changes(moment.state, moment.road) if wanted is None else wanted
    shown = studio.show(moment, wanted)
    answers = ask(policy, shown)
    measures, influence, differs = answers.measures(), answers.influence, answers.changes_action
    told = answers.explained[answers.kind].double().cpu().numpy()
    pixels = shares = [None] * len(wanted)
    if "camera" in shown:
        camera = shown["camera"].unflatten(1, (-1, 3))
        masks = (camera[1:] != camera[:1]).flatten(1, 2).any(1)  # in any frame and colour: (C, H, W)
        pixels = masks.float().mean((1, 2)).tolist()
        if saliency is not None:
            salient = saliency(moment.obs, moment.action).abs().to(masks.device)
            total = float(salient.sum())
            shares = [float((salient[0] * mask).sum()) / total if total > 0 else 0.0 for mask in masks]
    effects = []
    for k, change in enumerate(wanted):
        if not answers.seen[k]:
            continue
        ahead, right = (None, None) if change.place is None else _from_ego(moment.state, change.place)
        effects.append(
            Effect(
                change=change,
                influence=float(influence[k]),
                measures={name: float(figures[k]) for name, figures in measures.items()},
                changes_action=bool(differs[k]),
                told=told[1 + k],
                ahead=ahead,
                right=right,
                pixels=pixels[k],
                saliency=None if change.kind == SCENE else shares[k],
            )
        )
    value = answers.explained.get("value")
    before = None if value is None else float(value[0])
    return Instant(moment, told[0], before, tuple(effects), len(wanted) - len(effects)), answers.kind


def _from_ego(state: State, place: tuple[float, float]) -> tuple[float, float]:
    """How far ahead of the ego and to its right a place is [m]."""
    x, y, c, s = (float(state[f"state.{name}"][0, 0]) for name in ("x", "y", "cos_heading", "sin_heading"))
    dx, dy = place[0] - x, place[1] - y
    return dx * c + dy * s, dy * c - dx * s
