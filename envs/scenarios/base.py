"""What a scenario declares: a scene, who drives in it, for how long, and what is rewarded."""

from dataclasses import dataclass, field

from envs.physics.idm import DriverModel
from envs.roads.parallel import ParallelRoad


@dataclass(frozen=True)
class Scenario:
    """A scenario on a parallel road, with the names and defaults of highway-env's configuration.

    Attributes:
        name: the name by which it is made.
        family: scenarios of one family share spaces and meaning of actions, so policies move between them.
        upstream_id: id of the highway-env environment that it equals.
        lanes: number of lanes.
        vehicles: vehicles besides the ego.
        simulation_frequency: frames a second of simulated time [Hz].
        policy_frequency: decisions a second [Hz].
        duration: time limit of an episode [s].
        ego_spacing: room ahead of the ego at the start, in default gaps [1].
        density: vehicles a default gap [1].
        ego_speed: speed of the ego at the start [m/s].
        speed_limit: of every lane [m/s].
        road_length: of every lane [m].
        others_collide: whether collisions between other vehicles are simulated.
        collision_reward, right_lane_reward, high_speed_reward: weights of the reward's terms.
        reward_speeds: speeds that the speed term maps to 0 and 1 [m/s].
        target_speeds: slowest and fastest speed of the meta-actions and how many there are.
        driver: parameters of the other drivers.
    """

    name: str
    family: str
    upstream_id: str
    lanes: int = 4
    vehicles: int = 50
    simulation_frequency: int = 15
    policy_frequency: int = 1
    duration: float = 40.0
    ego_spacing: float = 2.0
    density: float = 1.0
    ego_speed: float = 25.0
    speed_limit: float = 30.0
    road_length: float = 10_000.0
    others_collide: bool = True
    collision_reward: float = -1.0
    right_lane_reward: float = 0.1
    high_speed_reward: float = 0.4
    reward_speeds: tuple[float, float] = (20.0, 30.0)
    target_speeds: tuple[float, float, int] = (20.0, 30.0, 3)
    driver: DriverModel = field(default_factory=DriverModel)

    @property
    def frames_per_step(self) -> int:
        """Simulation frames a decision lasts."""
        return self.simulation_frequency // self.policy_frequency

    @property
    def slots(self) -> int:
        """Vehicle slots a world needs, the ego's included."""
        return self.vehicles + 1

    def road(self) -> ParallelRoad:
        """The carriageway."""
        return ParallelRoad(self.lanes, self.road_length, self.speed_limit)
