"""Traffic signals: heads, the lanes that obey them, the plans that switch them, and the table of plans for kernels."""

import functools
from dataclasses import dataclass

import numpy as np
import warp as wp

from envs.errors import UserError
from envs.precision import Functions

LaneIndex = tuple[str, str, int]
# What a head shows.
RED, AMBER, GREEN, PERMISSIVE = range(4)


@dataclass(frozen=True)
class Signal:
    """A signal head.

    Attributes:
        movements: the lanes through the junction that obey it; traffic waits at the end of the lane before.
        place: where its post stands [m].
        heading: direction of travel of the traffic that it faces [rad].
        arrow: whether it shows a left arrow: protected left turns have a head of their own.
    """

    movements: tuple[LaneIndex, ...]
    place: tuple[float, float]
    heading: float
    arrow: bool = False

    def __post_init__(self):
        if not self.movements:
            raise UserError(f"the signal at {self.place} controls no lane: every signal needs at least one")


@dataclass(frozen=True)
class Phase:
    """Who may go at the same time.

    Attributes:
        protected: heads that are green, by their place in `RoadNetwork.signals`.
        permissive: heads that are green too, but whose left-turning traffic gives way to oncoming traffic.
        green: how long; the least when actuated [s].
        longest: the longest green when actuated [s].
    """

    protected: tuple[int, ...]
    permissive: tuple[int, ...] = ()
    green: float = 15.0
    longest: float = 30.0

    def __post_init__(self):
        if not 0 < self.green <= self.longest:
            raise UserError(f"a phase's green must be positive and at most its longest, not {self.green} s")


@dataclass(frozen=True)
class Junction:
    """A signalised crossing and its plan: its phases in turn, with amber and an all-red time between them.

    Attributes:
        signals: its heads, by their place in `RoadNetwork.signals`.
        phases: in the order in which they come.
        amber: [s].
        all_red: [s].
        actuated: whether a green ends early when nobody approaches it.
        offset: how far into its cycle the plan is at time 0 [s].
    """

    signals: tuple[int, ...]
    phases: tuple[Phase, ...]
    amber: float = 3.0
    all_red: float = 1.5
    actuated: bool = False
    offset: float = 0.0

    def __post_init__(self):
        named = {head for phase in self.phases for head in (*phase.protected, *phase.permissive)}
        if not self.phases or not named <= set(self.signals):
            raise UserError("a junction needs phases, whose heads are the junction's own")


@functools.cache
def build(real: type) -> Functions:
    """Struct `Plans`: the plans of several maps, junctions and phases numbered through all of them."""

    @wp.struct
    class Plans:
        first: wp.array(dtype=wp.int32)  # [map + 1] a map's first junction
        amber: wp.array(dtype=real)  # [junction] s
        all_red: wp.array(dtype=real)  # [junction] s
        offset: wp.array(dtype=real)  # [junction] s
        actuated: wp.array(dtype=wp.int32)  # [junction]
        phase: wp.array(dtype=wp.int32)  # [junction + 1] a junction's first phase
        green: wp.array(dtype=real)  # [phase] s
        longest: wp.array(dtype=real)  # [phase] s, the same as `green` where it is fixed
        head_first: wp.array(dtype=wp.int32)  # [junction + 1] where its heads begin in `head`
        head: wp.array(dtype=wp.int32)  # counted within the map
        shows: wp.array2d(dtype=wp.int32)  # [phase, head of the map] RED, GREEN or PERMISSIVE

    return Functions(Plans=Plans)


def table(maps: list[tuple[list[Signal], list[Junction]]], dtype: str, device: str):
    """The struct `Plans` over the signals and junctions of several maps."""
    real = wp.float32 if dtype == "float32" else wp.float64
    junctions = [junction for _, each in maps for junction in each]
    phases = [(junction, phase) for junction in junctions for phase in junction.phases]
    shows = np.full((max(1, len(phases)), max([1, *(len(signals) for signals, _ in maps)])), RED)
    for row, (_, phase) in zip(shows, phases, strict=False):
        row[list(phase.protected)] = GREEN
        row[list(phase.permissive)] = PERMISSIVE

    def starts(counts: list[int]) -> np.ndarray:
        return np.cumsum([0, *counts])

    ints = {
        "first": starts([len(each) for _, each in maps]),
        "actuated": [junction.actuated for junction in junctions],
        "phase": starts([len(junction.phases) for junction in junctions]),
        "head_first": starts([len(junction.signals) for junction in junctions]),
        "head": [head for junction in junctions for head in junction.signals],
    }
    reals = {name: [getattr(junction, name) for junction in junctions] for name in ("amber", "all_red", "offset")}
    reals["green"] = [phase.green for _, phase in phases]
    reals["longest"] = [phase.longest if junction.actuated else phase.green for junction, phase in phases]
    result = build(real).Plans()
    for names, kind in ((ints, wp.int32), (reals, real)):
        for name, values in names.items():
            values = np.asarray(values if len(values) else [0], dtype=float)
            setattr(result, name, wp.array(values, dtype=kind, device=device))
    result.shows = wp.array(shows, dtype=wp.int32, device=device)
    return result
