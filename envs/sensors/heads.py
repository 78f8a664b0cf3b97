"""Signal heads as the camera sees them: a thin post, and on it a housing with three lamps, one of which is lit.

Lamps are broad, and the lit one takes at least one row of an image: light that falls between pixels is not lost. A lit
lamp is therefore two pixels or more at 30 m in the rig "surround", where a pixel covers 0.35 m. The lowest lamp begins
at 2 m: a driver who stands at a stop line, 4 m to the side of the post and 4 m before it, sees the red one above it
in the all-round picture.
"""

import functools
import math

import numpy as np
import warp as wp

from envs.precision import Functions
from envs.roads.network import RoadNetwork
from envs.roads.signals import AMBER, GREEN, RED
from envs.sensors import columns, light
from envs.state import world_struct

WIDTH = 0.7  # m, of a lamp and its housing
LAMP = 0.35  # m, height of a lamp
BOTTOM = 2.0  # m, where the lowest lamp begins
TOP = BOTTOM + 3 * LAMP
POST = 0.14  # m, its width
DEPTH = 0.3  # m, of the housing
SIGHT = 100.0  # m, heads farther off are not drawn
MAX_HEADS = 24  # heads a world that are considered: the first within sight
VISOR = math.cos(math.radians(70.0))  # a lamp is not seen from farther aside than this


