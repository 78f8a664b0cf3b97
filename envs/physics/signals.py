"""Traffic signals as they run: the plans of `envs.roads.signals`, frame by frame."""

import functools

import warp as wp

from envs.precision import Functions
from envs.roads.signals import AMBER, RED
from envs.state import world_struct


@functools.cache
def build(real: type, road_functions) -> Functions:
    """Warp functions that set `world.signal` from `world.phase` and `world.phase_time`.

    switch(world, road, w, g, asked, dt)    a frame of junction g, counted through all maps
    start(world, road, w, late)             begin every plan of the map, `late` seconds into it beside its own offset
    """
    World, Road = world_struct(real), road_functions.Road
    red, amber, zero, half = RED, AMBER, real(0.0), real(0.5)

    @wp.func
    def show(world: wp.ref[World], road: wp.ref[Road], w: int, g: int, half_frame: real):
        """Set the heads of junction g from its phase."""
        m = world.map[w]
        k = g - road.plans.first[m]
        phase = world.phase[w, k]
        row = road.plans.phase[g] + phase / 2
        for h in range(road.plans.head_first[g], road.plans.head_first[g + 1]):
            head = road.plans.head[h]
            shown = road.plans.shows[row, head]
            if phase % 2 == 1 and shown != red:
                shown = wp.where(world.phase_time[w, k] < road.plans.amber[g] - half_frame, amber, red)
            world.signal[w, head] = shown

    @wp.func
    def switch(world: wp.ref[World], road: wp.ref[Road], w: int, g: int, asked: bool, dt: real):
        """A frame of the plan of junction g; `asked` is whether traffic extends its green."""
        k = g - road.plans.first[world.map[w]]
        phase = world.phase[w, k]
        time = world.phase_time[w, k] + dt
        # Sums of dt are not exact: half a frame decides which one is the first after the end.
        now = time + half * dt
        if phase % 2 == 0:
            row = road.plans.phase[g] + phase / 2
            if now >= road.plans.green[row]:
                actuated = road.plans.actuated[g] != 0
                if not actuated or not asked or now >= road.plans.longest[row]:
                    phase = phase + 1
                    time = wp.where(actuated, zero, time - road.plans.green[row])
        else:
            pause = road.plans.amber[g] + road.plans.all_red[g]
            if now >= pause:
                phase = (phase + 1) % (2 * (road.plans.phase[g + 1] - road.plans.phase[g]))
                time = time - pause
        world.phase[w, k] = phase
        world.phase_time[w, k] = time
        show(world, road, w, g, half * dt)

    @wp.func
    def start(world: wp.ref[World], road: wp.ref[Road], w: int, late: real):
        m = world.map[w]
        for g in range(road.plans.first[m], road.plans.first[m + 1]):
            k = g - road.plans.first[m]
            begin = road.plans.phase[g]
            end = road.plans.phase[g + 1]
            pause = road.plans.amber[g] + road.plans.all_red[g]
            cycle = real(0.0)
            for row in range(begin, end):
                cycle = cycle + road.plans.longest[row] + pause
            time = road.plans.offset[g] + late
            time = time - cycle * wp.floor(time / cycle)
            phase = int(0)
            while phase < 2 * (end - begin) - 1:
                lasts = wp.where(phase % 2 == 0, road.plans.longest[begin + phase / 2], pause)
                if time < lasts:
                    break
                time = time - lasts
                phase = phase + 1
            world.phase[w, k] = phase
            world.phase_time[w, k] = time
            show(world, road, w, g, zero)

    return Functions(switch=switch, start=start)
