"""Our road network of a live highway-env environment's."""

import math
from typing import Any

import numpy as np

from envs.errors import UserError
from envs.roads import lanes as geometry
from envs.roads.lanes import Lane
from envs.roads.network import RoadNetwork

LINES = {0: "none", 1: "dashed", 2: "solid", 3: "solid"}


def lane_of(lane) -> Lane:
    """Our lane of highway-env's.

    Raises:
        UserError: a class of lane of someone's own.
    """
    from highway_env.road import lane as upstream

    limit = math.inf if lane.speed_limit is None else float(lane.speed_limit)
    options: dict[str, Any] = {
        "width": float(lane.width) if hasattr(lane, "width") else 4.0,
        "speed_limit": limit,
        "priority": int(lane.priority),
        "forbidden": bool(lane.forbidden),
        "lines": tuple(LINES[line] for line in (lane.line_types or (1, 1))),
    }
    if type(lane) is upstream.StraightLane:
        return geometry.straight(tuple(lane.start), tuple(lane.end), **options)
    if type(lane) is upstream.SineLane:
        swing = (lane.amplitude, lane.pulsation, lane.phase)
        return geometry.sine(tuple(lane.start), tuple(lane.end), *swing, **options)
    if type(lane) is upstream.CircularLane:
        phases = (lane.start_phase, lane.end_phase)
        return geometry.circular(tuple(lane.center), lane.radius, *phases, lane.clockwise, **options)
    if type(lane) in (upstream.PolyLane, upstream.PolyLaneFixedWidth):
        poses = lane.curve.poses
        widths = [lane.width_at(s) for s in range(len(poses))]
        samples = [(*pose.position, *pose.normal, width) for pose, width in zip(poses, widths, strict=True)]
        return Lane(geometry.POLYLINE, (), float(lane.length), samples=np.array(samples, dtype=float), **options)
    raise UserError(f"a lane of class {type(lane).__name__} cannot be imported")


def network_of(upstream) -> RoadNetwork:
    """Our network of highway-env's, lane by lane."""
    network = RoadNetwork()
    for start, roads in upstream.graph.items():
        for end, lanes in roads.items():
            for lane in lanes:
                network.add_lane(start, end, lane_of(lane))
    return network
