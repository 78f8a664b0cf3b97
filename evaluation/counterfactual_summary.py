"""What was found in an episode, in tables: by change, by place, the foremost moments, and whether a saliency agrees."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from evaluation.counterfactual_changes import KINDS, REMOVED, SIGNAL
from evaluation.counterfactual_episode import DISTANCES, Effect, Episode, Instant
from evaluation.counterfactual_influence import MEASURES, partial_rank_correlation, rank_correlation


def foremost(episode: Episode, count: int, *kinds: str, each: int = 2, apart: int = 3) -> list[tuple[Instant, Effect]]:
    """The effects with the greatest influence, no more than `each` of one change, `apart` steps from each other."""
    chosen: list[tuple[Instant, Effect]] = []
    for instant, effect in sorted(episode.effects(*kinds), key=lambda pair: -pair[1].influence):
        mine = [owner.moment.step for owner, other in chosen if other.change.name == effect.change.name]
        if len(mine) < each and all(abs(step - instant.moment.step) >= apart for step in mine):
            chosen.append((instant, effect))
        if len(chosen) == count:
            break
    return [pair for pair in chosen if pair[1].influence > 0.0]


def by_change(episode: Episode, *kinds: str) -> list[dict[str, Any]]:
    """A row a change: how often it is seen, and its influence; the most influential first."""
    groups: dict[str, list[tuple[Instant, Effect]]] = {}
    for instant, effect in episode.effects(*kinds):
        groups.setdefault(effect.change.name, []).append((instant, effect))
    rows = []
    for name, members in groups.items():
        most = max(members, key=lambda pair: pair[1].influence)
        effects = [effect for _, effect in members]
        rows.append(
            {
                "change": name,
                "kind": effects[0].change.kind,
                "seen": len(effects),
                "mean_influence": _mean(effect.influence for effect in effects),
                "greatest_influence": most[1].influence,
                "greatest_at": most[0].moment.time,
                "changes_action": sum(effect.changes_action for effect in effects),
                "pixels": _mean(effect.pixels for effect in effects),
                "saliency": _mean(effect.saliency for effect in effects),
            }
        )
    return sorted(rows, key=lambda row: -row["greatest_influence"])


def by_kind(episodes: Sequence[Episode]) -> list[dict[str, Any]]:
    """A row a kind of change, over all objects: removed, brake lights on, signal green, dusk and so on."""
    groups: dict[str, list[Effect]] = {}
    for kind in KINDS:
        for episode in episodes:
            for _, effect in episode.effects(kind):
                what = effect.change.what
                groups.setdefault(f"signal {what}" if kind == SIGNAL else what, []).append(effect)
    return [
        {
            "change": name,
            "seen": len(effects),
            "mean_influence": _mean(effect.influence for effect in effects),
            "greatest_influence": max(effect.influence for effect in effects),
            "changes_action": _mean(float(effect.changes_action) for effect in effects),
        }
        for name, effects in groups.items()
    ]


def by_place(episodes: Sequence[Episode]) -> list[dict[str, Any]]:
    """A row a place around the ego where objects were removed."""
    groups: dict[tuple[str, int], list[Effect]] = {}
    for episode in episodes:
        for _, effect in episode.effects(REMOVED):
            groups.setdefault(effect.bin, []).append(effect)
    return [
        {
            "where": where,
            "distance": reach_of(reach),
            "seen": len(effects),
            "mean_influence": _mean(effect.influence for effect in effects),
            "greatest_influence": max(effect.influence for effect in effects),
            "changes_action": _mean(float(effect.changes_action) for effect in effects),
            "pixels": _mean(effect.pixels for effect in effects),
            "saliency": _mean(effect.saliency for effect in effects),
        }
        for (where, reach), effects in sorted(groups.items())
    ]


def reach_of(number: int) -> str:
    """A bin of distances, for a person."""
    ends = (0.0, *DISTANCES)
    if number == len(DISTANCES):
        return f"beyond {ends[-1]:.0f} m"
    return f"{ends[number]:.0f} to {ends[number + 1]:.0f} m"


def agreement(episodes: Sequence[Episode]) -> dict[str, Any] | None:
    """Whether objects with more saliency have more influence, where there is a saliency.

    Rank correlations over the objects of a moment, averaged over the moments that have one, and over all objects and
    moments. Beside them the same with an object's number of pixels in the place of its saliency, what a map would reach
    that knows nothing but sizes; and what the saliency tells beyond that, the partial correlation given the pixels.
    """
    groups = [
        [effect for effect in instant.effects if effect.change.kind == REMOVED and effect.saliency is not None]
        for episode in episodes
        for instant in episode.instants
    ]
    everybody = [effect for group in groups for effect in group]
    if not everybody:
        return None
    found: dict[str, Any] = {"objects": len(everybody)}
    for name, correlate in AGREEMENTS.items():
        each = [value for group in groups if (value := correlate(*_columns(group))) is not None]
        found[name] = {
            "mean_over_moments": _mean(each),
            "moments": len(each),
            "over_all": correlate(*_columns(everybody)),
        }
    return found


# Of influence, saliency and pixels of some objects.
AGREEMENTS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], float | None]] = {
    "saliency": lambda influence, saliency, pixels: rank_correlation(saliency, influence),
    "pixels": lambda influence, saliency, pixels: rank_correlation(pixels, influence),
    "saliency_given_pixels": lambda influence, saliency, pixels: partial_rank_correlation(saliency, influence, pixels),
}


def _columns(effects: Sequence[Effect]) -> list[np.ndarray]:
    return [np.array([getattr(effect, name) for effect in effects]) for name in ("influence", "saliency", "pixels")]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def document(episode: Episode) -> dict[str, Any]:
    """The episode in JSON's types."""
    name, unit, _ = MEASURES[episode.kind]
    steps = []
    for instant in episode.instants:
        steps.append(
            {
                "step": instant.moment.step,
                "time": instant.moment.time,
                "action": episode.action(instant),
                episode.kind: instant.told.tolist(),
                "value": instant.value,
                "hidden": instant.hidden,
                "effects": [_entry(effect, episode.kind) for effect in instant.effects],
            }
        )
    return {
        "influence": {"measure": name, "unit": unit},
        "action_names": list(episode.action_names),
        "changes": by_change(episode, *KINDS),
        "kinds": by_kind([episode]),
        "places": by_place([episode]),
        "agreement": agreement([episode]),
        "steps": steps,
    }


def _entry(effect: Effect, kind: str) -> dict[str, Any]:
    return {
        "change": effect.change.name,
        "kind": effect.change.kind,
        "slot": effect.change.slot,
        "ahead": effect.ahead,
        "right": effect.right,
        "pixels": effect.pixels,
        "saliency": effect.saliency,
        "changes_action": effect.changes_action,
        **effect.measures,
        kind: effect.told.tolist(),
    }