@functools.cache
def build(real: type) -> Functions:
    """Struct `Heads`, kernel `gather` and function `lamps`."""
    World, column_functions, light_functions = world_struct(real), columns.build(real), light.build(real)
    RigTables, Scratch, Ray = column_functions.RigTables, column_functions.Scratch, column_functions.Ray
    Palette, columns_of, skipped = light_functions.Palette, column_functions.columns_of, column_functions.skipped
    f = wp.float32
    sight, visor, max_heads = f(SIGHT), f(VISOR), MAX_HEADS
    half_depth, half_width, bottom, top, tall = f(DEPTH / 2), f(WIDTH / 2), f(BOTTOM), f(TOP), f(LAMP)
    rear, red, amber, green = columns.REAR, RED, AMBER, GREEN

    @wp.struct
    class Heads:
        first: wp.array(dtype=wp.int32)  # [map + 1] a map's first head
        x: wp.array(dtype=real)  # [head] m
        y: wp.array(dtype=real)  # [head] m
        cosine: wp.array(dtype=wp.float32)  # [head] of the direction of travel that it faces
        sine: wp.array(dtype=wp.float32)  # [head]
        arrow: wp.array(dtype=wp.int32)  # [head]

    @wp.kernel(module="unique")
    def gather(
        world: World, tables: RigTables, heads: Heads, scratch: Scratch, agent: int, which: int, first_world: int
    ):
        """Add the heads within sight to the prisms that `cull` has gathered; their slots are -1 - head."""
        w = wp.tid() + first_world
        if skipped(world, which, w):
            return
        ce = f(world.vehicle[w, agent].cos_heading)
        se = f(world.vehicle[w, agent].sin_heading)
        jitter = column_functions.jitter_of(scratch, w)
        count = int(scratch.count[w])
        last = wp.min(count + max_heads, scratch.slot.shape[1])
        first = heads.first[world.map[w]]
        for head in range(first, heads.first[world.map[w] + 1]):
            dx = f(heads.x[head] - world.vehicle[w, agent].x)
            dy = f(heads.y[head] - world.vehicle[w, agent].y)
            if dx * dx + dy * dy < sight * sight and count < last:
                forward = dx * ce + dy * se
                right = dy * ce - dx * se
                c = heads.cosine[head] * ce + heads.sine[head] * se
                s = heads.sine[head] * ce - heads.cosine[head] * se
                for camera in range(tables.cameras):
                    span = columns_of(
                        tables,
                        camera,
                        tables.yaw[camera] + jitter,
                        forward - tables.forward[camera],
                        right,
                        c,
                        s,
                        half_depth,
                        half_width,
                    )
                    scratch.first_column[w, camera, count] = span[0]
                    scratch.last_column[w, camera, count] = span[1]
                scratch.slot[w, count] = -1 - head
                scratch.facts[w, count, 0] = forward
                scratch.facts[w, count, 1] = right
                scratch.facts[w, count, 2] = c
                scratch.facts[w, count, 3] = s
                scratch.facts[w, count, 4] = half_depth
                scratch.facts[w, count, 5] = half_width
                scratch.facts[w, count, 6] = top
                scratch.facts[w, count, 7] = f(world.signal[w, head - first])
                scratch.facts[w, count, 8] = f(heads.arrow[head])
                count = count + 1
        scratch.count[w] = count

    @wp.func
    def middle_of(shown: int) -> f:
        """Height of the middle of the lamp that is lit [m]: red on top, green at the bottom."""
        if shown == red:
            return top - f(0.5) * tall
        if shown == amber:
            return bottom + f(1.5) * tall
        return bottom + f(0.5) * tall

    @wp.func
    def colour_of(shown: int) -> wp.vec3f:
        if shown == red:
            return wp.vec3f(255.0, 36.0, 28.0)
        if shown == amber:
            return wp.vec3f(255.0, 168.0, 16.0)
        return wp.vec3f(24.0, 240.0, 120.0)

    @wp.func
    def housing(
        scratch: wp.ref[Scratch],
        palette: Palette,
        ray: Ray,
        k: int,
        face: int,
        across: f,
        z: f,
        holds_lamp: bool,
        shade: f,
    ) -> wp.vec4f:
        """Colour of a head, and 1 where it is a lit lamp. An arrow's head has a pale housing.

        Args:
            across: where the ray meets the face, as a share of half the width.
            z: height there [m].
            holds_lamp: whether the row is the one in which the middle of the lit lamp lies.
            shade: brightness of the face.
        """
        w = ray.world
        shown = int(scratch.facts[w, k, 7])
        arrow = scratch.facts[w, k, 8] != f(0.0)
        # The direction of the ray along that in which the head's traffic travels.
        c = scratch.facts[w, k, 2]
        s = scratch.facts[w, k, 3]
        facing = (ray.forward * c + ray.right * s) / wp.sqrt(ray.forward * ray.forward + ray.right * ray.right)
        if face == rear and facing > visor:
            off = (z - middle_of(shown)) / (f(0.5) * tall)
            lit = holds_lamp or off * off + across * across < f(1.0)
            if arrow and not holds_lamp:
                # Pointing to the left: a head that widens to the middle, then a shaft.
                lit = wp.abs(off) < wp.where(across < f(0.0), f(1.0) + across, f(0.35))
            if lit:
                shining = colour_of(shown)
                return wp.vec4f(shining[0], shining[1], shining[2], 1.0)
            if not arrow:
                # The three lamps, of which two are dark.
                third = (z - bottom) / tall
                off = f(2.0) * (third - wp.floor(third)) - f(1.0)
                if off * off + across * across < f(0.8):
                    glass = colour_of(wp.clamp(2 - int(third), red, green))
                    return wp.vec4f(glass[0] * f(0.22), glass[1] * f(0.22), glass[2] * f(0.22), 0.0)
        dark = wp.where(arrow, f(150.0), f(26.0)) * palette.light * shade
        return wp.vec4f(dark, dark, dark * f(1.05), 0.0)

    return Functions(Heads=Heads, gather=gather, housing=housing, middle_of=middle_of)


def table(networks: list[RoadNetwork], real: type, device):
    """The `Heads` of several maps.

    Args:
        networks: the maps.
        real: scalar type of places.
        device: a Warp device.
    """
    signals = [signal for network in networks for signal in network.signals]
    heads = build(real).Heads()
    counts = np.cumsum([0] + [len(network.signals) for network in networks])
    heads.first = wp.array(counts, dtype=wp.int32, device=device)
    heads.x = wp.array([signal.place[0] for signal in signals], dtype=real, device=device)
    heads.y = wp.array([signal.place[1] for signal in signals], dtype=real, device=device)
    heads.cosine = wp.array([math.cos(signal.heading) for signal in signals], dtype=wp.float32, device=device)
    heads.sine = wp.array([math.sin(signal.heading) for signal in signals], dtype=wp.float32, device=device)
    heads.arrow = wp.array([int(signal.arrow) for signal in signals], dtype=wp.int32, device=device)
    return heads
