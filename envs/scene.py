"""Scene: one world at one moment as plain NumPy arrays, which is what pictures are drawn from; View: where from."""

from dataclasses import dataclass, field, replace

import numpy as np

from envs.roads import lanes
from envs.roads.ground import stop_bar
from envs.roads.network import Crossing, RoadNetwork
from envs.state import FORMS, LANDMARK

# A lane as a road's `polylines()` describes it: centre line [P, 2] in m, style of its left line, style of its right
# line, width in m. A style is "solid", "dashed" or "none".
Lane = tuple[np.ndarray, str, str, float]
# A painted bar: x, y of the middle of its first edge [m], cosine and sine of its direction, its extent along and across
# that direction [m].
Bar = tuple[float, float, float, float, float, float]

# The ego stands this share of the picture behind its middle, so that more is seen of what it drives towards.
LOOK_AHEAD = 0.22

_MOVING = ("x", "y", "heading", "speed")


@dataclass(frozen=True)
class Scene:
    """One world at one moment. V is the number of vehicle slots; slot 0 is the ego.

    Attributes:
        x, y: positions of the boxes' centres [m]; y grows to the right of travel, downwards in a picture. Shape: (V,).
        heading: 0 along +x, growing towards +y [rad]. Shape: (V,).
        speed: [m/s]. Shape: (V,).
        acceleration: [m/s2]. Shape: (V,).
        lane, target_lane: indices into `lanes`. Shape: (V,).
        crashed: True after a collision. Shape: (V,).
        present: False for a slot without a vehicle. Shape: (V,).
        length, width: of the boxes [m]. Shape: (V,).
        height: of the boxes [m], or None where it does not matter. Shape: (V,).
        form: what it looks like, an index into `envs.state.FORMS`, or None where all are cars. Shape: (V,).
        lanes: the road, lane by lane.
        roads: for each lane its place on its road, from 0 on the left, and the lanes of that road; empty where all are
            of one.
        crossings: where people cross.
        stop_lines: painted across the ends of lanes.
        paved: polygons of asphalt beside the lanes [m]. Shape: (P, 2) each.
        signals: a row a signal head: x, y [m], heading of the traffic that it faces [rad], what it shows (see
            `envs.roads.signals`), and 1 where that is an arrow. Shape: (S, 5).
        map: number of the scenario's map that this is.
        time: since the episode began [s].
        camera: what the ego's camera sees, uint8 [h, w, 3], or None.
        caption: a line of text to be shown with the picture.
        paint: colours of the bodies, RGB from 0 to 255, or None for colours by slot. The ego always has its own.
            Shape: (V, 3).
    """

    x: np.ndarray
    y: np.ndarray
    heading: np.ndarray
    speed: np.ndarray
    acceleration: np.ndarray
    lane: np.ndarray
    target_lane: np.ndarray
    crashed: np.ndarray
    present: np.ndarray
    length: np.ndarray
    width: np.ndarray
    lanes: tuple[Lane, ...]
    roads: tuple[tuple[int, int], ...] = ()
    crossings: tuple[Crossing, ...] = ()
    stop_lines: tuple[Bar, ...] = ()
    paved: tuple[np.ndarray, ...] = ()
    signals: np.ndarray = field(default_factory=lambda: np.zeros((0, 5)))
    form: np.ndarray | None = None
    height: np.ndarray | None = None
    map: int = 0
    time: float = 0.0
    camera: np.ndarray | None = None
    caption: str = ""
    paint: np.ndarray | None = None

    @classmethod
    def of(cls, env, world: int = 0, camera: np.ndarray | None = None, caption: str = "") -> "Scene":
        """The present moment of one world of a batched environment, copied out of its buffers.

        Args:
            env: has `state` (tensors [N, V] and [N]) and `road`, which has `polylines()`; or `road_of`, where worlds
                have different roads.
            world: which of the N worlds.
            camera: the picture to show beside the scene, uint8 [h, w, 3].
            caption: a line of text to be shown with the picture.
        """

        def row(name: str, dtype: type) -> np.ndarray:
            return getattr(env.state, name)[world].cpu().numpy().astype(dtype)

        reals = {name: row(name, float) for name in _MOVING + ("acceleration", "length", "width", "height")}
        # Lanes are numbered through all maps of a batch.
        indices = {name: row(name, int) - _first_lane(env, world) for name in ("lane", "target_lane")}
        road, kind = env.road_of(world) if hasattr(env, "road_of") else env.road, row("kind", int)
        return cls(
            **reals,
            **indices,
            crashed=row("crashed", bool),
            present=kind != 0,
            form=np.where(kind == LANDMARK, FORMS.index("ground marking"), row("form", int)),
            **of_road(road),
            signals=_signals(road, env.state, world),
            map=int(env.state.map[world]) if isinstance(road, RoadNetwork) else 0,
            time=float(env.state.time[world]),
            camera=camera,
            caption=caption,
        )


