"""WorldState: every array of the batched world, with its shape and unit.

Struct of arrays, one row a world, one column a vehicle slot; slot 0 is the ego, the others follow in the order in
which highway-env lists its vehicles. The tensors belong to torch; Warp sees the same memory through `WorldState.warp`.
"""

import functools
from dataclasses import dataclass

import torch
import warp as wp

from envs.precision import TORCH, scalar

# Kinds of what is in a slot: a driver, a vehicle under meta-actions, one under continuous actions with the kinematic
# or the dynamic bicycle model, something solid that stands, a place to be reached, a person.
ABSENT, IDM, META, PLAIN, DYNAMIC, OBSTACLE, LANDMARK, WALKER = range(8)
KINDS = {
    "absent": ABSENT,
    "idm": IDM,
    "meta": META,
    "plain": PLAIN,
    "dynamic": DYNAMIC,
    "obstacle": OBSTACLE,
    "landmark": LANDMARK,
    "walker": WALKER,
}


@dataclass(frozen=True)
class Field:
    """One array of the state.

    `scope` is "vehicle" ([world, slot]), "route" ([world, slot, step]), "signal" ([world, signal head of the map]),
    "junction" ([world, junction of the map]) or "world" ([world]); `kind` is "real" or "int".
    """

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
    Field("reach", "vehicle", "real", "m", "half of the box's diagonal; on road networks"),
    Field("lane_s", "vehicle", "real", "m", "longitudinal coordinate on that lane; on road networks"),
    Field("lane_r", "vehicle", "real", "m", "distance to the right of that lane's centre line; on road networks"),
    Field("steering", "vehicle", "real", "rad", "angle of the front wheels; under the dynamic bicycle model"),
    Field("lateral_speed", "vehicle", "real", "m/s", "speed to the right of the body; dynamic bicycle model"),
    Field("yaw_rate", "vehicle", "real", "rad/s", "turning rate; dynamic bicycle model"),
    Field("reward_share", "vehicle", "real", "1", "an agent's own reward of the last policy step"),
    Field("goal_x", "vehicle", "real", "m", "where a person walks to"),
    Field("goal_y", "vehicle", "real", "m", "the same, across"),
    Field("patience", "vehicle", "real", "s", "how long a person still waits before stepping out"),
    Field("lane", "vehicle", "int", "1", "index of the closest lane"),
    Field("target_lane", "vehicle", "int", "1", "index of the lane that is steered to"),
    Field("proposed_lane", "vehicle", "int", "1", "target lane after this frame's decision, before conflicts"),
    Field("speed_index", "vehicle", "int", "1", "index of the target speed of a vehicle under meta-actions"),
    Field("kind", "vehicle", "int", "1", "what is in the slot, see `KINDS`; 0 where nothing is"),
    Field("form", "vehicle", "int", "1", "what it looks like, see `FORMS`"),
    Field("look", "vehicle", "int", "1", "number of its paint or clothing, 0 for a random draw"),
    Field("changes_lanes", "vehicle", "int", "1", "1 where its driver may decide on a lane change"),
    Field("yields", "vehicle", "int", "1", "1 while its driver gives way at a crossing"),
    Field("sequence", "vehicle", "int", "1", "place in the order in which vehicles are visited"),
    Field("route_at", "vehicle", "int", "1", "next step of the route"),
    Field("route_end", "vehicle", "int", "1", "number of steps of the route, 0 without one"),
    Field("route", "route", "int", "1", "64 * road + 1 + place on it, or 64 * road where any place will do"),
    Field("finished", "vehicle", "int", "1", "1 where an agent has crashed or reached its destination"),
    Field("crashed", "vehicle", "int", "1", "1 after a collision"),
    Field("has_impact", "vehicle", "int", "1", "1 while a displacement waits to be applied"),
    Field("checks_collisions", "vehicle", "int", "1", "1 where collisions of this vehicle with any other count"),
    Field("order", "vehicle", "int", "1", "slots sorted by (x, slot)"),
    Field("rank", "vehicle", "int", "1", "place of a slot in `order`"),
    Field("world_id", "world", "int", "1", "identity of the world in the random streams"),
    Field("episode", "world", "int", "1", "number of the episode in this world, from 0"),
    Field("signal", "signal", "int", "1", "what a signal head shows, see `envs.roads.signals`"),
    Field("phase", "junction", "int", "1", "phase of a junction's plan: 2 k while phase k is green, 2 k + 1 after it"),
    Field("phase_time", "junction", "real", "s", "time since that began"),
    Field("red_lights", "world", "int", "1", "red lights that the ego has run in this episode"),
    Field("box_time", "world", "real", "s", "time that the ego has stood inside a junction in this episode"),
    Field("green_wait", "world", "real", "s", "time that the ego has stood at a green light with a free road ahead"),
    Field("map", "world", "int", "1", "number of the map that the world drives on"),
    Field("frame", "world", "int", "1", "simulation frames since the episode began, those before its start included"),
    Field("arrivals", "world", "int", "1", "how many have entered; the sequence of the next one"),
    Field("used", "world", "int", "1", "slots up to the last that is not empty: laws look no further"),
    Field("success", "world", "int", "1", "1 where the ego had reached its goal by the end of the last step"),
    Field("reference_lane", "world", "int", "1", "the lane to be kept, where the task is that"),
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
DIMENSIONS = {"route": 3, "signal": 2, "junction": 2, "world": 1}

