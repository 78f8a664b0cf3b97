"""What the ego's action does to its targets or commands: highway-env's DiscreteMetaAction and ContinuousAction.

Meta-actions: 0 LANE_LEFT, 1 IDLE, 2 LANE_RIGHT, 3 FASTER, 4 SLOWER. FASTER and SLOWER step from the index of the
target speed closest to the *current* speed; a lane change moves the target lane by one where that lane is reachable.
"""

import functools
import math

import warp as wp

from envs.precision import Functions
from envs.state import world_struct

META_ACTIONS = ("LANE_LEFT", "IDLE", "LANE_RIGHT", "FASTER", "SLOWER")
ACCELERATION_RANGE = (-5.0, 5.0)  # m/s2 from full braking to full throttle
STEERING_RANGE = (-math.pi / 4, math.pi / 4)  # rad from full left to full right


@functools.cache
def build(real: type, road_functions) -> Functions:
    """`meta(world, road, speeds, w, i, action)` and `continuous(world, controls, w, i, throttle, steering)`."""
    World, Road = world_struct(real), road_functions.Road
    left_of, right_of, reachable = road_functions.left_of, road_functions.right_of, road_functions.reachable
    half, one = real(0.5), real(1.0)

    @wp.struct
    class Controls:
        """Evenly spaced speeds that meta-actions choose among, and what continuous actions of -1 and 1 mean."""

        low: real
        high: real
        count: wp.int32
        acceleration_low: wp.float32
        acceleration_high: wp.float32
        steering_low: wp.float32
        steering_high: wp.float32

    @wp.func
    def speed_of(speeds: Controls, index: int) -> real:
        return speeds.low + (speeds.high - speeds.low) / real(speeds.count - 1) * real(index)

    @wp.func
    def index_of(speeds: Controls, speed: real) -> int:
        # rint rounds half to even, as NumPy does: half-way speeds are common among speeds of 5 m/s steps.
        place = (speed - speeds.low) / (speeds.high - speeds.low) * real(speeds.count - 1)
        return wp.clamp(int(wp.rint(place)), 0, speeds.count - 1)

    @wp.func
    def meta(world: wp.ref[World], road: wp.ref[Road], speeds: Controls, w: int, i: int, action: int):
        if action >= 3:
            step = wp.where(action == 3, 1, -1)
            index = wp.clamp(index_of(speeds, world.vehicle[w, i].speed) + step, 0, speeds.count - 1)
            world.vehicle[w, i].speed_index = index
            world.vehicle[w, i].target_speed = speed_of(speeds, index)
        elif action != 1:
            target = world.vehicle[w, i].target_lane
            lane = wp.where(action == 0, left_of(road, target), right_of(road, target))
            if lane >= 0 and reachable(world, road, w, i, lane):
                world.vehicle[w, i].target_lane = lane

    @wp.func
    def scaled(action: wp.float32, low: wp.float32, high: wp.float32) -> real:
        # In float32 whatever the simulation's scalar is, as highway-env computes with float32 actions.
        bounded = wp.clamp(action, wp.float32(-1.0), wp.float32(1.0))
        return real(low + (bounded + wp.float32(1.0)) * (high - low) / wp.float32(2.0))

    @wp.func
    def continuous(
        world: wp.ref[World], controls: Controls, w: int, i: int, throttle: wp.float32, steering: wp.float32
    ):
        world.vehicle[w, i].acceleration = scaled(throttle, controls.acceleration_low, controls.acceleration_high)
        angle = scaled(steering, controls.steering_low, controls.steering_high)
        world.vehicle[w, i].steering = angle
        # beta = atan(tan(delta) / 2), of which the bicycle model wants the sine.
        t = half * wp.tan(angle)
        world.vehicle[w, i].sin_slip = t / wp.sqrt(one + t * t)

    return Functions(Controls=Controls, speed_of=speed_of, index_of=index_of, meta=meta, continuous=continuous)
