"""People in a town: on the crossings around the ego, where it will meet them.

Who has walked across, and who is far from the ego, goes to another crossing that is not so far from it. On a zebra
people want to cross after a while, and drivers give way. Where signals stop the traffic of an arm they set out while
its light is red, and whoever turns into that arm waits for them. Nobody steps out close to a vehicle that moves.
"""

import functools

import numpy as np
import warp as wp

from envs import random
from envs.physics import idm, walkers
from envs.precision import Functions
from envs.roads.network import RoadNetwork
from envs.roads.signals import RED
from envs.scenarios import placing
from envs.state import OBSTACLE, WALKER, world_struct

DRAWS = 16  # random numbers for one person's errand
NEAR, FAR = 40.0, 160.0  # m from the ego: crossings that people are sent to, seen from there
BEHIND_KERB, SPREAD = 0.6, 1.5  # m: where people stand, and how far from the middle of the strip
PATIENCE = 12.0  # s, the longest that somebody stands at a zebra without wanting to cross
POST = 6.0  # m between the end of a crossing and the signal beside it
SIGHT = 12.0  # m: nobody steps out while a vehicle moves so close, whose driver may be turning
HELD = 1000.0  # s, added to the patience of who is held back while others decide


def table(networks: list[RoadNetwork]) -> dict[str, np.ndarray]:
    """The crossings of several maps.

    Returns:
        walk: where each crossing begins and ends, x, y, x, y [m]. Shape: (crossings, 4).
        zebra: whether it is painted.
        head: the map's signal head beside it, -1 for none.
        first_walk: where each map's crossings begin. Shape: (maps + 1,).
    """
    crossings = [crossing for network in networks for crossing in network.crossings]
    heads = [_head(network, crossing) for network in networks for crossing in network.crossings]
    return {
        "walk": np.array([(*crossing.start, *crossing.end) for crossing in crossings]).reshape(-1, 4),
        "zebra": np.array([crossing.zebra for crossing in crossings], dtype=np.int32),
        "head": np.array(heads, dtype=np.int32),
        "first_walk": np.cumsum([0, *(len(network.crossings) for network in networks)]).astype(np.int32),
    }


def _head(network: RoadNetwork, crossing) -> int:
    if crossing.zebra or not network.signals:
        return -1
    ends = np.array([crossing.start, crossing.end])
    posts = np.array([signal.place for signal in network.signals])
    away = np.hypot(*(posts[:, None] - ends).transpose(2, 0, 1)).min(axis=1)
    return int(away.argmin()) if away.min() < POST else -1


