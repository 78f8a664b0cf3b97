"""Actors of staged cases that move as a script says, and the way that the ego of a case takes.

A script is a list of segments of constant acceleration along the actor's base heading and constant speed to the right
of it. It begins when its trigger fires; before that the actor keeps its start speed, or stands if it waits. Where an
actor is at the end of a frame follows from the table and the time alone:

    s = sum of v t + a t^2 / 2,   r = sum of v_r t,   0 <= v <= the bicycle model's top speed

over the segments so far. Scripted actors are of the kind "plain". In every frame they are given the heading, speed and
acceleration that they have at its end, and the place from which the bicycle model carries them there. A crash ends a
script: after it they brake like everybody else. The state's `patience` is the time at which an actor's script begins
or has begun.
"""

import functools

import warp as wp

from envs.physics.bicycle import MAX_SPEED
from envs.precision import Functions
from envs.state import FORMS, PLAIN, world_struct

# What a row of the table `Road.scripts` [case, slot] holds: these, then three numbers a segment.
COLUMNS = (
    "scripted",  # 1, or 0 for everybody else
    "x",
    "y",
    "heading",
    "speed",
    "waits",
    "time",  # of the trigger [s]
    "point_x",
    "point_y",
    "arrival",  # s, 0 where it is not used
    "segments",
)
SEGMENT = ("duration", "acceleration", "lateral_speed")
NEVER = 1.0e9  # s
LEAST_SPEED = 0.1  # m/s, at which a standing ego is taken to approach


@functools.cache
def build(real: type, road_functions) -> Functions:
    """`advance(world, road, w, dt)`: move the scripted actors of a world, and have a plain ego look for its lane.

    `be_people(world, road, w, kind)`: make scripted people of that kind, `ABSENT` to hide them.
    """
    World, Road, plain, person = world_struct(real), road_functions.Road, PLAIN, FORMS.index("person")
    scripted, x_column, y_column, heading_column, speed_column, waits, time, point_x, point_y, arrival, segments = (
        range(len(COLUMNS))
    )
    columns, per_segment = len(COLUMNS), len(SEGMENT)
    zero, half, top_speed, least_speed = real(0.0), real(0.5), real(MAX_SPEED), real(LEAST_SPEED)

    @wp.struct
    class Motion:
        along: real  # m, from the start, in the direction of the base heading
        across: real  # m, to the right of it
        speed: real  # m/s, along
        lateral_speed: real  # m/s
        acceleration: real  # m/s2, along

    @wp.func
    def trigger(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, case: int, now: real):
        """Set when the script begins; `now` is the beginning of the frame."""
        if world.frame[w] == 1:
            world.vehicle[w, i].patience = road.scripts[case, i, time]
        within = road.scripts[case, i, arrival]
        if within > zero and world.vehicle[w, i].patience > now:
            dx = road.scripts[case, i, point_x] - world.vehicle[w, 0].x
            dy = road.scripts[case, i, point_y] - world.vehicle[w, 0].y
            if wp.sqrt(dx * dx + dy * dy) <= within * wp.max(world.vehicle[w, 0].speed, least_speed):
                world.vehicle[w, i].patience = now

    @wp.func
    def played(road: wp.ref[Road], i: int, case: int, begins: real, now: real) -> Motion:
        motion = Motion()
        speed = real(road.scripts[case, i, speed_column])
        if road.scripts[case, i, waits] == zero or now >= begins:
            motion.speed = speed
        if road.scripts[case, i, waits] == zero:
            motion.along = speed * wp.min(now, begins)
        left = now - begins
        if left < zero:
            return motion
        last = int(road.scripts[case, i, segments]) - 1
        for k in range(last + 1):
            if left > zero or k == 0:
                entry = columns + per_segment * k
                lasts = real(left)
                if k < last:
                    lasts = wp.min(left, road.scripts[case, i, entry])
                a = road.scripts[case, i, entry + 1]
                # Once it stands, or is as fast as anybody can be, its speed stays.
                limit = wp.where(a < zero, zero, top_speed)
                changes = real(0.0)
                if a != zero:
                    changes = wp.min(lasts, (limit - motion.speed) / a)
                motion.along = motion.along + motion.speed * changes + half * a * changes * changes
                motion.speed = motion.speed + a * changes
                motion.acceleration = a
                if a != zero and changes < lasts:
                    motion.speed = limit
                    motion.acceleration = zero
                motion.along = motion.along + motion.speed * (lasts - changes)
                motion.lateral_speed = road.scripts[case, i, entry + 2]
                motion.across = motion.across + motion.lateral_speed * lasts
                left = left - lasts
        if last < 0:
            motion.along = motion.along + speed * left
        return motion

    @wp.func
    def place(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, case: int, motion: Motion, dt: real):
        """Set the actor such that a frame of the bicycle model ends with that motion."""
        base = road.scripts[case, i, heading_column]
        c = wp.cos(base)
        s = wp.sin(base)
        x = road.scripts[case, i, x_column] + motion.along * c - motion.across * s
        y = road.scripts[case, i, y_column] + motion.along * s + motion.across * c
        speed = wp.sqrt(motion.speed * motion.speed + motion.lateral_speed * motion.lateral_speed)
        acceleration = real(0.0)
        heading = real(base)
        if speed > zero:
            heading = base + wp.atan2(motion.lateral_speed, motion.speed)
            acceleration = motion.acceleration * motion.speed / speed
        c = wp.cos(heading)
        s = wp.sin(heading)
        before = speed - acceleration * dt
        world.vehicle[w, i].heading = heading
        world.vehicle[w, i].cos_heading = c
        world.vehicle[w, i].sin_heading = s
        world.vehicle[w, i].sin_slip = zero
        world.vehicle[w, i].speed = before
        world.vehicle[w, i].acceleration = acceleration
        world.vehicle[w, i].x = x - before * c * dt
        world.vehicle[w, i].y = y - before * s * dt

    @wp.func
    def be_people(world: wp.ref[World], road: wp.ref[Road], w: int, kind: int):
        cases = road.scripts.shape[0]
        if cases > 0:
            for i in range(world.agents, world.used[w]):
                if road.scripts[world.world_id[w] % cases, i, scripted] != zero and world.vehicle[w, i].form == person:
                    world.vehicle[w, i].kind = kind

    @wp.func
    def look_ahead(world: wp.ref[World], road: wp.ref[Road], w: int):
        """The lane that the ego's route leads along, which built-in drivers keep up themselves."""
        lane = world.vehicle[w, 0].lane
        if road_functions.same_road(road, lane, world.vehicle[w, 0].target_lane):
            world.vehicle[w, 0].target_lane = lane
        world.vehicle[w, 0].target_lane = road_functions.onward(world, road, w, 0)

    @wp.func(inline=False)
    def advance(world: wp.ref[World], road: wp.ref[Road], w: int, dt: real):
        if road.scripts.shape[0] == 0:
            return
        if world.vehicle[w, 0].kind == plain:
            look_ahead(world, road, w)
        case = world.world_id[w] % road.scripts.shape[0]
        frame = world.frame[w]
        for i in range(world.agents, world.used[w]):
            if road.scripts[case, i, scripted] != zero and world.vehicle[w, i].crashed == 0:
                trigger(world, road, w, i, case, real(frame - 1) * dt)
                motion = played(road, i, case, world.vehicle[w, i].patience, real(frame) * dt)
                place(world, road, w, i, case, motion, dt)

    return Functions(advance=advance, be_people=be_people)
