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
from envs.roads.parallel import Surroundings
from envs.state import IDM, META, OBSTACLE, world_struct

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
    surroundings, reachable = road_functions.surroundings, road_functions.reachable
    left_of, right_of, same_road = road_functions.left_of, road_functions.right_of, road_functions.same_road
    gap, onward, speed_limit = road_functions.gap, road_functions.onward, road_functions.speed_limit
    has_planned_place, wrong_way = road_functions.has_planned_place, road_functions.wrong_way
    zero, min_speed = real(0.0), real(MIN_SPEED)
    idm_kind, meta_kind, obstacle = IDM, META, OBSTACLE

    @wp.func
    def braking_for(world: wp.ref[World], road: wp.ref[Road], driver: Driver, w: int, i: int, j: int) -> real:
        """What the law asks of i to brake for j, or 0 where there is no j [m/s2]."""
        if j < 0:
            return zero
        return law.braking(world, driver, w, i, j, gap(world, road, w, i, j))

    @wp.func(inline=road_functions.inline)
    def wants(
        world: wp.ref[World],
        road: wp.ref[Road],
        driver: Driver,
        w: int,
        i: int,
        lane: int,
        new: wp.vec2i,
        old: wp.vec2i,
    ) -> bool:
        """Whether a driver wants to change to a lane; who is ahead and behind there (new) and on its own (old)."""
        exponent = world.vehicle[w, i].exponent
        ahead = new[0]
        old_ahead = old[0]
        gain = braking_for(world, road, driver, w, i, old_ahead) - braking_for(world, road, driver, w, i, ahead)
        free_choice = not has_planned_place(world, w, i)
        # Who thinks of itself alone need not know who is behind, most of the time.
        if free_choice and driver.politeness == zero and not gain >= driver.min_gain:
            return False
        behind = road_functions.behind(world, road, w, i, lane, new)
        followers_gain = real(0.0)
        if behind >= 0 and world.vehicle[w, behind].kind < obstacle:
            limit = speed_limit(road, world.vehicle[w, behind].lane)
            free = law.free_acceleration(
                driver, world.vehicle[w, behind].speed, world.vehicle[w, behind].target_speed, limit, exponent
            )
            imposed = braking_for(world, road, driver, w, behind, i)
            if free - imposed < -driver.max_imposed_braking:
                return False
            followers_gain = braking_for(world, road, driver, w, behind, ahead) - imposed
        if not free_choice:
            # A route that asks for a place leaves no choice but whether it is safe to change towards it now.
            if wrong_way(world, road, w, i, lane):
                return False
            limit = speed_limit(road, world.vehicle[w, i].lane)
            free = law.free_acceleration(
                driver, world.vehicle[w, i].speed, world.vehicle[w, i].target_speed, limit, exponent
            )
            return free - braking_for(world, road, driver, w, i, ahead) >= -driver.max_imposed_braking
        if driver.politeness != zero:
            old_behind = road_functions.behind(world, road, w, i, world.vehicle[w, i].lane, old)
            if old_behind >= 0 and world.vehicle[w, old_behind].kind < obstacle:
                followers_gain += braking_for(world, road, driver, w, old_behind, i) - braking_for(
                    world, road, driver, w, old_behind, old_ahead
                )
            gain += driver.politeness * followers_gain
        return gain >= driver.min_gain

    @wp.func
    def may_take(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, lane: int) -> int:
        """The lane, or -1 where there is none or it cannot be reached from here."""
        if lane < 0:
            return -1
        return wp.where(reachable(world, road, w, i, lane), lane, -1)

    @wp.func
    def considers(world: wp.ref[World], driver: Driver, w: int, i: int, target: int) -> bool:
        """Whether a driver thinks about its lane in this frame; if so, not again for a while."""
        if (
            world.vehicle[w, i].kind != idm_kind
            or world.vehicle[w, i].crashed != 0
            or world.vehicle[w, i].lane != target
            or world.vehicle[w, i].changes_lanes == 0
        ):
            return False
        if world.vehicle[w, i].timer <= driver.decision_delay:
            return False
        world.vehicle[w, i].timer = zero
        return wp.abs(world.vehicle[w, i].speed) >= min_speed

    @wp.func
    def steers_to(world: wp.ref[World], road: wp.ref[Road], w: int, i: int) -> int:
        kind = world.vehicle[w, i].kind
        if kind == meta_kind or (kind == idm_kind and world.vehicle[w, i].crashed == 0):
            return onward(world, road, w, i)
        return world.vehicle[w, i].target_lane

    @wp.func
    def choose(
        world: wp.ref[World],
        road: wp.ref[Road],
        driver: Driver,
        w: int,
        i: int,
        left: int,
        right: int,
        near: Surroundings,
    ) -> int:
        """The lane that a driver wants, its own or one beside it; -1 for one that cannot be taken."""
        target = int(world.vehicle[w, i].lane)
        # Left is weighed first; right, where it is wanted too, overrules it.
        if left >= 0:
            if wants(world, road, driver, w, i, left, near.left, near.own):
                target = left
        if right >= 0:
            if wants(world, road, driver, w, i, right, near.right, near.own):
                target = right
        return target

    @wp.func
    def propose(world: wp.ref[World], road: wp.ref[Road], driver: Driver, w: int, i: int):
        target = steers_to(world, road, w, i)
        if considers(world, driver, w, i, target):
            lane = world.vehicle[w, i].lane
            left = may_take(world, road, w, i, left_of(road, lane))
            right = may_take(world, road, w, i, right_of(road, lane))
            if left >= 0 or right >= 0:
                near = surroundings(world, road, w, i, left, lane, right)
                target = choose(world, road, driver, w, i, left, right, near)
        world.vehicle[w, i].proposed_lane = target

    @wp.func
    def settle(world: wp.ref[World], road: wp.ref[Road], driver: Driver, w: int, i: int):
        target = world.vehicle[w, i].proposed_lane
        lane = world.vehicle[w, i].lane
        # A change under way is one that was so before this frame's proposal.
        changing = lane != target and lane != world.vehicle[w, i].target_lane
        decides = (
            world.vehicle[w, i].kind == idm_kind
            and world.vehicle[w, i].crashed == 0
            and world.vehicle[w, i].changes_lanes != 0
        )
        if decides and changing and same_road(road, lane, target):
            for j in range(world.used[w]):
                if (
                    j != i
                    and world.vehicle[w, j].target_lane == target
                    and world.vehicle[w, j].lane != target
                    and (world.vehicle[w, j].kind == idm_kind or world.vehicle[w, j].kind == meta_kind)
                ):
                    distance = gap(world, road, w, i, j)
                    approach = law.approach_rate(world, w, i, j)
                    if distance > zero and distance < law.desired_gap(driver, world.vehicle[w, i].speed, approach):
                        target = lane
                        break
        world.vehicle[w, i].target_lane = target

    return Functions(
        propose=propose,
        settle=settle,
        braking_for=braking_for,
        considers=considers,
        steers_to=steers_to,
        may_take=may_take,
        choose=choose,
    )
