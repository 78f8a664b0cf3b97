"""Does the traffic drive sanely on its own? Ten minutes of it in a thousand worlds of every scenario, without an agent.

    python -m benchmarks.traffic --out docs/traffic.json --plot docs/images/flow.png

The ego is a driver like the others. Counted are: numbers that are not finite, vehicles beside the road, red lights that
were run, vehicles that crashed. On the ring road, flow against density is compared with the equilibrium of the
car-following law.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks import machine
from envs import files, scenarios
from envs.errors import UserError, exit_on_user_error
from envs.roads.signals import RED
from envs.scenarios.ring import RING
from envs.simulation import Simulation, resolve_device
from envs.state import IDM, WALKER

DENSITIES = (4, 8, 12, 16, 20, 24, 30, 36, 42, 48, 54)  # vehicles on the ring of 600 m
SETTLE, MEASURE = 400, 60  # s
TOUCH = 0.5  # m, between a crashed vehicle and the person that it has hit


@dataclass
class Args:
    scenarios: tuple[str, ...] = ()
    """Scenarios to watch; by default all in which an IDM driver can take the ego's place."""
    num_worlds: int = 1000
    """Worlds simulated at once."""
    minutes: float = 10.0
    """Simulated time of every world."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON file to write."""
    plot: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """PNG file to write flow against density to."""


@dataclass
class Count:
    """What was seen in one scenario.

    Attributes:
        vehicle_hours: simulated time of all vehicles [h].
        not_finite: values of the state that are not finite.
        off_lane: vehicles that were beside the closest lane and had not crashed, each counted once an episode.
        red_lights: vehicles whose front passed a stop line at red.
        crashed: vehicles that crashed.
        struck_people: those of them that crashed into a person.
        ego_crashed: those of them in worlds whose ego has crashed: it, and whoever it met or who met the wreck.
        episodes: episodes that ended.
    """

    vehicle_hours: float = 0.0
    not_finite: int = 0
    off_lane: int = 0
    red_lights: int = 0
    crashed: int = 0
    struck_people: int = 0
    ego_crashed: int = 0
    episodes: int = 0


