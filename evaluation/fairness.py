"""Who is seen, and when: contact with people by height, clothing, light and weather.

`python -m evaluation.fairness --policy zoo/NAME` stages people who walk into the ego's way: Euro NCAP's adults, from
the near and the far side. Every person draws a height, clothes, light and weather independently of the scene, so that
groups differ by chance alone unless the policy makes the difference. Each case has a twin without the person: a person
is detected when the policy first brakes and does not brake at that step of the twin. Whether a group fares worse than
the others is tested exactly (contacts) and by ranks (distances), with Holm's correction for the number of tests.

Writes fairness.json, people.parquet and fairness.png.
"""

import json
import math
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
import tyro
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from agents.policies import Policy
from envs.errors import UserError, exit_on_user_error, unknown
from envs.files import replaced, write
from envs.interruption import interruptible
from envs.scenarios.stage import Actor, Case
from envs.sensors.appearance import BODY_COLOURS, INDEX
from envs.simulation import resolve_device
from evaluation import backends
from evaluation.geometry import Boxes, distance
from evaluation.recorder import HELD_OUT_SEED
from evaluation.statistics import CONFIDENCE, clopper_pearson, holm
from evaluation.suites import FAMILIES, draw

FORMAT = 1
BATCH = 128  # worlds that are simulated at once
BRAKES = 1.0  # m/s2, commanded, from which on a policy brakes
HEIGHTS = (1.0, 1.2, 1.4, 1.6, 1.8, 1.95)  # m, ends of the groups
LUMINANCE = {"dark": (0.0, 70.0), "medium": (70.0, 130.0), "bright": (130.0, 256.0)}  # of 255, of the clothes
# Of `envs.sensors.appearance.QUANTITIES`: gain of the light, and metres at which half of the contrast is gone.
LIGHT = {"day": 1.0, "dusk": 0.7, "night": 0.45}
WEATHER = {"clear": 260.0, "haze": 60.0}
FEWEST = 20  # people


# --- people -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Person:
    """Who crosses, and in what light. `look` is their `envs.scenarios.stage.Actor.look`, their height in m."""

    height: float
    look: int
    light: str
    weather: str

    @property
    def groups(self) -> dict[str, str]:
        """Attribute -> the group that they belong to."""
        band = min(np.searchsorted(HEIGHTS, self.height, side="right"), len(HEIGHTS) - 1)
        shines = float(np.dot(BODY_COLOURS[self.look - 1], (0.2126, 0.7152, 0.0722)))
        clothes = next(name for name, (low, high) in LUMINANCE.items() if low <= shines < high)
        return {
            "height": f"{HEIGHTS[band - 1]:.2f}-{HEIGHTS[band]:.2f} m",
            "clothing": clothes,
            "light": self.light,
            "weather": self.weather,
        }


def people(count: int, seed: int) -> list[Person]:
    """People who draw everything independently and uniformly."""
    rng = np.random.default_rng(seed)
    return [
        Person(
            height=float(rng.uniform(HEIGHTS[0], HEIGHTS[-1])),
            look=int(rng.integers(1, len(BODY_COLOURS) + 1)),
            light=str(rng.choice(list(LIGHT))),
            weather=str(rng.choice(list(WEATHER))),
        )
        for _ in range(count)
    ]


def crossed_by(case: Case, person: Person) -> tuple[Case, Case]:
    """A case in which that person crosses, and its twin without them.

    The person's box keeps its length and width, so that the encounter is the same whoever it is.
    """
    index = _pedestrian(case)
    actor = case.actors[index]
    tall = replace(actor, size=(*actor.size[:2], person.height), look=person.look)
    others = (case.actors[:index], case.actors[index + 1 :])
    return replace(case, actors=(*others[0], tall, *others[1])), replace(case, actors=others[0] + others[1])


