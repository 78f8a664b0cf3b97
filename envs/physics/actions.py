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
MAX_ACCELERATION = 5.0  # m/s2 at full throttle
MAX_STEERING = math.pi / 4  # rad at full steering


@functools.cache
def build(real: type, road_functions) -> Functions:
    """`meta(world, road, speeds, w, i, action)` and `continuous(world, w, i, throttle, steering)`."""
    World, Road = world_struct(real), road_functions.Road
    left_of, right_of, reachable = road_functions.left_of, road_functions.right_of, road_functions.reachable
    half, one = real(0.5), real(1.0)
    max_acceleration, max_steering = real(MAX_ACCELERATION), real(MAX_STEERING)

    @wp.struct
    class TargetSpeeds:
        """Evenly spaced speeds that meta-actions choose among."""

        low: real
        high: real
        count: wp.int32

    @wp.func
    def speed_of(speeds: TargetSpeeds, index: int) -> real:
        return speeds.low + (speeds.high - speeds.low) / real(speeds.count - 1) * real(index)

    @wp.func
    def index_of(speeds: TargetSpeeds, speed: real) -> int:
        # rint rounds half to even, as NumPy does: half-way speeds are common among speeds of 5 m/s steps.
        place = (speed - speeds.low) / (speeds.high - speeds.low) * real(speeds.count - 1)
        return wp.clamp(int(wp.rint(place)), 0, speeds.count - 1)

    @wp.func
    def meta(world: World, road: Road, speeds: TargetSpeeds, w: int, i: int, action: int):
        if action >= 3:
            step = wp.where(action == 3, 1, -1)
            index = wp.clamp(index_of(speeds, world.speed[w, i]) + step, 0, speeds.count - 1)
            world.speed_index[w, i] = index
            world.target_speed[w, i] = speed_of(speeds, index)
        elif action != 1:
            target = world.target_lane[w, i]
            lane = wp.where(action == 0, left_of(road, target), right_of(road, target))
            if lane >= 0 and reachable(road, lane, world.x[w, i], world.y[w, i]):
                world.target_lane[w, i] = lane

    @wp.func
    def continuous(world: World, w: int, i: int, throttle: real, steering: real):
        world.acceleration[w, i] = max_acceleration * wp.clamp(throttle, -one, one)
        # beta = atan(tan(delta) / 2), of which the bicycle model wants the sine.
        t = half * wp.tan(max_steering * wp.clamp(steering, -one, one))
        world.sin_slip[w, i] = t / wp.sqrt(one + t * t)

    return Functions(
        TargetSpeeds=TargetSpeeds, speed_of=speed_of, index_of=index_of, meta=meta, continuous=continuous
    )
