"""report.html: one file that opens without a network, verdict first. And the same table for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from imageio.v3 import imwrite
from rich.table import Table
from rich.text import Text

from envs import scenarios
from evaluation import page, plots
from evaluation.failures import reference_of, shared, where
from evaluation.groups import grouped
from evaluation.metrics import METRICS, Metric
from evaluation.page import text
from evaluation.results import Outcome, Setting
from evaluation.statistics import CONFIDENCE, holm
from evaluation.suites import FAMILIES
from evaluation.verdict import avoidable_in, figure, paired, probability, verdict
from evaluation.video import last_picture

# Rates that are drawn below the verdict.
FOREMOST = ("collision", "collision_at_fault", "success")


# --- the terminal -----------------------------------------------------------------------------------------------------


def rich_table(setting: Setting, outcomes: Sequence[Outcome]) -> Table:
    """The table that the command prints."""
    what = f"suite {setting.suite}, {setting.episodes} cases" if setting.suite else _scenario(setting)
    table = Table(title=f"{what}; mean or rate with 95 % interval", title_justify="left")
    table.add_column("")
    for outcome in outcomes:
        table.add_column(outcome.name, justify="right")
    for _, lines in _groups([outcome.summary for outcome in outcomes]):
        for kind, label, _, cells in lines:
            label = f"  {label}" if kind == "minor" else label
            figures = (Text.assemble(value, (f"  {interval}", "dim")) for value, interval in cells)
            table.add_row(Text(label), *figures, style="bold" if kind == "main" else None)
        table.add_section()
    return table


def _scenario(setting: Setting) -> str:
    return f"{setting.scenario}, {setting.episodes} episodes, {setting.backend}"


# --- the page ---------------------------------------------------------------------------------------------------------


def html_report(
    setting: Setting, outcomes: Sequence[Outcome], found: dict, videos: Mapping[int, Path], folder: Path
) -> str:
    """The whole report.

    Args:
        setting: of the evaluation.
        outcomes: the policy under test first.
        found: what results.json holds.
        videos: episode of the tested policy -> mp4 file, which goes into the report.
        folder: where the results will lie, for the commands that open a replay.
    """
    outcomes = list(outcomes)
    held_out = "held-out " if setting.held_out else ""
    simulator = "lanewise" if setting.backend == "lanewise" else "highway-env"
    what = f"suite {setting.suite}" if setting.suite else setting.scenario
    episodes = "cases" if setting.suite else "episodes"
    parts = [
        page.headline(
            f"{what} · {setting.episodes} {held_out}{episodes} · simulated by {simulator}", *verdict(setting, outcomes)
        ),
        _foremost(outcomes),
        page.section("Families", _families(outcomes), _FAMILIES),
        page.section("Figures", _table(outcomes), _FIGURES if len(outcomes) > 1 else _FIGURES_ALONE),
        page.section("Where on the road it fails", where(setting, outcomes), _where(setting)),
        page.section("Recordings", _videos(outcomes, found, videos, folder), _RECORDINGS),
        page.section("Distributions", _distributions(outcomes), _DISTRIBUTIONS),
        page.section("What the figures mean", _definitions(outcomes)),
        page.section("How they were made", _provenance(found)),
    ]
    return page.page(f"{outcomes[0].name}: {what}", parts)


_FAMILIES = (
    "One row a kind of scene. Collisions: share of its cases, with 95 % interval. Avoidable: crashes of the tested "
    "policy that the reference driver did not have in the same case, and the interval of their share. TTC: median of "
    "the smallest time to collision of a case."
)
_FIGURES_ALONE = (
    "Mean or rate over episodes, below it the 95 % interval, and the number n of episodes in which the figure means "
    "something, where that is not all."
)
_FIGURES = (
    f"{_FIGURES_ALONE} ▲ beside a baseline's figure: the tested policy is better in the same episodes; ▼: it is worse. "
    "Where neither stands, no difference is shown (paired tests, Holm's correction, p < 0.05)."
)
_MARKS = (
    "Thin lines lead to where the car came from; numbers are those of the failures within a disc, or on a stretch of a "
    "long road."
)
_WHERE_CASES = (
    "Families in which a case failed: above, its cases over the two parameters that tell failures best from the rest; "
    f"below, where on the family's road the car was when it failed. {_MARKS}"
)
_WHERE_ROAD = f"Every episode that failed, where the car was then, on the road as seen from above. {_MARKS}"
_WHERE_TOWN = (
    "Every episode that failed, where the car was then. Each town has a map of its own, and no place in them sees many "
    "failures: so there is no map of a town. Junctions of one kind are laid over each other instead, each turned such "
    f"that the lane that the car was on leads up the page. {_MARKS}"
)
_DISTRIBUTIONS = (
    "One value an episode. The upright line is the median, a dashed line the threshold beyond which an episode is "
    "critical."
)
_RECORDINGS = (
    "The last ten seconds of failures, of as many families and kinds of failure as there is room for, and of one that "
    "did not fail, following the tested car: what its camera saw at its latest decision, if it has one, and below it "
    "time to collision and actions of the last five seconds. Beside the camera's picture, in those: what in it spoke "
    "for the policy's decision and what against it, by a method that hints and does not prove."
)


def _where(setting: Setting) -> str:
    if setting.suite:
        return _WHERE_CASES
    return _WHERE_TOWN if hasattr(scenarios.get(setting.scenario), "towns") else _WHERE_ROAD


def _groups(summaries: Sequence[dict]) -> list[tuple[str, list]]:
    """Rows of the table, group by group: for each kind, label, metric, and for each policy value and interval. Kinds:
    "main", "" and, below a metric with a threshold, "minor": the share of critical episodes."""
    return [
        (group, [line for metric in members for line in _lines(metric, summaries)])
        for group, members in grouped(_shown(summaries).values())
    ]


def _lines(metric: Metric, summaries: Sequence[dict]) -> Iterator[tuple]:
    unit = f" [{metric.unit}]" if metric.unit not in ("", "%") else ""
    cells = [_counted(*figure(metric, summary[metric.name]), summary, metric.name) for summary in summaries]
    yield "main" if metric.name == "collision" else "", metric.title + unit, metric, cells
    if any("critical" in summary[metric.name] for summary in summaries):
        nothing = {"value": None}
        cells = [figure(METRICS["collision"], summary[metric.name].get("critical", nothing)) for summary in summaries]
        yield "minor", f"episodes {_critical(metric)}", metric, cells


def _counted(value: str, interval: str, summary: dict, name: str) -> tuple[str, str]:
    """A figure whose interval says of how many episodes it is, where not of all that were driven."""
    n = summary[name]["n"]
    return value, f"{interval}, n = {n}" if 0 < n < summary["collision"]["n"] else interval


def _critical(metric: Metric) -> str:
    """Where an episode is critical: "below 1 s"; nothing for a metric without a threshold."""
    for bound, side in ((metric.threshold, "below"), (metric.limit, "above")):
        if bound is not None:
            factor, unit = (100, " %") if metric.unit == "%" else (1, f" {metric.unit}" if metric.unit else "")
            return f"{side} {factor * bound:g}{unit}"
    return ""


def _shown(summaries: Sequence[dict]) -> dict[str, Metric]:
    """The metrics of a report."""
    return {
        name: metric
        for name, metric in METRICS.items()
        if metric.everywhere or any(summary[name]["n"] for summary in summaries)
    }


def _foremost(outcomes: Sequence[Outcome]) -> str:
    """Plots of the rates that matter most."""
    shown = _shown([outcome.summary for outcome in outcomes])
    return page.grid([_rate(shown[name], outcomes) for name in FOREMOST if name in shown], "foremost")


def _rate(metric: Metric, outcomes: Sequence[Outcome]) -> str:
    plot = plots.intervals([outcome.name for outcome in outcomes], [o.summary[metric.name] for o in outcomes])
    return page.card(f"{text(metric.title)}, with 95 % interval", plot)


def _head(outcomes: Sequence[Outcome]) -> list[str]:
    return [f'<i class="key s{k}"></i>{text(o.name)}' for k, o in enumerate(outcomes)]


def _families(outcomes: Sequence[Outcome]) -> str:
    tested, *_ = outcomes
    if not tested.families:
        return ""
    reference = reference_of(outcomes)
    names = [case.family for case in tested.cases]
    goals = any(summary["success"]["n"] for summary in tested.families.values())
    heads = [f"{name}<small>collisions</small>" for name in _head(outcomes)]
    head = ["Family", "Cases", heads[0]]
    head += [f"Avoidable<small>{text(reference.name)} had none</small>"] if reference else []
    head += ["TTC<small>median</small>"] + (["Goal<small>reached</small>"] if goals else []) + heads[1:]
    rows = []
    for family, summary in tested.families.items():
        title = FAMILIES[family].title if family in FAMILIES else family
        members = [k for k, name in enumerate(names) if name == family]
        row = [f"{text(title)}<small>{text(family)}</small>", str(len(members)), _cell(summary["collision"])]
        if reference:
            row.append(_cell(avoidable_in(tested, reference, members), count=True))
        ttc = summary["minimum_time_to_collision"]
        row.append(f"{ttc['quantiles'][3]:.1f}&nbsp;s" if ttc["n"] else "-")
        if goals:
            row.append(_cell(summary["success"], bad=False))
        rows.append(row + [_cell(baseline.families[family]["collision"], bad=False) for baseline in outcomes[1:]])
    return page.wide_table(head, rows)


def _cell(rate: dict, count: bool = False, bad: bool = True) -> str:
    """A rate, or the count that it is of, and its interval; bad if there is one event or more."""
    value, interval = figure(METRICS["collision"], rate)
    value = str(rate["count"]) if count and rate["n"] else value
    value = f'<strong class="bad">{text(value)}</strong>' if bad and rate.get("count") else text(value)
    return f"{value}<small>{text(f'{interval} %' if interval else '')}</small>"


def _table(outcomes: Sequence[Outcome]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in _head(outcomes))
    better = [_better(outcomes[0], baseline) for baseline in outcomes[1:]]
    parts = []
    for group, lines in _groups([outcome.summary for outcome in outcomes]):
        parts.append(f'<tbody>\n<tr class="group"><th scope="rowgroup" colspan="{len(outcomes) + 1}">{group}</th></tr>')
        for kind, label, metric, cells in lines:
            found = ["", *(mark.get(metric.name, "") if kind != "minor" else "" for mark in better)]
            figures = "".join(
                f"<td>{mark}{text(value)}<small>{text(interval)}</small></td>"
                for mark, (value, interval) in zip(found, cells, strict=True)
            )
            parts.append(f'<tr class="{kind}"><th scope="row">{text(label)}</th>{figures}</tr>')
        parts.append("</tbody>")
    body = "\n".join(parts)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="figures"><table class="figures" '
        f'style="--policies: {len(outcomes)}">\n<thead><tr><td></td>{head}</tr></thead>\n{body}</table></div>'
    )


def _better(tested: Outcome, baseline: Outcome) -> dict[str, str]:
    """Metric -> a mark where the tested policy is shown to be better or worse than a baseline."""
    names = [name for name, metric in METRICS.items() if metric.better]
    found = {}
    for name, p in zip(names, holm([paired(tested, baseline, name) for name in names]), strict=True):
        if p < 1 - CONFIDENCE:
            both = tested.valid[name] & baseline.valid[name]
            apart = (tested.values[name][both] - baseline.values[name][both]).mean()
            better = (apart > 0) == (METRICS[name].better == "higher")
            kind, sign, word = ("up", "▲", "better") if better else ("down", "▼", "worse")
            found[name] = f'<i class="{kind}" title="the tested policy is {word}, {text(probability(p))}">{sign}</i> '
    return found


def _distributions(outcomes: Sequence[Outcome]) -> str:
    names = [outcome.name for outcome in outcomes]
    parts = []
    for group, members in grouped(_shown([outcome.summary for outcome in outcomes]).values()):
        cards = []
        for metric in members:
            if metric.kind == "rate":
                cards += [] if metric.name in FOREMOST else [_rate(metric, outcomes)]
                continue
            factor = 100 if metric.unit == "%" else 1
            samples = [factor * outcome.values[metric.name][outcome.valid[metric.name]] for outcome in outcomes]
            bound = metric.limit if metric.threshold is None else metric.threshold
            plot = plots.histograms(names, samples, metric.unit, None if bound is None else factor * bound)
            cards += [page.card(text(metric.title), plot)] if plot else []
        if cards:
            opened = "" if parts else " open"
            parts.append(f"<details{opened}><summary>{group} ({len(cards)})</summary>{page.grid(cards)}</details>")
    return "\n".join(parts)


def _videos(outcomes: list[Outcome], found: dict, videos: Mapping[int, Path], folder: Path) -> str:
    tested, both, reference = outcomes[0], shared(outcomes), reference_of(outcomes)
    recordings = {recording["episode"]: recording for recording in found["policies"][0]["recordings"]}
    cards = []
    for episode, path in sorted(videos.items(), key=lambda entry: not tested.endings.failed[entry[0]]):
        recording = tested.replays[episode]
        about = recording.about
        end = about["end"]
        if about["collision_time"] is not None:
            end += f" after {about['collision_time']:.1f} s"
        if about["metrics"]["impact_speed"] is not None:
            end += f", at {about['metrics']['impact_speed']:.1f} m/s relative speed"
        if reference is not None and about["collision_time"] is not None:
            end += f"; {reference.name} {'crashed too' if both[episode] else 'did not crash'}"
        end += _alike(tested, episode)
        what = f"Episode {episode}" if tested.cases is None else tested.cases[episode].id
        last = last_picture(recording)
        height, width = last.shape[:2]
        poster = imwrite("<bytes>", last, extension=".jpg")
        cards.append(
            f'<figure class="card"><video style="aspect-ratio: {8 * width} / {8 * height + width}" '
            'controls muted playsinline preload="none" '
            f'poster="{page.data("image/jpeg", poster)}" src="{page.data("video/mp4", path.read_bytes())}"></video>'
            f"<figcaption>{text(what)}: {text(end)}</figcaption>{_parameters(tested, episode)}"
            f"<code>python -m viewer --replay {text(folder / recordings[episode]['replay'])}</code></figure>"
        )
    return page.grid(cards, "videos")


def _alike(tested: Outcome, episode: int) -> str:
    """How many failures are like this one, in words."""
    kind = tested.endings.kind
    if not tested.endings.failed[episode]:
        return ""
    alike, among = kind == kind[episode], "in all"
    if tested.cases is not None:
        family = tested.cases[episode].family
        alike, among = alike & np.array([case.family == family for case in tested.cases]), "in this family"
    return f"; {alike.sum()} of this kind {among}"


def _parameters(tested: Outcome, episode: int) -> str:
    """The parameters of a case."""
    if tested.cases is None:
        return ""
    case = tested.cases[episode]
    ranges = FAMILIES[case.family].parameters if case.family in FAMILIES else {}
    words = []
    for name, value in case.parameters.items():
        unit = ranges[name].unit if name in ranges else ""
        unit = f"({unit})" if " " in unit else unit
        words.append(f"{name.replace('_', ' ')} {value:.3g} {unit}".strip())
    return f'<p class="faint">{text(", ".join(words))}</p>'


def _definitions(outcomes: Sequence[Outcome]) -> str:
    parts = []
    for group, members in grouped(_shown([outcome.summary for outcome in outcomes]).values()):
        rows = []
        for metric in members:
            source = f' <span class="faint">Source: {text(metric.source)}.</span>' if metric.source else ""
            threshold = f" Critical {_critical(metric)}." if _critical(metric) else ""
            rows.append(f"<dt>{text(metric.title)}</dt><dd>{text(metric.definition + threshold)}{source}</dd>")
        parts.append(f"<details><summary>{group} ({len(members)})</summary><dl>{''.join(rows)}</dl></details>")
    parts.append(
        "<dl><dt>Intervals</dt><dd>Clopper-Pearson for rates; percentile bootstrap over episodes for means. Values "
        "that mean nothing in an episode, such as the TTC of a car that never closed in on another, are left out of "
        "means and counts.</dd></dl>"
    )
    return "\n".join(parts)


def _provenance(found: dict) -> str:
    machine = [str(found["machine"][key]) for key in ("processor", "gpu", "system") if key in found["machine"]]
    if found.get("suite"):
        which = f"draws of the suite {found['suite']} under seed {found['seed']}"
    else:
        which = f"the first of each of the worlds 0 to {found['episodes'] - 1} under seed {found['seed']}"
    return page.facts(
        {
            "Command": found["command"],
            "Cases" if found.get("suite") else "Episodes": which,
            "Machine": f"{', '.join(machine)}, {found['machine']['cores']} cores",
            "Versions": ", ".join(f"{name} {version}" for name, version in found["versions"].items()),
            "Time": ", ".join(f"{p['name']} {p['seconds']:.0f} s ({p['steps']:,} steps)" for p in found["policies"]),
            "Made": found["created"],
        }
    )
