"""Several processes that train one policy: which of them this is, and what they tell each other.

`torchrun` starts the processes and numbers them; here they are ranks, as in torch.distributed. Each simulates an equal
share of the worlds, neighbours by index. All draw the same random numbers, those of all worlds, and use their own
worlds' part. So they agree on every minibatch without a word, and world k explores alike however many ranks there are.

Without torchrun there is one rank: nothing is sent, and every function returns what it was given.
"""

import contextlib
import datetime
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.distributed as dist

from envs.errors import UserError

# For as long a rank waits for the others. One writes checkpoints, or compiles kernels, while the rest wait.
TIMEOUT = datetime.timedelta(minutes=10)
_store: dist.Store | None = None  # what the ranks of one run write notes to each other in


class Lost(Exception):
    """Another rank has died, or does not answer."""


def count() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def first() -> bool:
    """Whether this is rank 0, which alone writes files and talks."""
    return rank() == 0


# --- beginning and end ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Around a command: the ranks that torchrun has started, if any, find each other, and leave together.

    Only rank 0 prints to standard output. An error is told once, however many ranks meet it. A rank that has lost
    another one says so and ends with 1.
    """
    global _store
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    try:
        _store = _meet()
        with contextlib.nullcontext() if first() else _silent(contextlib.redirect_stdout):
            yield
    except UserError as error:
        _say_once(f"error: {error}")
        raise SystemExit(2) from None
    except Lost as lost:
        _say_once(f"error: {lost}")
        raise SystemExit(1) from None
    except SystemExit:
        # All come here for the same reason, but torchrun ends the others as soon as one has left.
        with contextlib.suppress(Lost):
            barrier()
        raise
    barrier()
    dist.destroy_process_group()


def _meet() -> dist.Store:
    """Wait for all ranks. Returns what they write notes in.

    Raises:
        UserError: torchrun has not started this process.
        Lost: not all have come.
    """
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        with _answered():
            store, number, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
            names = dist.PrefixStore("ranks", store)
            dist.init_process_group(backend, store=names, rank=number, world_size=size, timeout=TIMEOUT)
    except ValueError as error:
        raise UserError(f"WORLD_SIZE is set, so torchrun should have started this process: {error}") from None
    return dist.PrefixStore("notes", store)


def heard_once() -> contextlib.AbstractContextManager:
    """Within it, whatever all ranks say alike is said by rank 0 alone, errors too."""
    return contextlib.nullcontext() if first() else _silent(contextlib.redirect_stderr)


@contextlib.contextmanager
def _silent(redirect: Callable) -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, redirect(nowhere):
        yield


def _say_once(text: str) -> None:
    """Print to standard error, unless another rank has said the same."""
    said = False
    with contextlib.suppress(RuntimeError):  # torchrun itself is gone
        said = _store is not None and _store.add(hashlib.sha256(text.encode()).hexdigest(), 1) > 1
    if not said:
        print(text, file=sys.stderr, flush=True)


def device(name: str) -> str:
    """The device of this rank, where a user has named one for all: each GPU of a machine has a rank of its own.

    Raises:
        UserError: there are more ranks on this machine than GPUs.
    """
    if name not in ("auto", "cuda") or not torch.cuda.is_available():
        return name
    local, gpus = int(os.environ.get("LOCAL_RANK", rank())), torch.cuda.device_count()
    if local >= gpus:
        raise UserError(f"a process has no GPU of its own: --nproc-per-node must be at most {gpus} here")
    torch.cuda.set_device(local)
    return f"cuda:{local}"


def command(module: str) -> str:
    """How a module is started in as many processes as there are now."""
    if count() == 1:
        return f"python -m {module}"
    machines = int(os.environ.get("GROUP_WORLD_SIZE", 1))
    each = os.environ.get("LOCAL_WORLD_SIZE", str(count()))
    return f"torchrun {f'--nnodes {machines} ' if machines > 1 else ''}--nproc-per-node {each} -m {module}"


# --- what is drawn alike ----------------------------------------------------------------------------------------------


def drawn(like: torch.Tensor, fill: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Random numbers for the worlds of this rank: its rows of what is drawn for those of all.

    Args:
        like: what has the shape and type of the result, a row a world. Shape: (N, ...).
        fill: draws in place, as `torch.Tensor.normal_`.
    """
    rows = len(like)
    return fill(like.new_empty((count() * rows, *like.shape[1:])))[rank() * rows :][:rows]


