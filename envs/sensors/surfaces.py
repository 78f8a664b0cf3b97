"""How the ground looks, before haze, and the classes of all that is seen; `envs.sensors.bodies` has what stands on it.

There are two kinds of ground, and a kernel is built for one of them: the texture of a straight carriageway, which one
look-up a pixel reads, and the tiles of any road network.
"""

import functools

import warp as wp

from envs.precision import Functions
from envs.roads import ground, tiles
from envs.sensors import columns, light
from envs.state import world_struct

# Numbers of the classes are part of recorded images: append, never renumber.
CLASSES = ("sky", "terrain", "road", "marking", "vehicle", "person", "cyclist", "obstacle", "signal")
SKY, TERRAIN, ROAD, MARKING, VEHICLE, PERSON, CYCLIST, OBSTACLE, SIGNAL = range(len(CLASSES))
MAX_TAPS = 4  # rectangles that stand for a footprint askew to the tiles


@wp.func
def level_of(extent: wp.float32, last: int) -> int:
    # The power of two at or below an extent in texels, read off the exponent of the float.
    return wp.min((wp.cast(wp.max(extent, wp.float32(1.0)), wp.int32) >> 23) - 127, last)


@functools.cache
def of_texture(real: type) -> Functions:
    """Struct `Ground`, an `envs.roads.ground.GroundTexture`, and how it is read, as `build` has it."""
    World, Ray = world_struct(real), columns.build(real).Ray
    f = wp.float32

    @wp.struct
    class Ground:
        texels: wp.array(dtype=wp.vec2f)  # road, paint; see envs.roads.ground.GroundTexture
        levels_x: wp.int32
        levels_y: wp.int32
        size_x: wp.int32
        size_y: wp.int32
        texel: wp.float32  # m
        origin: wp.float32  # m

    @wp.struct
    class Footing:
        """A ray over the texture: where it starts and its direction, in texels."""

        x: wp.float32
        y: wp.float32
        along_x: wp.float32
        along_y: wp.float32

    @wp.func
    def footing_of(world: wp.ref[World], terrain: wp.ref[Ground], ray: Ray) -> Footing:
        footing = Footing()
        w = ray.world
        c = f(world.vehicle[w, ray.agent].cos_heading)
        s = f(world.vehicle[w, ray.agent].sin_heading)
        inverse = f(1.0) / terrain.texel
        # The texture repeats along x, so x is reduced where precision is still that of the simulation, and moved on by
        # many repeats, so that what lies behind has positive texels too.
        repeat = real(f(terrain.size_x) * terrain.texel)
        x = (
            world.vehicle[w, ray.agent].x
            - wp.floor(world.vehicle[w, ray.agent].x / repeat) * repeat
            + real(256.0) * repeat
        )
        footing.x = (f(x) + ray.mount * c) * inverse
        footing.y = (f(world.vehicle[w, ray.agent].y) + ray.mount * s - terrain.origin) * inverse
        footing.along_x = (ray.forward * c - ray.right * s) * inverse
        footing.along_y = (ray.forward * s + ray.right * c) * inverse
        return footing

    @wp.func
    def coverage(terrain: wp.ref[Ground], footing: Footing, row: wp.vec4f) -> wp.vec2f:
        steep_x = wp.abs(footing.along_x)
        steep_y = wp.abs(footing.along_y)
        i = level_of(steep_x * row[2] + steep_y * row[3], terrain.levels_x - 1)
        extent = wp.max(steep_y * row[2] + steep_x * row[3], f(1.0))
        j = level_of(extent, terrain.levels_y - 1)
        size_x = terrain.size_x >> i
        size_y = terrain.size_y >> j
        # Linear between rows across the road: markings keep their place, whatever the level.
        across = footing.y + footing.along_y * row[0]
        v = across * wp.cast((127 - j) << 23, wp.float32) - f(0.5)
        v = wp.clamp(v, f(0.0), f(size_y) - f(1.001))
        ty = int(v)
        share = v - f(ty)
        tx = 2 * terrain.size_x - 2 * size_x + ((int(footing.x + footing.along_x * row[0]) >> i) & (size_x - 1))
        texel = tx * 2 * terrain.size_y + 2 * terrain.size_y - 2 * size_y + ty
        here = terrain.texels[texel]
        there = terrain.texels[texel + 1]
        # What a footprint covers beyond the texture is terrain.
        reach = f(0.5) * extent
        inside = wp.min(across + reach, f(terrain.size_y)) - wp.max(across - reach, f(0.0))
        road = (here[0] + (there[0] - here[0]) * share) * wp.clamp(inside / extent, f(0.0), f(1.0))
        return wp.vec2f(road, here[1] + (there[1] - here[1]) * share)

    @wp.func
    def texel_at(terrain: wp.ref[Ground], footing: Footing, x: f, y: f, level: int) -> wp.vec2f:
        """Road, and paint on it, in a square of about 2^level texels around a point; linear across the road."""
        i = wp.min(level, terrain.levels_x - 1)
        j = wp.min(level, terrain.levels_y - 1)
        if y < f(0.0) or y >= f(terrain.size_y):
            return wp.vec2f(f(0.0), f(0.0))
        size_x = terrain.size_x >> i
        size_y = terrain.size_y >> j
        v = wp.clamp(y * wp.cast((127 - j) << 23, wp.float32) - f(0.5), f(0.0), f(size_y) - f(1.001))
        ty = int(v)
        tx = 2 * terrain.size_x - 2 * size_x + ((int(x) >> i) & (size_x - 1))
        texel = tx * 2 * terrain.size_y + 2 * terrain.size_y - 2 * size_y + ty
        return terrain.texels[texel] + (terrain.texels[texel + 1] - terrain.texels[texel]) * (v - f(ty))

    return Functions(Ground=Ground, Footing=Footing, footing_of=footing_of, coverage=coverage, texel_at=texel_at)