@functools.cache
def build(real: type, road_functions, action_functions) -> Functions:
    """Warp functions over the last `count` slots of a world. `task` is a struct with the arrays of `table`.

    assemble(world, road, task, seed, w, count)     put people there, as an episode begins
    stroll(world, road, task, seed, w, count)       a policy step of what they want
    """
    World, Road = world_struct(real), road_functions.Road
    setting = placing.build(real, road_functions, action_functions)
    people = walkers.build(real, road_functions, idm.build(real))
    draw = random.build(real)
    uniform, below, normal = draw.uniform, draw.below, draw.normal
    initial, later, draws = random.SPAWN, random.TRAFFIC, DRAWS
    walker, obstacle, red = WALKER, OBSTACLE, RED
    adult, waits, walks = walkers.ADULT, walkers.WAITS, walkers.WALKS
    near, far, back, spread, patience = (real(k) for k in (NEAR, FAR, BEHIND_KERB, SPREAD, PATIENCE))
    mean, deviation = (real(k) for k in walkers.ADULT_SPEED)
    most_deviations, start_up = real(walkers.MAX_DEVIATIONS), real(walkers.START_UP)
    sight, held, slow = real(SIGHT), real(HELD), real(walkers.SLOW)
    zero, half, one, two, there = real(0.0), real(0.5), real(1.0), real(2.0), real(0.05)

    @wp.func
    def from_ego(world: wp.ref[World], w: int, x: real, y: real) -> real:
        dx = x - world.vehicle[w, 0].x
        dy = y - world.vehicle[w, 0].y
        return wp.sqrt(dx * dx + dy * dy)

    @wp.func
    def walk_near(
        world: wp.ref[World],
        walk: wp.array2d(dtype=real),
        first: int,
        last: int,
        seed: wp.uint64,
        w: int,
        purpose: int,
        index: int,
    ) -> int:
        """One of the crossings around the ego, of all where there is none."""
        count = int(0)
        for k in range(first, last):
            away = from_ego(world, w, walk[k, 0], walk[k, 1])
            if away > near and away < far:
                count = count + 1
        id = world.world_id[w]
        if count == 0:
            return first + below(seed, id, world.episode[w], purpose, index, last - first)
        chosen = below(seed, id, world.episode[w], purpose, index, count)
        for k in range(first, last):
            away = from_ego(world, w, walk[k, 0], walk[k, 1])
            if away > near and away < far:
                if chosen == 0:
                    return k
                chosen = chosen - 1
        return first

    @wp.func
    def send(
        world: wp.ref[World],
        road: wp.ref[Road],
        walk: wp.array2d(dtype=real),
        zebra: wp.array(dtype=wp.int32),
        first: int,
        last: int,
        seed: wp.uint64,
        w: int,
        j: int,
        purpose: int,
        index: int,
    ):
        """Put a person at one end of a crossing, on the way to the other."""
        id = world.world_id[w]
        episode = world.episode[w]
        k = walk_near(world, walk, first, last, seed, w, purpose, index)
        dx = walk[k, 2] - walk[k, 0]
        dy = walk[k, 3] - walk[k, 1]
        length = wp.sqrt(dx * dx + dy * dy)
        side = wp.where(uniform(seed, id, episode, purpose, index + 1) < half, one, -one)
        c = side * dx / length
        s = side * dy / length
        aside = spread * (two * uniform(seed, id, episode, purpose, index + 2) - one)
        reach = half * length + back
        x = half * (walk[k, 0] + walk[k, 2]) - aside * s
        y = half * (walk[k, 1] + walk[k, 3]) + aside * c
        away = wp.clamp(normal(seed, id, episode, purpose, index + 3), -most_deviations, most_deviations)
        setting.put(world, road, w, j, walker, x - reach * c, y - reach * s, wp.atan2(s, c), zero)
        speed = mean + deviation * away
        people.send(world, w, j, adult, x + reach * c, y + reach * s, speed, waits, start_up)
        world.vehicle[w, j].yields = zebra[k]
        world.vehicle[w, j].patience = patience * uniform(seed, id, episode, purpose, index + 4)

    @wp.func
    def assemble(
        world: wp.ref[World],
        road: wp.ref[Road],
        walk: wp.array2d(dtype=real),
        zebra: wp.array(dtype=wp.int32),
        first_walk: wp.array(dtype=wp.int32),
        seed: wp.uint64,
        w: int,
        count: int,
    ):
        first = first_walk[world.map[w]]
        last = first_walk[world.map[w] + 1]
        for j in range(world.slots - count, world.slots):
            if last > first:
                send(world, road, walk, zebra, first, last, seed, w, j, initial, 10000 + draws * j)

    @wp.func
    def awaits_red(
        world: wp.ref[World],
        walk: wp.array2d(dtype=real),
        head: wp.array(dtype=wp.int32),
        first: int,
        last: int,
        w: int,
        j: int,
    ) -> bool:
        """Whether somebody stands at a crossing whose arm has no red light now."""
        for k in range(first, last):
            if head[k] >= 0:
                for e in range(2):
                    dx = world.vehicle[w, j].x - walk[k, 2 * e]
                    dy = world.vehicle[w, j].y - walk[k, 2 * e + 1]
                    if wp.abs(dx) < two and wp.abs(dy) < two:
                        return world.signal[w, head[k]] != red
        return False

    @wp.func
    def is_close(world: wp.ref[World], w: int, j: int) -> bool:
        """Whether a vehicle moves close to somebody."""
        for i in range(world.slots):
            if (
                world.vehicle[w, i].kind != 0
                and world.vehicle[w, i].kind < obstacle
                and wp.abs(world.vehicle[w, i].speed) > slow
            ):
                dx = world.vehicle[w, i].x - world.vehicle[w, j].x
                dy = world.vehicle[w, i].y - world.vehicle[w, j].y
                if dx * dx + dy * dy < sight * sight:
                    return True
        return False

    @wp.func
    def decide(world: wp.ref[World], w: int, count: int):
        """People decide, but those who are held back."""
        for j in range(world.slots - count, world.slots):
            if world.vehicle[w, j].route_at == waits and is_close(world, w, j):
                world.vehicle[w, j].patience = world.vehicle[w, j].patience + held
        people.decide(world, w)
        for j in range(world.slots - count, world.slots):
            if world.vehicle[w, j].patience > half * held:
                world.vehicle[w, j].patience = world.vehicle[w, j].patience - held

    @wp.func
    def stroll(
        world: wp.ref[World],
        road: wp.ref[Road],
        walk: wp.array2d(dtype=real),
        zebra: wp.array(dtype=wp.int32),
        head: wp.array(dtype=wp.int32),
        first_walk: wp.array(dtype=wp.int32),
        seed: wp.uint64,
        w: int,
        count: int,
    ):
        first = first_walk[world.map[w]]
        last = first_walk[world.map[w] + 1]
        if last == first:
            return
        decide(world, w, count)
        for j in range(world.slots - count, world.slots):
            mode = world.vehicle[w, j].route_at
            away = from_ego(world, w, world.vehicle[w, j].x, world.vehicle[w, j].y)
            dx = world.vehicle[w, j].goal_x - world.vehicle[w, j].x
            dy = world.vehicle[w, j].goal_y - world.vehicle[w, j].y
            done = mode == walks and wp.abs(dx) + wp.abs(dy) < there
            if (done and away > near) or (away > far and (done or mode == waits)):
                index = 20000 + draws * (world.episode_length[w] * world.slots + j)
                send(world, road, walk, zebra, first, last, seed, w, j, later, index)
            elif mode == waits and world.vehicle[w, j].yields == 0:
                if awaits_red(world, walk, head, first, last, w, j):
                    world.vehicle[w, j].patience = wp.max(world.vehicle[w, j].patience, one)
                else:
                    world.vehicle[w, j].patience = zero

    return Functions(assemble=assemble, stroll=stroll)