# What things look like to a camera.
FORMS = ("car", "van", "truck", "bus", "person", "cyclist", "cone", "barrier", "debris", "wall", "ground marking")


@functools.cache
def vehicle_struct(real: type):
    """What a slot holds: every field of scope "vehicle", reals before integers."""
    fields = sorted((field for field in FIELDS if field.scope == "vehicle"), key=lambda field: field.kind != "real")
    annotations = {field.name: real if field.kind == "real" else wp.int32 for field in fields}
    return wp.struct(type("Vehicle", (), {"__annotations__": annotations, "__module__": __name__}))


@functools.cache
def world_struct(real: type):
    """The struct that kernels receive: the slots, an array for each other field, the numbers of slots and agents."""
    annotations = {"vehicle": wp.array(dtype=vehicle_struct(real), ndim=2)}
    for field in FIELDS:
        if field.scope != "vehicle":
            element = real if field.kind == "real" else wp.int32
            annotations[field.name] = wp.array(dtype=element, ndim=DIMENSIONS[field.scope])
    annotations["slots"] = wp.int32
    annotations["agents"] = wp.int32
    return wp.struct(type("World", (), {"__annotations__": annotations, "__module__": __name__}))


class WorldState:
    """The arrays of a batch of worlds, each an attribute of the name in `FIELDS`.

    Args:
        num_worlds: number of worlds, N.
        slots: vehicle slots a world, V; the first are the agents', of which slot 0 is the ego.
        device: where the tensors live.
        dtype: "float32" or "float64".
        route_steps: the longest route, R.
        agents: vehicles that are told what to do, A.
        signals, junctions: the most that a map has, at least 1.

    Attributes:
        tensors: name -> tensor. Shape: (N, V) for a vehicle's field, (N, V, R) for routes, (N,) for a world's.
        warp: the Warp struct over the same memory.
    """

    def __init__(
        self,
        num_worlds: int,
        slots: int,
        device: torch.device,
        dtype: str = "float32",
        route_steps: int = 1,
        agents: int = 1,
        signals: int = 1,
        junctions: int = 1,
    ):
        self.num_worlds, self.slots, self.device, self.dtype = num_worlds, slots, device, dtype
        self.route_steps, self.agents = route_steps, agents
        self.warp = world_struct(scalar(dtype))()
        self.warp.slots, self.warp.agents = slots, agents
        self.tensors: dict[str, torch.Tensor] = {}
        shapes = {
            "route": (num_worlds, slots, route_steps),
            "signal": (num_worlds, signals),
            "junction": (num_worlds, junctions),
            "world": (num_worlds,),
        }
        self._add_vehicles(num_worlds, slots)
        for field in FIELDS:
            if field.scope == "vehicle":
                continue
            shape = shapes[field.scope]
            tensor = torch.zeros(shape, dtype=TORCH[dtype] if field.kind == "real" else torch.int32, device=device)
            self.tensors[field.name] = tensor
            setattr(self.warp, field.name, wp.from_torch(tensor))
        self.order.copy_(torch.arange(slots, dtype=torch.int32, device=device))
        self.sequence.copy_(self.order)
        self.used.fill_(slots)
        self.rank.copy_(self.order)
        self.world_id.copy_(torch.arange(num_worlds, dtype=torch.int32, device=device))

    def _add_vehicles(self, num_worlds: int, slots: int) -> None:
        """One struct a slot in memory, and each of its fields as a tensor that looks into them."""
        Vehicle = vehicle_struct(scalar(self.dtype))
        size = wp.types.type_size_in_bytes(Vehicle)
        memory = torch.zeros((num_worlds, slots, size), dtype=torch.uint8, device=self.device)
        for name, variable in Vehicle.vars.items():
            dtype = torch.int32 if variable.type is wp.int32 else TORCH[self.dtype]
            offset = getattr(Vehicle.ctype, name).offset
            self.tensors[name] = memory.view(dtype)[..., offset // dtype.itemsize]
        device = wp.device_from_torch(self.device)
        self.warp.vehicle = wp.array(ptr=memory.data_ptr(), shape=(num_worlds, slots), dtype=Vehicle, device=device)
        self._memory = memory

    def __getattr__(self, name: str) -> torch.Tensor:
        try:
            return self.__dict__["tensors"][name]
        except KeyError:
            raise AttributeError(name) from None
