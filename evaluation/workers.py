"""Who works shards out: this process, others beside it, or a Ray cluster.

A worker process writes the files of its shards itself and is told of one shard at a time. If it dies, what it was at is
given to another.
"""

import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch

import envs.files
from envs.errors import UserError
from evaluation import parts, shards
from evaluation.shards import OnStep, Shard

# A shard that has cost so many workers their lives is given up.
MAX_DEATHS = 3
# Seconds between two reports of a worker.
REPORT = 0.2


def run(
    work: Sequence[Shard],
    folder: Path,
    workers: int = 1,
    address: str | None = None,
    on_step: OnStep = lambda worlds: None,
    on_done: Callable[[Shard], None] = lambda shard: None,
) -> None:
    """See to it that every shard's file is in a folder.

    Args:
        work: the shards.
        folder: where files go, and where those that are there already count as done; it is made when it is needed.
        workers: processes to do it; with 1, this one does.
        address: of a Ray cluster that does it in their place.
        on_step: called with the number of worlds that took a policy step, now and then.
        on_done: called with every shard that is done.

    Raises:
        UserError: a policy that cannot be loaded or cannot drive there, a shard that kills its workers, no Ray, or a
            policy that is an object, which other processes do not have.
        OSError: a file could not be written; what was written stays.
    """
    if (workers > 1 or address) and not all(isinstance(shard.task.policy, str) for shard in work):
        raise UserError(
            "a policy that is an object drives in this process only; name it MODULE:NAME for workers and Ray"
        )
    waiting = []
    for shard in work:
        if parts.load(folder / shard.name) is None:
            waiting.append(shard)
        else:
            on_done(shard)
    if not waiting:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if address is not None:
        _with_ray(waiting, folder, address, on_step, on_done)
    elif workers > 1:
        _with_processes(waiting, folder, min(workers, len(waiting)), on_step, on_done)
    else:
        for shard in waiting:
            parts.save(shards.compute(shard, on_step), folder / shard.name)
            on_done(shard)


# --- processes --------------------------------------------------------------------------------------------------------


class _Worker:
    """A process that works shards out, one at a time, and a pipe to it."""

    def __init__(self, number: int, workers: int, folder: Path):
        context = multiprocessing.get_context("spawn")
        self.number, self.shard = number, None
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, number, workers, folder), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, shard: Shard) -> None:
        """Hand it a shard. If it is dead it is found out later."""
        self.shard = shard
        try:
            self.pipe.send(shard)
        except OSError:
            pass

    def news(self) -> list[tuple]:
        """What it has said since; ("dead",) comes last."""
        said = []
        try:
            while self.pipe.poll():
                said.append(self.pipe.recv())
        except (EOFError, OSError):
            said.append(("dead",))
        return said

    def stop(self) -> None:
        """End it, whatever it is at."""
        self.process.terminate()
        self.process.join(5.0)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()


def _work(pipe: connection.Connection, number: int, workers: int, folder: Path) -> None:
    """What a worker process does, until its parent has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent decides
    if hasattr(os, "sched_setaffinity"):
        # The simulator has as many threads as there are cores for this process.
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[number % len(cores) :: workers] or cores)
    try:
        while True:
            shard = pipe.recv()
            pipe.send(_done(shard, folder, pipe))
    except (EOFError, OSError):
        return


def _done(shard: Shard, folder: Path, pipe: connection.Connection) -> tuple:
    """Work a shard out and write its file; what to tell the parent."""
    counted, said = 0, time.monotonic()

    def on_step(worlds: int) -> None:
        nonlocal counted, said
        counted += worlds
        if time.monotonic() - said > REPORT:
            pipe.send(("steps", counted))
            counted, said = 0, time.monotonic()

    try:
        part = shards.compute(shard, on_step)
        parts.save(part, folder / shard.name)
    except UserError as error:
        return ("user error", str(error))
    except OSError as error:
        return ("os error", error.errno, error.strerror or str(error), error.filename)
    except Exception:
        return ("failed", traceback.format_exc())
    if counted:
        pipe.send(("steps", counted))
    return ("done",)


def _with_processes(
    waiting: Sequence[Shard], folder: Path, workers: int, on_step: OnStep, on_done: Callable[[Shard], None]
) -> None:
    queue, deaths = deque(waiting), Counter()
    crew = [_Worker(number, workers, folder) for number in range(workers)]
    try:
        while queue or any(worker.shard for worker in crew):
            for worker in crew:
                if queue and worker.shard is None:
                    worker.give(queue.popleft())
            connection.wait([worker.pipe for worker in crew if worker.shard], timeout=1.0)
            for place, worker in enumerate(crew):
                for what, *more in worker.news():
                    if what == "steps":
                        on_step(more[0])
                    elif what == "done":
                        on_done(worker.shard)
                        worker.shard = None
                    elif what == "dead":
                        crew[place] = _Worker(worker.number, workers, folder)
                        if worker.shard is not None:
                            queue.appendleft(_once_more(worker, deaths))
                        worker.stop()
                    else:
                        raise _error(what, more)
    finally:
        for worker in crew:
            worker.stop()


def _once_more(worker: _Worker, deaths: Counter) -> Shard:
    """The shard of a worker that has died, to be given to another."""
    shard = worker.shard
    deaths[shard.name] += 1
    if deaths[shard.name] == MAX_DEATHS:
        worker.process.join(1.0)
        how = worker.process.exitcode
        raise UserError(
            f"the process that drove '{shard.task.policy}' through episodes {shard.first} to "
            f"{shard.first + shard.count - 1} was killed {MAX_DEATHS} times (exit code {how}); if memory ran out, "
            "fewer --workers help"
        )
    return shard


def _error(what: str, more: list) -> Exception:
    """The exception that a worker has told of."""
    if what == "user error":
        return UserError(more[0])
    if what == "os error":
        return OSError(*more)
    return RuntimeError(f"a worker failed\n{more[0]}")


# --- Ray --------------------------------------------------------------------------------------------------------------


def packed(shard: Shard) -> tuple[str, Any]:
    """A shard's files, by name, as a Ray task returns them: ("done", files), or an error as a worker tells it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            parts.save(shards.compute(shard), Path(folder) / shard.name)
        except UserError as error:
            return "user error", str(error)
        return "done", {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def connected(address: str) -> Any:
    """The module `ray`, connected to a cluster; `ray.shutdown` ends that.

    Raises:
        UserError: Ray is not installed, or no cluster answers.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--ray-address needs Ray: pip install 'lanewise[ray]'") from None
    try:
        ray.init(address=address, ignore_reinit_error=True)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"no Ray cluster answers at '{address}' ({error})".replace("\n", " ")) from None
    return ray


def _with_ray(
    waiting: Sequence[Shard], folder: Path, address: str, on_step: OnStep, on_done: Callable[[Shard], None]
) -> None:
    ray = connected(address)
    gpus = 1 if torch.device(waiting[0].task.device).type == "cuda" else 0
    remote = ray.remote(max_retries=MAX_DEATHS, num_cpus=1, num_gpus=gpus)(packed)
    pending = {remote.remote(shard): shard for shard in waiting}
    try:
        while pending:
            (ready, *_), _ = ray.wait(list(pending), num_returns=1)
            shard = pending.pop(ready)
            what, files = ray.get(ready)
            if what != "done":
                raise _error(what, [files])
            # The part itself comes last: with it the shard counts as done.
            for name in sorted(files, key=lambda name: name == shard.name):
                envs.files.write(folder / name, files[name])
            on_done(shard)
    finally:
        for task in pending:
            ray.cancel(task)
        ray.shutdown()
