"""The data engine: worlds rolled by a mix of drivers, straight into the trainer. Nothing is written to disk.

Half of what a policy must see are the mistakes that a good driver does not make, so three drivers share the worlds: IDM
and MOBIL, who keep their distance; a cautious one who looks at the truth, with some noise; and a restless one who holds
random meta-actions for a while and often ends in a crash. On a road network the cautious one keeps its lane; where
actions are continuous it is a gentler restless one, and where IDM cannot drive, a restless one takes its place.
"""

from dataclasses import dataclass

import torch

import envs
from agents.drivers import drives_itself
from envs import scenarios
from envs.errors import UserError
from envs.physics.actions import META_ACTIONS
from envs.roads.network import RoadNetwork
from envs.state import OBSTACLE

LEFT, IDLE, RIGHT, FASTER, SLOWER = range(5)
GENTLE = 0.2  # share of full throttle and steering that the gentler driver uses
IDM_SHARE, RESTLESS_SHARE = 0.25, 0.25  # of the worlds; the cautious driver has the rest


@dataclass(frozen=True)
class Drive:
    """What N worlds saw and did over T consecutive policy steps.

    images: uint8 [T, N, C, H, W]. actions: int64 [T, N], the meta-action taken after seeing the image, one of
    highway-env's five whatever the scenario takes. episodes: int64 [T, N], which episode of its world each image
    belongs to.
    """

    images: torch.Tensor
    actions: torch.Tensor
    episodes: torch.Tensor

    @staticmethod
    def empty(steps: int, image: torch.Tensor) -> "Drive":
        """Room for `steps` steps of images like `image` [N, C, H, W]."""
        numbers = torch.zeros(steps, len(image), dtype=torch.int64, device=image.device)
        return Drive(torch.empty(steps, *image.shape, dtype=torch.uint8, device=image.device), numbers, numbers.clone())


