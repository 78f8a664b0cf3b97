"""How things look: the ground under a pixel and the body of a vehicle, before haze."""

import functools

import warp as wp

from envs.precision import Functions
from envs.sensors import columns
from envs.sensors.appearance import INDEX
from envs.state import world_struct

SKY, TERRAIN, ROAD, MARKING, VEHICLE = range(5)
CLASSES = ("sky", "terrain", "road", "marking", "vehicle")


@functools.cache
def build(real: type) -> Functions:
    """Structs `Ground`, `Palette`, `Footing`, `Pixel`; functions `palette_of`, `footing_of`, `ground`, `body`."""
    World = world_struct(real)
    column_functions = columns.build(real)
    Scratch, Ray, Meeting = column_functions.Scratch, column_functions.Ray, column_functions.Meeting
    f = wp.float32
    LIGHT, SUN_X, SUN_Y, HAZE = (INDEX[k] for k in ("light", "sun_x", "sun_y", "haze"))
    SKY_R, SKY_G, SKY_B = (INDEX[k] for k in ("sky_r", "sky_g", "sky_b"))
    ASPHALT, WARMTH, PAINT = (INDEX[k] for k in ("asphalt", "warmth", "paint"))
    TERRAIN_R, TERRAIN_G, TERRAIN_B = (INDEX[k] for k in ("terrain_r", "terrain_g", "terrain_b"))
    terrain_class, road_class, marking_class = TERRAIN, ROAD, MARKING
    rear, front, left = columns.REAR, columns.FRONT, columns.LEFT

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
    class Palette:
        """A world's colours in its light, each channel in [0, 255]."""

        light: wp.float32
        sky: wp.vec3f
        asphalt: wp.vec3f
        marking: wp.float32
        terrain: wp.vec3f
        clear: wp.float32  # m2, square of the distance at which half of the contrast is gone

    @wp.struct
    class Footing:
        """A ray over the texture: where it starts and its direction, in texels."""

        x: wp.float32
        y: wp.float32
        along_x: wp.float32
        along_y: wp.float32

    @wp.struct
    class Pixel:
        colour: wp.vec3f
        label: wp.int32

    @wp.func
    def palette_of(scratch: Scratch, w: int) -> Palette:
        palette = Palette()
        light = scratch.look[w, LIGHT]
        top = f(255.0)
        asphalt = scratch.look[w, ASPHALT] * light
        warmth = scratch.look[w, WARMTH] * light
        palette.light = light
        palette.sky = wp.vec3f(
            wp.min(scratch.look[w, SKY_R] * light, top),
            wp.min(scratch.look[w, SKY_G] * light, top),
            wp.min(scratch.look[w, SKY_B] * light, top),
        )
        palette.asphalt = wp.vec3f(asphalt + warmth, asphalt, asphalt - warmth)
        palette.marking = wp.min(scratch.look[w, PAINT] * light, top)
        palette.terrain = (
            wp.vec3f(scratch.look[w, TERRAIN_R], scratch.look[w, TERRAIN_G], scratch.look[w, TERRAIN_B]) * light
        )
        palette.clear = scratch.look[w, HAZE] * scratch.look[w, HAZE]
        return palette

    @wp.func
    def footing_of(world: World, terrain: Ground, ray: Ray) -> Footing:
        footing = Footing()
        w = ray.world
        c = f(world.cos_heading[w, 0])
        s = f(world.sin_heading[w, 0])
        inverse = f(1.0) / terrain.texel
        # The texture repeats along x, so x is reduced where precision is still that of the simulation, and moved on by
        # many repeats, so that what lies behind has positive texels too.
        repeat = real(f(terrain.size_x) * terrain.texel)
        x = world.x[w, 0] - wp.floor(world.x[w, 0] / repeat) * repeat + real(256.0) * repeat
        footing.x = (f(x) + ray.mount * c) * inverse
        footing.y = (f(world.y[w, 0]) + ray.mount * s - terrain.origin) * inverse
        footing.along_x = (ray.forward * c - ray.right * s) * inverse
        footing.along_y = (ray.forward * s + ray.right * c) * inverse
        return footing

    @wp.func
    def level_of(extent: f, last: int) -> int:
        # The power of two at or below an extent in texels, read off the exponent of the float.
        return wp.min((wp.cast(wp.max(extent, f(1.0)), wp.int32) >> 23) - 127, last)

    @wp.func
    def ground(terrain: Ground, palette: Palette, footing: Footing, row: wp.vec4f) -> Pixel:
        """The ground where a row's ray meets it; `row` is the survey's (distance, haze, footprint along, across)."""
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
        painted = here[1] + (there[1] - here[1]) * share
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

    @wp.func
    def sunlit(world: World, scratch: Scratch, ray: Ray, meeting: Meeting) -> f:
        """Brightness of the face that a ray meets, from the angle of its normal to the sun."""
        w = ray.world
        nx = f(0.0)
        ny = f(0.0)
        if meeting.face == rear:
            nx = f(-1.0)
        elif meeting.face == front:
            nx = f(1.0)
        elif meeting.face == left:
            ny = f(-1.0)
        else:
            ny = f(1.0)
        c = scratch.facts[w, meeting.candidate, 2]
        s = scratch.facts[w, meeting.candidate, 3]
        ex = nx * c - ny * s
        ey = nx * s + ny * c
        ce = f(world.cos_heading[w, 0])
        se = f(world.sin_heading[w, 0])
        facing = (ex * ce - ey * se) * scratch.look[w, SUN_X] + (ex * se + ey * ce) * scratch.look[w, SUN_Y]
        return f(0.68) + f(0.22) * facing

    @wp.func
    def lamp(scratch: Scratch, palette: Palette, w: int, k: int, face: int, turning: bool) -> wp.vec3f:
        """A lamp's colour: amber where it indicates, red at the rear, bright when braking, whitish at the front."""
        if turning:
            return wp.vec3f(255.0, 150.0, 20.0)
        if face == rear:
            if scratch.facts[w, k, 7] != f(0.0):
                return wp.vec3f(255.0, 30.0, 24.0)
            return wp.vec3f(112.0, 18.0, 20.0) * palette.light
        white = wp.min(f(238.0) * palette.light, f(255.0))
        return wp.vec3f(white, white, white * f(0.95))

    @wp.func
    def body(
        scratch: Scratch, palette: Palette, ray: Ray, meeting: Meeting, along: f, across: f, z: f, shade: f
    ) -> wp.vec4f:
        """Colour of a vehicle's side, and 1 where it is a lamp, which haze dims less.

        Args:
            along, across: where the ray meets the face, as shares of half the length and half the width.
            z: height there, as a share of the vehicle's.
            shade: brightness of the face.
        """
        w = ray.world
        k = meeting.candidate
        light = palette.light
        slot = scratch.slot[w, k]
        top = f(255.0)
        colour = wp.vec3f(
            wp.min(scratch.paint[w, slot, 0] * light, top),
            wp.min(scratch.paint[w, slot, 1] * light, top),
            wp.min(scratch.paint[w, slot, 2] * light, top),
        )
        glass = wp.vec3f(34.0, 38.0, 44.0) * light
        rubber = wp.vec3f(25.0, 25.0, 27.0) * light
        if meeting.face == rear or meeting.face == front:
            if z > f(0.3) and z < f(0.62) and wp.abs(across) > f(0.58):
                turning = scratch.facts[w, k, 8] == wp.sign(across)
                shining = lamp(scratch, palette, w, k, meeting.face, turning)
                return wp.vec4f(shining[0], shining[1], shining[2], 1.0)
            if z > f(0.62) and z < f(0.93) and wp.abs(across) < f(0.8):
                colour = glass
            elif z < f(0.14):
                colour = rubber
        else:
            if z > f(0.58) and z < f(0.92) and along > f(-0.72) and along < f(0.5):
                colour = glass
            elif z < f(0.36) and wp.abs(wp.abs(along) - f(0.62)) < f(0.14):
                colour = rubber
        return wp.vec4f(colour[0] * shade, colour[1] * shade, colour[2] * shade, 0.0)

    return Functions(
        Ground=Ground,
        Palette=Palette,
        Footing=Footing,
        Pixel=Pixel,
        palette_of=palette_of,
        footing_of=footing_of,
        ground=ground,
        sunlit=sunlit,
        body=body,
    )
