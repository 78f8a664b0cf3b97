"""The geometry of an image column: which rows see the ground where, and which prisms a column's ray meets.

An image column is a vertical plane, so one horizontal ray stands for all of its rows. Lengths along a ray are in units
of the ray's direction: for a pinhole camera the distance along its axis, for a cylindrical one the distance itself.
"""

import functools
import math

import warp as wp

from envs.phases import ENDED
from envs.precision import Functions
from envs.sensors.appearance import INDEX
from envs.state import LANDMARK, world_struct

SIGHT = 220.0  # m, prisms farther off are not drawn
MAX_CANDIDATES = 48  # prisms a world that are considered: the first in slot order within sight
FACTS = 9  # numbers kept of each, see `Scratch.facts`
BRAKING = -0.4  # m/s2, below which the brake lights burn
# Faces of a prism.
REAR, FRONT, LEFT, RIGHT = range(4)


@functools.cache
def build(real: type) -> Functions:
    """Structs of the camera's tables and scratch, kernel `cull`, functions `ray_of` and `meet`."""
    World = world_struct(real)
    f = wp.float32
    ended, landmark = ENDED, LANDMARK
    far, sight, braking, max_candidates = f(1.0e9), f(SIGHT), f(BRAKING), MAX_CANDIDATES
    LIGHT, HAZE, SKY_R, SKY_G, SKY_B, ZENITH = (
        INDEX[k] for k in ("light", "haze", "sky_r", "sky_g", "sky_b", "zenith")
    )
    ELEVATION, YAW, SLOPE = (INDEX[k] for k in ("elevation", "yaw", "slope"))

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
    class Scratch:
        look: wp.array2d(dtype=wp.float32)  # [world, quantity], see envs.sensors.appearance
        paint: wp.array3d(dtype=wp.float32)  # [world, slot, channel] body colour
        rows: wp.array2d(dtype=wp.vec4f)  # [world, row] ground: distance, haze, footprint along, across; sky: -1, RGB
        count: wp.array(dtype=wp.int32)  # [world] candidates
        slot: wp.array2d(dtype=wp.int32)  # [world, candidate] -1 - head for a signal head
        # [world, candidate, fact] in the observer's frame: forward, right [m], cosine and sine of the relative heading,
        # half length, half width, height [m], 1 where braking, -1 or +1 where changing lane to the left or right; of a
        # signal head in place of the last two what it shows and 1 where that is an arrow
        facts: wp.array3d(dtype=wp.float32)
        first_column: wp.array3d(dtype=wp.float32)  # [world, camera, candidate] leftmost that it may touch
        last_column: wp.array3d(dtype=wp.float32)  # [world, camera, candidate]

    @wp.struct
    class Ray:
        """A column's ray from a camera over the ground plane."""

        world: wp.int32
        agent: wp.int32  # slot of who films
        camera: wp.int32
        column: wp.int32
        first_row: wp.int32  # of the camera in the stacked image
        rows: wp.int32
        forward: wp.float32  # direction in the observer's frame
        right: wp.float32
        mount: wp.float32  # of the camera ahead of the observer's centre, m
        elevation: wp.float32  # of the camera, m
        horizon: wp.float32  # row
        rows_per_unit: wp.float32

    @wp.struct
    class Meeting:
        """Where a ray enters and leaves a prism; candidate -1 where it meets none."""

        candidate: wp.int32
        face: wp.int32
        enter: wp.float32
        leave: wp.float32

    @wp.func
    def skipped(world: wp.ref[World], which: int, w: int) -> bool:
        return which == ended and world.terminated[w] + world.truncated[w] == 0

    @wp.func
    def survey_rows(tables: wp.ref[RigTables], scratch: wp.ref[Scratch], w: int):
        """What every pixel of an image row shares: how far its ray meets the ground, or the colour of its sky."""
        one = f(1.0)
        top = f(255.0)
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
                    haze = t * t / (t * t + clear)
                    facts = wp.vec4f(t, haze, t * per_row / slope, t / tables.columns_per_unit[camera])
                else:
                    up = wp.clamp(-slope * f(2.2), f(0.0), one)
                    fade = (one + (zenith - one) * up) * light
                    blue = (one + (wp.sqrt(zenith) - one) * up) * light
                    facts = wp.vec4f(
                        -one,
                        wp.min(scratch.look[w, SKY_R] * fade, top),
                        wp.min(scratch.look[w, SKY_G] * fade, top),
                        wp.min(scratch.look[w, SKY_B] * blue, top),
                    )
                scratch.rows[w, tables.first_row[camera] + row] = facts

    @wp.func
    def columns_of(
        tables: wp.ref[RigTables], camera: int, yaw: f, forward: f, right: f, c: f, s: f, hl: f, hw: f
    ) -> wp.vec2f:
        """First and last column that a box can touch: centre (forward, right), axis (c, s), half sizes hl and hw."""
        cy = wp.cos(yaw)
        sy = wp.sin(yaw)
        low = f(1.0e9)
        high = f(-1.0e9)
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
        if not around and ahead == 0:
            return wp.vec2f(far, -far)
        # A box around the mount, or one that reaches behind the image plane, may be seen by any column.
        if (around and high - low > f(math.pi)) or (not around and ahead < 4):
            return wp.vec2f(-far, far)
        middle_column = f(0.5) * f(tables.width) - f(0.5)
        scale = tables.columns_per_unit[camera]
        return wp.vec2f(middle_column + low * scale, middle_column + high * scale)

    @wp.func
    def jitter_of(scratch: wp.ref[Scratch], w: int) -> f:
        """Error of the cameras' direction [rad]."""
        return scratch.look[w, YAW]

    @wp.kernel(module="unique")
    def cull(world: World, tables: RigTables, scratch: Scratch, agent: int, which: int, first_world: int):
        """Gather the prisms within an agent's sight and the columns that they may touch; survey the rows."""
        w = wp.tid() + first_world
        if skipped(world, which, w):
            return
        survey_rows(tables, scratch, w)
        x = world.vehicle[w, agent].x
        y = world.vehicle[w, agent].y
        ce = f(world.vehicle[w, agent].cos_heading)
        se = f(world.vehicle[w, agent].sin_heading)
        jitter = jitter_of(scratch, w)
        count = int(0)
        landmarks = int(0)
        for j in range(world.slots):
            dx = f(world.vehicle[w, j].x - x)
            dy = f(world.vehicle[w, j].y - y)
            shown = world.vehicle[w, j].kind != 0 and j != agent
            if world.vehicle[w, j].kind == landmark:
                # Of several agents each sees the goal that is its own.
                shown = world.agents == 1 or landmarks == agent
                landmarks = landmarks + 1
            if shown and dx * dx + dy * dy < sight * sight and count < max_candidates:
                forward = dx * ce + dy * se
                right = dy * ce - dx * se
                cj = f(world.vehicle[w, j].cos_heading)
                sj = f(world.vehicle[w, j].sin_heading)
                c = cj * ce + sj * se
                s = sj * ce - cj * se
                hl = f(0.5) * f(world.vehicle[w, j].length)
                hw = f(0.5) * f(world.vehicle[w, j].width)
                seen = int(0)
                for camera in range(tables.cameras):
                    yaw = tables.yaw[camera] + jitter
                    span = columns_of(tables, camera, yaw, forward - tables.forward[camera], right, c, s, hl, hw)
                    scratch.first_column[w, camera, count] = span[0]
                    scratch.last_column[w, camera, count] = span[1]
                    if tables.round_view[camera] != 0 or (span[1] >= f(0.0) and span[0] <= f(tables.width)):
                        seen = 1
                if seen != 0:
                    scratch.slot[w, count] = j
                    scratch.facts[w, count, 0] = forward
                    scratch.facts[w, count, 1] = right
                    scratch.facts[w, count, 2] = c
                    scratch.facts[w, count, 3] = s
                    scratch.facts[w, count, 4] = hl
                    scratch.facts[w, count, 5] = hw
                    scratch.facts[w, count, 6] = wp.where(
                        world.vehicle[w, j].kind == landmark, f(0.0), f(world.vehicle[w, j].height)
                    )
                    scratch.facts[w, count, 7] = wp.where(f(world.vehicle[w, j].acceleration) < braking, f(1.0), f(0.0))
                    scratch.facts[w, count, 8] = f(
                        wp.clamp(world.vehicle[w, j].target_lane - world.vehicle[w, j].lane, -1, 1)
                    )
                    count = count + 1
        scratch.count[w] = count

    @wp.func
    def ray_of(tables: wp.ref[RigTables], scratch: wp.ref[Scratch], w: int, agent: int, index: int) -> Ray:
        """The ray of one of a rig's columns, with the world's mounting errors."""
        ray = Ray()
        camera = index / tables.width
        ray.world = w
        ray.agent = agent
        ray.camera = camera
        ray.column = index - camera * tables.width
        ray.first_row = tables.first_row[camera]
        ray.rows = tables.rows[camera]
        jitter = scratch.look[w, YAW]
        ray.forward = tables.directions[index, 0] - jitter * tables.directions[index, 1]
        ray.right = tables.directions[index, 1] + jitter * tables.directions[index, 0]
        ray.mount = tables.forward[camera]
        ray.elevation = tables.elevation[camera] + scratch.look[w, ELEVATION]
        ray.rows_per_unit = tables.rows_per_unit[camera]
        ray.horizon = tables.horizon[camera] + scratch.look[w, SLOPE] * ray.rows_per_unit
        return ray

    @wp.func
    def touches(tables: wp.ref[RigTables], scratch: wp.ref[Scratch], ray: Ray, k: int) -> bool:
        """Whether a candidate may be met in this column; on a round image also one turn to either side."""
        low = scratch.first_column[ray.world, ray.camera, k]
        high = scratch.last_column[ray.world, ray.camera, k]
        column = f(ray.column)
        if column >= low and column <= high:
            return True
        if tables.round_view[ray.camera] == 0:
            return False
        turn = f(tables.width)
        return (column + turn >= low and column + turn <= high) or (column - turn >= low and column - turn <= high)

    @wp.func
    def meet(tables: wp.ref[RigTables], scratch: wp.ref[Scratch], ray: Ray, beyond: f) -> Meeting:
        """The first prism that the ray enters farther off than `beyond`."""
        meeting = Meeting()
        meeting.candidate = -1
        meeting.enter = far
        w = ray.world
        for k in range(scratch.count[w]):
            if touches(tables, scratch, ray, k):
                c = scratch.facts[w, k, 2]
                s = scratch.facts[w, k, 3]
                hl = scratch.facts[w, k, 4]
                hw = scratch.facts[w, k, 5]
                # The camera and the ray in the prism's frame, where its sides are two pairs of parallel lines.
                px = ray.mount - scratch.facts[w, k, 0]
                py = -scratch.facts[w, k, 1]
                ox = px * c + py * s
                oy = py * c - px * s
                bx = ray.forward * c + ray.right * s
                by = ray.right * c - ray.forward * s
                if wp.abs(bx) < f(1.0e-6):
                    bx = f(1.0e-6)
                if wp.abs(by) < f(1.0e-6):
                    by = f(1.0e-6)
                ix = f(1.0) / bx
                iy = f(1.0) / by
                near_x = (-hl - ox) * ix
                far_x = (hl - ox) * ix
                near_y = (-hw - oy) * iy
                far_y = (hw - oy) * iy
                enter_x = wp.min(near_x, far_x)
                enter_y = wp.min(near_y, far_y)
                enter = wp.max(enter_x, enter_y)
                leave = wp.min(wp.max(near_x, far_x), wp.max(near_y, far_y))
                if enter < leave and enter > beyond and enter < meeting.enter:
                    meeting.candidate = k
                    meeting.enter = enter
                    meeting.leave = leave
                    if enter_x > enter_y:
                        meeting.face = wp.where(bx > f(0.0), REAR, FRONT)
                    else:
                        meeting.face = wp.where(by > f(0.0), LEFT, RIGHT)
        return meeting

    return Functions(
        RigTables=RigTables,
        Scratch=Scratch,
        Ray=Ray,
        Meeting=Meeting,
        skipped=skipped,
        columns_of=columns_of,
        jitter_of=jitter_of,
        cull=cull,
        ray_of=ray_of,
        meet=meet,
    )
