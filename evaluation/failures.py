"""Where a policy fails: cases of a suite over the parameters of their family, or places on the road of a scenario."""

from collections import defaultdict

import numpy as np

from evaluation import page, plots
from evaluation.avoidable import is_avoidable, reference_among
from evaluation.replay import Replay
from evaluation.results import Outcome
from evaluation.suites import FAMILIES

MOST_MAPS = 4
LONGEST_UNIT = 15
MOST_FINE = 400  # cases without a failure that are drawn in one plot


def crashed(outcome: Outcome) -> np.ndarray:
    """True in episodes with a collision. Shape: (E,)."""
    return (outcome.values["collision"] > 0) & outcome.valid["collision"]


def marks(outcomes: list[Outcome]) -> np.ndarray:
    """What to mark each episode of the first policy with: one of `plots.MARKS`. Shape: (E,)."""
    tested = outcomes[0]
    missed = tested.valid["success"] & (tested.values["success"] == 0)
    kinds = np.where(missed, "other", np.full(len(missed), "fine", dtype="<U11"))
    kinds[crashed(tested)] = "crash"
    reference = reference_of(outcomes)
    if reference is not None:
        kinds[crashed(tested) & ~is_avoidable(crashed(tested), crashed(reference))] = "unavoidable"
    return kinds


def reference_of(outcomes: list[Outcome]) -> Outcome | None:
    """The reference driver that the first policy is measured against, if it took part."""
    name = reference_among(outcome.name for outcome in outcomes[1:])
    return next((outcome for outcome in outcomes[1:] if outcome.name == name), None)


def where(outcomes: list[Outcome]) -> str:
    """Pictures of where the first policy fails, as HTML; nothing if it does not."""
    tested = outcomes[0]
    cards = _families(outcomes) if tested.cases is not None else _maps(tested)
    if not cards:
        return ""
    reference = reference_of(outcomes)
    key = [("crash", "×", f"collision that {reference.name} avoided" if reference else "collision")]
    key += [("crash", "○", "collision of both")] if reference else []
    key += [("other", "■", "goal not reached")]
    key += [("dot", "●", "neither")] if tested.cases is not None else []
    shown = " ".join(f'<span><i class="{kind}">{sign}</i> {page.text(words)}</span>' for kind, sign, words in key)
    return f'<p class="note key">{shown}</p>' + page.grid(cards, "maps" if tested.cases is None else "")


# --- cases of a suite -------------------------------------------------------------------------------------------------


def _families(outcomes: list[Outcome]) -> list[str]:
    """A plot for each family in which something failed."""
    tested, kinds = outcomes[0], marks(outcomes)
    episodes = defaultdict(list)
    for episode, case in enumerate(tested.cases):
        episodes[case.family].append(episode)
    cards = []
    for family, members in episodes.items():
        chosen = np.array(members)
        failed = kinds[chosen] != "fine"
        if not failed.any():
            continue
        chosen = np.concatenate([chosen[~failed][:MOST_FINE], chosen[failed]])
        parameters = [tested.cases[k].parameters for k in chosen]
        first, second = telling(parameters, kinds[chosen] != "fine")
        plot = plots.scatter(
            np.array([values.get(first, 0.0) for values in parameters]),
            np.array([values.get(second, 0.0) for values in parameters]),
            kinds[chosen].tolist(),
            [f"{tested.cases[k].id} (episode {k})" for k in chosen],
            (_axis(family, first), _axis(family, second)),
        )
        count = int(np.isin(kinds[chosen], ("crash", "unavoidable")).sum())
        known = FAMILIES.get(family)
        title = f"{known.title if known else family}: {count} of {len(members)} collided"
        cards.append(page.card(page.text(title), plot))
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


# --- places of a scenario ---------------------------------------------------------------------------------------------


def _maps(tested: Outcome) -> list[str]:
    """A picture for each map on which a recorded episode failed."""
    places = defaultdict(list)
    for episode, replay in tested.replays.items():
        end = replay.about.get("end")
        if end in ("collision", "goal not reached"):
            places[replay.map].append((episode, replay, "crash" if end == "collision" else "other"))
    cards = []
    for number, found in sorted(places.items(), key=lambda entry: -len(entry[1]))[:MOST_MAPS]:
        ends = np.array([_end(replay) for _, replay, _ in found])
        lanes = [(np.asarray(line, dtype=float), width) for line, _, _, width in found[0][1].lanes]
        titles = [f"episode {episode}: {replay.about['end']}" for episode, replay, _ in found]
        picture = plots.road_map(lanes, ends[:, 0], ends[:, 1], [kind for *_, kind in found], titles)
        which = ", ".join(str(episode) for episode, *_ in found)
        map_name = f"Map {number}, episodes" if len(places) > 1 else "Episodes"
        cards.append(page.card(f"{map_name} {which}", picture))
    return cards


def _end(replay: Replay) -> tuple[float, float]:
    """Where the ego was when it collided, or at the end [m]."""
    time = replay.about.get("collision_time")
    frame = len(replay) - 1 if time is None else min(round(time / replay.dt), len(replay) - 1)
    return float(replay.x[frame, 0]), float(replay.y[frame, 0])
