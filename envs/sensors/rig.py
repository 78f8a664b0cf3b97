"""Cameras and where they are mounted. A rig's images are stacked, top to bottom, into one image of the same width.

Image columns are vertical planes: every camera looks along the horizon, and its view is raised or lowered by moving
the row on which the horizon falls, not by tilting it. A pinhole camera's columns are spaced evenly on its image plane,
a cylindrical camera's evenly in azimuth, which may go all the way round.
"""

import math
from dataclasses import dataclass

import numpy as np

from envs.errors import UserError, unknown

PROJECTIONS = ("pinhole", "cylindrical")


@dataclass(frozen=True)
class Camera:
    """One camera.

    Attributes:
        projection: "pinhole" or "cylindrical".
        width, height: size of the image [px].
        field_of_view: horizontal [deg].
        horizon: rows above the horizon [px].
        forward: mount ahead of the vehicle's centre [m].
        elevation: mount above the ground [m].
        yaw: direction relative to straight ahead, positive to the right [deg].
        rows_per_slope: image rows that a slope of 1 (45 degrees down) covers [px]; None makes pixels square at the
            image's centre.
    """

    projection: str
    width: int
    height: int
    field_of_view: float
    horizon: float
    forward: float
    elevation: float
    yaw: float = 0.0
    rows_per_slope: float | None = None

    def __post_init__(self):
        if self.projection not in PROJECTIONS:
            raise unknown("projection", self.projection, PROJECTIONS)
        limit = 170.0 if self.projection == "pinhole" else 360.0
        if not 0 < self.field_of_view <= limit:
            raise UserError(f"a {self.projection} camera sees up to {limit:g} degrees, not {self.field_of_view:g}")
        if self.width < 1 or self.height < 1:
            raise UserError(f"a camera image of {self.height}x{self.width} pixels is empty")

    @property
    def columns_per_unit(self) -> float:
        """Columns a radian (cylindrical) or a unit of slope to the side (pinhole) [px]."""
        half = math.radians(self.field_of_view) / 2
        return self.width / 2 / (math.tan(half) if self.projection == "pinhole" else half)

    @property
    def rows_per_unit(self) -> float:
        """Rows a unit of slope downwards [px]."""
        return self.columns_per_unit if self.rows_per_slope is None else self.rows_per_slope

    def directions(self) -> np.ndarray:
        """Each column's ray on the ground plane, (forward, right) of the vehicle. Shape: (width, 2).

        A pinhole's rays have unit length along its axis, so that the slope of an image row is height over that length.
        """
        offset = (np.arange(self.width) + 0.5 - self.width / 2) / self.columns_per_unit
        if self.projection == "pinhole":
            rays = np.stack((np.ones_like(offset), offset), axis=1)
        else:
            rays = np.stack((np.cos(offset), np.sin(offset)), axis=1)
        c, s = math.cos(math.radians(self.yaw)), math.sin(math.radians(self.yaw))
        return rays @ np.array([[c, s], [-s, c]])


@dataclass(frozen=True)
class Rig:
    """Cameras of one width, whose images are stacked from top to bottom in this order."""

    name: str
    cameras: tuple[Camera, ...]

    def __post_init__(self):
        if len({camera.width for camera in self.cameras}) != 1:
            raise UserError(f"the cameras of rig '{self.name}' must have one width, their images are stacked")

    @property
    def width(self) -> int:
        """Columns of the stacked image [px]."""
        return self.cameras[0].width

    @property
    def height(self) -> int:
        """Rows of the stacked image [px]."""
        return sum(camera.height for camera in self.cameras)


# 0.6 degrees a column ahead: a car is 3 px wide at 60 m. All around, 3.75 degrees: enough for what stands beside and
# close behind, which a lane change needs to know and a front camera cannot see.
SURROUND = Rig(
    "surround",
    (
        Camera("pinhole", 96, 40, 58.0, horizon=12.0, forward=1.0, elevation=1.4),
        Camera("cylindrical", 96, 24, 360.0, horizon=4.0, forward=0.0, elevation=1.9, rows_per_slope=22.0),
    ),
)
# As above, and where junctions ask for more. Far ahead 0.25 degrees a column: a lamp is 5 px wide at 30 m, not 2. All
# around 1.9 degrees: a car that comes from the side is 4 px long at 40 m, not 2.
JUNCTION = Rig(
    "junction",
    (
        Camera("pinhole", 96, 40, 58.0, horizon=12.0, forward=1.0, elevation=1.4),
        Camera("pinhole", 96, 16, 24.0, horizon=12.0, forward=1.0, elevation=1.4),
        Camera("cylindrical", 96, 24, 180.0, horizon=7.0, forward=0.0, elevation=1.9, yaw=-90.0, rows_per_slope=26.0),
        Camera("cylindrical", 96, 24, 180.0, horizon=7.0, forward=0.0, elevation=1.9, yaw=90.0, rows_per_slope=26.0),
    ),
)
FRONT = Rig("front", (Camera("pinhole", 64, 64, 90.0, horizon=24.0, forward=1.0, elevation=1.4),))
WIDE = Rig("wide", (Camera("pinhole", 640, 360, 75.0, horizon=130.0, forward=1.0, elevation=1.4),))

RIGS = {rig.name: rig for rig in (SURROUND, JUNCTION, FRONT, WIDE)}


def of_image(height: int, width: int) -> Rig | None:
    """The named rig whose images have that size, if any."""
    return next((rig for rig in RIGS.values() if (rig.height, rig.width) == (height, width)), None)


def get(rig: str | Rig) -> Rig:
    """The rig of that name, or the rig itself.

    Raises:
        UserError: there is none of that name.
    """
    if isinstance(rig, Rig):
        return rig
    if rig not in RIGS:
        raise unknown("camera rig", rig, RIGS)
    return RIGS[rig]
