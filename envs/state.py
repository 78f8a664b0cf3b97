"""WorldState: every array of the batched world, with its shape and unit.

Struct of arrays, one row a world, one column a vehicle slot; slot 0 is the ego, the others follow in the order in
which highway-env lists its vehicles. The tensors belong to torch; Warp sees the same memory through `WorldState.warp`.
"""

import functools
from dataclasses import dataclass

import torch
import warp as wp

from envs.precision import TORCH, scalar

# Kinds of vehicle in a slot.
ABSENT, IDM, META, PLAIN = 0, 1, 2, 3
KINDS = {"absent": ABSENT, "idm": IDM, "meta": META, "plain": PLAIN}


@dataclass(frozen=True)
class Field:
    """One array of the state. `scope` is "vehicle" ([world, slot]) or "world" ([world]); `kind` is "real" or "int"."""

    name: str
    scope: str
    kind: str
    unit: str
    meaning: str


FIELDS = (
    Field("x", "vehicle", "real", "m", "position along the road's axis, of the box's centre"),
    Field("y", "vehicle", "real", "m", "position across the road, growing to the right"),
    Field("heading", "vehicle", "real", "rad", "direction of the body, 0 along +x, growing towards +y"),
    Field("cos_heading", "vehicle", "real", "1", "cosine of the heading"),
    Field("sin_heading", "vehicle", "real", "1", "sine of the heading"),
    Field("speed", "vehicle", "real", "m/s", "speed of the centre"),
    Field("sin_slip", "vehicle", "real", "1", "sine of the slip angle at the centre, from the steering command"),
    Field("acceleration", "vehicle", "real", "m/s2", "commanded acceleration"),
    Field("target_speed", "vehicle", "real", "m/s", "desired speed; 0 for a plain vehicle"),
    Field("exponent", "vehicle", "real", "1", "IDM's exponent of the free-road term"),
    Field("timer", "vehicle", "real", "s", "time since the last lane-change decision"),
    Field("impact_x", "vehicle", "real", "m", "displacement that the next integration applies after a collision"),
    Field("impact_y", "vehicle", "real", "m", "the same, across the road"),
    Field("length", "vehicle", "real", "m", "length of the box"),
    Field("width", "vehicle", "real", "m", "width of the box"),
    Field("height", "vehicle", "real", "m", "height of the box"),
    Field("lane", "vehicle", "int", "1", "index of the closest lane"),
    Field("target_lane", "vehicle", "int", "1", "index of the lane that is steered to"),
    Field("proposed_lane", "vehicle", "int", "1", "target lane after this frame's decision, before conflicts"),
    Field("speed_index", "vehicle", "int", "1", "index of the target speed of a vehicle under meta-actions"),
    Field("kind", "vehicle", "int", "1", "0 absent, 1 IDM, 2 under meta-actions, 3 plain (continuous actions)"),
    Field("crashed", "vehicle", "int", "1", "1 after a collision"),
    Field("has_impact", "vehicle", "int", "1", "1 while a displacement waits to be applied"),
    Field("checks_collisions", "vehicle", "int", "1", "1 where collisions of this vehicle with any other count"),
    Field("order", "vehicle", "int", "1", "slots sorted by (x, slot)"),
    Field("rank", "vehicle", "int", "1", "place of a slot in `order`"),
    Field("world_id", "world", "int", "1", "identity of the world in the random streams"),
    Field("episode", "world", "int", "1", "number of the episode in this world, from 0"),
    Field("time", "world", "real", "s", "time since the episode began"),
    Field("reward", "world", "real", "1", "reward of the last policy step"),
    Field("terminated", "world", "int", "1", "1 where the last step ended the episode by its own rules"),
    Field("truncated", "world", "int", "1", "1 where the last step ended the episode by its time limit"),
    Field("ego_speed", "world", "real", "m/s", "speed of the ego at the end of the last step, before any reset"),
    Field("ego_crashed", "world", "int", "1", "1 where the ego had crashed by the end of the last step"),
    Field("final_return", "world", "real", "1", "sum of rewards of the last episode that ended"),
    Field("final_length", "world", "int", "1", "policy steps of the last episode that ended"),
    Field("episode_return", "world", "real", "1", "sum of rewards since the episode began"),
    Field("episode_length", "world", "int", "1", "policy steps since the episode began"),
)
BY_NAME = {field.name: field for field in FIELDS}
VEHICLE_FIELDS = tuple(field for field in FIELDS if field.scope == "vehicle")


@functools.cache
def world_struct(real: type):
    """The Warp struct that kernels receive: one array a field, and the number of slots."""
    annotations = {}
    for field in FIELDS:
        element = real if field.kind == "real" else wp.int32
        annotations[field.name] = (
            wp.array2d(dtype=element) if field.scope == "vehicle" else wp.array(dtype=element)
        )
    annotations["slots"] = wp.int32
    return wp.struct(type("World", (), {"__annotations__": annotations, "__module__": __name__}))


class WorldState:
    """The arrays of a batch of worlds, each an attribute of the name in `FIELDS`.

    Args:
        num_worlds: number of worlds, N.
        slots: vehicle slots a world, V; slot 0 is the ego.
        device: where the tensors live.
        dtype: "float32" or "float64".

    Attributes:
        tensors: name -> tensor. Shape: (N, V) for a vehicle's field, (N,) for a world's.
        warp: the Warp struct over the same memory.
    """

    def __init__(self, num_worlds: int, slots: int, device: torch.device, dtype: str = "float32"):
        self.num_worlds, self.slots, self.device, self.dtype = num_worlds, slots, device, dtype
        self.warp = world_struct(scalar(dtype))()
        self.warp.slots = slots
        self.tensors: dict[str, torch.Tensor] = {}
        for field in FIELDS:
            shape = (num_worlds, slots) if field.scope == "vehicle" else (num_worlds,)
            tensor = torch.zeros(shape, dtype=TORCH[dtype] if field.kind == "real" else torch.int32, device=device)
            self.tensors[field.name] = tensor
            setattr(self.warp, field.name, wp.from_torch(tensor))
        self.order.copy_(torch.arange(slots, dtype=torch.int32, device=device))
        self.rank.copy_(self.order)
        self.world_id.copy_(torch.arange(num_worlds, dtype=torch.int32, device=device))

    def __getattr__(self, name: str) -> torch.Tensor:
        try:
            return self.__dict__["tensors"][name]
        except KeyError:
            raise AttributeError(name) from None
