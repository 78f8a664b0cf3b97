"""Where a policy fails: on the road, and cases of a suite also over the parameters of their family."""

from collections import defaultdict

import numpy as np

from evaluation import page, places, plots
from evaluation.avoidable import is_avoidable, reference_among
from evaluation.endings import AT_FAULT, KINDS
from evaluation.results import Outcome, Setting
from evaluation.road_map import glyph, road_map
from evaluation.suites import FAMILIES

LONGEST_UNIT = 15
MOST_FINE = 400  # cases without a failure that are drawn in one plot


def crashed(outcome: Outcome) -> np.ndarray:
    """True in episodes with a collision. Shape: (E,)."""
    return (outcome.values["collision"] > 0) & outcome.valid["collision"]


def shared(outcomes: list[Outcome]) -> np.ndarray:
    """True in episodes in which the first policy collided, and the reference driver too. Shape: (E,)."""
    both, reference = crashed(outcomes[0]), reference_of(outcomes)
    return both & ~is_avoidable(both, crashed(reference)) if reference is not None else both & False


def reference_of(outcomes: list[Outcome]) -> Outcome | None:
    """The reference driver that the first policy is measured against, if it took part."""
    name = reference_among(outcome.name for outcome in outcomes[1:])
    return next((outcome for outcome in outcomes[1:] if outcome.name == name), None)


def where(setting: Setting, outcomes: list[Outcome]) -> str:
    """Pictures of where the first policy fails, as HTML; nothing if it does not."""
    tested, ended = outcomes[0], outcomes[0].endings
    if not ended.failed.any():
        return ""
    cards = _scenario(setting, tested) if tested.cases is None else _families(outcomes)
    counts = np.bincount(ended.kind[ended.failed])
    key = [f"{glyph(kind)} {page.text(KINDS[kind])} <strong>{counts[kind]}</strong>" for kind in np.flatnonzero(counts)]
    reference = reference_of(outcomes)
    if shared(outcomes).any():
        key.append(f"{glyph(AT_FAULT, shared=True)} grey: {page.text(reference.name)} crashed too")
    if tested.cases is not None:
        key.append('<i class="dot">●</i> no failure')
    lines = [f'<p class="note key">{" ".join(f"<span>{words}</span>" for words in key)}</p>']
    lost = int((ended.map < 0).sum())
    if lost:
        have = "episode has no place" if lost == 1 else "episodes have no place"
        lines.append(f'<p class="note">{lost} {have}: the policy or the simulator raised an error.</p>')
    return "\n".join(lines) + page.grid(cards, "maps" if tested.cases is None else "")


def _scenario(setting: Setting, tested: Outcome) -> list[str]:
    """A plot for each road of a scenario on which something failed."""
    cards = []
    for picture in places.of_scenario(setting, tested):
        count = len(picture.places.kind)
        title = f"{picture.title or setting.scenario}: {count} {'failure' if count == 1 else 'failures'}"
        cards.append(page.card(page.text(title), road_map(picture.lanes, picture.places)))
    return cards


# --- cases of a suite -------------------------------------------------------------------------------------------------


def _families(outcomes: list[Outcome]) -> list[str]:
    """A plot for each family in which something failed."""
    tested, both = outcomes[0], shared(outcomes)
    ended = tested.endings
    episodes = defaultdict(list)
    for episode, case in enumerate(tested.cases):
        if ended.map[episode] >= 0:
            episodes[case.family].append(episode)
    cards = []
    for family, members in episodes.items():
        driven = np.array(members)
        failed = driven[ended.failed[driven]]
        if not len(failed):
            continue
        chosen = np.concatenate([driven[~ended.failed[driven]][:MOST_FINE], failed])
        parameters = [tested.cases[k].parameters for k in chosen]
        first, second = telling(parameters, ended.failed[chosen])
        plot = plots.scatter(
            np.array([values.get(first, 0.0) for values in parameters]),
            np.array([values.get(second, 0.0) for values in parameters]),
            ended.kind[chosen].tolist(),
            both[chosen].tolist(),
            [f"{tested.cases[k].id} (episode {k})" for k in chosen],
            (_axis(family, first), _axis(family, second)),
        )
        known = FAMILIES.get(family)
        title = f"{known.title if known else family}: {len(failed)} of {len(driven)} failed"
        road = "".join(road_map(picture.lanes, picture.places) for picture in places.of_cases(tested, failed, both))
        cards.append(page.card(page.text(title), f'{plot}<p class="below">Where on its road</p>{road}'))
    return cards


def telling(parameters: list[dict[str, float]], failed: np.ndarray) -> tuple[str, str]:
    """The two parameters that tell failed cases best from the others, the best first; "" where there are not as many.

    Args:
        parameters: of each case.
        failed: which cases failed. Shape: (n,).
    """
    strength = {}
    for name in parameters[0]:
        values = np.array([case.get(name, 0.0) for case in parameters])
        if np.ptp(values) > 0:
            strength[name] = _separation(values, failed)
    best = sorted(strength, key=strength.__getitem__, reverse=True)[:2]
    return tuple((best + ["", ""])[:2])


def _separation(values: np.ndarray, failed: np.ndarray) -> float:
    """How far the chance that a failed case has the larger value is from a half, 0 ... 0.5."""
    here, there = values[failed], values[~failed]
    if not len(here) or not len(there):
        return 0.0
    return abs(float(np.sign(here[:, None] - there[None, :]).mean())) / 2


def _axis(family: str, name: str) -> str:
    """Name of a parameter with its unit, if that is short."""
    known = FAMILIES[family].parameters.get(name) if family in FAMILIES else None
    unit = f" [{known.unit}]" if known and 0 < len(known.unit) <= LONGEST_UNIT else ""
    return name.replace("_", " ") + unit
