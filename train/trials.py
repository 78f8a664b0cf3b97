"""One trial of a sweep: a run of a training command and its evaluation, each in a process of its own.

A trial survives whoever watches it, and whatever it dies of kills nothing else. It is a normal run directory; what its
commands print goes to a file beside it. Who works on a trial holds a lock on a third file, which the processes of the
trial inherit: a trial whose lock is free has been given up, and anybody may go on with it.
"""

import contextlib
import fcntl
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from envs import files

# Of a trial: at how many equally spaced steps its return is reported. Rollouts of different trials differ in length.
MARKS = 10
POLL = 0.5  # seconds between two looks at a trial
# Episodes of this seed choose among settings; those of `evaluation.recorder.HELD_OUT_SEED` stay unseen until the end.
VALIDATION_SEED = 3_000_000


class Failed(Exception):
    """A command of the trial ended with an error; the message is its last line."""


class Pruned(Exception):
    """The trial was stopped: others were better at the same step."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for a lock, and hold it."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def take(path: Path) -> IO[str] | None:
    """A lock, held until the file is closed here and in every process that inherited it; None if somebody holds it."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def command(module: str, *arguments: object) -> list[str]:
    """What starts one of our commands."""
    return [sys.executable, "-m", module, *map(str, arguments)]


class Trial:
    """A trial's files and processes.

    Args:
        run: its run directory, there or not. Beside it stand a file .log and a file .lock.
        lock: the latter, held; see `take`.
    """

    def __init__(self, run: Path, lock: IO[str]):
        self.run, self.lock = run, lock
        self.log = run.with_name(f"{run.name}.log")

    def train(self, module: str, arguments: list[str], steps: int, on_mark: Callable[[int, int, float], bool]) -> None:
        """Train, or go on with a run that was begun.

        Args:
            module: of the command, as "train.ppo".
            arguments: of the command, without where the run stands.
            steps: of the whole run.
            on_mark: (mark from 1 to `MARKS`, step, return so far) -> whether to stop it.

        Raises:
            Failed, Pruned: see there.
        """
        if (self.run / "config.json").exists():
            arguments = ["--resume", str(self.run)]
        else:
            shutil.rmtree(self.run, ignore_errors=True)  # killed before there was anything to go on with
            arguments = [*arguments, "--out", str(self.run)]
        told = 0

        def look() -> None:
            nonlocal told
            passed = self.marks(steps)
            for mark, step, value in passed:
                if mark > told:
                    told = mark
                    # What has come to its end is not stopped.
                    if on_mark(mark, step, value) and passed[-1][0] < MARKS:
                        raise Pruned

        self._finish(command(module, *arguments), look)
        look()

    def evaluate(self, env: str, episodes: int, device: str) -> dict[str, dict[str, Any]]:
        """Drive held-out episodes. Returns the summary of every metric, see `evaluation.results.summarise`.

        Raises:
            Failed: see there.
        """
        out = self.run / "evaluation"
        what = ["--env", env, "--policy", self.run, "--episodes", episodes, "--seed", VALIDATION_SEED, "--baselines"]
        how = ["--keep", 0, "--workers", 1, "--device", device, "--out", out]
        self._finish(command("evaluation", *what, *how), lambda: None)
        (found,) = json.loads((out / "results.json").read_text())["policies"]
        return found["summary"]

    def marks(self, steps: int) -> list[tuple[int, int, float]]:
        """The marks that the run has passed, with the steps and the returns of the rows of its log that passed them."""
        try:
            lines = (self.run / "metrics.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        passed: dict[int, tuple[int, int, float]] = {}
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:  # not written to its end
                break
            mark = min(MARKS * row["step"] // steps, MARKS)
            value = row.get("charts/episodic_return")
            if mark and value is not None:
                passed.setdefault(mark, (mark, row["step"], value))
        return list(passed.values())

    def _finish(self, line: list[str], look: Callable[[], None]) -> None:
        """Run a command to its end, looking at it now and then; if that raises, stop it as SIGTERM does."""
        with self.log.open("a") as log:
            print(f"$ {shlex.join(line)}", file=log, flush=True)
            # In a session of its own: Ctrl-C reaches it by us alone.
            process = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(self.lock.fileno(),),
            )
            try:
                while process.poll() is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(POLL)
                    look()
            except BaseException:
                _stop(process)
                raise
        if process.returncode:
            raise Failed(self._last_line(process.returncode))

    def _last_line(self, code: int) -> str:
        said = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        if code < 0 or said[-1].startswith("$ "):
            return f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return said[-1].removeprefix("error: ")


def _stop(process: subprocess.Popen) -> None:
    """Ask a process to save itself and end; whoever asks twice does not wait."""
    process.terminate()
    try:
        process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file for people, atomically."""
    files.write(path, json.dumps(content, indent=2) + "\n")
