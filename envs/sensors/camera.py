"""The camera: what a rig sees, as colour, depth and semantic class, on a CPU or a GPU.

Everything that stands on the road is an upright prism and an image column is a vertical plane, so one horizontal ray a
column decides all of its rows. Nearest first, each prism the ray meets fills the rows from its foot to its top; what it
leaves free below shows the ground, what remains above shows the next prism, the ground beyond and the sky. Nothing is
drawn twice, and what is hidden is never drawn.
"""

import functools
import math

import numpy as np
import torch
import warp as wp
from gymnasium import spaces

from envs import random
from envs.errors import UserError, unknown
from envs.launch import Launch
from envs.phases import ENDED
from envs.precision import Functions
from envs.roads import ground
from envs.sensors import appearance, rig
from envs.state import world_struct

CHANNELS = ("rgb", "depth", "semantic")
# Semantic classes.
SKY, TERRAIN, ROAD, MARKING, VEHICLE = range(5)
CLASSES = ("sky", "terrain", "road", "marking", "vehicle")

SIGHT = 220.0  # m, nothing is drawn beyond
MAX_CANDIDATES = 48  # prisms a world that are considered, the first in slot order within sight
BRAKING = -0.4  # m/s2, below which the brake lights burn
# A candidate's numbers: centre of the camera in the prism's frame comes later, as it depends on the camera.
FACTS = 10
COPY_STRIDE = 256


