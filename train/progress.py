"""What one sees of a run: a progress line, TensorBoard under CleanRL's names, and metrics.jsonl."""

import json
import math
import time
from pathlib import Path
from typing import Any

import rich.console
import rich.progress
from stable_baselines3.common.logger import KVWriter
from torch.utils.tensorboard import SummaryWriter

import envs.files

# stable-baselines3's names of what is logged, and CleanRL's, which are written. Names not listed stay as they are.
NAMES = {
    "time/fps": "charts/SPS",
    "rollout/ep_rew_mean": "charts/episodic_return",
    "rollout/ep_len_mean": "charts/episodic_length",
    "train/learning_rate": "charts/learning_rate",
    "train/policy_gradient_loss": "losses/policy_loss",
    "train/value_loss": "losses/value_loss",
    "train/entropy_loss": "losses/entropy",
    "train/approx_kl": "losses/approx_kl",
    "train/clip_fraction": "losses/clipfrac",
    "train/explained_variance": "losses/explained_variance",
    "train/loss": "losses/loss",
    "train/grad_norm": "losses/grad_norm",
    "train/td_loss": "losses/td_loss",
    "train/q_values": "losses/q_values",
    "train/imitation_loss": "losses/imitation_loss",
    "rollout/exploration_rate": "charts/epsilon",
    "rollout/teacher_share": "charts/teacher_share",
    "rollout/agreement": "charts/agreement",
    "rollout/collision_rate": "rollout/collision_rate",
    "rollout/mean_speed": "rollout/mean_speed",
}
SECONDS_BETWEEN_LINES = 10  # where there is no terminal to draw a bar in


def renamed(values: dict[str, Any]) -> dict[str, float]:
    """The values that are written, under CleanRL's names; CleanRL's entropy is the negative of the entropy loss."""
    written = {NAMES[name]: float(value) for name, value in values.items() if name in NAMES}
    if "losses/entropy" in written:
        written["losses/entropy"] *= -1
    return written


class TensorBoard(KVWriter):
    """Event files for TensorBoard.

    Args:
        folder: where.
        resumed_at: step at which the run goes on; what was logged later, before it was killed, is dropped. None if new.
    """

    def __init__(self, folder: Path, resumed_at: int | None):
        purge_step = None if resumed_at is None else resumed_at + 1
        self.writer = SummaryWriter(str(folder), purge_step=purge_step)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        for name, value in renamed(key_values).items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class MetricsFile(KVWriter):
    """metrics.jsonl: a JSON object a rollout. Arguments as for `TensorBoard`."""

    def __init__(self, folder: Path, resumed_at: int | None):
        path = folder / "metrics.jsonl"
        if resumed_at is not None and path.exists():
            rows = [line for line in path.read_text().splitlines() if _step(line) <= resumed_at]
            envs.files.write(path, "".join(f"{row}\n" for row in rows))
        self.file = path.open("a")

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        values = {name: value if math.isfinite(value) else None for name, value in renamed(key_values).items()}
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def _step(line: str) -> float:
    """The step of a row; infinity for a row that was cut off when the run was killed."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf


class Progress(KVWriter):
    """A line that shows how far the run is and how well it drives: a bar in a terminal, else a line now and then.

    Use it as a context manager, and as an output of stable-baselines3's logger.

    Args:
        total: steps of the whole run.
        done: steps that were done before, if it was resumed.
    """

    def __init__(self, total: int, done: int = 0):
        self.total = total
        self.console = rich.console.Console()
        self.printed = 0.0
        self.bar = rich.progress.Progress(
            rich.progress.BarColumn(20),
            rich.progress.TaskProgressColumn(),
            rich.progress.TextColumn("{task.fields[text]}"),
            console=self.console,
        )
        self.task = self.bar.add_task("", total=total, completed=done, text="first rollout")

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.console.is_terminal:
            self.bar.stop()

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        text = describe(renamed(key_values), step, self.total)
        if self.console.is_terminal:
            self.bar.update(self.task, completed=min(step, self.total), text=text)
        elif time.monotonic() - self.printed > SECONDS_BETWEEN_LINES or step >= self.total:
            self.printed = time.monotonic()
            print(f"{step:,} of {self.total:,} steps  {text}", flush=True)

    def close(self) -> None:
        pass


def describe(values: dict[str, float], step: int, total: int) -> str:
    """The numbers of a progress line, those that are known."""
    parts = {
        "charts/SPS": "{:,.0f} steps/s",
        "charts/episodic_return": "return {:.1f}",
        "rollout/collision_rate": "crashed {:.1%}",
        "rollout/mean_speed": "{:.1f} m/s",
        "charts/agreement": "agrees {:.1%}",
    }
    texts = [text.format(values[name]) for name, text in parts.items() if name in values]
    if rate := values.get("charts/SPS"):
        seconds = round(max(total - step, 0) / rate)
        texts.append(f"{seconds // 3600:d}:{seconds // 60 % 60:02d}:{seconds % 60:02d} left")
    return "  ".join(texts)
