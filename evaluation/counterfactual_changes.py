"""What could be otherwise in a moment: somebody not there, a light of another colour, brake lights, light and weather.

A change is a list of edits of a world's state by name, as `envs.api.VecWorlds.get_state` names it. It holds for all
frames that a camera remembers: an object that is removed was never there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from envs.roads.signals import AMBER, GREEN, PERMISSIVE, RED
from envs.sensors.appearance import INDEX
from envs.sensors.columns import BRAKING
from envs.state import ABSENT, FORMS, LANDMARK

REMOVED, SIGNAL, BRAKES, SCENE = KINDS = ("removed", "signal", "brake lights", "scene")
# Forms with brake lights.
LAMPS = tuple(FORMS.index(name) for name in ("car", "van", "truck", "bus"))
# Light and weather: quantities of `envs.sensors.appearance`, each at an end of the range of randomised worlds.
SCENES: dict[str, dict[str, float]] = {
    "dusk": {"light": 0.45},
    "glare": {"light": 1.2},
    "haze": {"haze": 60.0},
    "another sun": {"sun_x": 0.9},
    "dark asphalt": {"asphalt": 50.0},
    "sensor noise": {"noise": 7.0},
}
COLOURS = {RED: "red", GREEN: "green"}

State = dict[str, Tensor]


@dataclass(frozen=True)
class Edit:
    """One number of a world's state: its array, its place in a world's row of it, and what it becomes."""

    array: str
    place: tuple[int, ...]
    value: float


@dataclass(frozen=True)
class Change:
    """One thing that is otherwise.

    Attributes:
        kind: one of `KINDS`.
        object: whom it is about: "car 7", "signal 2"; the numbers are those of slots and of signal heads. Of the whole
            scene "scene".
        what: is otherwise: "removed", "green", "brake lights off", "dusk".
        edits: of the state.
        place: x, y [m] of the object; None for the whole scene.
        slot: of the object, or None.
    """

    kind: str
    object: str
    what: str
    edits: tuple[Edit, ...]
    place: tuple[float, float] | None = None
    slot: int | None = None

    @property
    def name(self) -> str:
        """For a person: "car 7 removed"."""
        return self.what if self.kind == SCENE else f"{self.object} {self.what}"


def changes(state: State, road) -> list[Change]:
    """All single changes of a moment, objects in the order of their slots.

    Args:
        state: of one world, see `VecWorlds.get_state`; every array's first dimension is 1.
        road: that it drives on.
    """
    found = _removals(state) + _signals(state, road) + _brakes(state)
    if "sensor.look" in state:
        found += [
            Change(SCENE, "scene", name, tuple(Edit("sensor.look", (INDEX[k],), value) for k, value in looks.items()))
            for name, looks in SCENES.items()
        ]
    return found


def most(worlds) -> int:
    """The most changes that a moment of some worlds can have."""
    heads = max((len(getattr(road, "signals", ())) for road in worlds.sim.maps or ()), default=0)
    return 2 * worlds.state.slots + 2 * heads + len(SCENES)


def apply(batch: State, row: int, change: Change) -> None:
    """Make a change in one world of a batch."""
    for edit in change.edits:
        batch[edit.array][(row, *edit.place)] = edit.value


def _row(state: State, name: str) -> Sequence:
    return state[f"state.{name}"][0].tolist()


def _others(state: State) -> list[tuple[int, int, str, tuple[float, float]]]:
    """Slot, kind, name and place of everything but the ego."""
    kinds, forms, x, y = (_row(state, name) for name in ("kind", "form", "x", "y"))
    return [
        (k, kinds[k], f"{'goal' if kinds[k] == LANDMARK else FORMS[forms[k]]} {k}", (x[k], y[k]))
        for k in range(1, len(kinds))
        if kinds[k] != ABSENT
    ]


def _removals(state: State) -> list[Change]:
    return [
        Change(REMOVED, name, "removed", (Edit("state.kind", (slot,), ABSENT),), place, slot)
        for slot, _, name, place in _others(state)
    ]


def _signals(state: State, road) -> list[Change]:
    shown, found = _row(state, "signal"), []
    for number, head in enumerate(getattr(road, "signals", ())):
        others = {RED: (GREEN,), AMBER: (RED, GREEN), GREEN: (RED,), PERMISSIVE: (RED,)}[shown[number]]
        for colour in others:
            edits = (Edit("state.signal", (number,), colour),)
            found.append(Change(SIGNAL, f"signal {number}", COLOURS[colour], edits, tuple(head.place)))
    return found


def _brakes(state: State) -> list[Change]:
    forms, acceleration, found = _row(state, "form"), _row(state, "acceleration"), []
    for slot, kind, name, place in _others(state):
        if kind != LANDMARK and forms[slot] in LAMPS:
            burning = acceleration[slot] < BRAKING
            edits = (Edit("state.acceleration", (slot,), 0.0 if burning else 2.0 * BRAKING),)
            what = f"brake lights {'off' if burning else 'on'}"
            found.append(Change(BRAKES, name, what, edits, place, slot))
    return found
