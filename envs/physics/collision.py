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
BITS = 64  # vehicles of a world that one integer can mark
LARGEST_DIAGONAL = 6.0  # m, of any box on a sorted road: highway-env's cars measure 5.39 m across


@functools.cache
def build(real: type, inline: bool | None = None) -> Functions:
    """`overlap(world, w, a, b, dt)`, and `collide` and `collide_any`, which set k's crashed flag and impact."""
    World = world_struct(real)
    half, zero = real(0.5), real(0.0)
    top_speed, largest = real(MAX_SPEED * SPEED_SLACK), real(LARGEST_DIAGONAL)
    absent, obstacle, landmark, most = ABSENT, OBSTACLE, LANDMARK, BITS

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
        ca = world.vehicle[w, a].cos_heading
        sa = world.vehicle[w, a].sin_heading
        cb = world.vehicle[w, b].cos_heading
        sb = world.vehicle[w, b].sin_heading
        dx = world.vehicle[w, b].x - world.vehicle[w, a].x
        dy = world.vehicle[w, b].y - world.vehicle[w, a].y
        move_x = (world.vehicle[w, a].speed * ca - world.vehicle[w, b].speed * cb) * dt
        move_y = (world.vehicle[w, a].speed * sa - world.vehicle[w, b].speed * sb) * dt
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
                world.vehicle[w, a].length * wp.abs(nx * ca + ny * sa)
                + world.vehicle[w, a].width * wp.abs(ny * ca - nx * sa)
            )
            reach_b = half * (
                world.vehicle[w, b].length * wp.abs(nx * cb + ny * sb)
                + world.vehicle[w, b].width * wp.abs(ny * cb - nx * sb)
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

    @wp.func(inline=inline)
    def contact_of(world: wp.ref[World], w: int, k: int, j: int, dt: real) -> Contact:
        """How the boxes of k, a vehicle, and j touch, by the rules of who can; the translation is for the one that is
        first in the sequence."""
        none = Contact()
        if world.vehicle[w, j].kind == absent:
            return none
        if world.vehicle[w, k].checks_collisions == 0 and world.vehicle[w, j].checks_collisions == 0:
            return none
        a = wp.where(world.vehicle[w, k].sequence < world.vehicle[w, j].sequence, k, j)
        dx = world.vehicle[w, j].x - world.vehicle[w, k].x
        dy = world.vehicle[w, j].y - world.vehicle[w, k].y
        length = world.vehicle[w, k].length
        width = world.vehicle[w, k].width
        diagonal = wp.sqrt(length * length + width * width)
        length_j = world.vehicle[w, j].length
        width_j = world.vehicle[w, j].width
        other = wp.sqrt(length_j * length_j + width_j * width_j)
        # highway-env's first test takes the lower-numbered vehicle's speed only.
        near = half * (diagonal + other) + world.vehicle[w, a].speed * dt
        if near < zero or dx * dx + dy * dy > near * near:
            return none
        if world.vehicle[w, j].kind >= obstacle:
            # Walls are long: most of what their reach suggests, their own axes exclude.
            beyond = diagonal * half + wp.abs(world.vehicle[w, k].speed) * dt
            c = world.vehicle[w, j].cos_heading
            s = world.vehicle[w, j].sin_heading
            if wp.abs(dx * c + dy * s) > half * length_j + beyond or wp.abs(dy * c - dx * s) > half * width_j + beyond:
                return none
        return overlap(world, w, a, k + j - a, dt)

    @wp.func
    def meet(world: wp.ref[World], w: int, k: int, j: int, dt: real, last: int) -> int:
        """Crash k into j where they touch; returns the slot whose impact k has taken, j or the `last` one."""
        contact = contact_of(world, w, k, j, dt)
        if world.vehicle[w, j].kind == landmark:
            if contact.now != 0:
                world.vehicle[w, j].crashed = 1
            return last
        stands = world.vehicle[w, j].kind >= obstacle
        if contact.now != 0:
            world.vehicle[w, k].crashed = 1
            if stands:
                world.vehicle[w, j].crashed = 1
        if contact.soon != 0 and (last < 0 or world.vehicle[w, j].sequence > world.vehicle[w, last].sequence):
            # What stands does not give way.
            share = wp.where(stands, real(1.0), half)
            push = wp.where(world.vehicle[w, k].sequence < world.vehicle[w, j].sequence, share, -share)
            world.vehicle[w, k].impact_x = push * contact.x
            world.vehicle[w, k].impact_y = push * contact.y
            world.vehicle[w, k].has_impact = 1
            return j
        return last

    @wp.func
    def collide(world: wp.ref[World], w: int, k: int, dt: real):
        """k's collisions, where slots are sorted by x."""
        if world.vehicle[w, k].kind == absent or world.vehicle[w, k].kind >= obstacle:
            return
        x = world.vehicle[w, k].x
        y = world.vehicle[w, k].y
        window = largest + top_speed * dt
        last = int(-1)
        for side in range(2):
            step = 1 - 2 * side
            r = world.vehicle[w, k].rank + step
            while r >= 0 and r < world.slots:
                j = world.vehicle[w, r].order
                r = r + step
                if wp.abs(world.vehicle[w, j].x - x) > window:
                    break
                if wp.abs(world.vehicle[w, j].y - y) < window:
                    last = meet(world, w, k, j, dt, last)

    @wp.func(inline=inline)
    def collide_any(world: wp.ref[World], w: int, k: int, dt: real, longest: real):
        """The same in no order, by each box's reach, of which none is more than `longest`."""
        if world.vehicle[w, k].kind == absent or world.vehicle[w, k].kind >= obstacle:
            return
        x = world.vehicle[w, k].x
        y = world.vehicle[w, k].y
        window = world.vehicle[w, k].reach + top_speed * dt
        last = int(-1)
        for j in range(world.used[w]):
            # One condition after the other: Warp evaluates both sides of an `and`.
            dx = wp.abs(world.vehicle[w, j].x - x)
            if dx < window + longest:
                near = window + world.vehicle[w, j].reach
                if dx < near and wp.abs(world.vehicle[w, j].y - y) < near and j != k:
                    last = meet(world, w, k, j, dt, last)

    @wp.func(inline=inline)
    def touch(world: wp.ref[World], w: int, k: int, j: int, dt: real) -> wp.uint64:
        """The marks of both where one of them would run into the other, else 0."""
        # The vehicle of the two is the one that is asked; what stands does not run into each other.
        asked = wp.where(world.vehicle[w, k].kind < obstacle, k, j)
        kind = world.vehicle[w, asked].kind
        if kind != absent and kind < obstacle:
            contact = contact_of(world, w, asked, k + j - asked, dt)
            if contact.now + contact.soon != 0:
                return (wp.uint64(1) << wp.uint64(k)) | (wp.uint64(1) << wp.uint64(j))
        return wp.uint64(0)

    @wp.func
    def collide_all(world: wp.ref[World], w: int, dt: real, longest: real):
        """`collide_any` of every vehicle of a world: each pair is looked at once, and mostly nobody touches anybody."""
        used = world.used[w]
        if used > most:
            for k in range(used):
                collide_any(world, w, k, dt, longest)
            return
        touched = wp.uint64(0)
        for k in range(used):
            x = world.vehicle[w, k].x
            y = world.vehicle[w, k].y
            window = world.vehicle[w, k].reach + top_speed * dt
            for j in range(k + 1, used):
                dx = wp.abs(world.vehicle[w, j].x - x)
                if dx < window + longest:
                    near = window + world.vehicle[w, j].reach
                    if dx < near and wp.abs(world.vehicle[w, j].y - y) < near:
                        touched = touched | touch(world, w, k, j, dt)
        if touched != wp.uint64(0):
            for k in range(used):
                if (touched >> wp.uint64(k)) & wp.uint64(1) != wp.uint64(0):
                    collide_any(world, w, k, dt, longest)

    @wp.func
    def collide_sorted(world: wp.ref[World], w: int, dt: real):
        """`collide` of every vehicle of a world. Each pair is looked at once: mostly nobody touches anybody."""
        if world.slots > most:
            for k in range(world.slots):
                collide(world, w, k, dt)
            return
        window = largest + top_speed * dt
        touched = wp.uint64(0)
        passed = int(0)  # behind, who do not check themselves
        for r in range(world.slots):
            k = world.vehicle[w, r].order
            if world.vehicle[w, k].checks_collisions == 0:
                passed = passed + 1
                continue
            x = world.vehicle[w, k].x
            for ahead in range(r + 1, world.slots):
                j = world.vehicle[w, ahead].order
                if wp.abs(world.vehicle[w, j].x - x) > window:
                    break
                touched = touched | touch(world, w, k, j, dt)
            if passed > 0:
                for back in range(r):
                    j = world.vehicle[w, r - 1 - back].order
                    if wp.abs(world.vehicle[w, j].x - x) > window:
                        break
                    if world.vehicle[w, j].checks_collisions == 0:
                        touched = touched | touch(world, w, k, j, dt)
        if touched != wp.uint64(0):
            for k in range(world.slots):
                if (touched >> wp.uint64(k)) & wp.uint64(1) != wp.uint64(0):
                    collide(world, w, k, dt)

    return Functions(
        overlap=overlap,
        collide=collide,
        collide_any=collide_any,
        collide_all=collide_all,
        collide_sorted=collide_sorted,
    )
