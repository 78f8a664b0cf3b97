"""How a vehicle tracks a lane and a speed: highway-env's ControlledVehicle.

Lateral position error -> lateral speed -> heading reference -> heading rate -> steering, three proportional
controllers in a row. highway-env turns the last step into a steering angle, delta = atan(2 tan(asin(q))) clipped to
+-60 degrees, which its bicycle model turns back into the slip angle beta = atan(tan(delta) / 2) = asin(q). Here the
sine of the slip angle q is the command itself; the clip of delta becomes |q| <= sqrt(3/7), since
tan(asin(sqrt(3/7))) = tan(60 deg) / 2.
"""

import functools
import math

import warp as wp

from envs.physics import angles, idm
from envs.precision import Functions

HEADING_GAIN = 5.0  # 1/s, one over highway-env's TAU_HEADING
LATERAL_GAIN = 1.0 / 0.6  # 1/s, one over TAU_LATERAL
SPEED_GAIN = 1.0 / 0.6  # 1/s, one over TAU_ACC
LOOK_AHEAD = 0.1  # s, highway-env's TAU_PURSUIT: the lane's heading is read this far ahead
MAX_SIN_SLIP = math.sqrt(3.0 / 7.0)
MAX_HEADING_REFERENCE = math.pi / 4
HALF_LENGTH = 2.5  # m, from the rear axle to the centre of highway-env's 5 m cars


@functools.cache
def build(real: type) -> Functions:
    """`lane_keeping(lateral, lane_heading, heading, speed)` and `cruise(target_speed, speed)`."""
    not_zero = idm.build(real).not_zero
    heading_gain, lateral_gain, speed_gain = real(HEADING_GAIN), real(LATERAL_GAIN), real(SPEED_GAIN)
    max_reference, max_sin_slip = real(MAX_HEADING_REFERENCE), real(MAX_SIN_SLIP)
    half_length, zero, one = real(HALF_LENGTH), real(0.0), real(1.0)
    wrap, arcsine = angles.build(real).wrap, angles.build(real).arcsine

    @wp.func
    def lane_keeping(lateral: real, lane_heading: real, heading: real, speed: real) -> real:
        """Sine of the slip angle that steers back to a lane's centre line, `lateral` metres to the left of us."""
        # Most drive in the middle of a straight lane.
        if lateral == zero and heading == lane_heading:
            return zero
        per_speed = one / not_zero(speed)
        reference = lane_heading + wp.clamp(
            arcsine(wp.clamp(-lateral_gain * lateral * per_speed, -one, one)), -max_reference, max_reference
        )
        heading_rate = heading_gain * wrap(reference - heading)
        return wp.clamp(half_length * per_speed * heading_rate, -max_sin_slip, max_sin_slip)

    @wp.func
    def cruise(target_speed: real, speed: real) -> real:
        """Acceleration towards a target speed [m/s2]."""
        return speed_gain * (target_speed - speed)

    return Functions(lane_keeping=lane_keeping, cruise=cruise)
