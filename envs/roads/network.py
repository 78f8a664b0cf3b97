"""Road networks: lanes between named nodes, and who drives ahead and behind on any of them.

A network is a graph whose edges are roads of one or more lanes, as in highway-env; a lane's number in the tables is its
place in the order in which lanes were added. Neighbours on such a network are found by projecting every vehicle on the
lane asked about, and, where connected lanes are searched, on those that lead into it and out of it. The parallel road
of `envs.roads.parallel` is the fast case, in which sorting replaces the search; a test holds the two equal.
"""

import functools

import numpy as np
import warp as wp

from envs.errors import UserError
from envs.precision import Functions
from envs.roads import lanes as lane_geometry
from envs.roads.lanes import Lane
from envs.roads.parallel import END_MARGIN, SIDE_MARGIN
from envs.state import world_struct

LaneIndex = tuple[str, str, int]


class RoadNetwork:
    """Lanes by (from node, to node, place on that road), the leftmost lane first.

    Attributes:
        graph: from node -> to node -> the numbers of the road's lanes.
        lanes: every lane, in the order added.
    """

    def __init__(self):
        self.graph: dict[str, dict[str, list[int]]] = {}
        self.lanes: list[Lane] = []

    def add_lane(self, start: str, end: str, lane: Lane) -> LaneIndex:
        """Add a lane to the right of those that the road from `start` to `end` has already."""
        road = self.graph.setdefault(start, {}).setdefault(end, [])
        road.append(len(self.lanes))
        self.lanes.append(lane)
        return start, end, len(road) - 1

    def number(self, index: LaneIndex) -> int:
        """A lane's number in the tables.

        Raises:
            UserError: the network has no such lane.
        """
        start, end, place = index
        road = self.graph.get(start, {}).get(end, [])
        if not 0 <= place < len(road):
            raise UserError(f"the road network has no lane {index}; the road from '{start}' to '{end}' has {len(road)}")
        return road[place]

    def connections(self, index: LaneIndex) -> list[tuple[int, float]]:
        """The lanes that continue a lane and those that lead into it, as highway-env's connected search has them.

        Returns:
            (lane number, offset) pairs: a distance s along that lane is s + offset along this one [m].
        """
        start, end, place = index
        length = self.lanes[self.number(index)].length
        onward = [(_same_place(road, place), length) for road in self.graph.get(end, {}).values()]
        inward = [_same_place(roads[start], place) for roads in self.graph.values() if start in roads]
        return onward + [(lane, -self.lanes[lane].length) for lane in inward]

    def table(self, dtype: str, device: str = "cpu"):
        """The network as the Warp struct that `build` works on."""
        real = wp.float32 if dtype == "float32" else wp.float64
        functions = build(real)

        def array(values, kind):
            return wp.array(np.array(values), dtype=kind, device=device)

        lanes = functions.Lanes()
        rows = np.zeros((len(self.lanes), lane_geometry.PARAMETERS), dtype=np.float64)
        for row, lane in zip(rows, self.lanes, strict=True):
            row[: len(lane.parameters)] = lane.parameters
        lanes.kind = array([lane.kind for lane in self.lanes], wp.int32)
        lanes.parameters = wp.array(rows, dtype=real, device=device)
        for name in ("length", "width", "speed_limit"):
            setattr(lanes, name, array([getattr(lane, name) for lane in self.lanes], real))

        network = functions.Network()
        network.lanes = lanes
        first, other, offset = [0], [], []
        indices = {
            number: (start, end, place)
            for start, roads in self.graph.items()
            for end, road in roads.items()
            for place, number in enumerate(road)
        }
        for number in range(len(self.lanes)):
            for lane, shift in self.connections(indices[number]):
                other.append(lane)
                offset.append(shift)
            first.append(len(other))
        network.first = array(first, wp.int32)
        network.other = array(other or [0], wp.int32)
        network.offset = array(offset or [0.0], real)
        return network


def _same_place(road: list[int], place: int) -> int:
    return road[place] if place < len(road) else road[0]


@functools.cache
def build(real: type) -> Functions:
    """Structs `Lanes` and `Network`, and `neighbours(world, network, w, i, lane, connected)`."""
    World = world_struct(real)
    geometry = lane_geometry.build(real)
    Lanes, local_coordinates = geometry.Lanes, geometry.local_coordinates
    end_margin, side_margin, half = real(END_MARGIN), real(SIDE_MARGIN), real(0.5)

    @wp.struct
    class Network:
        lanes: Lanes
        first: wp.array(dtype=wp.int32)  # [lane + 1] where a lane's connections begin
        other: wp.array(dtype=wp.int32)  # [connection] the connected lane
        offset: wp.array(dtype=real)  # [connection] m, what turns its s into the lane's

    @wp.func
    def on_lane(network: Network, lane: int, s: real, r: real, margin: real) -> bool:
        return (
            wp.abs(r) <= network.lanes.width[lane] * half + margin
            and s >= -end_margin
            and s < network.lanes.length[lane] + end_margin
        )

    @wp.func
    def neighbours(world: World, network: Network, w: int, i: int, lane: int, connected: int) -> wp.vec2i:
        """Slots ahead of and behind i on a lane, -1 for none. Ties as in `envs.roads.parallel`."""
        s = local_coordinates(network.lanes, lane, world.x[w, i], world.y[w, i])[0]
        ahead = int(-1)
        behind = int(-1)
        s_ahead = real(0.0)
        s_behind = real(0.0)
        begin = network.first[lane]
        end = wp.where(connected != 0, network.first[lane + 1], begin)
        for j in range(world.slots):
            if j != i and world.kind[w, j] != 0:
                for k in range(begin - 1, end):
                    # The lane itself, then those connected to it; the first that holds the vehicle decides.
                    search = int(lane)
                    shift = real(0.0)
                    if k >= begin:
                        search = network.other[k]
                        shift = network.offset[k]
                    place = local_coordinates(network.lanes, search, world.x[w, j], world.y[w, j])
                    if on_lane(network, search, place[0], place[1], side_margin):
                        s_j = place[0] + shift
                        if s <= s_j and (ahead < 0 or s_j <= s_ahead):
                            ahead = j
                            s_ahead = s_j
                        if s_j < s and (behind < 0 or s_j > s_behind):
                            behind = j
                            s_behind = s_j
                        break
        return wp.vec2i(ahead, behind)

    return Functions(Lanes=Lanes, Network=Network, on_lane=on_lane, neighbours=neighbours)
