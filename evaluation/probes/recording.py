"""Pictures and their labels, with the episode that each comes from; episodes are split, never frames."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

import envs
from agents.drivers import drives_itself
from envs.scenarios import SCENARIOS, Scenario
from envs.scenarios.highway import Highway
from envs.sensors.raster import CHANNELS
from envs.sensors.rig import Rig
from evaluation.probes import looks
from evaluation.probes.labels import Reader
from evaluation.probes.wanderers import Wanderers
from perception.probes import Label

# Metres that occupancy is read of: ahead of the ego's centre, to either side; a cell is CELL x CELL pixels of 1 m.
DEPTH, SIDE, CELL = 40, 12, 2
PICTURES, SPACING = 20, 2.0  # of each world, and s between two of them
FEWEST = 16  # worlds
COARSER = 2  # pixels of the picture, along either axis, for one of the segmentation


@dataclass(frozen=True)
class Recording:
    """n pictures with their labels.

    Attributes:
        images: uint8 [n, C, H, W].
        labels: of each picture, [n] each.
        episodes: int64 [n, 3], the seed, the world and the number of the episode that a picture comes from.
        looks: float32 [n, Q], see `envs.sensors.appearance.NAMES`.
        maps: int64 [n], number of the map.
        dense: int64 [m], rows of the pictures that have labels that are maps.
        occupancy: bool [m, DEPTH / CELL, 2 SIDE / CELL], the farthest row first, left to right: half of a cell or more
            is covered by a vehicle, a person or an obstacle.
        segmentation: uint8 [m, H / COARSER, W / COARSER], of `envs.sensors.surfaces.CLASSES`.
    """

    images: Tensor
    labels: dict[str, Label]
    episodes: Tensor
    looks: Tensor
    maps: Tensor
    dense: Tensor
    occupancy: Tensor
    segmentation: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @property
    def worlds(self) -> Tensor:
        """int64 [n], the world that each picture comes from."""
        return self.episodes[:, 1]

    def take(self, rows: Tensor) -> "Recording":
        """Some of the pictures. Shape: (k,) int64, ascending."""
        place = torch.full((len(self),), -1, dtype=torch.int64, device=rows.device)
        place[rows] = torch.arange(len(rows), device=rows.device)
        kept = (place[self.dense] >= 0).nonzero()[:, 0]
        return Recording(
            self.images[rows],
            take(self.labels, rows),
            self.episodes[rows],
            self.looks[rows],
            self.maps[rows],
            place[self.dense[kept]],
            self.occupancy[kept],
            self.segmentation[kept],
        )


def take(labels: dict[str, Label], rows: Tensor) -> dict[str, Label]:
    """The labels of some pictures. Shape of `rows`: (k,), int64 or bool."""
    return {name: Label(label.value[rows], label.mask[rows], label.kind) for name, label in labels.items()}


def check_apart(train: Recording, test: Recording) -> None:
    """Raise unless no picture to test on comes from an episode that is trained on.

    Raises:
        ValueError: there is one.
    """
    trained = set(map(tuple, train.episodes.unique(dim=0).tolist()))
    leaked = [episode for episode in map(tuple, test.episodes.unique(dim=0).tolist()) if episode in trained]
    if leaked:
        seed, world, episode = leaked[0]
        raise ValueError(
            f"{len(leaked)} episodes to test on are trained on too: world {world}'s {episode} of seed {seed}, ..."
        )


def maps_apart(scenario: Scenario) -> tuple[Scenario, Scenario | None]:
    """A scenario to train on, and the same task on maps that its worlds never have; None where there are none.

    Towns have others that are kept for evaluation; a highway is tried with one lane less; of junctions with several
    plans, and of streets with several arrangements of zebras, the second is kept.
    """
    if f"{scenario.name}-held-out" in SCENARIOS:
        return scenario, SCENARIOS[f"{scenario.name}-held-out"]
    if isinstance(scenario, Highway) and scenario.lanes > 2:
        return scenario, replace(scenario, lanes=scenario.lanes - 1)
    for field in ("plans", "zebras"):
        many = getattr(scenario, field, ())
        if len(many) > 1:
            return replace(scenario, **{field: many[:1] + many[2:]}), replace(scenario, **{field: many[1:2]})
    return scenario, None


def record(
    scenario: Scenario,
    num_worlds: int,
    seed: int,
    rig: Rig,
    frames: int,
    device: str,
    keep: Callable[[Tensor], Tensor] | None = None,
    on_picture: Callable[[], None] = lambda: None,
) -> Recording:
    """Drive, and take `PICTURES` pictures of every world, `SPACING` apart.

    In half of the worlds egos wander (`evaluation.probes.wanderers`), and those have the labels that are maps; in the
    others IDM drives, where it can, with MOBIL and the law of junctions.

    Args:
        scenario: what is simulated; of several agents there is one.
        num_worlds: at least `FEWEST`.
        seed: of all that is random.
        rig, frames: of the camera.
        device: where it is simulated.
        keep: looks [N, Q] -> which worlds' pictures to take, [N] bool; all by default.
        on_picture: called after each picture of all worlds.

    Raises:
        UserError: from `envs.make_vec`.
    """
    wander = num_worlds - num_worlds // 2 if drives_itself(scenario) else num_worlds
    wandering = Wanderers(scenario, wander, device, frames, seed, rig)
    readers, drivers, seen = [wandering.reader], [], [wandering.obs]
    if wander < num_worlds:
        options = {"frames": frames, "ego": "idm", "randomize": True, "rig": rig, "agents": 1}
        drivers.append(envs.make_vec(scenario, num_worlds=num_worlds - wander, device=device, seed=seed, **options))
        seen.append(drivers[0].reset(first_world=wander)[0])
        readers.append(Reader(drivers[0]))
    every = max(1, round(SPACING * scenario.simulation_frequency / scenario.frames_per_step))
    parts = []
    try:
        for picture in range(PICTURES):
            for _ in range(every if picture else 0):
                wandering.step()
                for worlds in drivers:
                    worlds.step(torch.zeros((worlds.num_worlds, *worlds.single_action_space.shape)).to(device))
            taken = _now(readers, seen, seed)
            rows = torch.ones_like(taken.maps, dtype=torch.bool) if keep is None else keep(taken.looks)
            parts.append(taken.take(rows.nonzero()[:, 0]))
            on_picture()
    finally:
        for worlds in (wandering, *drivers):
            worlds.close()
    return joined(parts)


def joined(parts: list[Recording]) -> Recording:
    """Recordings one after the other."""
    starts = torch.tensor([0, *(len(part) for part in parts)]).cumsum(0)
    fields = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("images", "episodes", "looks", "maps", "occupancy", "segmentation")
    }
    dense = torch.cat([part.dense + int(start) for part, start in zip(parts, starts, strict=False)])
    labels = [part.labels for part in parts]
    return Recording(labels=_joined(labels), dense=dense, **fields)


def _joined(labels: list[dict[str, Label]]) -> dict[str, Label]:
    return {
        name: Label(
            torch.cat([each[name].value for each in labels]),
            torch.cat([each[name].mask for each in labels]),
            label.kind,
        )
        for name, label in labels[0].items()
    }


def _now(readers: list[Reader], seen: list[dict[str, Tensor]], seed: int) -> Recording:
    """What all worlds show now, with its labels; those in which egos wander come first.

    Args:
        readers: of each batch of worlds.
        seen: its observations.
        seed: of the worlds.
    """
    worlds = [reader.env for reader in readers]
    world = torch.cat([env.state.world_id for env in worlds]).long()
    episode = torch.cat([env.state.episode for env in worlds]).long()
    return Recording(
        images=torch.cat([obs["camera"] for obs in seen]),
        labels=_joined([reader.read() for reader in readers]),
        episodes=torch.stack([torch.full_like(world, seed), world, episode], 1),
        looks=torch.cat([looks.look_of(env) for env in worlds]),
        maps=torch.cat([env.state.map for env in worlds]).long(),
        dense=torch.arange(len(seen[0]["bev"]), device=world.device),
        occupancy=occupancy(seen[0]["bev"]),
        segmentation=seen[0]["semantic"][:, ::COARSER, ::COARSER].clone(),
    )


def occupancy(raster: Tensor) -> Tensor:
    """What is taken in the raster of `envs.sensors.birdseye`, 1 m a pixel. Shape: (N, C, H, W) uint8 -> (N, rows,
    columns) bool.
    """
    solid = raster[:, [CHANNELS.index(name) for name in ("vehicle", "person", "obstacle")]].amax(1, keepdim=True)
    height, width = raster.shape[-2:]
    ahead, middle = height - height // 3, width // 2
    cut = solid[..., ahead - DEPTH : ahead, middle - SIDE : middle + SIDE].float()
    return functional.avg_pool2d(cut, CELL)[:, 0] >= 127.5
