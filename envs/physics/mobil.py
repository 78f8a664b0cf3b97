"""MOBIL: when a driver changes lane, as highway-env decides it.

Kesting, Treiber and Helbing 2007, "General lane-changing model MOBIL for car-following models". A change must not
impose more than a given braking on its new follower, and must gain acceleration for the driver (plus politeness times
the gain of the followers). A driver weighs others by its own parameters. A change under way is given up when another
driver ahead, closer than the desired gap, is changing into the same lane.
"""

import functools

import warp as wp

from envs.physics import idm
from envs.precision import Functions
from envs.state import IDM, PLAIN, world_struct

MIN_SPEED = 1.0  # m/s, slower than this nobody changes lane


@functools.cache
def build(real: type, road_functions) -> Functions:
    """`propose(...)`: a driver's target lane from what it sees; `settle(...)`: the same after conflicts.

    Proposals read positions alone, so they may be made at once for all vehicles. Settling reads the targets of
    others, in the order of slots, as highway-env's loop does.
    """
    World = world_struct(real)
    law = idm.build(real)
    Driver, Road = law.Driver, road_functions.Road
    front, rear, reachable = road_functions.front, road_functions.rear, road_functions.reachable
    zero, min_speed = real(0.0), real(MIN_SPEED)
    idm_kind, plain_kind = IDM, PLAIN

    @wp.func
    def wants(world: World, road: Road, driver: Driver, w: int, i: int, lane: int) -> bool:
        exponent = world.exponent[w, i]
        ahead = front(world, road, w, i, lane)
        behind = rear(world, road, w, i, lane)
        followers_gain = real(0.0)
        if behind >= 0:
            free = law.free_acceleration(
                driver, world.speed[w, behind], world.target_speed[w, behind], road.speed_limit, exponent
            )
            braking = law.braking_behind(world, driver, w, behind, i)
            if free - braking < -driver.max_imposed_braking:
                return False
            followers_gain = law.braking_behind(world, driver, w, behind, ahead) - braking
        old_ahead = front(world, road, w, i, world.lane[w, i])
        gain = law.braking_behind(world, driver, w, i, old_ahead) - law.braking_behind(world, driver, w, i, ahead)
        if driver.politeness != zero:
            old_behind = rear(world, road, w, i, world.lane[w, i])
            if old_behind >= 0:
                followers_gain += law.braking_behind(world, driver, w, old_behind, i) - law.braking_behind(
                    world, driver, w, old_behind, old_ahead
                )
            gain += driver.politeness * followers_gain
        return gain >= driver.min_gain

    @wp.func
    def propose(world: World, road: Road, driver: Driver, w: int, i: int):
        lane = world.lane[w, i]
        target = world.target_lane[w, i]
        if world.kind[w, i] == idm_kind and world.crashed[w, i] == 0 and lane == target:
            if world.timer[w, i] > driver.decision_delay:
                world.timer[w, i] = zero
                if wp.abs(world.speed[w, i]) >= min_speed:
                    x = world.x[w, i]
                    y = world.y[w, i]
                    # Left is weighed first; right, where it is wanted too, overrules it.
                    if lane > 0 and reachable(road, lane - 1, x, y):
                        if wants(world, road, driver, w, i, lane - 1):
                            target = lane - 1
                    if lane < road.lanes - 1 and reachable(road, lane + 1, x, y):
                        if wants(world, road, driver, w, i, lane + 1):
                            target = lane + 1
        world.proposed_lane[w, i] = target

    @wp.func
    def settle(world: World, driver: Driver, w: int, i: int):
        target = world.proposed_lane[w, i]
        lane = world.lane[w, i]
        if world.kind[w, i] == idm_kind and world.crashed[w, i] == 0 and lane != world.target_lane[w, i]:
            for j in range(world.slots):
                if (
                    j != i
                    and world.target_lane[w, j] == target
                    and world.lane[w, j] != target
                    and world.kind[w, j] != 0
                    and world.kind[w, j] != plain_kind
                ):
                    gap = world.x[w, j] - world.x[w, i]
                    approach = law.approach_rate(world, w, i, j)
                    if gap > zero and gap < law.desired_gap(driver, world.speed[w, i], approach):
                        target = lane
                        break
        world.target_lane[w, i] = target

    return Functions(propose=propose, settle=settle)
