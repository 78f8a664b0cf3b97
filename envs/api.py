"""The batched environment: tensors in, tensors out, everything on the device."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from gymnasium import spaces

from envs import scenarios
from envs.errors import UserError, unknown
from envs.physics.actions import META_ACTIONS
from envs.roads.network import RoadNetwork
from envs.roads.parallel import ParallelRoad
from envs.scenarios.base import CONTINUOUS, Scenario
from envs.sensors.birdseye import BirdsEye
from envs.sensors.camera import Camera
from envs.sensors.kinematics import OwnSpeed
from envs.sensors.lidar import Lidar
from envs.sensors.occupancy import OccupancyGrid
from envs.sensors.results import AgentResults
from envs.sensors.rig import Rig
from envs.simulation import Simulation, resolve_device

OBSERVATIONS = ("camera", "bev", "lidar", "grid", "state")
# What a cell of the observation "grid" holds.
GRID_FEATURES = ("presence", "vx", "vy", "on_road")
EGOS = ("policy", "continuous", "idm")
Observation = dict[str, torch.Tensor]


class VecWorlds:
    """A batch of driving worlds behind a vectorised environment's interface. Make it with `envs.make_vec`.

    Actions, ego "policy": the scenario's own; int64 (N,) into `action_names`, or float (N, K) in [-1, 1], throttle
    and steering or the one of them that the scenario has. Ego "continuous": float (N, 2), throttle and steering. Ego
    "idm": the ego drives itself and actions are ignored. With A > 1 agents a world, (N, A) and (N, A, K).

    Observations are dicts of tensors, whose shapes begin with (N, A) where there are A > 1 agents. "state": what
    highway-env's environment observes; {"state": float32 (N, ...)}, or as it names them. Every other one has "speed",
    float32 (N, 1), share of 40 m/s, and
        "camera": {"camera": uint8 (N, frames * 3, H, W)}, oldest frame first; see `envs.sensors.camera`.
        "bev": {"bev": uint8 (N, C, H, W)}, from above; privileged, see `envs.sensors.birdseye`.
        "lidar": {"lidar": float32 (N, cells, 2)}, distance and closing speed; see `envs.sensors.lidar`.
        "grid": {"grid": float32 (N, GRID_FEATURES, cells, cells)}, on road networks; see `envs.sensors.occupancy`.
    Of several kinds the observation holds all entries: what a student and its teacher see of one state, say.

    Rewards and endings are the scenario's. Autoreset is same-step: where an episode ends, `step` returns the first
    observation of the next one, and the last of the old one in info["final_obs"].

    Attributes:
        num_worlds: N.
        device: where every tensor lives.
        scenario: what is simulated, see `envs.scenarios.base.Scenario`.
        road: the first of its maps.
        state: every array of the worlds, see `envs.state`.
        single_observation_space, single_action_space: one world's spaces.
        observed: kind of observation -> the entries that it would have alone.
        action_names: names of the meta-actions, empty for continuous ones.
    """

    def __init__(
        self,
        scenario: Scenario,
        num_worlds: int,
        device: torch.device,
        observation: str | Sequence[str],
        seed: int,
        frames: int,
        ego: str,
        randomize: bool,
        rig: str | Rig,
        channels: tuple[str, ...],
        dtype: str,
    ):
        kinds = (observation,) if isinstance(observation, str) else tuple(dict.fromkeys(observation))
        for kind in kinds:
            if kind not in OBSERVATIONS:
                raise unknown("observation", kind, OBSERVATIONS)
        if ego not in EGOS:
            raise unknown("ego", ego, EGOS)
        if frames < 1:
            raise UserError(f"frames must be at least 1, not {frames}")
        if ego == "continuous":
            scenario = replace(scenario, actions=CONTINUOUS)
        self.scenario, self.num_worlds, self.device = scenario, num_worlds, device
        self.observation, self.frames, self.ego, self.randomize = observation, frames, ego, randomize
        self.observed: dict[str, list[str]] = {}

        def sensors_of(kind: str, simulation: Simulation) -> list:
            if kind == "state":
                return scenario.observation(simulation)
            if kind == "camera":
                return [Camera(simulation, rig, frames, randomize, channels)]
            if kind == "bev":
                return [BirdsEye(simulation)]
            if kind == "lidar":
                return [_named(Lidar(simulation), "lidar")]
            if simulation.maps is None:
                raise UserError(f"'{scenario.name}' has no road network, which 'grid' needs: use 'bev' or 'lidar'")
            return [_named(OccupancyGrid(simulation, GRID_FEATURES), "grid")]

        def instruments(simulation: Simulation) -> list:
            own = {kind: sensors_of(kind, simulation) for kind in kinds}
            speed = [] if kinds == ("state",) else [OwnSpeed(simulation)]
            extra = scenario.extra_sensors(simulation)
            for kind, sensors in own.items():
                alone = [*sensors, *(speed if kind != "state" else []), *extra]
                self.observed[kind] = [name for sensor in alone for name in sensor.spaces]
            if scenario.agents > 1:
                self._results = AgentResults(simulation)
                extra = [self._results, *extra]
            return [*itertools.chain(*own.values()), *speed, *extra]

        kind = "idm" if ego == "idm" else scenario.actions.kind
        self.sim = Simulation(scenario, num_worlds, device, dtype, kind, instruments)
        self.state = self.sim.state
        self.road = self.sim.maps[0] if self.sim.maps else scenario.road()
        self.action_names = scenario.actions.names
        agents = () if scenario.agents == 1 else (scenario.agents,)
        self._obs = {k: v for sensor in self.sim.sensors for k, v in sensor.outputs.items()}
        self._final = {k: v for sensor in self.sim.sensors for k, v in sensor.finals.items()}
        self._memory = {k: v for sensor in self.sim.sensors for k, v in sensor.memory.items()}
        self.single_observation_space = spaces.Dict({k: v for s in self.sim.sensors for k, v in s.spaces.items()})
        if not self.action_names:
            self.single_action_space = spaces.Box(-1.0, 1.0, (*agents, scenario.actions.size), np.float32)
        elif agents:
            self.single_action_space = spaces.MultiDiscrete([len(self.action_names)] * scenario.agents)
        else:
            self.single_action_space = spaces.Discrete(len(self.action_names))
        meaning = [META_ACTIONS.index(name) for name in self.action_names]
        self._meaning = torch.tensor(meaning, dtype=torch.float32, device=device)
        self._seed = seed
        self._started = False
        # Scenarios with a goal write in every step whether it is reached; in the others this stays.
        self.state.success.fill_(-1)

    def reset(self, seed: int | None = None, first_world: int | None = None) -> tuple[Observation, dict]:
        """Begin a new episode in every world.

        Args:
            seed: 64-bit seed of the worlds; None goes on with the next episodes of the present seed.
            first_world: identity of world 0 in the random streams; world k then lives the life of world
                `first_world + k` of a batch that starts at 0. None leaves it.

        Returns:
            The observations and an empty info.
        """
        if first_world is not None:
            count = torch.arange(self.num_worlds, dtype=torch.int32, device=self.device)
            self.state.world_id.copy_(count + first_world)
        if seed is not None or not self._started:
            self._seed = self._seed if seed is None else seed
            self.sim.reset(self._seed)
        else:
            self.sim.reset()
        self._started = True
        return self._obs, {}

    def step(
        self, actions: torch.Tensor, on_frame: Callable[[], None] | None = None
    ) -> tuple[Observation, torch.Tensor, torch.Tensor, torch.Tensor, dict]:
        """One decision in every world.

        Args:
            actions: Shape: (N,) integers or (N, K) floats, see the class.
            on_frame: called after every simulation frame, before scoring and resets: `state` then holds that frame.

        Returns:
            obs, reward (N,) float, terminated (N,) bool, truncated (N,) bool and info: "speed" (N,) [m/s], "crashed"
            (N,) and "success" (N,) of the step before any reset, "final_obs" (rows valid where "_final_obs"),
            "_final_obs" (N,) bool, "episode_return" (N,) and "episode_length" (N,), valid where "_final_obs". Success
            is that the goal is reached; where a scenario has none, that the time limit is. With A > 1 agents also
            "agent_reward" (N, A), each one's own, and "agent_finished" (N, A), whether it has crashed, arrived or left
            the road where that ends its task. Observations are the simulator's own buffers, which the next step
            overwrites.

        Raises:
            RuntimeError: called before `reset`.
            ValueError: a meta-action that does not exist.
        """
        if not self._started:
            raise RuntimeError("call reset before step")
        self._command(actions)
        self.sim.step(on_frame)
        state = self.state
        terminated, truncated = state.terminated != 0, state.truncated != 0
        reached = torch.where(state.success < 0, truncated & ~terminated, state.success == 1)
        info = {
            "speed": state.ego_speed.clone(),
            "crashed": state.ego_crashed != 0,
            "success": reached,
            "final_obs": self._final,
            "_final_obs": terminated | truncated,
            "episode_return": state.final_return.clone(),
            "episode_length": state.final_length.clone(),
        }
        if self.scenario.agents > 1:
            info["agent_reward"] = self._results.reward.clone()
            info["agent_finished"] = self._results.finished != 0
        return self._obs, state.reward.clone(), terminated, truncated, info

    def _command(self, actions: torch.Tensor) -> None:
        """Tell the agents what to do."""
        agents, offered = self.scenario.agents, self.scenario.actions
        commands = self.sim.commands.view(self.num_worlds, agents, 2)
        if not self.action_names:
            actions = actions.reshape(self.num_worlds, agents, offered.size)
            if offered.throttle:
                commands[..., 0].copy_(actions[..., 0])
            if offered.steering:
                commands[..., 1].copy_(actions[..., -1])
            return
        last = len(self.action_names) - 1
        # On a GPU looking would wait for the device; there, what is no action is taken for the nearest one.
        if self.device.type == "cpu" and not bool(((actions >= 0) & (actions <= last)).all()):
            raise ValueError(f"meta-actions are 0 to {last}, not {int(actions.min())} to {int(actions.max())}")
        # Not by indexing, which wakes torch's threads: they then spin on the cores that simulate.
        chosen = self._meaning.gather(0, actions.long().clamp(0, last).flatten())
        commands[..., 0].copy_(chosen.reshape(self.num_worlds, agents))

    def road_of(self, world: int) -> ParallelRoad | RoadNetwork:
        """The map that a world drives on now."""
        return self.sim.maps[int(self.state.map[world])] if self.sim.maps else self.road

    def observe(self) -> Observation:
        """The observations of the present state, as at the start of an episode: the past frames equal the present."""
        self.sim.observe()
        return self._obs

    def render(self, world: int = 0, width: int = 1000, height: int = 320) -> np.ndarray:
        """The picture that the viewer shows of one world. Shape: (height, width, 3) uint8."""
        from envs.render import Scene, draw_frame

        camera = None
        if "camera" in self._obs:
            mine = self._obs["camera"][world] if self.scenario.agents == 1 else self._obs["camera"][world, 0]
            camera = mine[-3:].permute(1, 2, 0).cpu().numpy()
        return draw_frame(Scene.of(self, world, camera), width, height)

    def _everything(self) -> dict[str, torch.Tensor]:
        """The tensors that a batch's future depends on, by name."""
        groups = {"state": self.state.tensors, "obs": self._obs, "sensor": self._memory}
        named = {f"{group}.{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}
        return named | {"seed": self.sim.seed}

    def get_state(self) -> dict[str, torch.Tensor]:
        """Copies of all that is needed to go on exactly: see `set_state`."""
        return {name: tensor.clone() for name, tensor in self._everything().items()}

    def set_state(self, saved: dict[str, torch.Tensor]) -> Observation:
        """Go on from what `get_state` returned, in a batch made with the same arguments.

        Returns:
            The observations at that point.

        Raises:
            UserError: the saved tensors are of another batch.
        """
        mine = self._everything()
        if mine.keys() != saved.keys() or any(mine[name].shape != saved[name].shape for name in mine):
            raise UserError("the saved worlds are of another scenario, number of worlds or observation than these")
        for name, tensor in mine.items():
            tensor.copy_(saved[name])
        self._started = True
        return self._obs

    def close(self) -> None:
        """End the threads."""
        self.sim.close()


def _named(sensor, name: str):
    """A sensor of one output, under a name of its own in place of "state"."""
    for group in ("outputs", "finals", "spaces"):
        setattr(sensor, group, {name: getattr(sensor, group)["state"]})
    return sensor


def make_vec(
    scenario: str | Scenario = "highway",
    num_worlds: int = 1,
    *,
    device: str | torch.device = "auto",
    observation: str | Sequence[str] = "camera",
    seed: int = 0,
    frames: int = 2,
    ego: str = "policy",
    randomize: bool = False,
    rig: str | Rig = "surround",
    channels: tuple[str, ...] = ("rgb",),
    dtype: str = "float32",
    agents: int | None = None,
) -> VecWorlds:
    """A batch of worlds.

    Args:
        scenario: a name from `envs.list_scenarios()`, or a scenario with parameters of your own.
        num_worlds: how many worlds are simulated at once.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or a torch device.
        observation: "camera", "bev", "lidar", "grid" or "state", or several of them, see `VecWorlds`.
        seed: of the random streams; `reset(seed=...)` replaces it.
        frames: camera frames in an observation, one a policy step.
        ego: "policy" (meta-actions), "continuous" (throttle and steering) or "idm" (drives itself).
        randomize: vary light, weather, colours, camera pose and noise from episode to episode.
        rig: the cameras: "surround" (ahead and all around, 64x96), "junction" (farther and finer, 104x96), "front"
            (64x64) or a rig of your own.
        channels: what the cameras give: "rgb", and "depth" and "semantic" as further keys of the observation.
        dtype: "float32" to train, "float64" to be compared with highway-env.
        agents: vehicles a world that are told what to do, in scenarios for several; None for the scenario's own number.

    Raises:
        UserError: an unknown name or an impossible number.
    """
    chosen = scenarios.get(scenario)
    return VecWorlds(
        chosen if agents is None else chosen.with_agents(agents),
        num_worlds,
        resolve_device(device),
        observation,
        seed,
        frames,
        ego,
        randomize,
        rig,
        channels,
        dtype,
    )