class Watch:
    """Counts, frame by frame, what happens in a simulation.

    Args:
        simulation: the worlds.
    """

    def __init__(self, simulation: Simulation):
        self.simulation, self.count = simulation, Count()
        state = simulation.state
        self._crashed = torch.zeros_like(state.crashed, dtype=torch.bool)
        self._off = torch.zeros_like(self._crashed)
        self._over = torch.ones_like(self._crashed)
        self._lane, self._signal, self._earlier = state.lane.clone(), state.signal.clone(), state.signal.clone()
        if simulation.maps:
            lanes = [lane for network in simulation.maps for lane in network.lanes]
            self._half = torch.tensor([lane.width / 2 for lane in lanes])
            self._head = torch.full((len(lanes),), -1, dtype=torch.int64)
            first = 0
            for network in simulation.maps:
                for number, head in enumerate(network.signals):
                    for way in head.movements:
                        self._head[first + network.number(way)] = number
                first += len(network.lanes)

    def frame(self) -> None:
        """Look at the frame that has just been simulated."""
        state, count = self.simulation.state, self.count
        drives = state.kind == IDM
        count.vehicle_hours += int(drives.sum()) / self.simulation.scenario.simulation_frequency / 3600
        for name in ("x", "y", "heading", "speed"):
            count.not_finite += int((~torch.isfinite(state.tensors[name])).sum())
        crashed = (state.crashed != 0) & drives
        fresh = (crashed & ~self._crashed).nonzero(as_tuple=True)
        count.crashed += len(fresh[0])
        count.struck_people += int(self._beside_people(*fresh).sum())
        count.ego_crashed += int(crashed[fresh[0], 0].sum())
        self._crashed = crashed
        if self.simulation.maps:
            self._roads(drives, crashed)

    def _beside_people(self, world: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        """Whether vehicles, of these indices, have a person within TOUCH of their box. Shape: (M,)."""
        state = self.simulation.state
        dx, dy = (values[world] - values[world, slot][:, None] for values in (state.x, state.y))
        cos, sin = (values[world, slot][:, None] for values in (state.cos_heading, state.sin_heading))
        room = TOUCH + state.length[world] / 2
        along = (dx * cos + dy * sin).abs() < room + state.length[world, slot][:, None] / 2
        across = (dy * cos - dx * sin).abs() < room + state.width[world, slot][:, None] / 2
        return (along & across & (state.kind[world] == WALKER)).any(1)

    def _roads(self, drives: torch.Tensor, crashed: torch.Tensor) -> None:
        state, count = self.simulation.state, self.count
        lane = state.lane.long()
        beside = drives & ~crashed & (state.lane_r.abs() > self._half[lane])
        count.off_lane += int((beside & ~self._off).sum())
        self._off |= beside
        if not (self._head >= 0).any():
            return
        # A driver steers to its way through the junction from the frame on after the one in which its front passed the
        # line, half a car before the lane's end. It did so at red if the head showed red before and after that frame.
        head = self._head[state.target_lane.long()]
        over = drives & (head >= 0)
        enters = over & ~self._over & (self._head[self._lane.long()] < 0)
        shown = [signal.gather(1, head.clamp(min=0)) == RED for signal in (self._signal, self._earlier)]
        count.red_lights += int((enters & shown[0] & shown[1]).sum())
        self._over, self._lane = over, state.lane.clone()
        self._signal, self._earlier = state.signal.clone(), self._signal

    def renew(self, ended: torch.Tensor) -> None:
        """Forget what was seen in worlds whose episode has ended."""
        self.count.episodes += int(ended.sum())
        self._crashed[ended] = False
        self._off[ended] = False
        self._over[ended] = True


def watch(name: str, args: Args, progress: Progress) -> Count:
    """Drive one scenario for the time asked for."""
    scenario = scenarios.get(name)
    simulation = Simulation(scenario, args.num_worlds, resolve_device("cpu"), "float32", "idm")
    simulation.reset(0)
    observer = Watch(simulation)
    steps = round(args.minutes * 60 * scenario.simulation_frequency / scenario.frames_per_step)
    bar = progress.add_task(name, total=steps)
    for _ in range(steps):
        simulation.step(observer.frame)
        observer.renew((simulation.state.terminated + simulation.state.truncated) != 0)
        progress.advance(bar)
    simulation.close()
    return observer.count


def acceleration(gap: float, speed: float, lead_speed: float) -> float:
    """The car-following law on the ring: the leader's speed counts as far as it points along the follower's heading.

    Args:
        gap: centre to centre, along the ring [m].
        speed, lead_speed: [m/s].
    """
    driver, limit = RING.driver, RING.speed_limit
    approach = speed - lead_speed * math.cos(gap * math.tau / RING.length)
    braking = 2 * math.sqrt(driver.comfort_acceleration * driver.comfort_deceleration)
    wanted = driver.jam_distance + driver.headway * speed + speed * approach / braking
    return driver.comfort_acceleration * (1 - (speed / limit) ** 4 - (wanted / gap) ** 2)


def equilibrium_speed(gap: float) -> float:
    """The speed at which the law asks for no acceleration in a platoon, `gap` metres (centre to centre) apart."""
    low, high = 0.0, RING.speed_limit
    for _ in range(60):
        speed = (low + high) / 2
        low, high = (speed, high) if acceleration(gap, speed, speed) > 0 else (low, speed)
    return low


def string_stable(gap: float) -> bool:
    """Whether long waves in a platoon at equilibrium die out.

    With f(s, v, v_l) the law and exp(lambda t + i theta n) a wave, the order theta^2 of the dispersion relation gives
    f_s / 2 - l f_l - l^2 > 0 where l = f_s / (f_v + f_l).
    """
    v, d = equilibrium_speed(gap), 1e-4
    f_s = (acceleration(gap + d, v, v) - acceleration(gap - d, v, v)) / (2 * d)
    f_v = (acceleration(gap, v + d, v) - acceleration(gap, v - d, v)) / (2 * d)
    f_l = (acceleration(gap, v, v + d) - acceleration(gap, v, v - d)) / (2 * d)
    wave = f_s / (f_v + f_l)
    return f_s / 2 - wave * f_l - wave**2 > 0


def flow_against_density(progress: Progress) -> list[dict[str, float | bool]]:
    """Measured and theoretical flow on the ring, a row for each number of vehicles."""
    rows = []
    bar = progress.add_task("ring: flow", total=len(DENSITIES))
    for vehicles in DENSITIES:
        scenario = replace(RING, vehicles=vehicles - 1, duration=math.inf)
        simulation = Simulation(scenario, 16, resolve_device("cpu"), "float32", "idm")
        simulation.reset(0)
        speeds = []
        for second in range(SETTLE + MEASURE):
            simulation.step()
            if second >= SETTLE:
                speeds.append(float(simulation.state.speed.mean()))
        simulation.close()
        density = vehicles / scenario.length
        theory = equilibrium_speed(1 / density)
        rows.append(
            {
                "vehicles_per_km": 1000 * density,
                "flow_per_hour": 3600 * density * float(np.mean(speeds)),
                "theory_per_hour": 3600 * density * theory,
                "string_stable": string_stable(1 / density),
            }
        )
        progress.advance(bar)
    return rows


def draw(rows: list[dict[str, float | bool]], path: Path) -> None:
    """Flow against density, measured and theoretical."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), dpi=110)
    density = np.linspace(1, 1000 / RING.driver.jam_distance - 0.1, 300)
    theory = np.array([3.6 * k * equilibrium_speed(1000 / k) for k in density])
    stable = np.array([string_stable(1000 / k) for k in density])
    axes.plot(density, theory, color="#888", label="equilibrium of the law")
    axes.fill_between(density, theory, where=~stable, color="#e8c7b8", lw=0, label="platoons unstable: waves grow")
    axes.plot(
        [row["vehicles_per_km"] for row in rows], [row["flow_per_hour"] for row in rows], "o", label="simulated ring"
    )
    axes.set_xlabel("density, vehicles/km")
    axes.set_ylabel("flow, vehicles/h")
    axes.legend(frameon=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)


def main() -> None:
    """The command."""
    args = tyro.cli(Args, description=__doc__)
    if args.num_worlds < 1 or args.minutes <= 0:
        raise UserError(f"--num-worlds and --minutes must be positive, not {args.num_worlds} and {args.minutes}")
    names = args.scenarios or tuple(name for name, s in scenarios.SCENARIOS.items() if s.uses_lanes)
    for name in names:
        if not scenarios.get(name).uses_lanes:
            raise UserError(f"nobody drives by IDM in '{name}'")
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        counts = {name: watch(name, args, progress) for name in names}
        flow = flow_against_density(progress)
    table = Table("scenario", title=f"{args.num_worlds} worlds x {args.minutes:g} minutes", box=box.SIMPLE_HEAD)
    for column in (
        "vehicle hours",
        "episodes",
        "not finite",
        "off lane",
        "red lights",
        "crashed",
        "into people",
        "with the ego",
        "crashed per 1000 h",
    ):
        table.add_column(column, justify="right")
    for name, c in counts.items():
        numbers = (c.episodes, c.not_finite, c.off_lane, c.red_lights, c.crashed, c.struck_people, c.ego_crashed)
        rate = 1000 * c.crashed / max(c.vehicle_hours, 1e-9)
        table.add_row(name, f"{c.vehicle_hours:,.0f}", *(f"{number:,}" for number in numbers), f"{rate:,.1f}")
    console.print(table)
    table = Table("vehicles/km", "flow, vehicles/h", "equilibrium", "waves", title="ring", box=box.SIMPLE_HEAD)
    for row in flow:
        *numbers, stable = row.values()
        table.add_row(*(f"{value:,.1f}" for value in numbers), "die out" if stable else "grow")
    console.print(table)
    console.print(machine.sentence(), highlight=False)
    if args.plot:
        draw(flow, args.plot)
    if args.out:
        result = {
            "machine": machine.describe(),
            "worlds": args.num_worlds,
            "minutes": args.minutes,
            "scenarios": {name: asdict(count) for name, count in counts.items()},
            "flow": flow,
        }
        files.write(args.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    exit_on_user_error(main)
