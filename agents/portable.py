"""Trained policies as ONNX models, and ONNX models as policies.

A model takes observations as the worlds give them, uint8 images and float32 vectors, of any number N of worlds; the
scaling of pixels, the encoder and the normalisation of vectors are inside. Its outputs, by the kind of policy:

    meta-actions                 "logits" (N, A), their log-probabilities, and "value" (N,)
    throttle and steering        "mean" (N, K), before it is clipped to [-1, 1], "deviation" (N, K), and "value" (N,)
    action values (DQN, PQN)     "action_values" (N, A), and "value" (N,), that of the best

Everything is computed in float32, whatever the machine has that exports it.
"""

import copy
import json
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

import envs
from agents import features
from agents.networks import CameraExtractor, QNetwork
from agents.policies import TrainedPolicy
from envs.sensors import rig
from perception import encoders

OPSET = 20
NORMALISATION = "inside the model: images as filmed, 0 to 255; everything else as the worlds give it"

Tensors = dict[str, torch.Tensor]


class PlainEncoder(nn.Module):
    """An encoder in operations that ONNX has: the same arithmetic without reinterpreted bytes, in float32.

    Args:
        encoder: of `perception.encoders`.
    """

    def __init__(self, encoder: encoders.Encoder):
        super().__init__()
        self.encoder, self.features = encoder, encoder.features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images uint8 [B, C, H, W] -> features float32 [B, features]."""
        maps = self.encoder.convolve(images.float() - 128)
        return self.encoder.norm(self.encoder.projection(maps.flatten(1)))


class Portable(nn.Module):
    """A policy as a function of its observations.

    Args:
        policy: what to export; it is copied.

    Attributes:
        inputs: names of the observations, in the order of `forward`'s arguments.
        outputs: names of what it returns.
    """

    def __init__(self, policy: TrainedPolicy):
        super().__init__()
        self.network = copy.deepcopy(policy.network)
        self.encoder = None if policy.encoder is None else PlainEncoder(copy.deepcopy(policy.encoder))
        extractor = self.network.features_extractor
        if isinstance(extractor, CameraExtractor):
            self.inputs = [extractor.image, *extractor.names]
            extractor.encoder = PlainEncoder(extractor.encoder)
        else:
            self.inputs = list(extractor.names) if self.encoder is None else ["camera", *policy.told]
        if isinstance(self.network, QNetwork):
            self.outputs = ["action_values", "value"]
        elif isinstance(self.network.action_space, spaces.Discrete):
            self.outputs = ["logits", "value"]
        else:
            self.outputs = ["mean", "deviation", "value"]

    def forward(self, *observed: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Observations in the order of `inputs` -> what `outputs` names."""
        obs = dict(zip(self.inputs, observed, strict=True))
        seen = obs if self.encoder is None else features.encode(self.encoder, obs, self.inputs[1:])
        if isinstance(self.network, QNetwork):
            values = self.network(seen)
            return values, values.amax(1)
        values, shown = self.network.values_and_distributions(seen)
        return (shown, values.squeeze(1)) if shown.ndim == 2 else (*shown.unbind(1), values.squeeze(1))


def shapes(policy: TrainedPolicy) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Name -> type and shape of one world's observation, of what an exported policy takes."""
    known = {name: tuple(shape) for name, shape in policy.header["observation"].items()}
    inputs = Portable(policy).inputs
    return {name: (torch.uint8 if name in ("camera", "bev") else torch.float32, known[name]) for name in inputs}


def to_onnx(policy: TrainedPolicy) -> Any:
    """A policy as an `onnx.ModelProto`, with its batch dimension free and `metadata` in it."""
    import onnx

    portable = Portable(policy).cpu().eval()
    batch = torch.export.Dim("batch", min=1)
    given = tuple(torch.zeros(3, *shape, dtype=dtype) for dtype, shape in shapes(policy).values())
    program = torch.onnx.export(
        portable,
        given,
        input_names=portable.inputs,
        output_names=portable.outputs,
        opset_version=OPSET,
        dynamic_shapes=(tuple({0: batch} for _ in given),),
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto
    onnx.helper.set_model_props(model, metadata(policy))
    return model


def metadata(policy: TrainedPolicy) -> dict[str, str]:
    """What has to be known to drive by a model; lists and dicts as JSON."""
    header = policy.header
    scenario = envs.scenarios.get(header["scenario"])
    actions = scenario.actions
    ranges = {"throttle": actions.acceleration_range, "steering": actions.steering_range}
    axes = [name for name in ranges if getattr(actions, name)]
    inputs = {
        name: {"dtype": str(dtype).removeprefix("torch."), "shape": ["N", *shape]}
        for name, (dtype, shape) in shapes(policy).items()
    }
    known: dict[str, Any] = {
        "policy": policy.name,
        "algorithm": header.get("algorithm", ""),
        "scenario": header["scenario"],
        "family": header["family"],
        "inputs": inputs,
        "normalisation": NORMALISATION,
        "actions": list(actions.names) or axes,
        "policy_frequency_hz": scenario.policy_frequency,
    }
    if not actions.names:
        known["action_ranges"] = {name: list(ranges[name]) for name in axes}
    if "camera" in inputs:
        options = header["env_options"]
        known |= {"rig": encoders.describe(rig.get(options.get("rig", "surround"))), "frames": options["frames"]}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in known.items()}


class OnnxPolicy:
    """An exported model at the wheel, by onnxruntime on the CPU. See `agents.policies.Policy`.

    It uses as many threads as torch does.

    Args:
        model: the file's bytes, or its path.
        env_options: of the policy that was exported.
        name: for reports.
        alone: run the model once a world. A model in 8 bits scales the inputs of a batch together, so that a world's
            actions would depend on its company.
    """

    def __init__(self, model: bytes | str, env_options: dict[str, Any], name: str, alone: bool = False):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = 3  # errors
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.inputs = [given.name for given in self.session.get_inputs()]
        self.outputs = [given.name for given in self.session.get_outputs()]
        self.env_options, self.name, self.alone = dict(env_options), name, alone

    def explain(self, obs: Tensors) -> Tensors:
        """The model's outputs by name, for the observations of N worlds."""
        given = {name: obs[name].numpy(force=True) for name in self.inputs}
        rows = len(next(iter(given.values())))
        batches = [slice(k, k + 1) for k in range(rows)] if self.alone else [slice(None)]
        parts = [self.session.run(self.outputs, {name: x[part] for name, x in given.items()}) for part in batches]
        columns = (np.concatenate([part[k] for part in parts]) for k in range(len(self.outputs)))
        return {name: torch.from_numpy(column) for name, column in zip(self.outputs, columns, strict=True)}

    def act(self, obs: Tensors) -> torch.Tensor:
        """See `agents.policies.Policy`."""
        return greedy(self.explain(obs))

    def reset(self, done: torch.Tensor | None = None) -> None:
        """It remembers nothing."""


def greedy(outputs: Tensors) -> torch.Tensor:
    """The actions that a model's outputs come down to. Shape: (N,) int64 or (N, K)."""
    if "mean" in outputs:
        return outputs["mean"].clamp(-1, 1)
    return outputs["logits" if "logits" in outputs else "action_values"].argmax(1)
