"""Files of agents: tensors in safetensors, everything else as JSON in its header, never pickle.

`write` and `read` are the format. `save` and `restore` put everything that a training run is made of into one file,
so that a run that was killed goes on from it exactly.
"""

import hashlib
import json
import random
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from stable_baselines3.common.callbacks import BaseCallback

import envs.files
from agents import ranks
from agents.networks import load_weights, weights
from agents.ppo import PPO
from agents.stepping import to_device
from envs.errors import UserError

FORMAT = 1
NAME = "checkpoint.safetensors"

Tensors = dict[str, torch.Tensor]


def _digest(tensors: Tensors, header: str) -> str:
    """SHA-256 of the tensors' names, types, shapes and bytes, in the order of their names, and of the header."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def write(path: Path, tensors: Tensors, header: dict[str, Any]) -> None:
    """Write tensors and a JSON header to one file, atomically: until it is complete and read back, the old one stays.

    Args:
        path: a .safetensors file; its folder exists.
        tensors: on any device.
        header: anything that JSON can hold.

    Raises:
        OSError: the file could not be written; the old one, if any, is as it was.
    """
    # Copies: safetensors refuses tensors that share memory, as parts of the worlds' state may.
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, **header})
    metadata = {"lanewise": text, "sha256": _digest(tensors, text)}
    with envs.files.replaced(path) as beside:
        beside.write_bytes(safetensors.torch.save(tensors, metadata))
        read(beside)


def read(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """The tensors (on the CPU) and the header that `write` wrote.

    Raises:
        UserError: the file is missing, damaged, or not one of ours.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or not a safetensors file ({error})") from None
    if "lanewise" not in metadata:
        raise UserError(f"{path} was not written by lanewise: its header lacks the entry 'lanewise'")
    if _digest(tensors, metadata["lanewise"]) != metadata.get("sha256"):
        raise UserError(f"{path} is damaged: its SHA-256 does not match its contents")
    header = json.loads(metadata["lanewise"])
    if header["format"] > FORMAT:
        raise UserError(f"{path} has format {header['format']}, newer than this lanewise reads ({FORMAT})")
    return tensors, header


def _flatten(prefix: str, value: Any, tensors: Tensors) -> Any:
    """Move the tensors out of nested dicts and lists into `tensors`; what is left can be JSON.

    A tensor becomes {"tensor": name}. Dicts have string or integer keys, given back as strings.
    """
    if isinstance(value, torch.Tensor):
        tensors[prefix] = value
        return {"tensor": prefix}
    if isinstance(value, dict):
        return {str(key): _flatten(f"{prefix}.{key}", part, tensors) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_flatten(f"{prefix}.{index}", part, tensors) for index, part in enumerate(value)]
    return value


def _unflatten(value: Any, tensors: Tensors) -> Any:
    """Undo `_flatten`."""
    if isinstance(value, dict):
        if set(value) == {"tensor"}:
            return tensors[value["tensor"]]
        return {key: _unflatten(part, tensors) for key, part in value.items()}
    if isinstance(value, list):
        return [_unflatten(part, tensors) for part in value]
    return value


