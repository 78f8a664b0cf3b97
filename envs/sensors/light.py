"""A world's light: its colours as they shine back, and how bright the faces of what stands in it are."""

import functools

import warp as wp

from envs.precision import Functions
from envs.sensors import columns
from envs.sensors.appearance import INDEX
from envs.state import world_struct


@functools.cache
def build(real: type) -> Functions:
    """Struct `Palette`, `palette_of(scratch, w)` and `sunlit(world, scratch, ray, meeting)`."""
    World, column_functions = world_struct(real), columns.build(real)
    Scratch, Ray, Meeting = column_functions.Scratch, column_functions.Ray, column_functions.Meeting
    f = wp.float32
    LIGHT, SUN_X, SUN_Y, HAZE = (INDEX[k] for k in ("light", "sun_x", "sun_y", "haze"))
    SKY_R, SKY_G, SKY_B = (INDEX[k] for k in ("sky_r", "sky_g", "sky_b"))
    ASPHALT, WARMTH, PAINT = (INDEX[k] for k in ("asphalt", "warmth", "paint"))
    TERRAIN_R, TERRAIN_G, TERRAIN_B = (INDEX[k] for k in ("terrain_r", "terrain_g", "terrain_b"))
    rear, front, left = columns.REAR, columns.FRONT, columns.LEFT

    @wp.struct
    class Palette:
        """A world's colours in its light, each channel in [0, 255]."""

        light: wp.float32
        sky: wp.vec3f
        asphalt: wp.vec3f
        marking: wp.float32
        terrain: wp.vec3f
        clear: wp.float32  # m2, square of the distance at which half of the contrast is gone

    @wp.func
    def palette_of(scratch: wp.ref[Scratch], w: int) -> Palette:
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
    def sunlit(world: wp.ref[World], scratch: wp.ref[Scratch], ray: Ray, meeting: Meeting) -> f:
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
        ce = f(world.vehicle[w, ray.agent].cos_heading)
        se = f(world.vehicle[w, ray.agent].sin_heading)
        facing = (ex * ce - ey * se) * scratch.look[w, SUN_X] + (ex * se + ey * ce) * scratch.look[w, SUN_Y]
        return f(0.68) + f(0.22) * facing

    return Functions(Palette=Palette, palette_of=palette_of, sunlit=sunlit)
