"""What a scenario declares: a map, who drives on it, for how long, and what is rewarded."""

import sys
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, ClassVar

from envs.errors import UserError
from envs.physics.actions import ACCELERATION_RANGE, META_ACTIONS, STEERING_RANGE
from envs.physics.idm import DriverModel
from envs.roads.network import RoadNetwork
from envs.roads.parallel import ParallelRoad
from envs.roads.turns import turns


@dataclass(frozen=True)
class ActionSet:
    """What an agent may do.

    Attributes:
        kind: of the agents' vehicles, see `envs.state.KINDS`: "meta", "plain" or "dynamic".
        names: the meta-actions offered, in the order of their numbers; empty for continuous actions.
        throttle, steering: whether continuous actions have them, in this order.
        acceleration_range: what throttle -1 and 1 mean [m/s2].
        steering_range: what steering -1 and 1 mean [rad].
    """

    kind: str = "meta"
    names: tuple[str, ...] = META_ACTIONS
    throttle: bool = True
    steering: bool = True
    acceleration_range: tuple[float, float] = ACCELERATION_RANGE
    steering_range: tuple[float, float] = STEERING_RANGE

    def __post_init__(self):
        if self.kind != "meta" and not (self.throttle or self.steering):
            raise UserError("continuous actions need throttle, steering or both")

    @property
    def size(self) -> int:
        """Numbers in one continuous action."""
        return int(self.throttle) + int(self.steering)


LONGITUDINAL = ActionSet(names=("SLOWER", "IDLE", "FASTER"))
CONTINUOUS = ActionSet(kind="plain", names=())


@dataclass(frozen=True)
class Scenario:
    """What every scenario has; each family adds its own parameters, with the names of highway-env's configuration.

    Attributes:
        name: the name by which it is made.
        family: scenarios of one family share spaces and meaning of actions, so policies move between them.
        upstream_id: id of the highway-env environment that it equals, empty where there is none.
        agents: vehicles that are told what to do.
        vehicles: slots for others.
        simulation_frequency: frames a second of simulated time [Hz].
        policy_frequency: decisions a second [Hz].
        duration: time limit of an episode [s].
        actions: what agents may do.
        target_speeds: slowest and fastest speed of the meta-actions [m/s] and how many there are.
        driver: parameters of the other drivers.
        connected_lanes: whether drivers see others on the lanes that lead into theirs and out of it.
        regulated: whether drivers give way at crossings.
        route_steps: roads on the longest route.
        warm_up: how long the others drive before the agents enter [s].
        network: a map to drive on in place of the scenario's own.
    """

    name: str
    family: str
    upstream_id: str = ""
    agents: int = 1
    vehicles: int = 50
    simulation_frequency: int = 15
    policy_frequency: int = 1
    duration: float = 40.0
    actions: ActionSet = ActionSet()
    target_speeds: tuple[float, float, int] = (20.0, 30.0, 3)
    driver: DriverModel = field(default_factory=DriverModel)
    connected_lanes: bool = False
    regulated: bool = False
    route_steps: int = 1
    warm_up: float = 0.0
    network: RoadNetwork | None = field(default=None, repr=False, compare=False)

    # No diagonal of anything is longer [m].
    longest: ClassVar[float] = 5.5
    # Whether the simulation has to know which lane everybody is on.
    uses_lanes: ClassVar[bool] = True
    # Whether its agents are told the next manoeuvre of their route, see `envs.sensors.route`.
    tells_route: ClassVar[bool] = False
    # Agents that a world has room for.
    max_agents: ClassVar[int] = 1

    def __post_init__(self):
        if self.agents < 1 or self.vehicles < 0:
            raise UserError(f"a scenario needs an agent and no fewer than 0 others, not {self.agents}, {self.vehicles}")
        if self.simulation_frequency < self.policy_frequency or self.policy_frequency < 1:
            raise UserError("simulation_frequency must be at least policy_frequency, and that at least 1 Hz")

    @property
    def task(self) -> ModuleType:
        """The module that defines the scenario, whose `build(real, road_functions, action_functions)` gives the struct
        `Task` and the Warp functions `spawn` and `score`, and `enter` and `traffic` where it has them."""
        return sys.modules[type(self).__module__]

    @property
    def frames_per_step(self) -> int:
        """Simulation frames a decision lasts."""
        return self.simulation_frequency // self.policy_frequency

    @property
    def slots(self) -> int:
        """Vehicle slots a world needs, the agents' included."""
        return self.agents + self.vehicles

    def with_agents(self, agents: int) -> "Scenario":
        """The same with another number of agents.

        Raises:
            UserError: more than it has room for, or none.
        """
        if not 1 <= agents <= self.max_agents:
            room = "one agent" if self.max_agents == 1 else f"1 to {self.max_agents} agents"
            raise UserError(f"'{self.name}' has room for {room} a world, not {agents}")
        return replace(self, agents=agents)

    def make_maps(self) -> list[ParallelRoad] | list[RoadNetwork]:
        """The maps that its worlds drive on: one parallel road, or any number of networks."""
        raise NotImplementedError

    def maps(self) -> list[ParallelRoad] | list[RoadNetwork]:
        """The maps that are driven on."""
        return [self.network] if self.network is not None else self.make_maps()

    def destinations(self, maps: list) -> list[list[str]] | None:
        """For each map the nodes that routes may lead to, by which `plan` counts them."""
        return None

    def road(self) -> ParallelRoad | RoadNetwork:
        """The first of its maps."""
        return self.maps()[0]

    def task_values(self, maps: list, ego_kind: int) -> dict[str, Any]:
        """The values of `Task`: numbers, and NumPy arrays for its arrays."""
        raise NotImplementedError

    def observation(self, simulation) -> list:
        """The sensors of `observation="state"`: highway-env's observation of the environment that it equals."""
        from envs.sensors.vehicle_list import VehicleList

        ranges = {"x": (-100.0, 100.0), "y": (-100.0, 100.0), "vx": (-30.0, 30.0), "vy": (-30.0, 30.0)}
        return [VehicleList(simulation, ranges=ranges, see_behind=True)]

    def manoeuvres(self, maps: list[RoadNetwork]) -> list[dict[tuple[str, str], str]]:
        """What each road of the maps does, for agents that are told, see `envs.sensors.route.Route`."""
        return [turns(network) for network in maps]

    def extra_sensors(self, simulation) -> list:
        """Sensors that agents have beside those of any observation, see `envs.sensors.base.Sensor`: the route, for
        those who are told it."""
        from envs.sensors.route import Route

        return [Route(simulation, self.manoeuvres(simulation.maps))] if self.tells_route else []

    def times(self, ego_kind: int) -> dict[str, Any]:
        """The values that every `Task` has."""
        return {"ego_kind": ego_kind, "step_duration": 1.0 / self.policy_frequency, "duration": self.duration}