def own_steps(order: torch.Tensor, worlds: int, size: int) -> tuple[torch.Tensor, ...]:
    """This rank's steps of each minibatch.

    Args:
        order: of the steps of all ranks' rollouts. Index i is step i // N of world i % N, of N worlds in all.
        worlds: of this rank.
        size: steps of a minibatch, over all ranks.

    Returns:
        For each minibatch the indices in this rank's rollout of what is its own: about the same number everywhere.
    """
    if count() == 1:
        return order.split(size)
    world = order % (worlds * count()) - rank() * worlds
    own = (world >= 0) & (world < worlds)
    counts = torch.stack([part.sum() for part in own.split(size)]).tolist()
    return (order // (worlds * count()) * worlds + world)[own].split(counts)


# --- what is told -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _answered() -> Iterator[None]:
    """Around what waits for other ranks."""
    try:
        yield
    except RuntimeError as error:  # of gloo, of NCCL or of torch.distributed
        raise Lost("another process of this run has died, or does not answer") from error


def joined(tensor: torch.Tensor, worlds: int = 0) -> torch.Tensor:
    """What belongs to all worlds, of which each rank has its own.

    Args:
        tensor: of equal shape on every rank.
        worlds: which of its dimensions counts worlds.
    """
    if count() == 1:
        return tensor
    sent = tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor.contiguous()
    parts = [torch.empty_like(sent) for _ in range(count())]
    with _answered():
        dist.all_gather(parts, sent)
    return torch.cat(parts, worlds).to(tensor.dtype)


def moments(rows: torch.Tensor) -> tuple[int, torch.Tensor, torch.Tensor]:
    """Of the rows of all ranks: how many, their mean, their variance. rows: at least one. Shape: (B, K)."""
    mean, variance = rows.mean(0), rows.var(0, correction=0)
    if count() == 1:
        return len(rows), mean, variance
    own = torch.stack([torch.full_like(mean, len(rows)), mean, variance]).double()
    counts, means, variances = joined(own.unsqueeze(1), 1)
    total, shares = int(counts[:, 0].sum()), counts / counts.sum(0)
    mean = (shares * means).sum(0)
    return total, mean.to(rows.dtype), (shares * (variances + (means - mean) ** 2)).sum(0).to(rows.dtype)


def add_up(parameters: Iterable[torch.nn.Parameter], statistics: torch.Tensor) -> torch.Tensor:
    """Add up the gradients of all ranks, in place, and some statistics, all in one message.

    Args:
        parameters: after `backward` of this rank's part of a loss.
        statistics: this rank's part of them. Shape: (S,).

    Returns:
        The statistics, added up.
    """
    if count() == 1:
        return statistics
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    everything = torch.cat([*(gradient.flatten() for gradient in gradients), statistics])
    with _answered():
        dist.all_reduce(everything)
    *sums, statistics = everything.split([*(gradient.numel() for gradient in gradients), len(statistics)])
    for gradient, total in zip(gradients, sums, strict=True):
        gradient.copy_(total.view_as(gradient))
    return statistics


def any_of(asked: bool) -> bool:
    """Whether something holds on any rank."""
    if count() == 1:
        return asked
    # On the CPU: nobody waits for a GPU.
    return bool(joined(torch.tensor([asked])).any())


def barrier() -> None:
    """Wait until every rank has come here."""
    any_of(False)


def gathered(data: bytes) -> list[bytes]:
    """What every rank has to say, in order, on rank 0; nothing elsewhere."""
    if count() == 1:
        return [data]
    sizes = joined(torch.tensor([len(data)])).tolist()
    sent = torch.zeros(max(sizes), dtype=torch.uint8)
    sent[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    parts = [torch.empty_like(sent) for _ in sizes] if first() else None
    with _answered():
        dist.gather(sent, parts)
    return [part[:size].numpy().tobytes() for part, size in zip(parts or [], sizes, strict=False)]
