"""How things look that stand on the road, before haze: each form of `envs.state.FORMS` by rules of its own.

A thing is an upright prism. Its form says how much of the prism an image column shows (`profile`: a person's head is
narrower than the shoulders, a cone is a triangle), of which class that is, and which colour a place on a face has.
Columns do not show through below a profile: between a cyclist's wheels there is no ground to be seen.
"""

import functools

import warp as wp

from envs.precision import Functions
from envs.sensors import columns, light, surfaces
from envs.state import FORMS

VAN, TRUCK, BUS, PERSON, CYCLIST, CONE, BARRIER, DEBRIS, WALL = (
    FORMS.index(name) for name in ("van", "truck", "bus", "person", "cyclist", "cone", "barrier", "debris", "wall")
)
# What has no form of its own in the state: a signal's post, and a place to be reached, which is marked on the ground.
POST, FLAT = -1, -2
STRIPE = 0.4  # m, of a barrier, red or white
SLAB = 2.0  # m, between the joints of a wall


@functools.cache
def build(real: type) -> Functions:
    """Warp functions.

    label_of(form)                       the class
    has_roof(form)                       whether it is flat on top
    profile(form, along, across)         share of the height that a ray meets; the middle of its way through the
                                         prism, as shares of half the length and half the width
    look(scratch, palette, ray, meeting, form, along, across, z, shade)   colour, see there
    """
    column_functions = columns.build(real)
    Scratch, Ray, Meeting = column_functions.Scratch, column_functions.Ray, column_functions.Meeting
    Palette = light.build(real).Palette
    f = wp.float32
    rear, front = columns.REAR, columns.FRONT
    van, truck, bus, person, cyclist = VAN, TRUCK, BUS, PERSON, CYCLIST
    cone, barrier, debris, wall = CONE, BARRIER, DEBRIS, WALL
    stripe, slab = f(1.0 / STRIPE), f(1.0 / SLAB)
    vehicle_class, obstacle_class = surfaces.VEHICLE, surfaces.OBSTACLE
    person_class, cyclist_class, signal_class = surfaces.PERSON, surfaces.CYCLIST, surfaces.SIGNAL

    @wp.func
    def label_of(form: int) -> int:
        if form < 0:
            return signal_class
        if form < person or form > wall:
            return vehicle_class
        if form == person:
            return person_class
        if form == cyclist:
            return cyclist_class
        return obstacle_class

    @wp.func
    def has_roof(form: int) -> bool:
        return form >= 0 and (form < person or form > cone)

    @wp.func
    def profile(form: int, along: f, across: f) -> f:
        share = f(1.0)
        off = wp.max(wp.abs(along), wp.abs(across))
        if form == person:
            # The head is not as wide as the shoulders.
            if off > f(0.5):
                share = f(0.84)
        elif form == cyclist:
            # The rider sits over the middle of two wheels, the arms reach forward.
            if along > f(-0.42) and along < f(0.42):
                if off > f(0.6) or wp.abs(along) > f(0.2):
                    share = f(0.84)
            elif along > f(0.0) and along < f(0.6):
                share = f(0.62)
            else:
                u = (wp.abs(along) - f(0.6)) * f(2.5)
                share = f(0.2) + f(0.19) * wp.sqrt(wp.max(f(1.0) - u * u, f(0.0)))
        elif form == cone:
            share = wp.clamp((f(1.0) - off) * f(1.25), f(0.07), f(1.0))
        elif form == debris:
            share = f(0.7) + f(0.3) * wp.sin(f(7.0) * along + f(4.0) * across)
        return share

    @wp.func
    def part(wave: f) -> f:
        return wave - wp.floor(wave)

    @wp.func
    def painted(scratch: wp.ref[Scratch], palette: Palette, w: int, slot: int) -> wp.vec3f:
        """The colour that an episode's appearance gave a slot."""
        top = f(255.0)
        return wp.vec3f(
            wp.min(scratch.paint[w, slot, 0] * palette.light, top),
            wp.min(scratch.paint[w, slot, 1] * palette.light, top),
            wp.min(scratch.paint[w, slot, 2] * palette.light, top),
        )

    @wp.func
    def lamp(scratch: wp.ref[Scratch], palette: Palette, w: int, k: int, face: int, turning: bool) -> wp.vec3f:
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
    def car(
        scratch: wp.ref[Scratch], palette: Palette, ray: Ray, meeting: Meeting, along: f, across: f, z: f, shade: f
    ) -> wp.vec4f:
        w = ray.world
        k = meeting.candidate
        colour = painted(scratch, palette, w, scratch.slot[w, k])
        glass = wp.vec3f(34.0, 38.0, 44.0) * palette.light
        rubber = wp.vec3f(25.0, 25.0, 27.0) * palette.light
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

    @wp.func
    def large(
        scratch: wp.ref[Scratch],
        palette: Palette,
        ray: Ray,
        meeting: Meeting,
        form: int,
        along: f,
        across: f,
        z: f,
        shade: f,
    ) -> wp.vec4f:
        """Vans, trucks with a pale box behind the cab, and buses with windows all along."""
        w = ray.world
        k = meeting.candidate
        colour = painted(scratch, palette, w, scratch.slot[w, k])
        glass = wp.vec3f(34.0, 38.0, 44.0) * palette.light
        rubber = wp.vec3f(25.0, 25.0, 27.0) * palette.light
        pale = (colour + wp.vec3f(3.0 * 214.0, 3.0 * 214.0, 3.0 * 210.0) * wp.min(palette.light, f(1.0))) * f(0.25)
        off = wp.abs(across)
        wheel = wp.where(form == van, f(0.3), f(0.26))
        if meeting.face == rear or meeting.face == front:
            if z > f(0.2) and z < f(0.36) and off > f(0.7):
                turning = scratch.facts[w, k, 8] == wp.sign(across)
                shining = lamp(scratch, palette, w, k, meeting.face, turning)
                return wp.vec4f(shining[0], shining[1], shining[2], 1.0)
            if meeting.face == front:
                if z > wp.where(form == bus, f(0.34), f(0.46)) and z < f(0.84) and off < f(0.88):
                    colour = glass
                elif form == bus and z > f(0.87) and z < f(0.97) and off < f(0.6):
                    return wp.vec4f(255.0, 170.0, 40.0, 1.0)  # its destination, in lights
            elif form == truck:
                colour = pale
                if off < f(0.03) or z < f(0.19):
                    colour = rubber  # the joint of its doors, and what is below the box
            elif form == bus:
                if z > f(0.5) and z < f(0.82) and off < f(0.85):
                    colour = glass
            elif z > f(0.56) and z < f(0.86) and off > f(0.08) and off < f(0.8):
                colour = glass
            if z < f(0.08):
                colour = rubber
        elif z < wheel and wp.abs(wp.abs(along) - f(0.62)) < wheel * f(0.5):
            colour = rubber
        elif form == van:
            if z > f(0.55) and z < f(0.86) and along > f(0.34) and along < f(0.76):
                colour = glass
        elif form == bus:
            if z > f(0.42) and z < f(0.82) and wp.abs(along) < f(0.94) and part(along * f(3.0)) > f(0.1):
                colour = glass
        elif along > f(0.68):
            if z > f(0.5) and z < f(0.8) and along > f(0.78) and along < f(0.95):
                colour = glass
        elif along > f(0.64) or z < f(0.19):
            colour = rubber  # the gap behind the cab, the frame below the box
        else:
            colour = pale
        return wp.vec4f(colour[0] * shade, colour[1] * shade, colour[2] * shade, 0.0)

    @wp.func
    def human(scratch: wp.ref[Scratch], palette: Palette, w: int, k: int, z: f, legs: f, neck: f) -> wp.vec3f:
        """Trousers, torso and head, whose heights begin at 0, `legs` and `neck`."""
        slot = scratch.slot[w, k]
        clothes = painted(scratch, palette, w, slot)
        chance = part(scratch.paint[w, slot, 0] * f(0.731) + scratch.paint[w, slot, 2] * f(0.417))
        if z > neck + (f(1.0) - neck) * f(0.72):
            return wp.vec3f(52.0, 40.0, 32.0) * palette.light  # hair
        if z > neck:
            fair = wp.vec3f(228.0, 184.0, 152.0)
            dark = wp.vec3f(92.0, 62.0, 46.0)
            return (dark + (fair - dark) * chance) * wp.min(palette.light, f(1.1))
        if z > legs:
            return clothes
        # Trousers are bright with dark tops, and dark with bright ones, as often as not.
        if chance < f(0.4):
            return (wp.vec3f(300.0, 300.0, 300.0) * wp.min(palette.light, f(1.0)) - clothes) * f(0.6)
        return wp.vec3f(clothes[2], clothes[1], clothes[0]) * f(0.35)

    @wp.func
    def rider(
        scratch: wp.ref[Scratch], palette: Palette, w: int, k: int, side: bool, along: f, across: f, z: f
    ) -> wp.vec3f:
        """A bicycle below, seen from its side as two wheels and a frame, and who rides it above."""
        rubber = wp.vec3f(30.0, 30.0, 32.0) * palette.light
        if z > f(0.52) or (z > f(0.3) and wp.abs(along) < f(0.2)):
            return human(scratch, palette, w, k, z, f(0.55), f(0.85))
        if side:
            slot = scratch.slot[w, k]
            if z > f(0.16) and wp.abs(along) < f(0.5):
                return wp.vec3f(scratch.paint[w, slot, 2], scratch.paint[w, slot, 0], scratch.paint[w, slot, 1]) * (
                    palette.light * f(0.8)
                )
            if z > f(0.4):
                return rubber
            u = (wp.abs(along) - f(0.6)) * f(2.5)
            v = (z - f(0.19)) * f(5.3)
            spokes = u * u + v * v
            if spokes < f(0.5) or spokes > f(1.1):
                return wp.vec3f(84.0, 86.0, 88.0) * palette.light
            return rubber
        if z > f(0.5):
            return rubber  # the handlebars
        return wp.where(wp.abs(across) < f(0.25), rubber, wp.vec3f(70.0, 70.0, 74.0) * palette.light)

    @wp.func
    def solid(scratch: wp.ref[Scratch], palette: Palette, w: int, k: int, form: int, place: f, z: f) -> wp.vec3f:
        """What obstructs a road; `place` is along the face [m]."""
        glow = wp.min(palette.light, f(1.04))
        white = wp.vec3f(236.0, 236.0, 232.0) * glow
        if form == cone:
            if (z > f(0.34) and z < f(0.52)) or (z > f(0.68) and z < f(0.84)):
                return white
            if z < f(0.07):
                return wp.vec3f(40.0, 40.0, 42.0) * glow
            return wp.vec3f(244.0, 92.0, 18.0) * glow
        if form == barrier:
            if z < f(0.12):
                return wp.vec3f(60.0, 60.0, 62.0) * glow
            if part((place * stripe + z) * f(0.5)) < f(0.5):
                return wp.vec3f(206.0, 34.0, 30.0) * glow
            return white
        if form == debris:
            if part(place * f(2.3) + z * f(1.4)) < f(0.45):
                return wp.vec3f(104.0, 84.0, 62.0) * glow
            return wp.vec3f(134.0, 128.0, 120.0) * glow
        concrete = wp.vec3f(150.0, 147.0, 140.0) * glow
        if part(place * slab) < f(0.03) or z < f(0.1):
            return concrete * f(0.75)
        return concrete

    @wp.func
    def look(
        scratch: wp.ref[Scratch],
        palette: Palette,
        ray: Ray,
        meeting: Meeting,
        form: int,
        along: f,
        across: f,
        z: f,
        shade: f,
    ) -> wp.vec4f:
        """Colour of a thing's side, and 1 where it is a lamp, which haze dims less.

        Args:
            along, across: where the ray meets the face, as shares of half the length and half the width.
            z: height there, as a share of the thing's.
            shade: brightness of the face.
        """
        if form < 0:
            grey = wp.min(f(112.0) * palette.light, f(255.0)) * shade
            return wp.vec4f(grey, grey, grey, 0.0)
        if form < van or form > wall:
            return car(scratch, palette, ray, meeting, along, across, z, shade)
        if form < person:
            return large(scratch, palette, ray, meeting, form, along, across, z, shade)
        w = ray.world
        k = meeting.candidate
        side = meeting.face != rear and meeting.face != front
        colour = wp.vec3f()
        if form == person:
            colour = human(scratch, palette, w, k, z, f(0.48), f(0.84))
        elif form == cyclist:
            colour = rider(scratch, palette, w, k, side, along, across, z)
        else:
            place = wp.where(side, along * scratch.facts[w, k, 4], across * scratch.facts[w, k, 5])
            colour = solid(scratch, palette, w, k, form, place, z)
        return wp.vec4f(colour[0] * shade, colour[1] * shade, colour[2] * shade, 0.0)

    return Functions(label_of=label_of, has_roof=has_roof, profile=profile, look=look)