@functools.cache
def build(real: type, outputs: tuple[str, ...]) -> Functions:
    """Kernels of the camera that fill the asked for `outputs`, which are decided when they are compiled."""
    World = world_struct(real)
    dress_world = appearance.build(real).dress
    random_bits = random.build(wp.float32).bits
    noise_purpose = random.SENSOR_NOISE
    ended = ENDED
    f = wp.float32
    with_rgb, with_depth, with_semantic = ("rgb" in outputs), ("depth" in outputs), ("semantic" in outputs)
    sky_class, terrain_class, road_class, marking_class, vehicle_class = SKY, TERRAIN, ROAD, MARKING, VEHICLE
    sight, braking, max_candidates = f(SIGHT), f(BRAKING), MAX_CANDIDATES
    far = f(1.0e9)
    mix_1, mix_2, mix_3 = wp.uint32(2654435761), wp.uint32(2246822519), wp.uint32(3266489917)
    LIGHT, SUN_X, SUN_Y, HAZE = (appearance.INDEX[k] for k in ("light", "sun_x", "sun_y", "haze"))
    SKY_R, SKY_G, SKY_B, ZENITH = (appearance.INDEX[k] for k in ("sky_r", "sky_g", "sky_b", "zenith"))
    ASPHALT, WARMTH, PAINT = (appearance.INDEX[k] for k in ("asphalt", "warmth", "paint"))
    TERRAIN_R, TERRAIN_G, TERRAIN_B = (appearance.INDEX[k] for k in ("terrain_r", "terrain_g", "terrain_b"))
    ELEVATION, YAW, SLOPE, NOISE = (appearance.INDEX[k] for k in ("elevation", "yaw", "slope", "noise"))

    @wp.struct
    class RigTables:
        directions: wp.array2d(dtype=wp.float32)  # [camera * width + column, 2] forward, right
        forward: wp.array(dtype=wp.float32)  # [camera] mount ahead of the centre, m
        elevation: wp.array(dtype=wp.float32)  # [camera] mount above the ground, m
        horizon: wp.array(dtype=wp.float32)  # [camera] rows above the horizon
        rows_per_unit: wp.array(dtype=wp.float32)  # [camera]
        columns_per_unit: wp.array(dtype=wp.float32)  # [camera]
        yaw: wp.array(dtype=wp.float32)  # [camera] rad
        round_view: wp.array(dtype=wp.int32)  # [camera] 1 where columns are spaced in azimuth
        first_row: wp.array(dtype=wp.int32)  # [camera]
        rows: wp.array(dtype=wp.int32)  # [camera]
        width: wp.int32
        cameras: wp.int32

    @wp.struct
    class Ground:
        texels: wp.array(dtype=wp.vec2f)  # road, paint; see envs.roads.ground.GroundTexture
        levels_x: wp.int32
        levels_y: wp.int32
        size_x: wp.int32
        size_y: wp.int32
        texel: wp.float32
        origin: wp.float32

    @wp.struct
    class Images:
        rgb: wp.array4d(dtype=wp.uint8)  # [world, frame * 3 + channel, row, column]
        depth: wp.array3d(dtype=wp.float32)  # [world, row, column], m along the ground
        semantic: wp.array3d(dtype=wp.uint8)  # [world, row, column]

    @wp.struct
    class Scratch:
        look: wp.array2d(dtype=wp.float32)  # [world, quantity]
        paint: wp.array3d(dtype=wp.float32)  # [world, slot, channel]
        facts: wp.array3d(dtype=wp.float32)  # [world, candidate, fact]
        slot: wp.array2d(dtype=wp.int32)  # [world, candidate]
        first_column: wp.array3d(dtype=wp.float32)  # [world, camera, candidate]
        last_column: wp.array3d(dtype=wp.float32)
        count: wp.array(dtype=wp.int32)  # [world]
        rows: wp.array2d(dtype=wp.vec4f)  # [world, row] ground: distance, haze, footprint along, across; sky: -1, RGB

    @wp.func
    def skipped(world: World, which: int, w: int) -> bool:
        return which == ended and world.terminated[w] + world.truncated[w] == 0

    @wp.kernel(module="unique")
    def dress(
        world: World,
        scratch: Scratch,
        seed: wp.array(dtype=wp.uint64),
        bounds: wp.array2d(dtype=wp.float32),
        colours: wp.array2d(dtype=wp.float32),
        randomize: int,
        which: int,
        first_world: int,
    ):
        w = wp.tid() + first_world
        if skipped(world, which, w):
            return
        dress_world(world, seed[0], bounds, colours, randomize, w, scratch.look, scratch.paint)

    @wp.func
    def columns_of(tables: RigTables, camera: int, yaw: f, forward: f, right: f, c: f, s: f, hl: f, hw: f) -> wp.vec2f:
        """First and last column that a box can touch: centre (forward, right), axis (c, s), half sizes hl and hw."""
        cy = wp.cos(yaw)
        sy = wp.sin(yaw)
        low = f(far)
        high = f(-far)
        middle = wp.atan2(right * cy - forward * sy, forward * cy + right * sy)
        around = tables.round_view[camera] != 0
        ahead = int(0)
        for corner in range(4):
            a = wp.where(corner < 2, hl, -hl)
            b = wp.where(corner % 2 == 0, hw, -hw)
            px = forward + a * c - b * s
            py = right + a * s + b * c
            u = px * cy + py * sy
            v = py * cy - px * sy
            if around:
                delta = wp.atan2(v, u) - middle
                if delta > f(math.pi):
                    delta = delta - f(2.0 * math.pi)
                if delta < f(-math.pi):
                    delta = delta + f(2.0 * math.pi)
                low = wp.min(low, middle + delta)
                high = wp.max(high, middle + delta)
            elif u > f(0.2):
                ahead = ahead + 1
                low = wp.min(low, v / u)
                high = wp.max(high, v / u)
        half = f(0.5) * f(tables.width)
        scale = tables.columns_per_unit[camera]
        if around:
            if high - low > f(math.pi):  # the mount is within the box
                return wp.vec2f(-far, far)
            return wp.vec2f(half + low * scale - f(0.5), half + high * scale - f(0.5))
        if ahead == 0:
            return wp.vec2f(far, -far)
        if ahead < 4:  # reaches behind the image plane: any column may see it
            return wp.vec2f(-far, far)
        return wp.vec2f(half + low * scale - f(0.5), half + high * scale - f(0.5))

    @wp.func
    def survey_rows(tables: RigTables, scratch: Scratch, w: int):
        """What every pixel of an image row shares: how far its ray meets the ground, or the colour of its sky."""
        one = f(1.0)
        light = scratch.look[w, LIGHT]
        clear = scratch.look[w, HAZE] * scratch.look[w, HAZE]
        zenith = scratch.look[w, ZENITH]
        for camera in range(tables.cameras):
            per_row = one / tables.rows_per_unit[camera]
            elevation = tables.elevation[camera] + scratch.look[w, ELEVATION]
            horizon = tables.horizon[camera] + scratch.look[w, SLOPE] * tables.rows_per_unit[camera]
            for row in range(tables.rows[camera]):
                slope = (f(row) + f(0.5) - horizon) * per_row
                facts = wp.vec4f()
                if slope > f(1.0e-3):
                    t = elevation / slope
                    facts = wp.vec4f(t, t * t / (t * t + clear), t * per_row / slope, t / tables.columns_per_unit[camera])
                else:
                    up = wp.clamp(-slope * f(2.2), f(0.0), one)
                    fade = (one + (zenith - one) * up) * light
                    blue = (one + (wp.sqrt(zenith) - one) * up) * light
                    top = f(255.0)
                    facts = wp.vec4f(
                        -one,
                        wp.min(scratch.look[w, SKY_R] * fade, top),
                        wp.min(scratch.look[w, SKY_G] * fade, top),
                        wp.min(scratch.look[w, SKY_B] * blue, top),
                    )
                scratch.rows[w, tables.first_row[camera] + row] = facts

    @wp.kernel(module="unique")
    def cull(world: World, tables: RigTables, scratch: Scratch, which: int, first_world: int):
        """Gather the prisms within sight, in the ego's frame, and the columns of each camera that they may touch."""
        w = wp.tid() + first_world
        if skipped(world, which, w):
            return
        x = world.x[w, 0]
        y = world.y[w, 0]
        ce = f(world.cos_heading[w, 0])
        se = f(world.sin_heading[w, 0])
        survey_rows(tables, scratch, w)
        jitter = scratch.look[w, YAW]
        count = int(0)
        for j in range(1, world.slots):
            dx = f(world.x[w, j] - x)
            dy = f(world.y[w, j] - y)
            if world.kind[w, j] != 0 and dx * dx + dy * dy < sight * sight and count < max_candidates:
                forward = dx * ce + dy * se
                right = dy * ce - dx * se
                cj = f(world.cos_heading[w, j])
                sj = f(world.sin_heading[w, j])
                c = cj * ce + sj * se
                s = sj * ce - cj * se
                hl = f(0.5) * f(world.length[w, j])
                hw = f(0.5) * f(world.width[w, j])
                seen = int(0)
                for camera in range(tables.cameras):
                    span = columns_of(
                        tables,
                        camera,
                        tables.yaw[camera] + jitter,
                        forward - tables.forward[camera],
                        right,
                        c,
                        s,
                        hl,
                        hw,
                    )
                    scratch.first_column[w, camera, count] = span[0]
                    scratch.last_column[w, camera, count] = span[1]
                    if span[1] >= f(0.0) and span[0] <= f(tables.width):
                        seen = 1
                    elif tables.round_view[camera] != 0:
                        seen = 1
                if seen != 0:
                    scratch.slot[w, count] = j
                    scratch.facts[w, count, 0] = forward
                    scratch.facts[w, count, 1] = right
                    scratch.facts[w, count, 2] = c
                    scratch.facts[w, count, 3] = s
                    scratch.facts[w, count, 4] = hl
                    scratch.facts[w, count, 5] = hw
                    scratch.facts[w, count, 6] = f(world.height[w, j])
                    scratch.facts[w, count, 7] = wp.where(f(world.acceleration[w, j]) < braking, f(1.0), f(0.0))
                    turn = world.target_lane[w, j] - world.lane[w, j]
                    scratch.facts[w, count, 8] = f(wp.clamp(turn, -1, 1))
                    count = count + 1
        scratch.count[w] = count

    @wp.func
    def level_of(extent: f, last: int) -> int:
        # The power of two at or below an extent in texels, read off the exponent of the float.
        return wp.min((wp.cast(wp.max(extent, f(1.0)), wp.int32) >> 23) - 127, last)

    @wp.func
    def put(images: Images, frame: int, w: int, row: int, column: int, r: f, g: f, b: f, depth: f, label: int, grain: f):
        if wp.static(with_rgb):
            # Colours without noise are within bounds as they were drawn, see envs.sensors.appearance.
            if grain != f(0.0):
                r = wp.clamp(r + grain, f(0.0), f(255.0))
                g = wp.clamp(g + grain, f(0.0), f(255.0))
                b = wp.clamp(b + grain, f(0.0), f(255.0))
            images.rgb[w, frame * 3, row, column] = wp.uint8(int(r))
            images.rgb[w, frame * 3 + 1, row, column] = wp.uint8(int(g))
            images.rgb[w, frame * 3 + 2, row, column] = wp.uint8(int(b))
        if wp.static(with_depth):
            images.depth[w, row, column] = depth
        if wp.static(with_semantic):
            images.semantic[w, row, column] = wp.uint8(label)

    @wp.func
    def grain_of(noise: f, key: wp.uint32, row: int, column: int) -> f:
        """Sensor noise of a pixel: a sum of two uniforms, hashed from the pixel's place and the frame's key."""
        if noise <= f(0.0):
            return f(0.0)
        h = key ^ (wp.uint32(row * 977 + column) * mix_1)
        h = (h ^ (h >> wp.uint32(15))) * mix_2
        h = (h ^ (h >> wp.uint32(13))) * mix_3
        h = h ^ (h >> wp.uint32(16))
        a = f(h & wp.uint32(65535)) - f(h >> wp.uint32(16))
        return noise * a * f(2.449 / 65536.0)  # the triangle's standard deviation is 65536 / sqrt(6)

    @wp.kernel(module="unique")
    def paint(
        world: World,
        tables: RigTables,
        terrain: Ground,
        scratch: Scratch,
        seed: wp.array(dtype=wp.uint64),
        images: Images,
        frame: int,
        which: int,
        first_world: int,
    ):
        w, ray = wp.tid()
        w = w + first_world
        if skipped(world, which, w):
            return
        zero = f(0.0)
        one = f(1.0)
        half = f(0.5)
        camera = ray / tables.width
        column = ray - camera * tables.width
        first_row = tables.first_row[camera]
        rows = tables.rows[camera]
        per_row = one / tables.rows_per_unit[camera]
        elevation = tables.elevation[camera] + scratch.look[w, ELEVATION]
        horizon = tables.horizon[camera] + scratch.look[w, SLOPE] * tables.rows_per_unit[camera]
        jitter = scratch.look[w, YAW]
        # The ray on the ground plane: in the ego's frame (dx, dy), in the world's (wx, wy).
        dx = tables.directions[ray, 0] - jitter * tables.directions[ray, 1]
        dy = tables.directions[ray, 1] + jitter * tables.directions[ray, 0]
        ce = f(world.cos_heading[w, 0])
        se = f(world.sin_heading[w, 0])
        wx = dx * ce - dy * se
        wy = dx * se + dy * ce
        mount = tables.forward[camera]
        # The texture repeats along x, so x is reduced where precision is still that of the simulation.
        repeat = real(f(terrain.size_x) * terrain.texel)
        # It is moved on by many repeats, so that what lies behind has positive texels too. In texels from here on.
        inverse = one / terrain.texel
        eye_x = f(world.x[w, 0] - wp.floor(world.x[w, 0] / repeat) * repeat + real(256.0) * repeat) + mount * ce
        start_x = eye_x * inverse
        start_y = (f(world.y[w, 0]) + mount * se - terrain.origin) * inverse
        wx = wx * inverse
        wy = wy * inverse
        steep_x = wp.abs(wx)
        steep_y = wp.abs(wy)
        last_x = terrain.levels_x - 1
        last_y = terrain.levels_y - 1
        double_x = 2 * terrain.size_x
        double_y = 2 * terrain.size_y

        light = scratch.look[w, LIGHT]
        top_colour = f(255.0)
        sky_r = wp.min(scratch.look[w, SKY_R] * light, top_colour)
        sky_g = wp.min(scratch.look[w, SKY_G] * light, top_colour)
        sky_b = wp.min(scratch.look[w, SKY_B] * light, top_colour)
        asphalt = scratch.look[w, ASPHALT] * light
        warmth = scratch.look[w, WARMTH] * light
        marking = wp.min(scratch.look[w, PAINT] * light, top_colour)
        ground_r = scratch.look[w, TERRAIN_R] * light
        ground_g = scratch.look[w, TERRAIN_G] * light
        ground_b = scratch.look[w, TERRAIN_B] * light
        haze = scratch.look[w, HAZE]
        clear = haze * haze
        noise = scratch.look[w, NOISE]
        key = wp.uint32(0)
        if noise > zero:
            frame_bits = random_bits(
                seed[0], world.world_id[w], world.episode[w], noise_purpose, world.episode_length[w]
            )
            key = wp.uint32(frame_bits >> wp.uint64(32))
        shadow_low = far  # ground between these distances lies under a vehicle
        shadow_high = -far

        # Rows are drawn from the bottom upwards; `row` is the next free one.
        row = int(rows - 1)
        beyond = zero
        candidates = scratch.count[w]
        at = f(column)
        searching = int(1)
        while row >= 0:
            near = f(far)
            leave = f(far)
            hit = int(-1)
            face = int(0)
            if searching != 0:
                for k in range(candidates):
                    low = scratch.first_column[w, camera, k]
                    high = scratch.last_column[w, camera, k]
                    touched = at >= low and at <= high
                    if tables.round_view[camera] != 0 and not touched:
                        turn = f(tables.width)
                        touched = (at + turn >= low and at + turn <= high) or (at - turn >= low and at - turn <= high)
                    if touched:
                        c = scratch.facts[w, k, 2]
                        s = scratch.facts[w, k, 3]
                        px = mount - scratch.facts[w, k, 0]
                        py = -scratch.facts[w, k, 1]
                        ox = px * c + py * s
                        oy = py * c - px * s
                        bx = dx * c + dy * s
                        by = dy * c - dx * s
                        if wp.abs(bx) < f(1.0e-6):
                            bx = f(1.0e-6)
                        if wp.abs(by) < f(1.0e-6):
                            by = f(1.0e-6)
                        ix = one / bx
                        iy = one / by
                        hl = scratch.facts[w, k, 4]
                        hw = scratch.facts[w, k, 5]
                        enter_x = wp.min((-hl - ox) * ix, (hl - ox) * ix)
                        enter_y = wp.min((-hw - oy) * iy, (hw - oy) * iy)
                        t_in = wp.max(enter_x, enter_y)
                        t_out = wp.min(
                            wp.max((-hl - ox) * ix, (hl - ox) * ix), wp.max((-hw - oy) * iy, (hw - oy) * iy)
                        )
                        if t_in < t_out and t_in > beyond and t_in < near:
                            near = t_in
                            leave = t_out
                            hit = k
                            # 0 rear, 1 front, 2 left, 3 right
                            if enter_x > enter_y:
                                face = wp.where(bx > zero, 0, 1)
                            else:
                                face = wp.where(by > zero, 2, 3)
            # Rows of the prism: foot and top of the face, far edge of its upper side where that can be seen.
            foot = int(-1)
            top = int(-1)
            edge = int(-1)
            height = zero
            if hit >= 0:
                height = scratch.facts[w, hit, 6]
                per_distance = tables.rows_per_unit[camera] / near
                foot = int(wp.floor(horizon + elevation * per_distance - half))
                top = int(wp.floor(horizon + (elevation - height) * per_distance + half))
                edge = top
                if height < elevation:
                    edge = int(
                        wp.floor(horizon + (elevation - height) * tables.rows_per_unit[camera] / leave + half)
                    )
                shadow_low = near - f(0.35)
                shadow_high = leave + f(0.35)
            else:
                searching = 0

            # Ground and sky up to the foot, or to the top of the image where no prism is left.
            while row > foot:
                facts = scratch.rows[w, first_row + row]
                t = facts[0]
                grain = grain_of(noise, key, first_row + row, column)
                if t > zero:
                    fog = facts[1]
                    gx = start_x + wx * t
                    gy = start_y + wy * t
                    i = level_of(steep_x * facts[2] + steep_y * facts[3], last_x)
                    j = level_of(steep_y * facts[2] + steep_x * facts[3], last_y)
                    size_x = terrain.size_x >> i
                    size_y = terrain.size_y >> j
                    # Linear between rows across the road: markings keep their place, whatever the level.
                    v = wp.clamp(gy * wp.cast((127 - j) << 23, wp.float32) - half, zero, f(size_y) - f(1.001))
                    ty = int(v)
                    share = v - f(ty)
                    tx = double_x - 2 * size_x + ((int(gx) >> i) & (size_x - 1))
                    texel = tx * double_y + double_y - 2 * size_y + ty
                    here = terrain.texels[texel]
                    there = terrain.texels[texel + 1]
                    road = here[0] + (there[0] - here[0]) * share
                    painted = here[1] + (there[1] - here[1]) * share
                    r = ground_r + (asphalt + warmth - ground_r + (marking - asphalt - warmth) * painted) * road
                    g = ground_g + (asphalt - ground_g + (marking - asphalt) * painted) * road
                    b = ground_b + (asphalt - warmth - ground_b + (marking - asphalt + warmth) * painted) * road
                    if t > shadow_low and t < shadow_high:
                        r = r * half
                        g = g * half
                        b = b * half
                    r = r + (sky_r - r) * fog
                    g = g + (sky_g - g) * fog
                    b = b + (sky_b - b) * fog
                    label = road_class
                    if road < half:
                        label = terrain_class
                    elif painted > half:
                        label = marking_class
                    put(images, frame, w, first_row + row, column, r, g, b, t, label, grain)
                else:
                    put(
                        images, frame, w, first_row + row, column, facts[1], facts[2], facts[3], sight, sky_class, grain
                    )
                row = row - 1

            if hit >= 0:
                beyond = near
                if row >= wp.max(edge, 0):
                    slot = scratch.slot[w, hit]
                    body_r = wp.min(scratch.paint[w, slot, 0] * light, top_colour)
                    body_g = wp.min(scratch.paint[w, slot, 1] * light, top_colour)
                    body_b = wp.min(scratch.paint[w, slot, 2] * light, top_colour)
                    c = scratch.facts[w, hit, 2]
                    s = scratch.facts[w, hit, 3]
                    fog = near * near / (near * near + clear)
                    # Where the ray meets the face, in the prism's frame.
                    px = mount - scratch.facts[w, hit, 0] + near * dx
                    py = near * dy - scratch.facts[w, hit, 1]
                    local_x = px * c + py * s
                    local_y = py * c - px * s
                    nx = zero
                    ny = zero
                    if face == 0:
                        nx = -one
                    elif face == 1:
                        nx = one
                    elif face == 2:
                        ny = -one
                    else:
                        ny = one
                    # The face's normal in the world, for the sun.
                    ex = nx * c - ny * s
                    ey = nx * s + ny * c
                    shade = (
                        f(0.68)
                        + f(0.22)
                        * (
                            (ex * ce - ey * se) * scratch.look[w, SUN_X]
                            + (ex * se + ey * ce) * scratch.look[w, SUN_Y]
                        )
                    )
                    across_share = wp.abs(local_y) / scratch.facts[w, hit, 5]
                    along_share = local_x / scratch.facts[w, hit, 4]
                    side_of_lamp = wp.where(local_y < zero, -one, one)
                    turning = scratch.facts[w, hit, 8] == side_of_lamp and across_share > f(0.6)
                    while row >= 0 and row >= edge:
                        r = body_r
                        g = body_g
                        b = body_b
                        if row < top:
                            # The upper side: roof, with windscreens before and behind it.
                            shade_here = one
                        else:
                            shade_here = shade
                            z = (elevation - (f(row) + half - horizon) * per_row * near) / height
                            if face >= 2:
                                if z > f(0.58) and z < f(0.92) and along_share > f(-0.72) and along_share < f(0.5):
                                    r = f(34.0) * light
                                    g = f(38.0) * light
                                    b = f(44.0) * light
                                elif z < f(0.36) and wp.abs(wp.abs(along_share) - f(0.62)) < f(0.14):
                                    r = f(24.0) * light
                                    g = f(24.0) * light
                                    b = f(26.0) * light
                            else:
                                if z > f(0.6) and z < f(0.93) and across_share < f(0.8):
                                    r = f(34.0) * light
                                    g = f(38.0) * light
                                    b = f(44.0) * light
                                elif z < f(0.14):
                                    r = f(26.0) * light
                                    g = f(26.0) * light
                                    b = f(28.0) * light
                        lamp = int(0)
                        if row >= top and face < 2:
                            z = (elevation - (f(row) + half - horizon) * per_row * near) / height
                            if z > f(0.3) and z < f(0.62) and across_share > f(0.58):
                                lamp = 1
                                shade_here = one
                                if turning:
                                    r = f(255.0)
                                    g = f(150.0)
                                    b = f(20.0)
                                elif face == 0:
                                    if scratch.facts[w, hit, 7] > half:
                                        r = f(255.0)
                                        g = f(30.0)
                                        b = f(24.0)
                                    else:
                                        r = f(112.0) * light
                                        g = f(18.0) * light
                                        b = f(20.0) * light
                                else:
                                    r = wp.min(f(238.0) * light, top_colour)
                                    g = r
                                    b = wp.min(f(226.0) * light, top_colour)
                        mist = fog
                        if lamp != 0:
                            mist = fog * half
                        r = r * shade_here
                        g = g * shade_here
                        b = b * shade_here
                        grain = grain_of(noise, key, first_row + row, column)
                        put(
                            images,
                            frame,
                            w,
                            first_row + row,
                            column,
                            r + (sky_r - r) * mist,
                            g + (sky_g - g) * mist,
                            b + (sky_b - b) * mist,
                            near,
                            vehicle_class,
                            grain,
                        )
                        row = row - 1

    @wp.kernel(module="unique")
    def shift_frames(world: World, words: wp.array2d(dtype=wp.vec4i), frame: int, stride: int, first_world: int):
        """Move the frames of a stack one place towards the past. `frame` is the number of words in one."""
        w, part = wp.tid()
        w = w + first_world
        for k in range(part, frame, stride):
            older = int(k)
            while older + frame < words.shape[1]:
                words[w, older] = words[w, older + frame]
                older = older + frame

    @wp.kernel(module="unique")
    def repeat_frame(
        world: World, words: wp.array2d(dtype=wp.vec4i), frame: int, stride: int, which: int, first_world: int
    ):
        """Fill a stack with its latest frame, at the start of an episode."""
        w, part = wp.tid()
        w = w + first_world
        if skipped(world, which, w):
            return
        latest = words.shape[1] - frame
        for k in range(part, latest, stride):
            words[w, k] = words[w, latest + k % frame]

    return Functions(
        RigTables=RigTables,
        Ground=Ground,
        Images=Images,
        Scratch=Scratch,
        dress=dress,
        cull=cull,
        paint=paint,
        shift_frames=shift_frames,
        repeat_frame=repeat_frame,
    )


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
        self._k = build(simulation.real, tuple(channel for channel in CHANNELS if channel in channels))
        n, device = simulation.num_worlds, simulation.device
        height, width = self.rig.height, self.rig.width

        def zeros(*shape, dtype=torch.float32):
            return torch.zeros(shape, dtype=dtype, device=device)

        self.outputs: dict[str, torch.Tensor] = {}
        self.spaces: dict[str, spaces.Box] = {}
        images = self._k.Images()
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

        cameras = len(self.rig.cameras)
        slots = simulation.state.slots
        # What an episode looks like is part of its state; the rest of the scratch is made anew for every image.
        self.memory = {"look": zeros(n, len(appearance.NAMES)), "paint": zeros(n, slots, 3)}
        self._scratch_tensors = {
            **self.memory,
            "facts": zeros(n, MAX_CANDIDATES, FACTS),
            "slot": zeros(n, MAX_CANDIDATES, dtype=torch.int32),
            "first_column": zeros(n, cameras, MAX_CANDIDATES),
            "last_column": zeros(n, cameras, MAX_CANDIDATES),
            "count": zeros(n, dtype=torch.int32),
            "rows": zeros(n, height, 4),
        }
        self._scratch = self._k.Scratch()
        for name, tensor in self._scratch_tensors.items():
            dtype = wp.vec4f if name == "rows" else None
            setattr(self._scratch, name, wp.from_torch(tensor, dtype=dtype))
        self._tables = self._rig_tables()
        self._ground = self._ground_texture()
        self._bounds = self._array(np.array(list(appearance.QUANTITIES.values()), dtype=np.float32))
        self._colours = self._array(np.array(appearance.BODY_COLOURS, dtype=np.float32))

    def _array(self, values: np.ndarray) -> wp.array:
        return wp.array(values, device=self._simulation.warp_device)

    def _rig_tables(self):
        cameras = self.rig.cameras
        tables = self._k.RigTables()
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
        terrain = self._k.Ground()
        terrain.texels = wp.array(texture.texels.reshape(-1, 2), dtype=wp.vec2f, device=self._simulation.warp_device)
        terrain.size_x, terrain.size_y = texture.size
        terrain.levels_x, terrain.levels_y = (size.bit_length() for size in texture.size)
        terrain.texel, terrain.origin = texture.texel, texture.origin
        return terrain

    def launches(self, which: int, restart: bool = False) -> list[Launch]:
        """See `envs.sensors.base.Sensor`."""
        simulation, k = self._simulation, self._k
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
            program.append(Launch(k.shift_frames, (stride,), (world, words, frame_words, stride)))
        program.append(Launch(k.cull, (), (world, self._tables, self._scratch, which)))
        inputs = (world, self._tables, self._ground, self._scratch, seed, self._images, self._frames - 1, which)
        program.append(Launch(k.paint, rays, inputs))
        if anew and stacked:
            program.append(Launch(k.repeat_frame, (stride,), (world, words, frame_words, stride, which)))
        return program