@functools.cache
def of_tiles(real: type) -> Functions:
    """Struct `Ground`, the `envs.roads.tiles.GroundTiles` of all maps, and how it is read, as `build` has it."""
    World, Ray = world_struct(real), columns.build(real).Ray
    f = wp.float32
    bits, stride = tiles.TEXELS.bit_length() - 1, 2 * tiles.TEXELS
    edge, texels_of_tile = tiles.TEXELS, tiles.TEXELS_OF_TILE
    taps_at_most, widest = MAX_TAPS, float(MAX_TAPS * tiles.TEXELS)

    @wp.struct
    class Ground:
        texels: wp.array(dtype=wp.vec2ub)  # road, paint
        index: wp.array(dtype=wp.int32)
        corner: wp.array2d(dtype=real)  # [map, 2] m
        columns: wp.array(dtype=wp.int32)  # [map]
        rows: wp.array(dtype=wp.int32)  # [map]
        first: wp.array(dtype=wp.int32)  # [map]
        texel: wp.float32  # m

    @wp.struct
    class Footing:
        """A ray over a map's tiles: where it starts and its direction, in texels."""

        x: wp.float32
        y: wp.float32
        along_x: wp.float32
        along_y: wp.float32
        columns: wp.int32
        rows: wp.int32
        first: wp.int32

    @wp.func
    def footing_of(world: wp.ref[World], terrain: wp.ref[Ground], ray: Ray) -> Footing:
        footing = Footing()
        w = ray.world
        number = world.map[w]
        c = f(world.vehicle[w, ray.agent].cos_heading)
        s = f(world.vehicle[w, ray.agent].sin_heading)
        inverse = f(1.0) / terrain.texel
        # From the map's corner, where precision is still that of the simulation.
        footing.x = (f(world.vehicle[w, ray.agent].x - terrain.corner[number, 0]) + ray.mount * c) * inverse
        footing.y = (f(world.vehicle[w, ray.agent].y - terrain.corner[number, 1]) + ray.mount * s) * inverse
        footing.along_x = (ray.forward * c - ray.right * s) * inverse
        footing.along_y = (ray.forward * s + ray.right * c) * inverse
        footing.columns = terrain.columns[number]
        footing.rows = terrain.rows[number]
        footing.first = terrain.first[number]
        return footing

    @wp.func
    def tile_at(terrain: wp.ref[Ground], footing: Footing, column: int, row: int) -> int:
        """The tile in a map's column and row; terrain all around."""
        if column < 0 or row < 0 or column >= footing.columns or row >= footing.rows:
            return 0
        return terrain.index[footing.first + row * footing.columns + column]

    @wp.func
    def place_of(tile: int, x: int, y: int, i: int, j: int) -> int:
        """Where a texel of level (i, j) is; x and y count from the corner of any tile."""
        size_x = edge >> i
        size_y = edge >> j
        column = stride - 2 * size_x + (x & (size_x - 1))
        return tile * texels_of_tile + column * stride + stride - 2 * size_y + (y & (size_y - 1))

    @wp.func
    def shares(terrain: wp.ref[Ground], place: int) -> wp.vec2f:
        texel = terrain.texels[place]
        return wp.vec2f(f(texel[0]), f(texel[1]))

    @wp.func
    def smooth(terrain: wp.ref[Ground], footing: Footing, x: f, y: f, i: int, j: int) -> wp.vec2f:
        """Linear between the four texels of level (i, j) around a point, of 255."""
        u = x * wp.cast((127 - i) << 23, wp.float32) - f(0.5)
        v = y * wp.cast((127 - j) << 23, wp.float32) - f(0.5)
        left = int(wp.floor(u))
        top = int(wp.floor(v))
        column = left >> (bits - i)
        row = top >> (bits - j)
        next_column = (left + 1) >> (bits - i)
        next_row = (top + 1) >> (bits - j)
        tile = tile_at(terrain, footing, column, row)
        # The four are mostly of one tile, and side by side in it.
        a = int(0)
        b = int(0)
        c = int(0)
        d = int(0)
        if next_column == column and next_row == row:
            if tile == 0:
                return wp.vec2f(f(0.0), f(0.0))
            a = place_of(tile, left, top, i, j)
            b = a + stride
            c = a + 1
            d = b + 1
        else:
            a = place_of(tile, left, top, i, j)
            b = place_of(tile_at(terrain, footing, next_column, row), left + 1, top, i, j)
            c = place_of(tile_at(terrain, footing, column, next_row), left, top + 1, i, j)
            d = place_of(tile_at(terrain, footing, next_column, next_row), left + 1, top + 1, i, j)
        du = u - f(left)
        dv = v - f(top)
        near_a = shares(terrain, a)
        near_c = shares(terrain, c)
        first = near_a + (shares(terrain, b) - near_a) * du
        second = near_c + (shares(terrain, d) - near_c) * du
        return first + (second - first) * dv

    @wp.func
    def coverage(terrain: wp.ref[Ground], footing: Footing, row: wp.vec4f) -> wp.vec2f:
        # A footprint is long along its ray. Averages are over rectangles along x and y: one across them is covered by
        # several in a row, as many as keep its width, within reason.
        length = wp.min(row[2], widest / (wp.abs(footing.along_x) + wp.abs(footing.along_y)))
        long_x = wp.abs(footing.along_x) * length
        long_y = wp.abs(footing.along_y) * length
        wide_x = wp.abs(footing.along_y) * row[3]
        wide_y = wp.abs(footing.along_x) * row[3]
        width = wp.max(wp.max(wide_x, wide_y), f(1.0))
        taps = wp.min(1 + int(wp.min(long_x, long_y) / width), taps_at_most)
        part = f(1.0) / f(taps)
        i = level_of(long_x * part + wide_x, bits)
        j = level_of(long_y * part + wide_y, bits)
        seen = wp.vec2f(0.0, 0.0)
        for k in range(taps):
            t = row[0] + length * ((f(k) + f(0.5)) * part - f(0.5))
            seen = seen + smooth(
                terrain, footing, footing.x + footing.along_x * t, footing.y + footing.along_y * t, i, j
            )
        return seen * (part / f(255.0))

    @wp.func
    def texel_at(terrain: wp.ref[Ground], footing: Footing, x: f, y: f, level: int) -> wp.vec2f:
        """Road, and paint on it, in a square of about 2^level texels around a point."""
        return smooth(terrain, footing, x, y, level, level) * f(1.0 / 255.0)

    return Functions(Ground=Ground, Footing=Footing, footing_of=footing_of, coverage=coverage, texel_at=texel_at)