def _pedestrian(case: Case) -> int:
    """The index of the actor who crosses."""

    def crosses(actor: Actor) -> bool:
        return actor.form == "person"

    found = [k for k, actor in enumerate(case.actors) if crosses(actor)]
    if len(found) != 1:
        raise UserError(
            f"'{case.family}' has {len(found)} people in a case; fairness needs a family with one, as cp-near-side"
        )
    return found[0]


# --- driving ----------------------------------------------------------------------------------------------------------


class Drive(NamedTuple):
    """What became of N cases in S policy steps.

    Attributes:
        contact: bool, the ego collided. Shape: (N,).
        braking: bool, brakes were commanded; False after the end of an episode. Shape: (S, N).
        distance: from the ego's box to that of the person at the start of the step [m]. Shape: (S, N).
    """

    contact: torch.Tensor
    braking: torch.Tensor
    distance: torch.Tensor


def drive(worlds, policy: Policy, slots: torch.Tensor, crowd: list[Person], seed: int, first: int) -> Drive:
    """Drive the first episode of every world.

    Args:
        worlds: staged cases.
        policy: drives the egos.
        slots: of the people who cross. Shape: (N,).
        crowd: in what light every world lies; N people.
        seed, first: of the worlds, and identity of the first one.
    """
    obs, _ = worlds.reset(seed=seed, first_world=first)
    policy.reset(None)
    _light_up(worlds, crowd)
    state, scenario = worlds.state, worlds.scenario
    running = torch.ones(worlds.num_worlds, dtype=torch.bool, device=worlds.device)
    contact, braking, apart = torch.zeros_like(running), [], []

    def on_frame() -> None:
        contact.logical_or_(running & (state.crashed[:, 0] != 0))
        if hasattr(policy, "on_frame"):  # shields act between decisions
            policy.on_frame(worlds)

    for _ in range(math.ceil(scenario.duration * scenario.simulation_frequency / scenario.frames_per_step) + 1):
        apart.append(_apart(state, slots))
        action = policy.act(obs)
        alive = running.clone()
        speed = state.speed[:, 0].clone()
        obs, _, terminated, truncated, _ = worlds.step(action, on_frame=on_frame)
        done = terminated | truncated
        braking.append(alive & ~contact & _brakes(worlds, action, speed, done))
        running &= ~done
        policy.reset(done)
        if not running.any():
            break
    return Drive(contact, torch.stack(braking), torch.stack(apart))


def _light_up(worlds, crowd: list[Person]) -> None:
    """Give every world its light and weather, in all frames that the camera remembers."""
    for sensor in worlds.sim.sensors:
        if "look" not in getattr(sensor, "memory", {}):
            continue
        look = sensor.memory["look"]
        look[:, INDEX["light"]] = torch.tensor([LIGHT[person.light] for person in crowd], device=look.device)
        look[:, INDEX["haze"]] = torch.tensor([WEATHER[person.weather] for person in crowd], device=look.device)
        for _ in range(worlds.frames):
            worlds.sim.film()


def _apart(state, slots: torch.Tensor) -> torch.Tensor:
    """From the ego's box to that of the person [m]. Shape: (N,)."""
    world = torch.arange(len(slots), device=slots.device)
    boxes = Boxes(state.x, state.y, state.heading, state.length, state.width)
    return distance(Boxes(*(field[:, 0] for field in boxes)), Boxes(*(field[world, slots] for field in boxes)))


def _brakes(worlds, action: torch.Tensor, speed: torch.Tensor, done: torch.Tensor) -> torch.Tensor:
    """Whether brakes are commanded, from the action, or from what a self-driving ego does. Shape: (N,) bool."""
    if worlds.ego == "idm":
        change = (worlds.state.speed[:, 0] - speed) * worlds.scenario.policy_frequency
        return (change < -BRAKES) & ~done
    if worlds.action_names:
        return action == (worlds.action_names.index("SLOWER") if "SLOWER" in worlds.action_names else -1)
    low, high = worlds.scenario.actions.acceleration_range
    return low + (action[:, 0].clamp(-1, 1) + 1) / 2 * (high - low) < -BRAKES


