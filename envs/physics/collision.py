"""Collisions of upright boxes: separating axes on the current boxes and on boxes swept by one frame's motion.

highway-env's rule: boxes that overlap now crash at once; boxes that will overlap within a frame, at constant velocity,
receive an impact of half the least translation that parts them, which the next integration applies and which crashes
them then. Where several pairs hit a vehicle the last pair's impact stays. Pairs are visited with the lower slot first,
so the last pair of a vehicle is the one with its highest-numbered partner: the result does not depend on the order in
which partners are found, and every vehicle can be handled on its own. What stands (kinds from OBSTACLE on) comes after
the vehicles in that order and is not pushed: the whole translation falls on the vehicle.
"""

import functools

import warp as wp

from envs.physics.bicycle import MAX_SPEED
from envs.precision import Functions
from envs.state import ABSENT, LANDMARK, OBSTACLE, world_struct

# Partners are sought as far as two boxes can be that may touch, with this share above the top speed.
SPEED_SLACK = 1.25
LARGEST_DIAGONAL = 6.0  # m, of any box on a sorted road: highway-env's cars measure 5.39 m across


@functools.cache
def build(real: type, inline: bool | None = None) -> Functions:
    """`overlap(world, w, a, b, dt)`, and `collide` and `collide_any`, which set k's crashed flag and impact."""
    World = world_struct(real)
    half, zero = real(0.5), real(0.0)
    top_speed, largest = real(MAX_SPEED * SPEED_SLACK), real(LARGEST_DIAGONAL)
    absent, obstacle, landmark = ABSENT, OBSTACLE, LANDMARK

    @wp.struct
    class Contact:
        now: wp.int32  # the boxes overlap
        soon: wp.int32  # they will within the frame
        x: real  # translation that parts them, applied to the first
        y: real

    @wp.func
    def interval_distance(center: real, reach_a: real, reach_b: real, sweep: real) -> real:
        # a is centred at 0 and b at `center` on this axis; a's interval is stretched by the relative motion.
        low_a = -reach_a + wp.min(sweep, zero)
        high_a = reach_a + wp.max(sweep, zero)
        low_b = center - reach_b
        high_b = center + reach_b
        return wp.max(low_b - high_a, low_a - high_b)

    @wp.func(inline=inline)
    def overlap(world: wp.ref[World], w: int, a: int, b: int, dt: real) -> Contact:
        contact = Contact()
        contact.now = 1
        contact.soon = 1
        ca = world.cos_heading[w, a]
        sa = world.sin_heading[w, a]
        cb = world.cos_heading[w, b]
        sb = world.sin_heading[w, b]
        dx = world.x[w, b] - world.x[w, a]
        dy = world.y[w, b] - world.y[w, a]
        move_x = (world.speed[w, a] * ca - world.speed[w, b] * cb) * dt
        move_y = (world.speed[w, a] * sa - world.speed[w, b] * sb) * dt
        least = real(1.0e30)
        for k in range(4):
            # Axes in the order in which highway-env meets them: along a, across a, along b, across b.
            nx = ca
            ny = sa
            if k == 1:
                nx = -sa
                ny = ca
            elif k == 2:
                nx = cb
                ny = sb
            elif k == 3:
                nx = -sb
                ny = cb
            reach_a = half * (
                world.length[w, a] * wp.abs(nx * ca + ny * sa) + world.width[w, a] * wp.abs(ny * ca - nx * sa)
            )
            reach_b = half * (
                world.length[w, b] * wp.abs(nx * cb + ny * sb) + world.width[w, b] * wp.abs(ny * cb - nx * sb)
            )
            center = nx * dx + ny * dy
            if interval_distance(center, reach_a, reach_b, zero) > zero:
                contact.now = 0
            distance = interval_distance(center, reach_a, reach_b, nx * move_x + ny * move_y)
            if distance > zero:
                contact.soon = 0
            if contact.now == 0 and contact.soon == 0:
                return contact
            if wp.abs(distance) < least:
                least = wp.abs(distance)
                sign = wp.where(center < zero, least, -least)
                contact.x = sign * nx
                contact.y = sign * ny
        return contact

    @wp.func
    def meet(world: wp.ref[World], w: int, k: int, j: int, dt: real, last: int) -> int:
        """Crash k into j where they touch; returns the slot whose impact k has taken, j or the `last` one."""
        if world.kind[w, j] == absent or (world.checks_collisions[w, k] == 0 and world.checks_collisions[w, j] == 0):
            return last
        a = wp.where(world.sequence[w, k] < world.sequence[w, j], k, j)
        b = k + j - a
        dx = world.x[w, j] - world.x[w, k]
        dy = world.y[w, j] - world.y[w, k]
        length = world.length[w, k]
        width = world.width[w, k]
        diagonal = wp.sqrt(length * length + width * width)
        other = wp.sqrt(world.length[w, j] * world.length[w, j] + world.width[w, j] * world.width[w, j])
        # highway-env's first test takes the lower-numbered vehicle's speed only.
        near = half * (diagonal + other) + world.speed[w, a] * dt
        if near < zero or dx * dx + dy * dy > near * near:
            return last
        stands = world.kind[w, j] >= obstacle
        if stands:
            # Walls are long: most of what their reach suggests, their own axes exclude.
            beyond = diagonal * half + wp.abs(world.speed[w, k]) * dt
            c = world.cos_heading[w, j]
            s = world.sin_heading[w, j]
            if (
                wp.abs(dx * c + dy * s) > half * world.length[w, j] + beyond
                or wp.abs(dy * c - dx * s) > half * world.width[w, j] + beyond
            ):
                return last
        contact = overlap(world, w, a, b, dt)
        if world.kind[w, j] == landmark:
            if contact.now != 0:
                world.crashed[w, j] = 1
            return last
        if contact.now != 0:
            world.crashed[w, k] = 1
            if stands:
                world.crashed[w, j] = 1
        if contact.soon != 0 and (last < 0 or world.sequence[w, j] > world.sequence[w, last]):
            # What stands does not give way.
            share = wp.where(stands, real(1.0), half)
            push = wp.where(k == a, share, -share)
            world.impact_x[w, k] = push * contact.x
            world.impact_y[w, k] = push * contact.y
            world.has_impact[w, k] = 1
            return j
        return last

    @wp.func
    def collide(world: wp.ref[World], w: int, k: int, dt: real):
        """k's collisions, where slots are sorted by x."""
        if world.kind[w, k] == absent or world.kind[w, k] >= obstacle:
            return
        x = world.x[w, k]
        y = world.y[w, k]
        window = largest + top_speed * dt
        last = int(-1)
        for side in range(2):
            step = 1 - 2 * side
            r = world.rank[w, k] + step
            while r >= 0 and r < world.slots:
                j = world.order[w, r]
                r = r + step
                if wp.abs(world.x[w, j] - x) > window:
                    break
                if wp.abs(world.y[w, j] - y) < window:
                    last = meet(world, w, k, j, dt, last)

    @wp.func
    def collide_any(world: wp.ref[World], w: int, k: int, dt: real, longest: real):
        """The same in no order, by each box's reach, of which none is more than `longest`."""
        if world.kind[w, k] == absent or world.kind[w, k] >= obstacle:
            return
        x = world.x[w, k]
        y = world.y[w, k]
        window = world.reach[w, k] + top_speed * dt
        last = int(-1)
        for j in range(world.used[w]):
            # One condition after the other: Warp evaluates both sides of an `and`.
            dx = wp.abs(world.x[w, j] - x)
            if dx < window + longest:
                near = window + world.reach[w, j]
                if dx < near and wp.abs(world.y[w, j] - y) < near and j != k:
                    last = meet(world, w, k, j, dt, last)

    return Functions(overlap=overlap, collide=collide, collide_any=collide_any)
