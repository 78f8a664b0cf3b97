"""What a step meant for each agent, kept before the next episode begins: no part of any observation."""

import functools

import torch
import warp as wp
from gymnasium import spaces

from envs.launch import Launch
from envs.phases import ALL
from envs.precision import Functions
from envs.state import world_struct


@functools.cache
def build(real: type) -> Functions:
    """Kernel `keep_results`."""
    World = world_struct(real)

    @wp.kernel(module="unique")
    def keep_results(
        world: World, reward: wp.array2d(dtype=real), finished: wp.array2d(dtype=wp.int32), first_world: int
    ):
        w, a = wp.tid()
        w = w + first_world
        reward[w, a] = world.vehicle[w, a].reward_share
        finished[w, a] = world.vehicle[w, a].finished

    return Functions(keep_results=keep_results)


class AgentResults:
    """The agents' own rewards and whether they have finished, of the step before any reset.

    Attributes:
        reward: Shape: (N, A), of the simulation's scalar type.
        finished: Shape: (N, A) int32, 1 or 0.
    """

    def __init__(self, simulation):
        self._simulation = simulation
        state = simulation.state
        self.reward = torch.zeros_like(state.reward_share[:, : state.agents]).contiguous()
        self.finished = torch.zeros_like(state.finished[:, : state.agents]).contiguous()
        self.outputs: dict[str, torch.Tensor] = {}
        self.finals: dict[str, torch.Tensor] = {}
        self.spaces: dict[str, spaces.Box] = {}
        self.memory: dict[str, torch.Tensor] = {}

    def launches(self, which: int, restart: bool = False) -> list[Launch]:
        """See `envs.sensors.base.Sensor`. Worlds that begin an episode keep what the last one's end meant."""
        if which != ALL:
            return []
        simulation = self._simulation
        inputs = (simulation.state.warp, wp.from_torch(self.reward), wp.from_torch(self.finished))
        return [Launch(build(simulation.real).keep_results, (simulation.state.agents,), inputs)]