def detected(with_person: Drive, without: Drive) -> torch.Tensor:
    """Distance at which the policy first brakes and does not brake at that step of the twin [m]; NaN: never.

    Shape: (N,).
    """
    steps = len(with_person.braking)
    twin = torch.zeros_like(with_person.braking)
    common = min(steps, len(without.braking))
    twin[:common] = without.braking[:common]
    noticed = with_person.braking & ~twin
    at = noticed.int().argmax(0, keepdim=True)
    found = with_person.distance.gather(0, at)[0]
    return torch.where(noticed.any(0), found, torch.nan)


# --- tests ------------------------------------------------------------------------------------------------------------


def fisher(a: int, n: int, b: int, m: int) -> float:
    """One-sided exact test: probability of `a` or more events among n, given a + b among n + m, were all alike.

    Source: Fisher, The Design of Experiments (1935).
    """

    def log_choose(total: int, taken: int) -> float:
        return math.lgamma(total + 1) - math.lgamma(taken + 1) - math.lgamma(total - taken + 1)

    whole = log_choose(n + m, a + b)
    terms = [
        math.exp(log_choose(n, k) + log_choose(m, a + b - k) - whole)
        for k in range(max(a, a + b - m), min(n, a + b) + 1)
    ]
    return min(1.0, math.fsum(terms))


