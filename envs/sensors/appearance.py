"""How a world looks: light, weather, colours, and where exactly the camera sits. Drawn anew each episode.

Without randomisation every world has the same clear day and only the colours of the cars differ.
"""

import functools

import warp as wp

from envs import random
from envs.precision import Functions
from envs.state import world_struct

# Name -> (default, lowest, highest) of each quantity; the bounds are those of domain randomisation.
QUANTITIES = {
    "light": (1.0, 0.45, 1.2),  # gain of everything but lamps
    "sun_x": (-0.5, -0.9, 0.9),  # horizontal direction to the sun, times how strongly it shades
    "sun_y": (0.45, -0.9, 0.9),
    "haze": (260.0, 60.0, 420.0),  # m at which half of the contrast is gone
    "sky_r": (178.0, 120.0, 225.0),  # horizon and haze
    "sky_g": (200.0, 130.0, 225.0),
    "sky_b": (222.0, 140.0, 235.0),
    "zenith": (0.62, 0.45, 0.95),  # red and green of the upper sky, as a share of the horizon's
    "asphalt": (84.0, 50.0, 120.0),
    "warmth": (0.0, -6.0, 6.0),  # red minus blue of the asphalt
    "terrain_r": (98.0, 60.0, 170.0),
    "terrain_g": (124.0, 80.0, 160.0),
    "terrain_b": (72.0, 45.0, 120.0),
    "paint": (228.0, 150.0, 245.0),
    "elevation": (0.0, -0.08, 0.08),  # m added to the camera's mount
    "yaw": (0.0, -0.012, 0.012),  # rad added to its direction
    "slope": (0.0, -0.015, 0.015),  # by which the horizon is off, in slope
    "noise": (0.0, 0.0, 7.0),  # standard deviation of the sensor's noise, of 255
}
NAMES = tuple(QUANTITIES)
INDEX = {name: k for k, name in enumerate(NAMES)}

# Body colours by how common they are on roads: white, black, greys, silver, blue, red, brown, green, yellow.
BODY_COLOURS = (
    (225, 225, 222), (225, 225, 222), (38, 38, 42), (38, 38, 42), (90, 92, 96), (120, 122, 126), (176, 178, 182),
    (176, 178, 182), (52, 78, 140), (34, 52, 92), (160, 36, 34), (120, 28, 30), (104, 82, 62), (48, 92, 70),
    (206, 170, 60), (60, 120, 170),
)  # fmt: skip


@functools.cache
def build(real: type) -> Functions:
    """`dress(world, seed, bounds, colours, randomize, w, look, paint)`: draw one world's appearance."""
    World = world_struct(real)
    draw = random.build(wp.float32)
    purpose, count = random.APPEARANCE, len(NAMES)
    palette, first_colour = len(BODY_COLOURS), 64

    @wp.func
    def dress(
        world: wp.ref[World],
        seed: wp.uint64,
        bounds: wp.array2d(dtype=wp.float32),
        colours: wp.array2d(dtype=wp.float32),
        randomize: int,
        w: int,
        look: wp.array2d(dtype=wp.float32),
        paint: wp.array3d(dtype=wp.float32),
    ):
        id = world.world_id[w]
        episode = world.episode[w]
        for k in range(count):
            value = bounds[k, 0]
            if randomize != 0:
                share = draw.uniform(seed, id, episode, purpose, k)
                value = bounds[k, 1] + (bounds[k, 2] - bounds[k, 1]) * share
            look[w, k] = value
        for i in range(world.slots):
            chosen = draw.below(seed, id, episode, purpose, first_colour + 2 * i, palette)
            tint = wp.float32(0.85) + wp.float32(0.3) * draw.uniform(
                seed, id, episode, purpose, first_colour + 2 * i + 1
            )
            number = world.vehicle[w, i].look
            if number > 0:
                chosen = (number - 1) % palette
                tint = wp.float32(1.0)
            for channel in range(3):
                paint[w, i, channel] = wp.min(colours[chosen, channel] * tint, wp.float32(240.0))

    return Functions(dress=dress)