@functools.cache
def build(real: type, tiled: bool = False) -> Functions:
    """Structs `Ground`, `Footing`, `Pixel` and the functions below; the ground is one texture, or `tiled`.

    Ground, Footing                         the ground of all worlds; a ray over that of one world
    footing_of(world, terrain, ray)         a column's ray over the ground
    coverage(terrain, footing, row)         shares of road, and of paint on it, in a pixel's footprint
    pixel_of(terrain, palette, footing, row)  the pixel
    """
    terrain_functions = of_tiles(real) if tiled else of_texture(real)
    Ground, Footing = terrain_functions.Ground, terrain_functions.Footing
    footing_of, coverage = terrain_functions.footing_of, terrain_functions.coverage
    Palette = light.build(real).Palette
    f = wp.float32
    terrain_class, road_class, marking_class = TERRAIN, ROAD, MARKING

    @wp.struct
    class Pixel:
        colour: wp.vec3f
        label: wp.int32

    @wp.func
    def pixel_of(terrain: wp.ref[Ground], palette: Palette, footing: Footing, row: wp.vec4f) -> Pixel:
        """The ground where a row's ray meets it; `row` is the survey's (distance, haze, footprint along, across)."""
        seen = coverage(terrain, footing, row)
        road = seen[0]
        painted = seen[1]
        pixel = Pixel()
        white = wp.vec3f(palette.marking, palette.marking, palette.marking)
        paved = palette.asphalt + (white - palette.asphalt) * painted
        pixel.colour = palette.terrain + (paved - palette.terrain) * road
        pixel.label = road_class
        if road < f(0.5):
            pixel.label = terrain_class
        elif painted > f(0.5):
            pixel.label = marking_class
        return pixel

    return Functions(Ground=Ground, Footing=Footing, Pixel=Pixel, footing_of=footing_of, pixel_of=pixel_of)


def table(simulation):
    """The `Ground` of a simulation's worlds."""
    if simulation.maps is None:
        return _texture_table(simulation)
    maps, device = tiles.of_networks(simulation.maps), simulation.warp_device
    terrain = of_tiles(simulation.real).Ground()
    terrain.texels = wp.array(maps.texels.reshape(-1, 2), dtype=wp.vec2ub, device=device)
    terrain.corner = wp.array(maps.corner, dtype=simulation.real, device=device)
    for name in ("index", "columns", "rows", "first"):
        setattr(terrain, name, wp.array(getattr(maps, name), device=device))
    terrain.texel = ground.TEXEL
    return terrain


def _texture_table(simulation):
    texture = ground.of_parallel_road(simulation.scenario.road())
    terrain = of_texture(simulation.real).Ground()
    terrain.texels = wp.array(texture.texels.reshape(-1, 2), dtype=wp.vec2f, device=simulation.warp_device)
    terrain.size_x, terrain.size_y = texture.size
    terrain.levels_x, terrain.levels_y = (size.bit_length() for size in texture.size)
    terrain.texel, terrain.origin = texture.texel, texture.origin
    return terrain
