"""What a policy's actions depend on: `python -m evaluation.counterfactual --env highway --policy zoo/highway-ppo`.

Drives an episode and shows every moment of it again with one thing changed: an object that is not there, a signal of
another colour, brake lights, other light or weather. How much the policy's answer changes is the influence of that
thing, without any assumption: the simulator shows what the camera would have seen. docs/interpretability.md says what
it means. Writes, for each episode, EPISODE.html, a page that needs no network, and EPISODE.json.
"""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from agents.saliency import Saliency, sees_pictures
from envs.errors import UserError, exit_on_user_error, unknown
from envs.files import write
from envs.interruption import interruptible
from envs.simulation import resolve_device
from evaluation import backends
from evaluation.counterfactual_episode import DISTANCES, Episode, explain
from evaluation.counterfactual_page import LABELS, html_page, verdict
from evaluation.counterfactual_studio import Studio
from evaluation.counterfactual_summary import agreement, by_kind, by_place, document, reach_of
from evaluation.recorder import HELD_OUT_SEED
from evaluation.results import machine, versions
from evaluation.suites import case, parse
from perception import saliency

FORMAT = 1
NONE = "none"


@dataclass(frozen=True)
class Args:
    """Show what a policy's actions depend on, by changing one thing at a time in what it sees."""

    policy: str
    """Whose actions: a run directory or zoo/NAME; with --trust also MODULE:NAME of a policy that explains itself."""
    env: str | None = None
    """Scenario; highway by default."""
    case: str | None = None
    """A staged case in its place, as cut-in/1000000-0042."""
    episode: tuple[int, ...] = (0,)
    """Numbers of the episodes, one page each."""
    saliency: str = saliency.DEFAULT
    """Saliency to be compared with: perturbation, integrated-gradients, hirescam, gradcam, or none."""
    out: Path | None = None
    """Directory of the pages; runs/counterfactual/WHERE-POLICY by default."""
    seed: int = HELD_OUT_SEED
    """Seed of the episodes. Training uses none from 1,000,000 on."""
    like: str | None = None
    """Scenario whose actions and observations a case has, for a policy that does not say it itself."""
    trust: bool = False
    """Load policies that may run code of their own."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""


def main() -> None:
    args = tyro.cli(Args)
    if args.env is not None and args.case is not None:
        raise UserError("--case goes without --env: it is a scene of its own")
    if args.saliency not in (*saliency.METHODS, NONE):
        raise unknown("saliency method", args.saliency, (*saliency.METHODS, NONE))
    if not args.episode or min(args.episode) < 0 or args.seed < 0:
        raise UserError("--episode needs numbers from 0 on, and --seed none below 0")
    out = args.out or Path("runs/counterfactual") / _stem(f"{args.env or args.case or 'highway'}-{args.policy}")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out must be a directory, and {out} is a file")
    with interruptible() as interruption:
        try:
            run(args, out)
        except KeyboardInterrupt:
            print("interrupted; the pages that are finished stay", file=sys.stderr)
            raise SystemExit(interruption.exit_code) from None


def run(args: Args, out: Path) -> list[Episode]:
    """Drive the episodes and write their pages."""
    device = str(resolve_device(args.device))
    scene = args.env or "highway" if args.case is None else [case(args.case)]
    policy, scenario = backends.driver(args.policy, scene, device, like=args.like, trust=args.trust)
    if policy.env_options.get("ego") == "idm":
        raise UserError(f"'{policy.name}' drives by the simulator's state and observes nothing")

    def make_worlds(count: int):
        return backends.make_worlds("lanewise", scenario, count, device, policy.env_options)

    look = None
    if args.saliency != NONE and sees_pictures(policy):
        look = Saliency(policy, args.saliency).shares
    episodes = [(args.seed, number, f"episode {number}", f"episode-{number:05d}") for number in args.episode]
    if args.case is not None:
        _, seed, number = parse(args.case)
        episodes = [(seed, number, args.case, _stem(args.case))]
    worlds, found = make_worlds(1), []
    studio = Studio(worlds, make_worlds)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    most = round(scenario.duration * scenario.policy_frequency)
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for seed, number, name, stem in episodes:
            bar = progress.add_task(name, total=most)
            episode = explain(worlds, studio, policy, seed, number, look, lambda bar=bar: progress.advance(bar))
            found.append(episode)
            progress.update(bar, total=len(episode.instants))
            title = f"{policy.name}: {scenario.name if args.case is None else 'case'} · {name}"
            about = {"policy": policy.name, "scenario": scenario.name, "case": args.case, "episode": number}
            about |= {"seed": seed, "saliency": args.saliency if look is not None else None}
            kept = {"format": FORMAT, **about, "machine": machine(), "versions": versions(), **document(episode)}
            shown = {name.capitalize(): value for name, value in about.items() if value is not None}
            shown |= {"Versions": ", ".join(f"{key} {value}" for key, value in versions().items())}
            html = html_page(title, episode, studio, look, args.saliency, shown)
            out.mkdir(parents=True, exist_ok=True)
            write(out / f"{stem}.json", json.dumps(kept, indent=1, allow_nan=False) + "\n")
            write(out / f"{stem}.html", html)
    studio.close()
    worlds.close()
    for (_, _, name, stem), episode in zip(episodes, found, strict=True):
        headline, sentences = verdict(episode, args.saliency)
        print(" ".join([f"{name}:", headline, *sentences]))
        print(f"Page: {out / stem}.html")
    Console().print(_kinds(found), _places(found))
    if agreed := agreement(found):
        print(_agreed(agreed, args.saliency))
    return found


def _stem(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name.strip("/"))


def _kinds(episodes: Sequence[Episode]) -> Table:
    """Influences by kind of change, over all episodes."""
    table = Table(title="Influence of changes", title_justify="left")
    for name in ("", "seen", "mean", "greatest", "another action"):
        table.add_column(name, justify="right" if name else "left")
    for row in by_kind(episodes):
        figures = (f"{row['mean_influence']:.3f}", f"{row['greatest_influence']:.3f}", f"{row['changes_action']:.1%}")
        table.add_row(row["change"], str(row["seen"]), *figures)
    return table


def _places(episodes: Sequence[Episode]) -> Table:
    """Influences by place, over all episodes."""
    rows = by_place(episodes)
    cells = {(row["where"], row["distance"]): row for row in rows}
    reaches = [reach_of(k) for k in range(len(DISTANCES) + 1)]
    table = Table(title="Influence of objects, by place (seen; another action without it)", title_justify="left")
    for name in ("", *reaches):
        table.add_column(name, justify="right" if name else "left")
    for where in dict.fromkeys(row["where"] for row in rows):
        found = [cells.get((where, reach)) for reach in reaches]
        told = (f"{row['mean_influence']:.3f} ({row['seen']}; {row['changes_action']:.0%})" for row in found if row)
        table.add_row(where, *(next(told) if row else "" for row in found))
    return table


def _agreed(found: dict, method: str) -> str:
    parts = []
    for name, label in LABELS.items():
        each, over = found[name]["mean_over_moments"], found[name]["over_all"]
        parts.append(f"{label.lower()} {_figure(each)} in the mean of decisions, {_figure(over)} over all")
    return f"Rank correlation with the influence, {found['objects']} objects, {method}: {'; '.join(parts)}."


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    exit_on_user_error(main)
