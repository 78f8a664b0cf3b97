"""The result of an evaluation in words, and its figures as text."""

from collections.abc import Iterator, Mapping, Sequence

from evaluation.avoidable import avoidable
from evaluation.failures import crashed, reference_of
from evaluation.metrics import METRICS, Metric
from evaluation.results import Outcome, Setting
from evaluation.statistics import CONFIDENCE, holm, paired_p

WORST = 3  # families that are named


def figure(metric: Metric, summary: Mapping) -> tuple[str, str]:
    """A summary as text: the value, and its interval or bound. A dash without a valid episode."""
    if summary["value"] is None:
        return "-", ""
    percent = metric.kind == "rate" or metric.unit == "%"
    factor, digits, unit = (100, 1, " %") if percent else (1, metric.digits, "")
    value, low, high = (f"{factor * summary[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value}{unit}", f"{low} to {high}"


def probability(p: float) -> str:
    """A p value as text."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def verdict(setting: Setting, outcomes: Sequence[Outcome]) -> tuple[str, list[str]]:
    """The result in words: a headline about collisions, then sentences about the goal, where there is one, about speed,
    about the baselines, about crashes that could have been avoided, and about what went wrong beside the driving.

    Args:
        setting: of the evaluation.
        outcomes: the policy under test first.
    """
    tested, *baselines = outcomes
    summary = tested.summary
    rate = summary["collision"]
    episodes = "cases" if setting.suite else "episodes"
    if rate["value"] is None:
        headline = f"{tested.name} drove no {episodes[:-1]} that says anything."
    elif rate["count"]:
        headline = (
            f"{tested.name} collided in {rate['count']} of {rate['n']} {episodes}: {100 * rate['value']:.1f} % "
            f"(95 % interval {100 * rate['low']:.1f} to {100 * rate['high']:.1f} %)."
        )
    else:
        headline = (
            f"{tested.name} drove {rate['n']} {episodes} without a collision; with 95 % confidence it collides in "
            f"fewer than {100 * rate['bound']:.2g} %."
        )
    sentences = []
    goal = summary["success"]
    if goal["value"] is not None:
        beside = ", ".join(f"{b.name} in {figure(METRICS['success'], b.summary['success'])[0]}" for b in baselines)
        sentences.append(
            f"It reached the goal in {goal['count']} of {goal['n']} {episodes}: {100 * goal['value']:.1f} % (95 % "
            f"interval {100 * goal['low']:.1f} to {100 * goal['high']:.1f} %)" + (f"; {beside}." if beside else ".")
        )
    faster = summary["speed_over_traffic"]
    if faster["value"] is not None and not setting.suite:
        than = "faster" if faster["value"] >= 0 else "slower"
        unsure = "" if faster["low"] > 0 or faster["high"] < 0 else ", which does not show a difference"
        sentences.append(
            f"It drove at {summary['mean_speed']['value']:.1f} m/s, {abs(faster['value']):.1f} m/s {than} than the "
            f"traffic within 100 m (95 % interval {faster['low']:+.1f} to {faster['high']:+.1f} m/s{unsure})."
        )
    if baselines:
        sentences.append(f"Collision rates of the baselines in the same {episodes}: {_beside(tested, baselines)}.")
    sentences += [*_at_fault(tested), *_avoidable(outcomes), *_worst(tested), *_faults(outcomes, episodes)]
    if not setting.held_out:
        sentences.append(f"The {episodes} are not held out: seed {setting.seed} is one that training may have used.")
    return headline, sentences


def _beside(tested: Outcome, baselines: Sequence[Outcome]) -> str:
    """Collision rates of the baselines, and whether they differ from that of the tested policy."""
    p = [paired(tested, baseline, "collision") for baseline in baselines]
    words = []
    for baseline, corrected in zip(baselines, holm(p), strict=True):
        value, mine = baseline.summary["collision"]["value"], tested.summary["collision"]["value"]
        if value is None or mine is None:
            words.append(f"{baseline.name} -")
            continue
        shown = corrected < 1 - CONFIDENCE
        apart = ("lower" if value < mine else "higher") if shown else "no difference shown"
        words.append(f"{baseline.name} {100 * value:.1f} % ({apart}, {probability(corrected)})")
    return ", ".join(words)


def _at_fault(tested: Outcome) -> Iterator[str]:
    rate, fault = tested.summary["collision"], tested.summary["collision_at_fault"]
    if rate.get("count") and fault["value"] is not None:
        yield f"It was at fault in {fault['count']} of its {rate['count']} collisions."


def _avoidable(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """How many of the crashes the reference driver did not have."""
    reference, tested = reference_of(outcomes), outcomes[0]
    if reference is None or not crashed(tested).any():
        return
    found = avoidable_in(tested, reference, slice(None))
    if not found["count"]:
        yield f"None of its {found['crashes']} crashes was avoidable: {reference.name}, the reference, crashed too."
        return
    value, interval = figure(METRICS["collision"], found)
    yield (
        f"{found['count']} of its {found['crashes']} crashes were avoidable, in {value} of the cases (95 % interval "
        f"{interval} %): the reference driver {reference.name} did not crash in the same case."
    )


def avoidable_in(tested: Outcome, reference: Outcome, episodes: Sequence[int] | slice) -> dict:
    """Avoidable crashes of a policy in some of the episodes, see `evaluation.avoidable.avoidable`."""
    values = (outcome.values["collision"][episodes] for outcome in (tested, reference))
    valid = (outcome.valid["collision"][episodes] for outcome in (tested, reference))
    return avoidable(reference.name, *values, *valid)


def _worst(tested: Outcome) -> Iterator[str]:
    """The families with the most collisions."""
    rates = {name: summary["collision"] for name, summary in tested.families.items()}
    worst = sorted((name for name in rates if rates[name].get("count")), key=lambda name: -rates[name]["value"])
    if worst:
        named = ", ".join(f"{name} ({rates[name]['count']} of {rates[name]['n']})" for name in worst[:WORST])
        yield f"It collided in {len(worst)} of {len(rates)} families, most often in {named}."


def _faults(outcomes: Sequence[Outcome], episodes: str) -> Iterator[str]:
    for outcome in outcomes:
        if outcome.faults:
            total, counts = sum(outcome.faults.values()), (f"{kind} in {n}" for kind, n in outcome.faults.items())
            yield f"Beside the driving, {outcome.name} had faults in {total} {episodes}: {', '.join(counts)}."


def paired(tested: Outcome, baseline: Outcome, name: str) -> float:
    """p of the difference of two policies in a metric, over the episodes in which both have it."""
    both = tested.valid[name] & baseline.valid[name]
    return paired_p(baseline.values[name][both], tested.values[name][both], METRICS[name].kind)
