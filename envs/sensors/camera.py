"""The camera: what a rig sees of every world, as colour, depth and semantic class, on a CPU or a GPU.

Everything that stands on the road is an upright prism. `columns` says which of them an image column meets, `bodies`,
`heads` and `surfaces` what they, signals and the ground look like, `painter` fills the pixels.
"""

import math

import numpy as np
import torch
import warp as wp
from gymnasium import spaces

from envs.errors import UserError, unknown
from envs.launch import Launch
from envs.phases import ENDED
from envs.sensors import appearance, columns, heads, painter, rig, surfaces
from envs.sensors.columns import FACTS, MAX_CANDIDATES, SIGHT
from envs.sensors.surfaces import CLASSES
from envs.sensors.vehicle_list import per_agent

CHANNELS = ("rgb", "depth", "semantic")
# Threads that share the frames of one world on a GPU.
COPY_STRIDE = 256


class Camera:
    """What a rig of cameras sees of every world.

    Outputs: "camera" (N, frames * 3, H, W) uint8, RGB, oldest frame first; with "depth" and "semantic" among
    `channels` also "depth" (N, H, W) float32, distance along the ground [m], and "semantic" (N, H, W) uint8, see
    `CLASSES`. With A > 1 agents all begin with (N, A, ...): each films from where it is. Of several agents' goals each
    sees its own.

    Args:
        simulation: the worlds.
        rig: name of a rig, or a `envs.sensors.rig.Rig`.
        frames: frames a stack holds, one a policy step.
        randomize: draw a new appearance for every episode.
        channels: which of `CHANNELS` to fill.
    """

    def __init__(
        self,
        simulation,
        mounted: str | rig.Rig = "surround",
        frames: int = 2,
        randomize: bool = False,
        channels: tuple[str, ...] = ("rgb",),
    ):
        for channel in channels:
            if channel not in CHANNELS:
                raise unknown("camera channel", channel, CHANNELS)
        self.rig = rig.get(mounted)
        if self.rig.width * self.rig.height % 16:
            raise UserError(f"a rig's image must have a multiple of 16 pixels, not {self.rig.height}x{self.rig.width}")
        self._simulation, self._frames, self._randomize = simulation, frames, int(randomize)
        tiled = simulation.maps is not None
        self._columns, self._surfaces = columns.build(simulation.real), surfaces.build(simulation.real, tiled)
        filled = tuple(channel for channel in CHANNELS if channel in channels)
        signals = any(network.signals for network in simulation.maps or ())
        self._painter = painter.build(simulation.real, filled, tiled, signals)
        n, agents, device = simulation.num_worlds, simulation.state.agents, simulation.device
        height, width = self.rig.height, self.rig.width

        def zeros(*shape, dtype=torch.float32):
            return torch.zeros(shape, dtype=dtype, device=device)

        self.outputs: dict[str, torch.Tensor] = {}
        self.spaces: dict[str, spaces.Box] = {}

        def add(name: str, shape: tuple[int, ...], high: float, dtype: type):
            shape = per_agent(simulation, *shape)
            self.outputs[name] = zeros(n, *shape, dtype=torch.uint8 if dtype is np.uint8 else torch.float32)
            self.spaces[name] = spaces.Box(0, high, shape, dtype)

        if "rgb" in channels:
            add("camera", (frames * 3, height, width), 255, np.uint8)
        if "depth" in channels:
            add("depth", (height, width), SIGHT, np.float32)
        if "semantic" in channels:
            add("semantic", (height, width), len(CLASSES) - 1, np.uint8)
        self.finals = {name: torch.zeros_like(output) for name, output in self.outputs.items()}
        self._images = [self._images_of(agent) for agent in range(agents)]

        cameras, candidates = len(self.rig.cameras), MAX_CANDIDATES + heads.MAX_HEADS * signals
        slots = simulation.state.slots
        # What an episode looks like is part of its state; the rest of the scratch is made anew for every image.
        self.memory = {"look": zeros(n, len(appearance.NAMES)), "paint": zeros(n, slots, 3)}
        self._scratch_tensors = {
            **self.memory,
            "facts": zeros(n, candidates, FACTS),
            "slot": zeros(n, candidates, dtype=torch.int32),
            "first_column": zeros(n, cameras, candidates),
            "last_column": zeros(n, cameras, candidates),
            "count": zeros(n, dtype=torch.int32),
            "rows": zeros(n, height, 4),
        }
        self._scratch = self._columns.Scratch()
        for name, tensor in self._scratch_tensors.items():
            dtype = wp.vec4f if name == "rows" else None
            setattr(self._scratch, name, wp.from_torch(tensor, dtype=dtype))
        self._tables = self._rig_tables()
        self._ground = surfaces.table(simulation)
        self._heads = heads.table(simulation.maps, simulation.real, simulation.warp_device) if signals else None
        self._bounds = self._array(np.array(list(appearance.QUANTITIES.values()), dtype=np.float32))
        self._colours = self._array(np.array(appearance.BODY_COLOURS, dtype=np.float32))

    def _of_agent(self, name: str, agent: int) -> torch.Tensor:
        """One agent's part of an output. Shape: (N, ...)."""
        output = self.outputs[name]
        return output if self._simulation.state.agents == 1 else output[:, agent]

    def _images_of(self, agent: int):
        images = self._painter.Images()
        images.latest = 3 * (self._frames - 1)
        for name, field in (("camera", "rgb"), ("depth", "depth"), ("semantic", "semantic")):
            if name in self.outputs:
                setattr(images, field, wp.from_torch(self._of_agent(name, agent)))
        return images

    def _array(self, values: np.ndarray) -> wp.array:
        return wp.array(values, device=self._simulation.warp_device)

    def _rig_tables(self):
        cameras = self.rig.cameras
        tables = self._columns.RigTables()
        tables.directions = self._array(np.concatenate([c.directions() for c in cameras]).astype(np.float32))
        columns = {
            "forward": [c.forward for c in cameras],
            "elevation": [c.elevation for c in cameras],
            "horizon": [c.horizon for c in cameras],
            "rows_per_unit": [c.rows_per_unit for c in cameras],
            "columns_per_unit": [c.columns_per_unit for c in cameras],
            "yaw": [math.radians(c.yaw) for c in cameras],
        }
        for name, values in columns.items():
            setattr(tables, name, self._array(np.array(values, dtype=np.float32)))
        tables.round_view = self._array(np.array([c.projection == "cylindrical" for c in cameras], dtype=np.int32))
        tables.rows = self._array(np.array([c.height for c in cameras], dtype=np.int32))
        tables.first_row = self._array(np.cumsum([0] + [c.height for c in cameras])[:-1].astype(np.int32))
        tables.width, tables.cameras = self.rig.width, len(cameras)
        return tables

    def launches(self, which: int, restart: bool = False) -> list[Launch]:
        """See `envs.sensors.base.Sensor`."""
        program = []
        if restart or which == ENDED:
            seed = wp.from_torch(self._simulation.seed, dtype=wp.uint64)
            inputs = (seed, self._bounds, self._colours, self._randomize, which)
            program.append(Launch(self._painter.dress, (), (self._simulation.state.warp, self._scratch, *inputs)))
        for agent in range(self._simulation.state.agents):
            program += self._film(agent, which, restart)
        return program

    def _film(self, agent: int, which: int, restart: bool) -> list[Launch]:
        """The launches that film one agent's view. Agents take turns with the scratch."""
        simulation, k = self._simulation, self._painter
        world = simulation.state.warp
        stride = 1 if simulation.device.type == "cpu" else COPY_STRIDE
        seed = wp.from_torch(simulation.seed, dtype=wp.uint64)
        rays = (self.rig.width * len(self.rig.cameras),)
        stacked = "camera" in self.outputs and self._frames > 1
        anew = restart or which == ENDED
        if stacked:
            stack = self._of_agent("camera", agent).view(torch.int32).flatten(1).unflatten(1, (-1, 4))
            words = wp.from_torch(stack, dtype=wp.vec4i)
        frame_words = self.rig.height * self.rig.width * 3 // 16

        program = []
        if stacked and not anew:
            program.append(Launch(k.shift_frames, (stride,), (words, frame_words, stride)))
        program.append(Launch(self._columns.cull, (), (world, self._tables, self._scratch, agent, which)))
        if self._heads is not None:
            inputs = (world, self._tables, self._heads, self._scratch, agent, which)
            program.append(Launch(heads.build(simulation.real).gather, (), inputs))
        inputs = (world, self._tables, self._ground, self._scratch, seed, self._images[agent], agent, which)
        program.append(Launch(k.paint, rays, inputs))
        if anew and stacked:
            program.append(Launch(k.repeat_frame, (stride,), (world, words, frame_words, stride, which)))
        return program
