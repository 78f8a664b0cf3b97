"""The page of an episode: what its actions depended on, over time and in the moments in which it mattered most."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import counterfactual_pictures, page
from evaluation.counterfactual_changes import BRAKES, REMOVED, SCENE, SIGNAL
from evaluation.counterfactual_episode import DISTANCES, Effect, Episode, Instant, Saliency
from evaluation.counterfactual_influence import MEASURES
from evaluation.counterfactual_plots import Line, bars, scatter, timeline
from evaluation.counterfactual_studio import Studio
from evaluation.counterfactual_summary import agreement, by_change, by_place, foremost, reach_of
from evaluation.page import text

STYLE = (Path(__file__).parent / "counterfactual.css").read_text()
OBJECTS = (REMOVED, SIGNAL, BRAKES)
# Rank correlations with the influence, see `evaluation.counterfactual_summary.agreement`.
LABELS = {
    "saliency": "Share of saliency",
    "pixels": "Number of pixels",
    "saliency_given_pixels": "Share of saliency, given the number of pixels",
}
MOMENTS, ROWS = 8, 14  # that are shown, of moments and of objects in the timeline
FAINT = 0.01  # influence below which an object counts as without any
SIGNS = {"LANE_LEFT": "←", "LANE_RIGHT": "→", "IDLE": "·", "FASTER": "+", "SLOWER": "−"}


def html_page(
    title: str, episode: Episode, studio: Studio, saliency: Saliency | None, method: str, about: dict[str, Any]
) -> str:
    """The whole page.

    Args:
        title: policy and what it drove, for a person.
        episode: what was found.
        studio: where pictures are taken.
        saliency: see `evaluation.counterfactual_episode.explain`.
        method: name of the saliency.
        about: how it was made, name -> text.
    """
    parts = [
        page.headline(title, *verdict(episode, method)),
        page.section("Influence over time", _timeline(episode), _TIMELINE),
        page.section("Where it mattered most", _moments(episode, studio, saliency), _MOMENTS),
        page.section("Light and weather", _scenes(episode, studio), _SCENES),
        page.section("Objects", _table(episode, *OBJECTS), _OBJECTS),
        page.section("Places", places([episode]), _PLACES),
        page.section("Saliency", _saliency(episode, method), _SALIENCY),
        page.section("How it was made", page.facts(about)),
    ]
    return page.page(title, parts, STYLE)


_TIMELINE = (
    "A column a decision, a row a change of the scene: an object that is not there, a signal of another colour, brake "
    "lights, and below them light and weather. The stronger the colour, the greater the influence on the action; empty "
    "where nothing of the change is observed, which has no influence. A dot: another action would have been chosen. "
    "Actions: ← and → lane changes, + faster, − slower, · neither."
)
_MOMENTS = (
    "What the camera showed, what it would have shown, and what the action came from, before (grey) and after "
    "(coloured). Of stacked frames the newest is shown; all of them were changed. Saliency: yellow speaks for the "
    "action, light blue against it. Ring: what is changed."
)
_SCENES = (
    "Where each change of light and weather had its greatest influence. Each is at an end of the range that randomised "
    "worlds are drawn from."
)
_OBJECTS = (
    "Every object of which something was observed. Pixels and saliency: mean share of the picture that differs, in any "
    "frame, and share of the picture's saliency that lies there."
)
_PLACES = (
    "Objects removed, by where their centre was in the car's own frame: in line is up to 2 m to the side, beside up to "
    "6 m. Mean influence over objects and decisions, and in which share of these another action would have been chosen."
)
_SALIENCY = (
    "Each dot is an object at a moment, orange where another action would have been chosen without it. A "
    "saliency says where the network looks; the influence of removing an object says what the action depends on."
)


def verdict(episode: Episode, method: str = "") -> tuple[str, list[str]]:
    """What was found in a sentence, and in some more."""
    effects = list(episode.effects(*OBJECTS))
    if not effects:
        return "It saw no object in this episode.", []
    instant, most = max(effects, key=lambda pair: pair[1].influence)
    if most.influence == 0.0:
        headline = "No object had any influence on its actions."
    else:
        acts = (
            "another action would have been chosen" if most.changes_action else "the same action would have been chosen"
        )
        headline = (
            f"What mattered most was {most.change.object} at {instant.moment.time:g} s: with {most.change.name}, "
            f"{acts} ({amount(most.influence, episode)})."
        )
    removed = list(episode.effects(REMOVED))
    turning = {id(owner) for owner, effect in removed if effect.changes_action}
    faint = sum(effect.influence < FAINT for _, effect in removed)
    sentences = [
        f"In {len(turning)} of {len(episode.instants)} decisions some single object decided the action: without it "
        f"another one would have been chosen. Of {len(removed)} objects seen in these decisions, {faint} had an "
        f"influence below {FAINT:g}."
    ]
    scenes = by_change(episode, SCENE)
    if scenes:
        worst = max(scenes, key=lambda row: row["mean_influence"])
        sentences.append(
            f"Of light and weather, {worst['change']} moved it most: {amount(worst['mean_influence'], episode)} in the "
            f"mean, and another action in {worst['changes_action']} of {worst['seen']} decisions."
        )
    found = agreement([episode])
    if found is not None and found["saliency"]["mean_over_moments"] is not None:
        mine, size, beyond = (found[name]["mean_over_moments"] for name in LABELS)
        sentences.append(
            f"Its saliency ({method}) ranks the objects of a decision as their influence does with a rank correlation "
            f"of {mine:.2f}; their size in pixels alone does with {size:.2f}"
            + ("." if beyond is None else f", and given that the saliency has {beyond:.2f} to add.")
        )
    return headline, sentences


def amount(influence: float, episode: Episode) -> str:
    """An influence in words."""
    name, unit, greatest = MEASURES[episode.kind]
    if greatest == 1.0:
        return f"{100 * influence:.0f} % of its probability moved"
    return f"{name} {influence:.2g} {unit}"


def _timeline(episode: Episode) -> str:
    objects = [row["change"] for row in by_change(episode, *OBJECTS) if row["greatest_influence"] > 0.0][:ROWS]
    scenes = [row["change"] for row in by_change(episode, SCENE)]
    steps = len(episode.instants)
    lines = {name: Line(name, np.full(steps, np.nan), np.zeros(steps, bool)) for name in (*objects, *scenes)}
    for k, instant in enumerate(episode.instants):
        for effect in instant.effects:
            if effect.change.name in lines:
                lines[effect.change.name].influence[k] = effect.influence
                lines[effect.change.name].changes_action[k] = effect.changes_action
    greatest = max((effect.influence for instant in episode.instants for effect in instant.effects), default=0.0)
    signs = [SIGNS.get(episode.action(instant), "") for instant in episode.instants]
    drawn = timeline(
        [instant.moment.time for instant in episode.instants],
        signs,
        [[lines[name] for name in objects], [lines[name] for name in scenes]],
        max(greatest, 1e-9),
    )
    full = text(amount(greatest, episode))
    legend = f'<p class="note legend">Full colour: {full}. <i class="acts">●</i> another action</p>'
    return f'{legend}<div class="scroll timeline" tabindex="0" role="region" aria-label="timeline">{drawn}</div>'


def _moments(episode: Episode, studio: Studio, saliency: Saliency | None) -> str:
    chosen = foremost(episode, MOMENTS, *OBJECTS)
    return page.grid([_card(episode, *pair, studio, saliency) for pair in chosen], "moments")


def _scenes(episode: Episode, studio: Studio) -> str:
    chosen = foremost(episode, len(episode.instants), SCENE, each=1, apart=0)
    return page.grid([_card(episode, *pair, studio, None) for pair in chosen], "moments") + _table(episode, SCENE)


def _card(episode: Episode, instant: Instant, effect: Effect, studio: Studio, saliency: Saliency | None) -> str:
    moment = instant.moment
    taken = counterfactual_pictures.take(moment, effect.change, studio, saliency)
    pictures = [
        ("as it was", taken.before),
        (effect.change.name, taken.after),
        ("what differs", taken.differing if effect.change.kind != SCENE else None),
        ("saliency", taken.salient),
    ]
    shown = "".join(
        f'<figure><img src="{source}" alt="{text(name)}"><figcaption>{text(name)}</figcaption></figure>'
        for name, source in pictures
        if source is not None
    )
    if effect.change.kind != SCENE:
        shown += (
            f'<figure class="above"><img src="{taken.above}" alt="from above">'
            f"<figcaption>from above: {text(effect.where)}</figcaption></figure>"
        )
    names = [name.replace("_", " ").lower() for name in episode.action_names]
    names = names or ["throttle", "steering"][-len(instant.told) :]
    figures = ", ".join(f"{name} {figure:.2g}" for name, figure in effect.measures.items())
    action = episode.action(instant).replace("_", " ").lower()
    acts = "another action" if effect.changes_action else "the same action"
    return page.card(
        f"{moment.time:g} s, {text(effect.change.name)}",
        f'<div class="pictures">{shown}</div>{bars(names, instant.told, effect.told)}'
        f'<p class="faint">Taken: {text(action)}; after the change {acts}. Difference: {text(figures)}.</p>',
    )


def _table(episode: Episode, *kinds: str) -> str:
    rows = [
        [
            text(row["change"]),
            str(row["seen"]),
            f"{row['mean_influence']:.3f}",
            f"{row['greatest_influence']:.3f}<small>at {row['greatest_at']:g} s</small>",
            str(row["changes_action"]),
            _percent(row["pixels"]),
            _percent(row["saliency"]),
        ]
        for row in by_change(episode, *kinds)
    ]
    head = ["Change", "Decisions<small>in which it is seen</small>", "Influence<small>mean</small>"]
    head += ["Influence<small>greatest</small>", "Another action<small>decisions</small>", "Pixels", "Saliency"]
    return page.wide_table(head, rows) if rows else ""


def places(episodes: Sequence[Episode]) -> str:
    """The table of places around the car: a row a direction, a column a distance."""
    rows = by_place(episodes)
    reaches = [reach for k in range(len(DISTANCES) + 1) if (reach := reach_of(k)) in {row["distance"] for row in rows}]
    cells = {(row["where"], row["distance"]): row for row in rows}
    table = []
    for where in dict.fromkeys(row["where"] for row in rows):
        table.append([text(where)])
        for reach in reaches:
            row = cells.get((where, reach))
            table[-1].append(
                f"{row['mean_influence']:.3f}<small>{row['seen']} seen, {100 * row['changes_action']:.0f} % act</small>"
                if row
                else ""
            )
    return page.wide_table(["Place", *reaches], table) if rows else ""


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}&nbsp;%"


def _saliency(episode: Episode, method: str) -> str:
    found = agreement([episode])
    if found is None:
        return ""
    pairs = [(instant, effect) for instant, effect in episode.effects(REMOVED) if effect.saliency is not None]
    drawn = scatter(
        np.array([100 * effect.saliency for _, effect in pairs]),
        np.array([effect.influence for _, effect in pairs]),
        [effect.changes_action for _, effect in pairs],
        [f"{effect.change.object}, {instant.moment.time:g} s, {effect.where}" for instant, effect in pairs],
        (f"share of saliency, {method} [%]", "influence"),
    )
    rows = []
    for name, label in LABELS.items():
        each, over = found[name]["mean_over_moments"], found[name]["over_all"]
        left = f"<small>{found[name]['moments']} decisions</small>"
        rows.append([label, "" if each is None else f"{each:.2f}{left}", "" if over is None else f"{over:.2f}"])
    head = ["Rank correlation with the influence", "Mean of decisions", f"All<small>{found['objects']} objects</small>"]
    return page.grid([page.card("Influence over saliency", drawn)]) + page.wide_table(head, rows)