def random_states() -> dict[str, Any]:
    """The states of the random generators of Python, NumPy and torch, on the CPU and on every CUDA device."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, torch.tensor(words), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Undo `random_states`."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])


def save(path: Path, model: PPO, more: dict[str, Any] | None = None) -> None:
    """Write everything that `model` and its worlds are made of, between two rollouts. All ranks call it together (see
    `agents.ranks`); rank 0 writes, and the others wait for it.

    Args:
        path: the file.
        model: trains over an `envs.sb3.SB3VecEnv`.
        more: what else to keep, of dicts, lists, numbers, strings and tensors.

    Raises:
        OSError: see `write`.
    """
    state = {
        "policy": weights(model.policy),
        "optimizer": model.policy.optimizer.state_dict(),
        "episodes": list(model.ep_info_buffer),
        "counters": {name: getattr(model, name) for name in _COUNTERS},
        "seconds": (time.time_ns() - model.start_time) / 1e9,
        "more": more or {},
    }
    own = {
        "worlds": model.env.worlds.get_state(),
        "last_obs": model._last_obs,
        "last_episode_starts": torch.as_tensor(model._last_episode_starts),
        "random": random_states(),
    }
    state |= own if ranks.count() == 1 else {"ranks": [_unpack(part) for part in ranks.gathered(_pack(own))]}
    if ranks.first():
        tensors: Tensors = {}
        header = {"kind": "checkpoint", "state": {key: _flatten(key, value, tensors) for key, value in state.items()}}
        write(path, tensors, header)
    ranks.barrier()


def _pack(state: dict[str, Any]) -> bytes:
    """Nested dicts and lists with tensors, as safetensors."""
    tensors: Tensors = {}
    text = json.dumps(_flatten("state", state, tensors)).encode()
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(tensors | {"json": torch.frombuffer(bytearray(text), dtype=torch.uint8)})


def _unpack(data: bytes) -> dict[str, Any]:
    """Undo `_pack`."""
    tensors = safetensors.torch.load(data)
    return _unflatten(json.loads(tensors.pop("json").numpy().tobytes()), tensors)


# What learning counts; the learning rate and the clip range are functions of the progress.
_COUNTERS = ("num_timesteps", "_n_updates", "_episode_num")


def restore(path: Path, model: PPO) -> dict[str, Any]:
    """Bring a model that was built with the same settings to the state that `save` wrote.

    Go on with `model.learn(total - model.num_timesteps, reset_num_timesteps=False)`.

    Returns:
        `more`, as it was given to `save`.

    Raises:
        UserError: the file is missing or damaged, of a model with other settings, or of more or fewer ranks.
    """
    tensors, header = read(path)
    if header.get("kind") != "checkpoint":
        raise UserError(f"{path} is no checkpoint")
    state = _unflatten(header["state"], tensors)
    parts = state.get("ranks", [state])
    if len(parts) != ranks.count():
        right = f"torchrun --nproc-per-node {len(parts)}" if len(parts) > 1 else "python, without torchrun"
        raise UserError(f"{path} is of {_processes(len(parts))}, and goes on only in as many: start it by {right}")
    own = parts[ranks.rank()]
    optimizer = state["optimizer"]
    optimizer["state"] = {int(index): part for index, part in optimizer["state"].items()}
    try:
        load_weights(model.policy, state["policy"])
        model.policy.optimizer.load_state_dict(optimizer)
        model.env.worlds.set_state(own["worlds"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{path} is of a run with other settings ({str(error).splitlines()[0]})") from None
    model._last_obs = to_device(own["last_obs"], model.device)
    model._last_episode_starts = to_device(own["last_episode_starts"], model.device)
    model.ep_info_buffer = deque(state["episodes"], maxlen=model._stats_window_size)
    model.ep_success_buffer = deque(maxlen=model._stats_window_size)
    for name, value in state["counters"].items():
        setattr(model, name, value)
    set_random_states(own["random"])
    return {"seconds": state["seconds"], **state["more"]}


def _processes(number: int) -> str:
    return "one process" if number == 1 else f"{number} processes"


class Interrupted(Exception):
    """The run was asked to stop, and has saved itself."""


class Checkpoints(BaseCallback):
    """Saves a run between two rollouts: before the first, every so many, and after the last.

    Args:
        save: writes everything; called with nothing.
        every: rollouts between two checkpoints.

    Attributes:
        stop_requested: set it (from a signal handler, say) to save before the next rollout and raise `Interrupted`, on
            all ranks if it is set on one.
    """

    def __init__(self, save: Callable[[], None], every: int):
        super().__init__()
        self.save, self.every = save, every
        self.rollouts = 0
        self.stop_requested = False

    def _on_rollout_start(self) -> None:
        stop = ranks.any_of(self.stop_requested)
        if self.rollouts % self.every == 0 or stop:
            self.save()
        if stop:
            raise Interrupted
        self.rollouts += 1

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self.save()
