"""Export a trained policy as an ONNX model, and check that it decides as the policy does.

    python -m agents.export --policy zoo/highway-ppo --out policy.onnx
    python -m agents.export --policy runs/student --out small.onnx --int8 --episodes 200

Camera images or state in, the distribution over actions (or action values) and the value out; the encoder is part of
it. See `agents.portable` for names and shapes, and the model's metadata_props for what else driving needs.

A command: unlike the rest of this package it stands above `evaluation`, whose statistics it uses.
"""

import contextlib
import dataclasses
import importlib.util
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.progress import track

import envs
from agents import policies
from agents.policies import TrainedPolicy
from agents.portable import OnnxPolicy, greedy, to_onnx
from agents.reference_drivers import DRIVERS
from envs import files
from envs.errors import UserError, exit_on_user_error
from envs.interruption import interruptible
from evaluation import backends
from evaluation.recorder import BLOCK, HELD_OUT_SEED
from evaluation.statistics import Pairs, compare_pairs
from perception.encoders import single_precision

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
SEED = 900_000  # of the worlds whose observations are compared, which nothing is trained or evaluated in
WORLDS, STEPS = 32, 32
FLOOR = -50.0  # of log-probabilities
# Outputs of the model and of the policy in float32 may differ by this much. Features are rounded to half precision, so
# that a last bit of an encoder's arithmetic can become 1/2048 of a feature.
TOLERANCE = 5e-3


@dataclass(frozen=True)
class Args:
    """Export a trained policy as an ONNX model."""

    policy: str
    """run directory or zoo/NAME"""
    out: Path
    """the file, new"""
    tolerance: float = TOLERANCE
    """largest difference of any output from the policy's in float32; beyond it nothing is written"""
    int8: bool = False
    """dense layers in 8 bits; their cost in return is measured and told"""
    episodes: int = 100
    """in which the 8-bit and the float model drive, to see that cost"""


@dataclass(frozen=True)
class Parity:
    """How far a model is from its policy, on observations that the policy came to.

    Attributes:
        observations: how many.
        difference: the largest of any output, from the policy in float32.
        same_actions: share of equal greedy actions; of continuous ones, of those equal within the tolerance.
        same_actions_here: the same against the policy as it drives on this machine, in bfloat16 where that has it.
    """

    observations: int
    difference: float
    same_actions: float
    same_actions_here: float


def load(spec: str) -> TrainedPolicy:
    """The policy that is to be exported.

    Raises:
        UserError: there is none of that name, or it has no network.
    """
    if spec.partition("+")[0] in ("random", "idm", *DRIVERS):
        raise UserError(
            f"'{spec}' has no network to export: name a run directory or one of {', '.join(policies.zoo())}"
        )
    policy = policies.load(spec, backends.trained_on(spec) or "highway")
    if policy.remembers:
        raise UserError(
            f"'{spec}' remembers what it saw (--policy lstm), and a model decides from one observation: it cannot be "
            "exported"
        )
    return policy


def check(args: Args) -> None:
    """Raise UserError for what cannot be done, before anything is."""
    for name in PACKAGES:
        if importlib.util.find_spec(name) is None:
            raise UserError(f'exporting needs the package {name}: pip install "lanewise[onnx]"')
    if args.out.exists():
        raise UserError(f"{args.out} exists: choose another --out")
    if not args.out.parent.is_dir():
        raise UserError(f"there is no folder {args.out.parent} to write {args.out.name} to")
    if not args.tolerance > 0:
        raise UserError(f"--tolerance must be positive, not {args.tolerance}")
    if args.episodes < 2:
        raise UserError(f"--episodes must be at least 2, not {args.episodes}")


def main() -> None:
    args = tyro.cli(Args)
    check(args)
    with interruptible() as interruption:
        try:
            told = export(args)
        except KeyboardInterrupt:
            print(f"interrupted; {args.out} was not written", file=sys.stderr)
            raise SystemExit(interruption.exit_code) from None
    print("\n".join(told))


def export(args: Args) -> list[str]:
    """Export a policy, and return what is to be told about it, line by line.

    Raises:
        UserError: bad input, or the model decides otherwise than the policy; nothing was written.
    """
    check(args)
    policy = load(args.policy)
    with quiet():
        model = to_onnx(policy)
    exact = OnnxPolicy(model.SerializeToString(), policy.env_options, "float32")
    found = parity(policy, exact, args.tolerance)
    if not found.difference <= args.tolerance:
        raise UserError(
            f"the model's outputs differ from the policy's by up to {found.difference:.2g}, more than --tolerance "
            f"{args.tolerance:g}; nothing was written"
        )
    told = [sentence("the model", found)]
    properties = {"source_sha256": backends.digest(args.policy), "parity": json.dumps(dataclasses.asdict(found))}
    if args.int8:
        with quiet():
            model = quantised(model)
        coarse = OnnxPolicy(model.SerializeToString(), policy.env_options, "int8", alone=True)
        off = parity(policy, coarse, args.tolerance)
        told += [sentence("in 8 bits", off), *cost(policy, exact, coarse, args.episodes)]
        properties |= {"quantisation": "weights of dense layers in int8, their inputs as they come"}
        properties |= {"parity": json.dumps(dataclasses.asdict(off))}
    written = with_properties(model, properties)
    files.write(args.out, written)
    return [*told, f"{args.out}  {len(written) / 1e6:.2f} MB"]