def _outline(strip: lanes.Lane) -> np.ndarray:
    """The corners of a straight strip [m]. Shape: (4, 2)."""
    half = strip.width / 2
    return strip.position(np.array([0.0, strip.length, strip.length, 0.0]), np.array([-half, -half, half, half]))


def _first_lane(env, world: int) -> int:
    """The number of the first lane of the map that a world drives on."""
    maps = env.sim.maps if hasattr(env, "sim") else None
    return sum(len(network.lanes) for network in maps[: int(env.state.map[world])]) if maps else 0


def of_road(road) -> dict[str, tuple]:
    """A road, as the fields of a scene that show it."""
    shown = {"lanes": tuple(road.polylines())}
    if isinstance(road, RoadNetwork):
        shown["roads"] = tuple((place, len(road.graph[start][end])) for start, end, place in road.indices)
        shown["paved"] = tuple(_outline(strip) for strip in road.paved)
        shown["crossings"] = tuple(road.crossings)
        shown["stop_lines"] = tuple(tuple(stop_bar(road.lane(index))[0].tolist()) for index in road.stop_lines)
    return shown


def _signals(road, state, world: int) -> np.ndarray:
    """The heads of a road and what they show in a world, as `Scene.signals` has them."""
    heads = getattr(road, "signals", ())
    if not heads:
        return np.zeros((0, 5))
    shown = state.signal[world, : len(heads)].tolist()
    return np.array([(*head.place, head.heading, k, head.arrow) for head, k in zip(heads, shown, strict=True)])


@dataclass(frozen=True)
class View:
    """The part of the plane that a picture shows.

    Attributes:
        x, y: the point in the middle [m].
        zoom: [pixel/m].
        width, height: of the picture [pixel].
    """

    x: float
    y: float
    zoom: float
    width: int
    height: int

    @classmethod
    def following(cls, scene: Scene, width: int, height: int, zoom: float) -> "View":
        """The view in which the ego is a little behind the middle, looking ahead along its heading."""
        ahead_x = LOOK_AHEAD * width / zoom * np.cos(scene.heading[0])
        ahead_y = LOOK_AHEAD * height / zoom * np.sin(scene.heading[0])
        return cls(float(scene.x[0] + ahead_x), float(scene.y[0] + ahead_y), zoom, width, height)

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Points [m] as places in the picture [pixel, from the top left corner]. Shape: (..., 2)."""
        return (np.asarray(points) - (self.x, self.y)) * self.zoom + (self.width / 2, self.height / 2)

    def to_metres(self, pixels: np.ndarray) -> np.ndarray:
        """Places in the picture [pixel] as points [m]. Shape: (..., 2)."""
        return (np.asarray(pixels) - (self.width / 2, self.height / 2)) / self.zoom + (self.x, self.y)

    @property
    def radius(self) -> float:
        """Everything that shows is within this distance of the middle [m]."""
        return float(np.hypot(self.width, self.height) / 2 / self.zoom)

    def times(self, factor: int) -> "View":
        """The same part of the plane at a multiple of the resolution."""
        return View(self.x, self.y, self.zoom * factor, self.width * factor, self.height * factor)

    def to_grid(self, points: np.ndarray) -> np.ndarray:
        """Corners of a polygon [m] as pygame takes them: whole pixels, the last one included. Shape: (..., 2)."""
        return np.rint(self.to_pixels(points) - 0.5).astype(int)


def interpolate(a: Scene, b: Scene, t: float) -> Scene:
    """The moment a fraction t of the way from scene a to scene b, for pictures between two simulation frames.

    Positions and speeds are linear, headings turn the shorter way round, and everything else is as in a.

    Args:
        a, b: two moments of the same world and episode.
        t: 0 gives a, 1 gives b's positions.
    """
    turn = np.remainder(b.heading - a.heading + np.pi, 2 * np.pi) - np.pi
    # A slot that is filled only in b has no position in a to come from.
    t_slot = np.where(a.present & b.present, t, 0.0)
    moved = {name: (1 - t_slot) * getattr(a, name) + t_slot * getattr(b, name) for name in ("x", "y", "speed")}
    return replace(a, **moved, heading=a.heading + t_slot * turn, time=(1 - t) * a.time + t * b.time)


def distance_to_polyline(positions: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of positions from a polyline, and the side they are on.

    Args:
        positions: [m]. Shape: (N, 2).
        points: the polyline [m]. Shape: (P, 2).

    Returns:
        distance [m] (N,), and side (N,): 1 to the right of its direction (+y of a line along +x), -1 to its left.
    """
    start, along = points[:-1], np.diff(points, axis=0)
    relative = positions[:, None] - start
    share = np.clip((relative * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-12), 0.0, 1.0)
    away = relative - share[..., None] * along
    distance = np.hypot(away[..., 0], away[..., 1])
    nearest = distance.argmin(axis=1)
    rows = np.arange(len(positions))
    cross = along[nearest, 0] * relative[rows, nearest, 1] - along[nearest, 1] * relative[rows, nearest, 0]
    return distance[rows, nearest], np.where(cross >= 0, 1.0, -1.0)
