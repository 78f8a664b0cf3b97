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
from envs.roads import ground, tiles
from envs.sensors import appearance, columns, heads, painter, rig, surfaces
from envs.sensors.columns import FACTS, MAX_CANDIDATES, SIGHT
from envs.sensors.surfaces import CLASSES

CHANNELS = ("rgb", "depth", "semantic")
# Threads that share the frames of one world on a GPU.
COPY_STRIDE = 256


class Camera:
    """What a rig of cameras sees of every world.

    Outputs: "camera" (N, frames * 3, H, W) uint8, RGB, oldest frame first; with "depth" and "semantic" among
    `channels` also "depth" (N, H, W) float32, distance along the ground [m], and "semantic" (N, H, W) uint8, see
    `CLASSES`.

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
        n, device = simulation.num_worlds, simulation.device
        height, width = self.rig.height, self.rig.width

        def zeros(*shape, dtype=torch.float32):
            return torch.zeros(shape, dtype=dtype, device=device)

        self.outputs: dict[str, torch.Tensor] = {}
        self.spaces: dict[str, spaces.Box] = {}
        images = self._painter.Images()
        images.latest = 3 * (frames - 1)
        if "rgb" in channels:
            self.outputs["camera"] = zeros(n, frames * 3, height, width, dtype=torch.uint8)
            self.spaces["camera"] = spaces.Box(0, 255, (frames * 3, height, width), np.uint8)
            images.rgb = wp.from_torch(self.outputs["camera"])
        if "depth" in channels:
            self.outputs["depth"] = zeros(n, height, width)
            self.spaces["depth"] = spaces.Box(0.0, SIGHT, (height, width), np.float32)
            images.depth = wp.from_torch(self.outputs["depth"])
        if "semantic" in channels:
            self.outputs["semantic"] = zeros(n, height, width, dtype=torch.uint8)
            self.spaces["semantic"] = spaces.Box(0, len(CLASSES) - 1, (height, width), np.uint8)
            images.semantic = wp.from_torch(self.outputs["semantic"])
        self.finals = {name: torch.zeros_like(output) for name, output in self.outputs.items()}
        self._images = images

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
        self._ground = self._ground_tiles() if tiled else self._ground_texture()
        self._heads = heads.table(simulation.maps, simulation.real, simulation.warp_device) if signals else None
        self._bounds = self._array(np.array(list(appearance.QUANTITIES.values()), dtype=np.float32))
        self._colours = self._array(np.array(appearance.BODY_COLOURS, dtype=np.float32))

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

    def _ground_texture(self):
        texture = ground.of_parallel_road(self._simulation.scenario.road())
        terrain = self._surfaces.Ground()
        terrain.texels = wp.array(texture.texels.reshape(-1, 2), dtype=wp.vec2f, device=self._simulation.warp_device)
        terrain.size_x, terrain.size_y = texture.size
        terrain.levels_x, terrain.levels_y = (size.bit_length() for size in texture.size)
        terrain.texel, terrain.origin = texture.texel, texture.origin
        return terrain

    def _ground_tiles(self):
        maps = tiles.of_networks(self._simulation.maps)
        terrain = self._surfaces.Ground()
        device = self._simulation.warp_device
        terrain.texels = wp.array(maps.texels.reshape(-1, 2), dtype=wp.vec2ub, device=device)
        terrain.corner = wp.array(maps.corner, dtype=self._simulation.real, device=device)
        for name in ("index", "columns", "rows", "first"):
            setattr(terrain, name, self._array(getattr(maps, name)))
        terrain.texel = ground.TEXEL
        return terrain

    def launches(self, which: int, restart: bool = False) -> list[Launch]:
        """See `envs.sensors.base.Sensor`."""
        simulation, k = self._simulation, self._painter
        world = simulation.state.warp
        n = simulation.num_worlds
        stride = 1 if simulation.device.type == "cpu" else COPY_STRIDE
        seed = wp.from_torch(simulation.seed, dtype=wp.uint64)
        rays = (self.rig.width * len(self.rig.cameras),)
        stacked = "camera" in self.outputs and self._frames > 1
        anew = restart or which == ENDED
        if stacked:
            words = wp.from_torch(self.outputs["camera"].view(torch.int32).reshape(n, -1, 4), dtype=wp.vec4i)
        frame_words = self.rig.height * self.rig.width * 3 // 16

        program = []
        if anew:
            inputs = (world, self._scratch, seed, self._bounds, self._colours, self._randomize, which)
            program.append(Launch(k.dress, (), inputs))
        elif stacked:
            program.append(Launch(k.shift_frames, (stride,), (words, frame_words, stride)))
        program.append(Launch(self._columns.cull, (), (world, self._tables, self._scratch, which)))
        if self._heads is not None:
            inputs = (world, self._tables, self._heads, self._scratch, which)
            program.append(Launch(heads.build(simulation.real).gather, (), inputs))
        inputs = (world, self._tables, self._ground, self._scratch, seed, self._images, which)
        program.append(Launch(k.paint, rays, inputs))
        if anew and stacked:
            program.append(Launch(k.repeat_frame, (stride,), (world, words, frame_words, stride, which)))
        return program
