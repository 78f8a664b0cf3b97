"""report.html: one file that opens without a network, verdict first. And the same table for a terminal."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from imageio.v3 import imwrite
from rich.table import Table
from rich.text import Text

from evaluation import plots
from evaluation.metrics import METRICS, Metric
from evaluation.results import Outcome, Setting
from evaluation.video import last_picture

STYLE = (Path(__file__).parent / "report.css").read_text()


def figure(metric: Metric, summary: Mapping) -> tuple[str, str]:
    """A summary as text: the value, and its interval or bound. A dash without a valid episode."""
    if summary["value"] is None:
        return "-", ""
    percent = metric.kind == "rate" or metric.unit == "%"
    factor, digits, unit = (100, max(metric.digits, 1), " %") if percent else (1, metric.digits, "")
    digits = 1 if percent else digits
    value, low, high = (f"{factor * summary[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value}{unit}", f"{low} to {high}"


def verdict(setting: Setting, outcomes: Sequence[Outcome]) -> tuple[str, list[str]]:
    """The result in words: a headline about collisions, then sentences about the goal, where there is one, about speed
    and about the baselines.

    Args:
        setting: of the evaluation.
        outcomes: the policy under test first.
    """
    tested, *baselines = outcomes
    summary = tested.summary
    rate = summary["collision"]
    if rate["count"]:
        headline = (
            f"{tested.name} collided in {rate['count']} of {rate['n']} episodes: {100 * rate['value']:.1f} % "
            f"(95 % interval {100 * rate['low']:.1f} to {100 * rate['high']:.1f} %)."
        )
    else:
        headline = (
            f"{tested.name} drove {rate['n']} episodes without a collision; with 95 % confidence it collides in fewer "
            f"than {100 * rate['bound']:.2g} %."
        )
    sentences = []
    goal = summary["success"]
    if goal["value"] is not None:
        beside = ", ".join(f"{b.name} in {100 * b.summary['success']['value']:.1f} %" for b in baselines)
        sentences.append(
            f"It reached the goal in {goal['count']} of {goal['n']} episodes: {100 * goal['value']:.1f} % (95 % "
            f"interval {100 * goal['low']:.1f} to {100 * goal['high']:.1f} %)" + (f"; {beside}." if beside else ".")
        )
    faster = summary["speed_over_traffic"]
    if faster["value"] is not None:
        than = "faster" if faster["value"] >= 0 else "slower"
        unsure = "" if faster["low"] > 0 or faster["high"] < 0 else ", which does not show a difference"
        sentences.append(
            f"It drove at {summary['mean_speed']['value']:.1f} m/s, {abs(faster['value']):.1f} m/s {than} than the "
            f"traffic within 100 m (95 % interval {faster['low']:+.1f} to {faster['high']:+.1f} m/s{unsure})."
        )
    if baselines:
        beside = ", ".join(f"{b.name} {100 * b.summary['collision']['value']:.1f} %" for b in baselines)
        sentences.append(f"Collision rates of the baselines in the same episodes: {beside}.")
    if not setting.held_out:
        sentences.append(f"The episodes are not held out: seed {setting.seed} is one that training may have used.")
    return headline, sentences


def rich_table(setting: Setting, outcomes: Sequence[Outcome]) -> Table:
    """The table that the command prints."""
    title = f"{setting.scenario}, {setting.episodes} episodes, {setting.backend}; mean or rate with 95 % interval"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for outcome in outcomes:
        table.add_column(outcome.name, justify="right")
    summaries = [outcome.summary for outcome in outcomes]
    for kind, label, cells in _lines(summaries):
        label = f"  {label}" if kind == "minor" else label
        figures = (Text.assemble(value, (f"  {interval}", "dim")) for value, interval in cells)
        table.add_row(Text(label), *figures, style="bold" if kind == "main" else None)
    return table


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
    headline, sentences = verdict(setting, outcomes)
    held_out = "held-out " if setting.held_out else ""
    where = "lanewise" if setting.backend == "lanewise" else "highway-env"
    parts = [
        f'<p class="over">{_text(setting.scenario)} · {setting.episodes} {held_out}episodes · simulated by {where}</p>',
        f"<h1>{_text(headline)}</h1>",
        *(f'<p class="verdict">{_text(sentence)}</p>' for sentence in sentences),
        _rates(outcomes),
        _section("Figures", _table(outcomes), "Mean or rate over episodes, below it the 95 % interval."),
        _section("Distributions", _distributions(outcomes), _DISTRIBUTIONS),
    ]
    if videos:
        parts.append(_section("Recordings", _videos(outcomes[0], found, videos, folder), _RECORDINGS))
    parts.append(_section("What the figures mean", _definitions(outcomes)))
    parts.append(_section("How they were made", _provenance(found)))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{_text(outcomes[0].name)}: {_text(setting.scenario)}</title>\n<style>\n{STYLE}</style>\n</head>\n"
        "<body>\n<main>\n" + "\n".join(parts) + "\n</main>\n</body>\n</html>\n"
    )


_DISTRIBUTIONS = (
    "One value an episode. The upright line is the median; below a dashed line, the threshold, an episode is critical."
)
_RECORDINGS = (
    "The last ten seconds of the first episodes that failed, by a collision or short of the goal where there is one, "
    "and of one that did not, following the tested car. Its camera, if it has one, shows what it saw at its latest "
    "decision."
)


def _shown(summaries: Sequence[dict]) -> dict[str, Metric]:
    """The metrics of a report."""
    return {
        name: metric
        for name, metric in METRICS.items()
        if metric.everywhere or any(summary[name]["n"] for summary in summaries)
    }


def _lines(summaries: Sequence[dict]):
    """Rows of the table: "main", "" or "minor", label, and for each policy value and interval. A threshold gives a
    minor row below its metric: the share of critical episodes."""
    for name, metric in _shown(summaries).items():
        unit = f" [{metric.unit}]" if metric.unit not in ("", "%") else ""
        yield (
            "main" if name == "collision" else "",
            metric.title + unit,
            [figure(metric, summary[name]) for summary in summaries],
        )
        if metric.threshold is not None:
            nothing = {"value": None}
            cells = [figure(_SHARE, summary[name].get("critical", nothing)) for summary in summaries]
            yield "minor", f"episodes below {metric.threshold:g} {metric.unit}", cells


_SHARE = METRICS["collision"]


def _text(text: str) -> str:
    """Text for the page; a number keeps its percent sign on its line."""
    return html.escape(str(text)).replace(" %", "&nbsp;%")


def _section(title: str, inside: str, note: str = "") -> str:
    note = f'<p class="note">{_text(note)}</p>' if note else ""
    return f"<section>\n<h2>{_text(title)}</h2>\n{note}\n{inside}\n</section>"


def _rates(outcomes: Sequence[Outcome]) -> str:
    """A plot for each rate."""
    cards = []
    for name, metric in _shown([outcome.summary for outcome in outcomes]).items():
        if metric.kind == "rate":
            plot = plots.intervals([outcome.name for outcome in outcomes], [o.summary[name] for o in outcomes])
            title = f"{_text(metric.title)}, with 95 % interval"
            cards.append(f'<figure class="card wide"><figcaption>{title}</figcaption>{plot}</figure>')
    return "\n".join(cards)


def _table(outcomes: Sequence[Outcome]) -> str:
    head = "".join(f'<th scope="col"><i class="key s{k}"></i>{_text(o.name)}</th>' for k, o in enumerate(outcomes))
    rows = []
    for kind, label, cells in _lines([outcome.summary for outcome in outcomes]):
        figures = "".join(f"<td>{_text(value)}<small>{_text(interval)}</small></td>" for value, interval in cells)
        rows.append(f'<tr class="{kind}"><th scope="row">{_text(label)}</th>{figures}</tr>')
    body = "\n".join(rows)
    return (
        f'<div class="scroll"><table style="--policies: {len(outcomes)}">\n'
        f"<thead><tr><td></td>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _distributions(outcomes: Sequence[Outcome]) -> str:
    cards = []
    for name, metric in METRICS.items():
        if metric.kind == "rate":
            continue
        factor = 100 if metric.unit == "%" else 1
        samples = [factor * outcome.values[name][outcome.valid[name]] for outcome in outcomes]
        plot = plots.histograms([outcome.name for outcome in outcomes], samples, metric.unit, metric.threshold)
        if plot:
            cards.append(f'<figure class="card"><figcaption>{_text(metric.title)}</figcaption>{plot}</figure>')
    return f'<div class="grid">{"".join(cards)}</div>'


def _videos(tested: Outcome, found: dict, videos: Mapping[int, Path], folder: Path) -> str:
    recordings = {recording["episode"]: recording for recording in found["policies"][0]["recordings"]}
    cards = []
    for episode, path in videos.items():
        recording = tested.replays[episode]
        about = recording.about
        end = about["end"] if about["collision_time"] is None else f"collision after {about['collision_time']:.1f} s"
        if about["metrics"]["impact_speed"] is not None:
            end += f", at {about['metrics']['impact_speed']:.1f} m/s relative speed"
        poster = imwrite("<bytes>", last_picture(recording), extension=".jpg")
        cards.append(
            '<figure class="card"><video controls muted playsinline preload="none" '
            f'poster="{_data("image/jpeg", poster)}" src="{_data("video/mp4", path.read_bytes())}"></video>'
            f"<figcaption>Episode {episode}: {_text(end)}</figcaption>"
            f"<code>python -m viewer --replay {_text(folder / recordings[episode]['replay'])}</code></figure>"
        )
    return f'<div class="grid videos">{"".join(cards)}</div>'


def _data(kind: str, content: bytes) -> str:
    """A file as an address that holds its content."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _definitions(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for metric in _shown([outcome.summary for outcome in outcomes]).values():
        source = f' <span class="faint">Source: {_text(metric.source)}.</span>' if metric.source else ""
        threshold = f" Critical below {metric.threshold:g} {metric.unit}." if metric.threshold is not None else ""
        rows.append(f"<dt>{_text(metric.title)}</dt><dd>{_text(metric.definition + threshold)}{source}</dd>")
    return (
        f"<dl>{''.join(rows)}<dt>Intervals</dt><dd>Clopper-Pearson for rates; percentile bootstrap over episodes for "
        "means. Values that mean nothing in an episode, such as the TTC of a car that never closed in on another, are "
        "left out of means and counts.</dd></dl>"
    )


def _provenance(found: dict) -> str:
    entries = {
        "Command": found["command"],
        "Episodes": f"the first of each of the worlds 0 to {found['episodes'] - 1} under seed {found['seed']}",
        "Machine": ", ".join(
            str(found["machine"][key]) for key in ("processor", "gpu", "system") if key in found["machine"]
        )
        + f", {found['machine']['cores']} cores",
        "Versions": ", ".join(f"{name} {version}" for name, version in found["versions"].items()),
        "Time": ", ".join(f"{p['name']} {p['seconds']:.0f} s ({p['steps']:,} steps)" for p in found["policies"]),
        "Made": found["created"],
    }
    rows = "".join(f"<dt>{name}</dt><dd>{_text(value)}</dd>" for name, value in entries.items())
    return f'<dl class="facts">{rows}</dl>'
