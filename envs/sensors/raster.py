"""Drawing a raster of the surroundings from above: the ground, then boxes, each pixel by how much they cover of it.

See `envs.sensors.birdseye`, which lists the boxes, for what the channels mean.
"""

import functools

import warp as wp

from envs.precision import Functions
from envs.sensors import columns, surfaces
from envs.state import world_struct

CHANNELS = (
    "road", "marking", "route", "vehicle", "person", "obstacle", "stop", "go", "forward", "right", "ego",
)  # fmt: skip
MAX_BOXES = 192  # a raster that are drawn, the first listed


@functools.cache
def build(real: type, tiled: bool) -> Functions:
    """Structs `Raster` and `Boxes`, `add(raster, boxes, v, place, size, channel, value)` and kernel `draw`.

    Args:
        real: scalar type.
        tiled: which ground there is, see `envs.sensors.surfaces.build`.
    """
    World, Ray = world_struct(real), columns.build(real).Ray
    skipped = columns.build(real).skipped
    terrain_functions = surfaces.of_tiles(real) if tiled else surfaces.of_texture(real)
    Ground, footing_of, texel_at = terrain_functions.Ground, terrain_functions.footing_of, terrain_functions.texel_at
    f = wp.float32
    zero, half, one, far, full = f(0.0), f(0.5), f(1.0), f(1.0e9), f(255.0)
    ROAD, MARKING, FORWARD, RIGHT, EGO = (
        CHANNELS.index(name) for name in ("road", "marking", "forward", "right", "ego")
    )
    channels, max_boxes = len(CHANNELS), MAX_BOXES

    @wp.struct
    class Raster:
        cell: wp.float32  # m
        rows: wp.int32
        columns: wp.int32
        ahead: wp.int32  # rows ahead of the observer's centre
        reach: wp.float32  # m, of its farthest corner from there
        level: wp.int32  # of the ground's averages
        way: wp.int32  # how the lane to be taken is known

    @wp.struct
    class Boxes:
        """What is drawn into a raster, in the observer's frame; a raster is world * agents + agent."""

        count: wp.array(dtype=wp.int32)  # [raster]
        place: wp.array2d(dtype=wp.vec4f)  # [raster, box] forward, right [m], cosine and sine of the heading
        size: wp.array2d(dtype=wp.vec2f)  # [raster, box] half length, half width [m]
        channel: wp.array2d(dtype=wp.int32)  # [raster, box]
        value: wp.array2d(dtype=wp.vec3f)  # [raster, box] of the channel, of forward and of right, of 255

    @wp.func
    def add(
        raster: Raster, boxes: wp.ref[Boxes], v: int, place: wp.vec4f, size: wp.vec2f, channel: int, value: wp.vec3f
    ):
        """List a box, if any of it can be within the raster. Nothing is drawn smaller than a cell."""
        k = boxes.count[v]
        least = half * raster.cell
        along = wp.max(size[0], least)
        across = wp.max(size[1], least)
        c = wp.abs(place[2])
        s = wp.abs(place[3])
        long = c * along + s * across
        wide = s * along + c * across
        low = f(raster.ahead - raster.rows) * raster.cell
        high = f(raster.ahead) * raster.cell
        side = half * f(raster.columns) * raster.cell
        if k < max_boxes and place[0] + long > low and place[0] - long < high and wp.abs(place[1]) - wide < side:
            boxes.place[v, k] = place
            boxes.size[v, k] = wp.vec2f(along, across)
            boxes.channel[v, k] = channel
            boxes.value[v, k] = value
            boxes.count[v] = k + 1

    @wp.func
    def overlap(middle: f, extent: f, cell: f) -> f:
        """How much of a cell lies within [-extent, extent], as a share."""
        reach = half * cell
        return wp.clamp((wp.min(middle + reach, extent) - wp.max(middle - reach, -extent)) / cell, zero, one)

    @wp.func
    def columns_of(raster: Raster, place: wp.vec4f, size: wp.vec2f, away: f) -> wp.vec2i:
        """First and last column in which a row, `away` ahead of the box's middle, can meet it."""
        c = place[2]
        s = place[3]
        low = -far
        high = far
        if wp.abs(s) > f(1.0e-4):
            extent = (size[0] + half * raster.cell) / wp.abs(s)
            low = wp.max(low, -away * c / s - extent)
            high = wp.min(high, -away * c / s + extent)
        if wp.abs(c) > f(1.0e-4):
            extent = (size[1] + half * raster.cell) / wp.abs(c)
            low = wp.max(low, away * s / c - extent)
            high = wp.min(high, away * s / c + extent)
        shift = half * f(raster.columns) - half
        first = wp.ceil(wp.max((low + place[1]) / raster.cell + shift, zero))
        last = wp.floor(wp.min((high + place[1]) / raster.cell + shift, f(raster.columns) - one))
        return wp.vec2i(int(first), int(last))

    @wp.func
    def draw_box(
        raster: Raster,
        boxes: wp.ref[Boxes],
        image: wp.array4d(dtype=wp.uint8),
        v: int,
        w: int,
        first: int,
        k: int,
        part: int,
        stride: int,
    ):
        """Fill the pixels of a box in the rows part, part + stride ..., as far as it covers them."""
        place = boxes.place[v, k]
        size = boxes.size[v, k]
        value = boxes.value[v, k]
        channel = first + boxes.channel[v, k]
        long = wp.abs(place[2]) * size[0] + wp.abs(place[3]) * size[1] + raster.cell
        top = wp.max(raster.ahead - int(wp.ceil((place[0] + long) / raster.cell)), 0)
        bottom = wp.min(raster.ahead - int(wp.floor((place[0] - long) / raster.cell)), raster.rows)
        row = int(top + (part + stride - top % stride) % stride)
        while row < bottom:
            away = (f(raster.ahead - row) - half) * raster.cell - place[0]
            span = columns_of(raster, place, size, away)
            for column in range(span[0], span[1] + 1):
                aside = (f(column) + half - half * f(raster.columns)) * raster.cell - place[1]
                cover = overlap(away * place[2] + aside * place[3], size[0], raster.cell)
                cover = cover * overlap(aside * place[2] - away * place[3], size[1], raster.cell)
                shade = wp.uint8(int(cover * value[0] + half))
                if shade > image[w, channel, row, column]:
                    image[w, channel, row, column] = shade
                    if value[1] > zero and channel != first + EGO:
                        image[w, first + FORWARD, row, column] = wp.uint8(int(value[1]))
                        image[w, first + RIGHT, row, column] = wp.uint8(int(value[2]))
            row = row + stride

    @wp.kernel(module="unique")
    def draw(
        world: World,
        terrain: Ground,
        raster: Raster,
        boxes: Boxes,
        image: wp.array4d(dtype=wp.uint8),
        words: wp.array3d(dtype=wp.vec4i),
        stride: int,
        which: int,
        first_world: int,
    ):
        """Fill the rows part, part + stride ... of an agent's raster. `words` is the image, 16 pixels each."""
        w, a, part = wp.tid()
        w = w + first_world
        if skipped(world, which, w):
            return
        ray = Ray()
        ray.world = w
        ray.agent = a
        ray.forward = one
        footing = footing_of(world, terrain, ray)
        step_x = footing.along_x * raster.cell
        step_y = footing.along_y * raster.cell
        first = channels * a
        for row in range(part, raster.rows, stride):
            for channel in range(channels):
                for k in range(raster.columns / 16):
                    words[w, (first + channel) * raster.rows + row, k] = wp.vec4i(0, 0, 0, 0)
            up = f(raster.ahead - row) - half
            left = half - half * f(raster.columns)
            x = footing.x + up * step_x - left * step_y
            y = footing.y + up * step_y + left * step_x
            for column in range(raster.columns):
                aside = f(column)
                seen = texel_at(terrain, footing, x - aside * step_y, y + aside * step_x, raster.level)
                image[w, first + ROAD, row, column] = wp.uint8(int(seen[0] * full + half))
                image[w, first + MARKING, row, column] = wp.uint8(int(seen[0] * seen[1] * full + half))
        v = w * world.agents + a
        for k in range(boxes.count[v]):
            draw_box(raster, boxes, image, v, w, first, k, part, stride)

    return Functions(Raster=Raster, Boxes=Boxes, add=add, draw=draw)