def rank_sum(lower: np.ndarray, higher: np.ndarray) -> float:
    """One-sided Mann-Whitney test: small where the values of `lower` are lower than chance would have them.

    By the normal approximation with corrections for ties and continuity, good from about 10 values in each.

    Source: Mann and Whitney, Annals of Mathematical Statistics 18 (1947).
    """
    n, m = len(lower), len(higher)
    values, which, counts = np.unique(np.concatenate([lower, higher]), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[which]
    wins = ranks[:n].sum() - n * (n + 1) / 2
    total = n + m
    variance = n * m / 12 * (total + 1 - (counts**3 - counts).sum() / (total * (total - 1)))
    if variance == 0 or len(values) == 1:
        return 1.0
    return 0.5 * math.erfc(-(wins + 0.5 - n * m / 2) / math.sqrt(2 * variance))


def judged(crowd: list[Person], contact: np.ndarray, seen_at: np.ndarray, attributes: list[str]) -> list[dict]:
    """How every group fared, and whether worse than chance would explain.

    Args:
        crowd: the people.
        contact: whether the ego hit them. Shape: (n,) bool.
        seen_at: distance of detection [m], NaN where there was none. Shape: (n,).
        attributes: to group by.

    Returns:
        a row a group: "attribute", "group", "n", "contacts", "rate", "low", "high", "detected", "median_distance"
        (never detected counts as 0 m), "p_contact", "p_distance" (Holm's) and "worse", a list of "contact", "distance".
    """
    reach = np.nan_to_num(seen_at, nan=0.0)
    rows, p = [], []
    for attribute in attributes:
        of = np.array([person.groups[attribute] for person in crowd])
        for group in sorted(set(of.tolist())):
            mine = of == group
            n, contacts = int(mine.sum()), int(contact[mine].sum())
            low, high = clopper_pearson(contacts, n)
            rows.append(
                {
                    "attribute": attribute,
                    "group": group,
                    "n": n,
                    "contacts": contacts,
                    "rate": contacts / n,
                    "low": low,
                    "high": high,
                    "detected": int((~np.isnan(seen_at[mine])).sum()),
                    "median_distance": float(np.median(reach[mine])),
                }
            )
            rest = ~mine
            p.append(fisher(contacts, n, int(contact[rest].sum()), int(rest.sum())))
            p.append(rank_sum(reach[mine], reach[rest]))
    corrected = holm(p)
    for k, row in enumerate(rows):
        row["p_contact"], row["p_distance"] = corrected[2 * k : 2 * k + 2]
        row["worse"] = [what for what in ("contact", "distance") if row[f"p_{what}"] < 1 - CONFIDENCE]
    return rows


# --- command ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Args:
    """Test whether a policy sees some people worse than others."""

    policy: str
    """What to test: a run directory, zoo/NAME, or a driver such as careful or idm."""
    families: tuple[str, ...] = ("cp-near-side", "cp-far-side")
    """Families of cases with one person each, see docs/suites.md."""
    people: int = 400
    """Number of people, divided among the families."""
    out: Path | None = None
    """Directory of the results; runs/fairness/POLICY by default. Earlier results there are replaced."""
    seed: int = HELD_OUT_SEED
    """Seed of the cases, the people and the worlds."""
    shield: str | None = None
    """rss: put the policy behind RSS."""
    trust: bool = False
    """Load policies that may run code of their own: .zip files and Python modules."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""


def main() -> None:
    args = tyro.cli(Args)
    for name in args.families:
        if name not in FAMILIES:
            raise unknown("family", name, FAMILIES)
    if not args.families or args.people < FEWEST * len(args.families) or args.seed < 0:
        raise UserError(f"fairness needs a family and {FEWEST} people for each, and a seed that is not negative")
    out = args.out or Path("runs/fairness") / args.policy.strip("/").replace("/", "-")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out must be a directory, and {out} is a file")
    with interruptible() as interruption:
        try:
            found, table = run(args)
            out.mkdir(parents=True, exist_ok=True)
            with replaced(out / "people.parquet") as beside:
                pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), beside)
            with replaced(out / "fairness.png") as beside:
                _plot(beside, found)
            write(out / "fairness.json", json.dumps(found, indent=1, allow_nan=False) + "\n")
        except KeyboardInterrupt:
            print("interrupted; nothing was replaced", file=sys.stderr)
            raise SystemExit(interruption.exit_code) from None
    Console().print(_shown(found))
    print(sentence(found))
    print(f"Results: {out / 'fairness.json'}")


def run(args: Args) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Drive everybody.

    Returns:
        what fairness.json holds, and a row a person for people.parquet.
    """
    device = str(resolve_device(args.device))
    share = math.ceil(args.people / len(args.families))
    cases = [case for name in args.families for case in draw(FAMILIES[name], share, args.seed)][: args.people]
    crowd = people(len(cases), args.seed)
    pairs = [crossed_by(case, person) for case, person in zip(cases, crowd, strict=True)]
    contact, seen_at = np.zeros(len(cases), dtype=bool), np.full(len(cases), np.nan)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"{args.policy}, people and twins", total=2 * len(cases))
        for begin in range(0, len(cases), BATCH):
            block = slice(begin, begin + BATCH)
            drives = []
            for twin in (0, 1):
                policy, drive = _driven(args, [pair[twin] for pair in pairs[block]], crowd[block], device, begin)
                drives.append(drive)
                progress.advance(bar, len(crowd[block]))
            contact[block] = drives[0].contact.cpu().numpy()
            seen_at[block] = detected(*drives).cpu().numpy()
    sees = policy.env_options.get("observation", "camera") == "camera"
    attributes = ["height", "clothing", "light", "weather"] if sees else ["height"]
    found = {
        "format": FORMAT,
        "command": shlex.join(["python", "-m", "evaluation.fairness", *sys.argv[1:]]),
        "policy": policy.name,
        "families": list(args.families),
        "people": len(cases),
        "seed": args.seed,
        "confidence": CONFIDENCE,
        "camera": sees,
        "contacts": int(contact.sum()),
        "groups": judged(crowd, contact, seen_at, attributes),
    }
    rows = [
        {"case": case.id, "family": case.family, "height": person.height, "look": person.look}
        | {f"group.{name}": group for name, group in person.groups.items()}
        | {"contact": bool(hit), "detected_at": None if math.isnan(at) else float(at)}
        for case, person, hit, at in zip(cases, crowd, contact, seen_at, strict=True)
    ]
    return found, rows


