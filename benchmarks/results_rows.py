"""The rows of the table of results: what is trained in which scenario, and by which command."""

from dataclasses import dataclass
from pathlib import Path

# Where a policy is trained, and where it is evaluated if that is another scenario.
HELD_OUT = {"town": "town-held-out"}
CAMERA = (
    "highway", "merge", "roundabout", "intersection", "intersection-signals", "crossing", "roadworks", "town",
    "racetrack", "parking",
)  # fmt: skip
VALUES = ("highway", "intersection", "intersection-signals")
OTHERS = ("highway", "intersection-signals", "crossing")


@dataclass(frozen=True)
class Row:
    """A row.

    Attributes:
        name: of its file.
        title: what drives, in words.
        trains: scenario of the training.
        module: command that trains it, None if nothing is to be trained.
        more: its options but for scenario, seed and directory; {runs} stands for the folder of the runs and {seed} for
            the seed.
        policy: what drives where nothing is trained.
        seeds: how many.
        episodes: of the evaluation.
    """

    name: str
    title: str
    trains: str
    module: str | None = None
    more: tuple[str, ...] = ()
    policy: str | None = None
    seeds: int = 3
    episodes: int = 200

    @property
    def drives(self) -> str:
        """Scenario of the evaluation."""
        return HELD_OUT.get(self.trains, self.trains)

    @property
    def command(self) -> str:
        """The training of seed 0, or the evaluation, as it is typed."""
        if self.module is None:
            return f"python -m evaluation --env {self.drives} --policy {self.policy}"
        return f"python -m {self.module} {' '.join(self.options(0, Path('runs/results')))} --seed 0"

    def options(self, seed: int, runs: Path) -> list[str]:
        """What follows `python -m MODULE`, but for seed and directory."""
        return ["--env", self.trains, *(part.format(runs=runs, seed=seed) for part in self.more)]


def _rows() -> list[Row]:
    rows = []
    for scenario in CAMERA:
        seeds, episodes = (5, 1000) if scenario == "highway" else (3, 200)
        rows += [
            Row(
                f"ppo-camera-{scenario}",
                "PPO, camera, frozen encoder",
                scenario,
                "train.ppo",
                (),
                None,
                seeds,
                episodes,
            ),
            Row(f"random-{scenario}", "random actions", scenario, None, (), "random", 1, episodes),
        ]
        if scenario not in ("racetrack", "parking"):
            rows.append(Row(f"idm-{scenario}", "IDM and MOBIL", scenario, None, (), "idm", 1, episodes))
    for scenario in VALUES:
        rows += [
            Row(f"{name}-camera-{scenario}", f"{name.upper()}, camera, frozen encoder", scenario, f"train.{name}")
            for name in ("dqn", "pqn")
        ]
    for scenario in OTHERS:
        state, pixels = ("--observation", "state"), ("--encoder", "none")
        rows += [
            Row(f"ppo-state-{scenario}", "PPO, privileged state", scenario, "train.ppo", state),
            Row(f"ppo-pixels-{scenario}", "PPO, pixels end to end", scenario, "train.ppo", pixels),
            Row(f"student-{scenario}", "student of the law, camera", scenario, "train.distill", ("--teacher", "idm")),
            Row(
                f"tuned-{scenario}",
                "the student, then PPO, camera",
                scenario,
                "train.ppo",
                ("--init", f"{{runs}}/student-{scenario}-{{seed}}", "--learning-rate", "5e-4"),
            ),
        ]
    return rows


ROWS = {row.name: row for row in _rows()}
