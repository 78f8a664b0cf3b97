"""The data engine: worlds rolled by a mix of drivers, straight into the trainer. Nothing is written to disk.

Half of what a policy must see are the mistakes that a good driver does not make, so three drivers share the worlds:

- "expert": IDM and MOBIL, who keep their distance, obey signals and give way;
- "noisy": an expert who is disturbed. On a highway one who sees the truth and is cautious, but does something at random
  now and then; on a road network IDM, made to swerve and to dawdle; where IDM cannot drive, one who follows its lane or
  parks, and slips as the first;
- "restless": who holds random actions for a while, and often ends in a crash. Where IDM cannot drive, it has the
  expert's worlds too.

"Wandering" drivers have worlds of their own: `perception.wandering`. `perception.mixture` puts all together.
"""

from dataclasses import dataclass

import torch

import envs
from envs import scenarios
from envs.errors import UserError
from envs.physics.actions import META_ACTIONS
from envs.roads.network import RoadNetwork
from perception.drivers import EXPERTS, FASTER, IDLE, LEFT, RIGHT, SLOWER, Disturbances, cautious

DRIVERS = ("expert", "noisy", "restless", "wandering")
SHARES = {"expert": 0.25, "restless": 0.25}  # of the worlds; the noisy expert has the rest
HELD = 0.5  # chance a second that a restless driver draws anew what it does
SLIPS = 0.15  # chance a second that a noisy expert does something at random


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

    Attributes:
        idm: the worlds whose egos drive themselves, if IDM can drive them; they come first.
        policy: all others.
        drivers: int64 [N], who drives each world, as an index into DRIVERS.
        image: uint8 [N, C, H, W], what the drivers see now.
        image_shape: (C, H, W).

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
        expert, restless = (int(num_worlds * SHARES[name]) for name in ("expert", "restless"))
        noisy = num_worlds - expert - restless
        declared = scenarios.get(scenario)
        self.idm_drives = declared.uses_lanes
        disturbed = self.idm_drives and isinstance(declared.road(), RoadNetwork)
        if disturbed:
            first, order = expert + noisy, (("expert", expert), ("noisy", noisy), ("restless", restless))
        else:
            able = "expert" if self.idm_drives else "restless"
            follows = "noisy" if self.idm_drives or declared.family in EXPERTS else "restless"
            first, order = expert, ((able, expert), ("restless", restless), (follows, noisy))
        common = {"device": device, "observation": "camera", "frames": frames, "randomize": randomize, "rig": rig}
        ego = "idm" if self.idm_drives else "policy"
        self.idm = envs.make_vec(scenario, num_worlds=first, seed=seed, ego=ego, **common)
        self.policy = envs.make_vec(scenario, num_worlds=num_worlds - first, seed=seed, ego="policy", **common)
        self.num_worlds, self.device = num_worlds, self.policy.device
        self.num_actions = len(META_ACTIONS)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        drivers = [DRIVERS.index(name) for name, count in order for _ in range(count)]
        self.drivers = torch.tensor(drivers, device=self.device)
        self.noisy = self.drivers == DRIVERS.index("noisy")
        self.wishes = bool(self.noisy[first:].any())  # whether somebody who takes actions is an expert
        names = self.policy.action_names
        # What each action of the scenario is among the five, and which action each of the five is, IDLE where none.
        self.meaning = torch.tensor([META_ACTIONS.index(name) for name in names], dtype=torch.int64, device=self.device)
        offered = [names.index(name if name in names else "IDLE") for name in META_ACTIONS] if names else []
        self.offered = torch.tensor(offered, dtype=torch.int64, device=self.device)
        shape = (num_worlds, *self.policy.single_action_space.shape)
        if names:
            self.held = torch.full(shape, names.index("IDLE"), device=self.device)
        else:
            self.held = torch.zeros(shape, device=self.device)
        self.image = torch.cat([_seen(self.idm.reset()[0]), _seen(self.policy.reset(first_world=first)[0])])
        self.image_shape = tuple(self.image.shape[1:])
        self.disturbances = Disturbances(self.idm, self.noisy[:first], self.generator) if disturbed else None
        self.expert = EXPERTS[declared.family](self.policy) if declared.family in EXPERTS else None

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
        first, second = self._chosen().split((self.idm.num_worlds, self.policy.num_worlds))
        named, images = zip(self._stepped(self.idm, first), self._stepped(self.policy, second), strict=True)
        self.image = torch.cat(images)
        return torch.cat(named)

    def _chosen(self) -> torch.Tensor:
        """Actions of all worlds, as they take them."""
        frequency = self.policy.scenario.policy_frequency
        chance = torch.rand(self.num_worlds, generator=self.generator, device=self.device)
        random = self._random()
        # Worlds side by side; agents and parts of an action beyond.
        chance, noisy = (part.view(-1, *[1] * (random.ndim - 1)) for part in (chance, self.noisy))
        self.held = torch.where(chance < HELD / frequency, random, self.held)
        if not self.wishes:
            return self.held
        wished = self.held.clone()
        wished[self.idm.num_worlds :] = self._wished()
        return torch.where(noisy, torch.where(chance < SLIPS / frequency, random, wished), self.held)

    def _random(self) -> torch.Tensor:
        """Actions at random, for all worlds."""
        shape, options = self.held.shape, {"generator": self.generator, "device": self.device}
        if self.policy.action_names:
            return torch.randint(0, len(self.policy.action_names), shape, **options)
        return 2 * torch.rand(shape, **options) - 1

    def _wished(self) -> torch.Tensor:
        """What an expert would do in each of the worlds that take actions."""
        if self.expert is not None:
            return self.expert()
        like = self.held[self.idm.num_worlds :]
        return self.offered[cautious(self.policy)].view(-1, *[1] * (like.ndim - 1)).expand_as(like)

    def _stepped(self, worlds, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: the meta-actions int64 [n] that were taken or would have done what was done, and what is seen next.
        (After a reset the latter are wrong, but lead out of the episode.)
        """
        if worlds.action_names and worlds.ego == "policy":
            return self.meaning[actions.view(len(actions), -1)[:, 0]], _seen(worlds.step(actions)[0])
        state = worlds.state
        lane, speed = state.target_lane[:, 0].clone(), state.speed[:, 0].clone()
        if worlds is self.idm and self.disturbances is not None:
            self.disturbances()
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

    def state(self) -> dict[str, torch.Tensor]:
        """Everything needed to go on exactly."""
        worlds = {
            f"{name}.{key}": value
            for name in ("idm", "policy")
            for key, value in getattr(self, name).get_state().items()
        }
        state = worlds | {"held": self.held, "image": self.image, "generator": self.generator.get_state()}
        return state if self.disturbances is None else state | {"wanted": self.disturbances.wanted}

    def set_state(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from what `state` gave."""
        for name in ("idm", "policy"):
            getattr(self, name).set_state(
                {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
            )
        self.held, self.image = state["held"].to(self.device), state["image"].to(self.device)
        self.generator.set_state(state["generator"].cpu())
        if self.disturbances is not None:
            self.disturbances.wanted = state["wanted"].to(self.device)

    def close(self) -> None:
        """Release the worlds."""
        self.idm.close()
        self.policy.close()


def _seen(obs: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the first agent's camera sees, uint8 [N, C, H, W]."""
    return obs["camera"][:, 0] if obs["camera"].ndim == 5 else obs["camera"]