class DrivingData:
    """Worlds of one scenario with randomised cameras, and their drivers.

    Args:
        scenario: name of a scenario.
        num_worlds: how many worlds, all drivers together; at least 4.
        device: as in `envs.make_vec`.
        frames: camera frames stacked in one image.
        seed: of the worlds and the drivers.
        randomize: domain randomisation of the camera.
        rig: name of the camera rig.

    Raises:
        UserError: from `envs.make_vec`, on a bad scenario, count or device.
    """

    def __init__(
        self,
        scenario: str,
        num_worlds: int,
        device: str = "auto",
        frames: int = 2,
        seed: int = 0,
        randomize: bool = True,
        rig: str = "surround",
    ):
        if num_worlds < 4:
            raise UserError(f"the data engine needs at least 4 worlds, not {num_worlds}")
        by_idm = int(num_worlds * IDM_SHARE)
        common = {"device": device, "observation": "camera", "frames": frames, "randomize": randomize, "rig": rig}
        self.idm_drives = drives_itself(scenarios.get(scenario))
        ego = "idm" if self.idm_drives else "policy"
        self.idm = envs.make_vec(scenario, num_worlds=by_idm, seed=seed, ego=ego, **common)
        self.policy = envs.make_vec(scenario, num_worlds=num_worlds - by_idm, seed=seed, ego="policy", **common)
        self.num_worlds, self.device = num_worlds, self.policy.device
        self.num_actions = len(META_ACTIONS)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        restless = int(num_worlds * RESTLESS_SHARE)
        self.restless = torch.arange(self.policy.num_worlds, device=self.device) < restless
        names = self.policy.action_names
        # What each action of the scenario is among the five, and which action each of the five is, IDLE where none.
        self.meaning = torch.tensor([META_ACTIONS.index(name) for name in names], dtype=torch.int64, device=self.device)
        offered = [names.index(name if name in names else "IDLE") for name in META_ACTIONS] if names else []
        self.offered = torch.tensor(offered, dtype=torch.int64, device=self.device)
        shape = (self.policy.num_worlds, *self.policy.single_action_space.shape)
        if names:
            self.held = torch.full(shape, names.index("IDLE"), device=self.device)
        else:
            self.held = torch.zeros(shape, device=self.device)
        images = _seen(self.idm.reset()[0]), _seen(self.policy.reset(first_world=by_idm)[0])
        self.image = torch.cat(images)  # uint8 [N, C, H, W], what the drivers see now; IDM's worlds come first

    def collect(self, steps: int, into: Drive | None = None) -> Drive:
        """Drive every world on by `steps` policy steps.

        Args:
            steps: T.
            into: a drive of the same size to write over, which saves its allocation.

        Returns:
            images uint8 [T, N, C, H, W], actions int64 [T, N], episodes int64 [T, N].
        """
        drive = into or Drive.empty(steps, self.image)
        for t in range(steps):
            drive.images[t] = self.image
            drive.episodes[t] = torch.cat([self.idm.state.episode, self.policy.state.episode])
            drive.actions[t] = self.step()
        return drive

    def step(self) -> torch.Tensor:
        """Every driver acts once; returns the actions int64 [N], and `image` is what they see next."""
        actions = self._drive()
        count = self.idm.num_worlds
        told = (
            torch.zeros_like(actions[:1]).expand(count, *actions.shape[1:]) if self.idm_drives else self._random(count)
        )
        idm_actions, idm_image = _named(self.idm, told)
        if self.policy.action_names:
            image = _seen(self.policy.step(actions)[0])
            named = self.meaning[actions.view(len(actions), -1)[:, 0]]
        else:
            named, image = _named(self.policy, actions)
        self.image = torch.cat([idm_image, image])
        return torch.cat([idm_actions, named])

    def _random(self, count: int) -> torch.Tensor:
        """Actions at random, for `count` worlds."""
        shape = (count, *self.policy.single_action_space.shape)
        options = {"generator": self.generator, "device": self.device}
        if self.policy.action_names:
            return torch.randint(0, len(self.policy.action_names), shape, **options)
        return 2 * torch.rand(shape, **options) - 1

    def _drive(self) -> torch.Tensor:
        """Actions of the worlds that take them, as they take them."""
        count = len(self.held)
        chance = torch.rand(count, generator=self.generator, device=self.device)
        random = self._random(count)
        # Drivers side by side, agents and parts of an action beyond.
        chance, restless = (part.view(-1, *[1] * (random.ndim - 1)) for part in (chance, self.restless))
        self.held = torch.where(chance < 0.5, random, self.held)
        if not self.policy.action_names:
            return torch.where(restless, self.held, GENTLE * self.held)
        wished = self.offered[cautious(self.policy)].view_as(chance).expand_as(random)
        return torch.where(restless, self.held, torch.where(chance < 0.15, random, wished))

    def state(self) -> dict[str, torch.Tensor]:
        """Everything needed to go on exactly."""
        worlds = {
            f"{name}.{key}": value
            for name in ("idm", "policy")
            for key, value in getattr(self, name).get_state().items()
        }
        return worlds | {"held": self.held, "image": self.image, "generator": self.generator.get_state()}

    def set_state(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from what `state` gave."""
        for name in ("idm", "policy"):
            getattr(self, name).set_state(
                {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
            )
        self.held, self.image = state["held"].to(self.device), state["image"].to(self.device)
        self.generator.set_state(state["generator"].cpu())

    def close(self) -> None:
        """Release the worlds."""
        self.idm.close()
        self.policy.close()


def _seen(obs: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the first agent's camera sees, uint8 [N, C, H, W]."""
    return obs["camera"][:, 0] if obs["camera"].ndim == 5 else obs["camera"]


def _named(worlds, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of egos that take no meta-actions: the meta-actions int64 [N] that would have done what they did, and
    the images they see next. (After a reset the name is wrong, but leads out of the episode.)
    """
    state = worlds.state
    lane, speed = state.target_lane[:, 0].clone(), state.speed[:, 0].clone()
    image = _seen(worlds.step(actions)[0])
    change = state.speed[:, 0] - speed
    named = torch.full_like(lane, IDLE, dtype=torch.int64)
    least = 1.0 / worlds.scenario.policy_frequency  # m/s: 1 m/s2, half of what IDM accelerates with at most
    named[change > least] = FASTER
    named[change < -least] = SLOWER
    # On to the next road is no lane change, and may be any number of lanes away.
    beside = (state.target_lane[:, 0] - lane).abs() <= (1 if worlds.sim.maps else worlds.road.lanes)
    named[beside & (state.target_lane[:, 0] < lane)] = LEFT
    named[beside & (state.target_lane[:, 0] > lane)] = RIGHT
    return named, image


def cautious(env) -> torch.Tensor:
    """Meta-actions int64 [N] of a driver who sees the truth: keeps a gap in time, passes where there is room.

    Args:
        env: a `VecWorlds`; on a road network it looks at its own lane only, and stays on it.
    """
    if isinstance(env.road, RoadNetwork):
        return _cautious_on_lane(env.state)
    s = env.state
    lane = (s.y[:, :1] / env.road.lane_width).round()
    other = s.kind != 0
    other[:, 0] = False
    ahead = s.x - s.x[:, :1]
    closing = s.speed[:, :1] - s.speed
    speed = s.speed[:, 0].clamp(min=1)

    def room(step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """In the lane `step` to the right: metres to the first car ahead, to the first behind, and seconds until the
        former is reached.
        """
        inside = other & ((s.y - (lane + step) * env.road.lane_width).abs() < env.road.lane_width / 2)
        gap, slot = torch.where(inside & (ahead >= 0), ahead - s.length, torch.inf).min(1)
        behind = torch.where(inside & (ahead < 0), -ahead - s.length, torch.inf).amin(1)
        exists = ((lane + step >= 0) & (lane + step < env.road.lanes))[:, 0]
        reached = gap / closing.gather(1, slot[:, None])[:, 0].clamp(min=0.1)
        return torch.where(exists, gap, 0), torch.where(exists, behind, 0), reached

    gap, _, reached = room(0)
    action = torch.where(gap > 2.5 * speed, FASTER, IDLE)
    action = torch.where((gap < 0.8 * speed) | (reached < 3), SLOWER, action)
    for step, change in ((1, RIGHT), (-1, LEFT)):
        front, back, _ = room(step)
        action = torch.where(
            (gap < 1.5 * speed) & (front > gap + 10) & (front > 0.6 * speed) & (back > 12), change, action
        )
    return action


def _cautious_on_lane(s) -> torch.Tensor:
    """`cautious` without lane changes, from a state that knows lanes."""
    other = (s.kind != 0) & (s.kind <= OBSTACLE) & (s.lane == s.lane[:, :1])
    other[:, 0] = False
    speed = s.speed[:, 0].clamp(min=1)
    ahead = s.lane_s - s.lane_s[:, :1]
    gap, slot = torch.where(other & (ahead >= 0), ahead - (s.length + s.length[:, :1]) / 2, torch.inf).min(1)
    reached = gap / (s.speed[:, 0] - s.speed.gather(1, slot[:, None])[:, 0]).clamp(min=0.1)
    action = torch.where(gap > 2.5 * speed, FASTER, IDLE)
    return torch.where((gap < 0.8 * speed) | (reached < 3), SLOWER, action)