# --- how near it is ---------------------------------------------------------------------------------------------------


def reference(policy: TrainedPolicy, obs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the policy explains, under the names of a model's outputs."""
    explained = policy.explain(obs)
    if "probabilities" in explained:
        explained["logits"] = explained.pop("probabilities").log()
    return explained


def parity(policy: TrainedPolicy, model: OnnxPolicy, tolerance: float) -> Parity:
    """Compare a model with its policy on what the policy sees as it drives, in batches and alone."""
    worlds = envs.make_vec(policy.header["scenario"], WORLDS, device="cpu", seed=SEED, **policy.env_options)
    obs, _ = worlds.reset()
    differences, same, same_here = [], [], []
    for _ in range(STEPS):
        ours = model.explain(obs)
        actions = policy.act(obs)
        with single_precision():
            theirs = reference(policy, obs)
        alone = model.explain({name: tensor[:1] for name, tensor in obs.items()})
        for name, output in ours.items():
            # Nobody tells apart what has a probability below exp(FLOOR).
            a, b, c = (x.clamp(min=FLOOR) if name == "logits" else x for x in (output, theirs[name], alone[name]))
            differences += [(a - b).abs().max(), (c - b[:1]).abs().max()]
        same.append(equal(greedy(ours), greedy(theirs), tolerance))
        same_here.append(equal(greedy(ours), actions, tolerance))
        obs, *_ = worlds.step(actions)
    worlds.close()
    shares = [torch.cat(kept).float().mean().item() for kept in (same, same_here)]
    return Parity(WORLDS * STEPS, torch.stack(differences).max().item(), *shares)


def equal(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> torch.Tensor:
    """In which worlds actions are equal, continuous ones within a tolerance. Shape: (N,) bool."""
    return a == b if a.ndim == 1 else ((a - b).abs() <= tolerance).all(1)


def sentence(what: str, found: Parity) -> str:
    """What is told about a parity."""
    return (
        f"{what}: {found.observations:,} observations, outputs differ from the policy's in float32 by at most "
        f"{found.difference:.2g}; equal greedy actions {found.same_actions:.2%}, with the policy as it drives here "
        f"{found.same_actions_here:.2%}"
    )


# --- 8 bits -----------------------------------------------------------------------------------------------------------


def quantised(model: Any) -> Any:
    """A model whose dense layers multiply in 8 bits: a scale for each output's weights, and one for the inputs, found
    as they come. Convolutions, which hold few of the weights, stay in float32.
    """
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(model, path, op_types_to_quantize=["Gemm", "MatMul"], per_channel=True)
        made = onnx.load(path)
    onnx.helper.set_model_props(made, {entry.key: entry.value for entry in model.metadata_props})
    return made


def drive(policy: OnnxPolicy, scenario: str, episodes: int) -> dict[str, np.ndarray]:
    """ "return" and "crashed" of held-out episodes, which are the same for every policy. Shape: (episodes,) each."""
    found: dict[str, list[torch.Tensor]] = {"return": [], "crashed": []}
    for first in track(range(0, episodes, BLOCK), f"{policy.name} drives", disable=not sys.stdout.isatty()):
        count = min(BLOCK, episodes - first)
        worlds = envs.make_vec(scenario, count, device="cpu", **policy.env_options)
        obs, _ = worlds.reset(seed=HELD_OUT_SEED, first_world=first)
        running = torch.ones(count, dtype=torch.bool)
        returns, crashed = torch.zeros(count), torch.zeros(count)
        while running.any():
            obs, *_, info = worlds.step(policy.act(obs))
            ended = running & info["_final_obs"]
            returns[ended], crashed[ended] = info["episode_return"].float()[ended], info["crashed"].float()[ended]
            running &= ~ended
        worlds.close()
        found["return"].append(returns)
        found["crashed"].append(crashed)
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def cost(policy: TrainedPolicy, exact: OnnxPolicy, coarse: OnnxPolicy, episodes: int) -> list[str]:
    """What 8 bits cost, in episodes that both models drive, line by line."""
    scenario = policy.header["scenario"]
    a, b = (drive(model, scenario, episodes) for model in (exact, coarse))
    kinds = {"return": "mean", "crashed": "rate"}
    apart: dict[str, Pairs] = {name: compare_pairs(a[name], b[name], kind) for name, kind in kinds.items()}
    returned, crashed = apart["return"], apart["crashed"]
    return [
        f"return {returned.b:.2f} in 8 bits, {returned.a:.2f} in float32, over the same {episodes} episodes of "
        f"'{scenario}': {returned.difference:+.2f} (95 % interval {returned.low:+.2f} to {returned.high:+.2f})",
        f"crashed in {crashed.b:.1%} and {crashed.a:.1%}: {crashed.difference:+.1%} "
        f"(95 % interval {crashed.low:+.1%} to {crashed.high:+.1%})",
    ]


# --- files ------------------------------------------------------------------------------------------------------------


def with_properties(model: Any, more: dict[str, str]) -> bytes:
    """A model with more metadata, as a file holds it."""
    import onnx

    onnx.helper.set_model_props(model, {entry.key: entry.value for entry in model.metadata_props} | more)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' advice about operators of packages that are not here."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


if __name__ == "__main__":
    exit_on_user_error(main)