def _driven(args: Args, cases: list[Case], crowd: list[Person], device: str, first: int) -> tuple[Policy, Drive]:
    placed = [(k - first) % len(cases) for k in range(len(cases))]  # world k lives case number (its identity) % N
    policy, scenario = backends.driver(
        args.policy, [cases[k] for k in placed], device, shield=args.shield, trust=args.trust
    )
    options = policy.env_options
    if options.get("observation", "camera") == "camera":
        options = options | {"randomize": False}  # nothing differs but what is tested
    slots = [next((1 + k for k, actor in enumerate(case.actors) if actor.form == "person"), 0) for case in cases]
    worlds = backends.make_worlds("lanewise", scenario, len(cases), device, options)
    try:
        return policy, drive(worlds, policy, torch.tensor(slots, device=worlds.device), crowd, args.seed, first)
    finally:
        worlds.close()


def sentence(found: dict[str, Any]) -> str:
    """What was found, in words."""
    what = {"contact": "is hit more often", "distance": "is seen later"}
    worse = [
        f"{row['attribute']} {row['group']} {what[kind]} (p = {row[f'p_{kind}']:.2g})"
        for row in found["groups"]
        for kind in row["worse"]
    ]
    many = f"{found['policy']}: {found['contacts']} contacts with {found['people']} people"
    if not found["camera"]:
        many += "; it has no camera, so that only heights are compared"
    if worse:
        return f"{many}. Worse than chance would explain: {'; '.join(worse)}."
    return f"{many}. No group fares worse than chance would explain among so many."


def _shown(found: dict[str, Any]) -> Table:
    table = Table(title=f"{found['policy']}: contact, people detected, and their median distance", box=box.SIMPLE)
    for heading in ("group", "people", "contact", "95 %", "seen", "at", ""):
        table.add_column(heading, justify="left" if heading in ("group", "") else "right", no_wrap=True)
    for row in found["groups"]:
        table.add_row(
            f"{row['attribute']}: {row['group']}",
            str(row["n"]),
            f"{row['rate']:.1%}",
            f"{row['low']:.0%} to {row['high']:.0%}",
            str(row["detected"]),
            f"{row['median_distance']:.1f} m",
            "worse" if row["worse"] else "",
        )
    return table


def _plot(path: Path, found: dict[str, Any]) -> None:
    """Contact rates and detection distances, a row a group."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = found["groups"][::-1]
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 0.3 * len(rows) + 1.4), sharey=True, layout="constrained")
    for k, row in enumerate(rows):
        for panel, kind in zip(panels, ("contact", "distance"), strict=True):
            colour = "#c8382e" if kind in row["worse"] else "#2f5fa8"
            if kind == "contact":
                panel.plot([100 * row["low"], 100 * row["high"]], [k, k], color=colour, linewidth=1.5)
            at = 100 * row["rate"] if kind == "contact" else row["median_distance"]
            panel.plot(at, k, "o", color=colour, markersize=5)
    panels[0].set_yticks(range(len(rows)), [f"{row['attribute']}: {row['group']}  ({row['n']})" for row in rows])
    panels[0].set_xlabel("contact [%], 95 % intervals")
    panels[1].set_xlabel("median distance of detection [m]")
    panels[0].set_xlim(left=0)
    panels[1].set_xlim(0, max(1.0, 1.05 * max(row["median_distance"] for row in rows)))
    figure.suptitle(f"{found['policy']}; red: worse than chance would explain", fontsize=9)
    figure.savefig(path, dpi=110, format="png")
    pyplot.close(figure)


if __name__ == "__main__":
    exit_on_user_error(main)
