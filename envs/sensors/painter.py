"""Filling an image column, from the bottom upwards and from near to far, each pixel once.

The nearest prism takes the rows from its foot to its top; what is free below it shows the ground, what remains above it
shows the next prism, the ground beyond and the sky. What is hidden is never drawn. Only the housing of a signal hangs
over what is behind it: it is drawn last, over the rows that were free when its distance was reached.
"""

import functools

import warp as wp

from envs import random
from envs.precision import Functions
from envs.sensors import appearance, bodies, columns, heads, light, surfaces
from envs.state import world_struct

SHADOW = 0.35  # m of ground around a vehicle that lies in its shadow
GOAL = (40.0, 110.0, 212.0)  # colour of a place to be reached


@functools.cache
def build(real: type, channels: tuple[str, ...], tiled: bool = False, signals: bool = False) -> Functions:
    """Kernels `dress`, `paint`, `shift_frames` and `repeat_frame`. What is not asked for is compiled out.

    Args:
        real: scalar type.
        channels: to be filled.
        tiled: which ground there is, see `envs.sensors.surfaces.build`.
        signals: whether a map has signals.
    """
    World = world_struct(real)
    column_functions, surface_functions = columns.build(real), surfaces.build(real, tiled)
    RigTables, Scratch = column_functions.RigTables, column_functions.Scratch
    Ray, Meeting = column_functions.Ray, column_functions.Meeting
    light_functions, body_functions, head_functions = light.build(real), bodies.build(real), heads.build(real)
    Ground, Palette = surface_functions.Ground, light_functions.Palette
    skipped = column_functions.skipped
    dress_world = appearance.build(real).dress
    random_bits = random.build(wp.float32).bits
    noise_purpose = random.SENSOR_NOISE
    f = wp.float32
    with_rgb, with_depth, with_semantic = ("rgb" in channels), ("depth" in channels), ("semantic" in channels)
    sky_class, marking_class, signal_class = surfaces.SKY, surfaces.MARKING, surfaces.SIGNAL
    mix_1, mix_2, mix_3 = wp.uint32(2654435761), wp.uint32(2246822519), wp.uint32(3266489917)
    far, sight, shadow = f(1.0e9), f(columns.SIGHT), f(SHADOW)
    post, flat = bodies.POST, bodies.FLAT
    head_bottom, head_top, half_post = f(heads.BOTTOM), f(heads.TOP), f(heads.POST / 2)
    goal = wp.vec3f(*GOAL)
    NOISE = appearance.INDEX["noise"]

    @wp.struct
    class Images:
        rgb: wp.array4d(dtype=wp.uint8)  # [world, frame * 3 + channel, row, column]
        depth: wp.array3d(dtype=wp.float32)  # [world, row, column] m along the ground
        semantic: wp.array3d(dtype=wp.uint8)  # [world, row, column]
        latest: wp.int32  # first channel of the latest frame

    @wp.struct
    class Grain:
        """Sensor noise: its standard deviation, and a key of the frame."""

        deviation: wp.float32
        key: wp.uint32

    @wp.func
    def grain_of(world: wp.ref[World], scratch: wp.ref[Scratch], seed: wp.uint64, w: int, agent: int) -> Grain:
        grain = Grain()
        grain.deviation = scratch.look[w, NOISE]
        if grain.deviation > f(0.0):
            bits = random_bits(seed, world.world_id[w], world.episode[w], noise_purpose, world.episode_length[w])
            grain.key = wp.uint32(bits >> wp.uint64(32)) + wp.uint32(agent) * mix_3
        return grain

    @wp.func
    def noise_at(grain: Grain, row: int, column: int) -> f:
        """A pixel's noise: the difference of two uniforms, hashed from the frame's key and the pixel's place."""
        h = grain.key ^ (wp.uint32(row * 977 + column) * mix_1)
        h = (h ^ (h >> wp.uint32(15))) * mix_2
        h = (h ^ (h >> wp.uint32(13))) * mix_3
        h = h ^ (h >> wp.uint32(16))
        difference = f(h & wp.uint32(65535)) - f(h >> wp.uint32(16))
        return grain.deviation * difference * f(2.449 / 65536.0)  # the difference deviates by 65536 / sqrt(6)

    @wp.func
    def put(images: wp.ref[Images], ray: Ray, row: int, colour: wp.vec3f, depth: f, label: int, grain: Grain):
        w = ray.world
        line = ray.first_row + row
        if wp.static(with_rgb):
            # Colours without noise are within bounds already, see envs.sensors.surfaces.
            if grain.deviation > f(0.0):
                noise = noise_at(grain, line, ray.column)
                for channel in range(3):
                    colour[channel] = wp.clamp(colour[channel] + noise, f(0.0), f(255.0))
            images.rgb[w, images.latest, line, ray.column] = wp.uint8(int(colour[0]))
            images.rgb[w, images.latest + 1, line, ray.column] = wp.uint8(int(colour[1]))
            images.rgb[w, images.latest + 2, line, ray.column] = wp.uint8(int(colour[2]))
        if wp.static(with_depth):
            images.depth[w, line, ray.column] = depth
        if wp.static(with_semantic):
            images.semantic[w, line, ray.column] = wp.uint8(label)

    @wp.func
    def form_of(world: wp.ref[World], scratch: wp.ref[Scratch], w: int, k: int) -> int:
        """A candidate's form, see `envs.sensors.bodies`."""
        slot = scratch.slot[w, k]
        if wp.static(signals):
            if slot < 0:
                return post
        if scratch.facts[w, k, 6] == f(0.0):
            return flat
        return world.vehicle[w, slot].form

    @wp.func
    def place_on(scratch: wp.ref[Scratch], ray: Ray, k: int, t: f) -> wp.vec2f:
        """A point of a ray in a prism's own frame: along and across, as shares of half its length and width."""
        w = ray.world
        c = scratch.facts[w, k, 2]
        s = scratch.facts[w, k, 3]
        px = ray.mount - scratch.facts[w, k, 0] + t * ray.forward
        py = t * ray.right - scratch.facts[w, k, 1]
        return wp.vec2f((px * c + py * s) / scratch.facts[w, k, 4], (py * c - px * s) / scratch.facts[w, k, 5])

    @wp.func
    def height_of(scratch: wp.ref[Scratch], ray: Ray, meeting: Meeting, form: int) -> f:
        """How high a prism is in an image column [m]: forms have outlines, and of a head only the post has a foot."""
        k = meeting.candidate
        height = scratch.facts[ray.world, k, 6]
        if form == 0 or form == flat:
            return height
        middle = place_on(scratch, ray, k, f(0.5) * (meeting.enter + meeting.leave))
        if form < 0:
            return wp.where(wp.abs(middle[1]) * scratch.facts[ray.world, k, 5] < half_post, head_bottom, f(0.0))
        return height * body_functions.profile(form, middle[0], middle[1])

    @wp.func
    def paint_body(
        world: wp.ref[World],
        scratch: wp.ref[Scratch],
        images: wp.ref[Images],
        palette: Palette,
        grain: Grain,
        ray: Ray,
        meeting: Meeting,
        form: int,
        low: int,
        top: int,
        edge: int,
    ) -> int:
        """Fill the rows from `low` up to `edge`; those above `top` show the roof. Returns the next free row."""
        w = ray.world
        k = meeting.candidate
        height = scratch.facts[w, k, 6]
        label = body_functions.label_of(form)
        near = meeting.enter
        haze = near * near / (near * near + palette.clear)
        place = place_on(scratch, ray, k, near)
        shade = light_functions.sunlit(world, scratch, ray, meeting)
        row = int(low)
        while row >= 0 and row >= edge:
            drop = (f(row) + f(0.5) - ray.horizon) / ray.rows_per_unit * near
            z = (ray.elevation - drop) / height
            if row < top:
                # The roof looks like a side without windows or lamps, in full light.
                z = f(1.0)
            brightness = wp.where(row < top, f(1.0), shade)
            seen = body_functions.look(scratch, palette, ray, meeting, form, place[0], place[1], z, brightness)
            colour = wp.vec3f(seen[0], seen[1], seen[2])
            mist = haze * (f(1.0) - f(0.5) * seen[3])
            put(images, ray, row, colour + (palette.sky - colour) * mist, near, label, grain)
            row = row - 1
        return row

    @wp.func
    def paint_housing(
        world: wp.ref[World],
        scratch: wp.ref[Scratch],
        images: wp.ref[Images],
        palette: Palette,
        grain: Grain,
        ray: Ray,
        meeting: Meeting,
        free: int,
    ):
        """Fill the rows of a signal's housing, as far as they are above what is nearer: from row `free` upwards."""
        near = meeting.enter
        k = meeting.candidate
        haze = near * near / (near * near + palette.clear)
        across = place_on(scratch, ray, k, near)[1]
        shade = light_functions.sunlit(world, scratch, ray, meeting)
        rows_per_metre = ray.rows_per_unit / near
        middle = head_functions.middle_of(int(scratch.facts[ray.world, k, 7]))
        lit_row = int(wp.floor(ray.horizon + (ray.elevation - middle) * rows_per_metre))
        top = int(wp.floor(ray.horizon + (ray.elevation - head_top) * rows_per_metre + f(0.5)))
        low = int(wp.floor(ray.horizon + (ray.elevation - head_bottom) * rows_per_metre - f(0.5)))
        row = wp.min(wp.max(low, lit_row), free)
        while row >= 0 and row >= wp.min(top, lit_row):
            z = ray.elevation - (f(row) + f(0.5) - ray.horizon) / rows_per_metre
            seen = head_functions.housing(scratch, palette, ray, k, meeting.face, across, z, row == lit_row, shade)
            colour = wp.vec3f(seen[0], seen[1], seen[2])
            mist = haze * (f(1.0) - f(0.85) * seen[3])
            put(images, ray, row, colour + (palette.sky - colour) * mist, near, signal_class, grain)
            row = row - 1

    @wp.kernel(module="unique")
    def paint(
        world: World,
        tables: RigTables,
        terrain: Ground,
        scratch: Scratch,
        seed: wp.array(dtype=wp.uint64),
        images: Images,
        agent: int,
        which: int,
        first_world: int,
    ):
        w, index = wp.tid()
        w = w + first_world
        if skipped(world, which, w):
            return
        ray = column_functions.ray_of(tables, scratch, w, agent, index)
        palette = light_functions.palette_of(scratch, w)
        footing = surface_functions.footing_of(world, terrain, ray)
        grain = grain_of(world, scratch, seed[0], w, agent)
        shaded_from = f(1.0e9)  # the ground between these distances lies under a vehicle
        shaded_to = f(0.0)
        marked_from = f(1.0e9)  # the ground between these distances is a place to be reached
        marked_to = f(0.0)
        beyond = f(0.0)
        row = int(ray.rows - 1)  # the next free one
        # Signal housings over the column, and the next free row at their distance.
        near = Meeting()
        near.candidate = -1
        near_free = int(0)
        behind = Meeting()
        behind.candidate = -1
        behind_free = int(0)
        while row >= 0:
            meeting = Meeting()
            meeting.candidate = -1
            if beyond < far:
                meeting = column_functions.meet(tables, scratch, ray, beyond)
            # Rows of the prism's foot, of the top of the face, and of the far edge of the roof where that can be seen.
            foot = int(-1)
            top = int(0)
            edge = int(0)
            height = f(1.0)
            form = int(0)
            if meeting.candidate >= 0:
                form = form_of(world, scratch, w, meeting.candidate)
                height = height_of(scratch, ray, meeting, form)
                above = ray.elevation - height
                foot = int(wp.floor(ray.horizon + ray.elevation * ray.rows_per_unit / meeting.enter - f(0.5)))
                top = int(wp.floor(ray.horizon + above * ray.rows_per_unit / meeting.enter + f(0.5)))
                edge = top
                if above > f(0.0) and body_functions.has_roof(form):
                    edge = int(wp.floor(ray.horizon + above * ray.rows_per_unit / meeting.leave + f(0.5)))
                if form == flat:
                    marked_from = meeting.enter
                    marked_to = meeting.leave
                elif form >= 0:
                    shaded_from = meeting.enter - shadow
                    shaded_to = meeting.leave + shadow
                elif near.candidate < 0:
                    near.candidate = meeting.candidate
                    near.face = meeting.face
                    near.enter = meeting.enter
                    near_free = row
                elif behind.candidate < 0:
                    # A third housing in one column is left out.
                    behind.candidate = meeting.candidate
                    behind.face = meeting.face
                    behind.enter = meeting.enter
                    behind_free = row
            # Ground and sky up to the foot, or to the top of the image where no prism is left.
            while row > foot:
                facts = scratch.rows[w, ray.first_row + row]
                t = facts[0]
                if t > f(0.0):
                    pixel = surface_functions.pixel_of(terrain, palette, footing, facts)
                    colour = pixel.colour
                    label = pixel.label
                    if t > marked_from and t < marked_to:
                        colour = f(0.5) * (colour + goal * palette.light)
                        label = marking_class
                    if t > shaded_from and t < shaded_to:
                        colour = colour * f(0.5)
                    colour = colour + (palette.sky - colour) * facts[1]
                    put(images, ray, row, colour, wp.min(t, sight), label, grain)
                else:
                    put(images, ray, row, wp.vec3f(facts[1], facts[2], facts[3]), sight, sky_class, grain)
                row = row - 1
            beyond = far
            if meeting.candidate >= 0:
                beyond = meeting.enter
                if row >= edge:
                    row = paint_body(world, scratch, images, palette, grain, ray, meeting, form, row, top, edge)
        if wp.static(signals):
            if behind.candidate >= 0:
                paint_housing(world, scratch, images, palette, grain, ray, behind, behind_free)
            if near.candidate >= 0:
                paint_housing(world, scratch, images, palette, grain, ray, near, near_free)

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

    @wp.kernel(module="unique")
    def shift_frames(words: wp.array2d(dtype=wp.vec4i), frame: int, stride: int, first_world: int):
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

    return Functions(Images=Images, dress=dress, paint=paint, shift_frames=shift_frames, repeat_frame=repeat_frame)
