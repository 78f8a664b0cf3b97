"""The batched simulation: a policy step as a pipeline of phases.

    begin -> frames x (propose -> settle -> command -> give way -> move -> sort -> collide) -> score
          -> observe -> traffic -> keep final observations -> spawn where ended -> observe where ended

The CPU runs the frames as one fused kernel, on slices of the worlds that its threads take in turn; a GPU runs a kernel
a phase and replays the step as a CUDA graph.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import warp as wp

from envs import compilation, phases
from envs.errors import UserError, unknown
from envs.launch import Launch
from envs.phases import ALL, ENDED
from envs.physics import idm, right_of_way
from envs.precision import scalar
from envs.roads import general, network_table, parallel
from envs.roads.parallel import ParallelRoad
from envs.scenarios.base import Scenario
from envs.state import KINDS, WorldState
from envs.workers import Workers

# A slice smaller than this is not worth a thread of its own.
MIN_WORLDS_PER_THREAD = 4
# Threads that share the copy of one world's observation on a GPU.
COPY_STRIDE = 256
MAX_WORLDS = 2**20
EGO_KINDS = ("meta", "plain", "dynamic", "idm")


def resolve_device(device: str | torch.device) -> torch.device:
    """The torch device for "auto", "cpu", "cuda" or "cuda:K".

    Raises:
        UserError: a name torch does not know, or a GPU that is not there.
    """
    if str(device) == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise unknown("device", str(device), ("auto", "cpu", "cuda")) from None
    if resolved.type not in ("cpu", "cuda"):
        raise unknown("device", str(device), ("auto", "cpu", "cuda"))
    if resolved.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError("device 'cuda' was asked for, but torch sees no GPU here; use --device cpu or auto")
        resolved = torch.device("cuda", resolved.index if resolved.index is not None else torch.cuda.current_device())
    return resolved


def _early(sensor) -> bool:
    """Whether a sensor observes after the agents' actions and before their effect (highway-env's lane-keeping)."""
    return getattr(sensor, "early", False)


class Simulation:
    """A batch of worlds of one scenario, without observations.

    Args:
        scenario: what is simulated.
        num_worlds: number of worlds, N.
        device: a torch device.
        dtype: "float32" to train, "float64" to be compared with highway-env.
        ego: "meta", "plain", "dynamic" or "idm": what drives the agents' slots.
        sensors: what films or measures the worlds, see `envs.sensors`.

    Attributes:
        state: the arrays, see `envs.state`.
        maps: the networks that worlds drive on, counted by the state's `map`; None on a parallel road.
        commands: what agents are told. Shape: (N, 2 A); [action, 0] or [throttle, steering] of each.
        seed: key of the random streams. Shape: (1,) int64.
    """

    def __init__(
        self,
        scenario: Scenario,
        num_worlds: int,
        device: torch.device,
        dtype: str = "float32",
        ego: str = "meta",
        sensors: Callable[["Simulation"], list] | None = None,
    ):
        if not 1 <= num_worlds <= MAX_WORLDS:
            raise UserError(f"num_worlds must be between 1 and {MAX_WORLDS}, not {num_worlds}")
        if ego not in EGO_KINDS:
            raise unknown("ego", ego, EGO_KINDS)
        self.scenario, self.num_worlds, self.device, self.dtype = scenario, num_worlds, device, dtype
        self.real = scalar(dtype)
        self.warp_device = wp.device_from_torch(device)
        roads = scenario.maps()
        self.maps = None if isinstance(roads[0], ParallelRoad) else roads
        self.state = WorldState(
            num_worlds,
            scenario.slots,
            device,
            dtype,
            scenario.route_steps,
            scenario.agents,
            signals=max([1, *(len(network.signals) for network in self.maps or ())]),
            junctions=max([1, *(len(network.junctions) for network in self.maps or ())]),
        )
        self.commands = torch.zeros((num_worlds, 2 * scenario.agents), dtype=torch.float32, device=device)
        self.seed = torch.zeros(1, dtype=torch.int64, device=device)
        road_module = general if self.maps else parallel
        self.kernels = phases.build(self.real, road_module, scenario.task)
        make_table = network_table.table if self.maps else parallel.table
        self.road = make_table(
            roads, dtype, str(self.warp_device), scenario.connected_lanes, scenario.destinations(roads)
        )
        self._bind(roads, KINDS[ego])
        self.sensors = sensors(self) if sensors else []
        self._workers = Workers(num_worlds, self.threads()) if device.type == "cpu" else None
        with compilation.announced(str(self.warp_device), dtype):
            self._record()

    def threads(self) -> int:
        """Threads that a step is spread over on a CPU."""
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, min(available, self.num_worlds // MIN_WORLDS_PER_THREAD))

    def _bind(self, roads: list, ego_kind: int) -> None:
        """Fill the structs that kernels receive."""
        scenario, k = self.scenario, self.kernels
        if self.maps:
            self.road.longest = scenario.longest / 2
            self.road.unused = int(not scenario.uses_lanes)
        if hasattr(scenario, "scripts"):
            self.road.scripts = wp.array(scenario.scripts(), dtype=self.real, device=self.warp_device)
            self.road.rules = 1
        if scenario.regulated:
            self.road.yield_period = int(scenario.simulation_frequency / right_of_way.FREQUENCY)
            paths = (self.num_worlds, scenario.slots, len(right_of_way.TIMES), 3)
            self.road.path = wp.zeros(paths, dtype=self.real, device=self.warp_device)
        self.driver = k.Driver()
        idm.fill(self.driver, scenario.driver)
        actions = scenario.actions
        self.controls = k.Controls()
        self.controls.low, self.controls.high, self.controls.count = scenario.target_speeds
        self.controls.acceleration_low, self.controls.acceleration_high = actions.acceleration_range
        self.controls.steering_low, self.controls.steering_high = actions.steering_range
        self.task = k.Task()
        for name, value in scenario.task_values(roads, ego_kind).items():
            if isinstance(value, np.ndarray):
                kind = self.real if value.dtype.kind == "f" else wp.int32
                value = wp.array(value, dtype=kind, device=self.warp_device)
            setattr(self.task, name, value)

    # --- the pipeline -------------------------------------------------------------------------------------------

    def frame_phases(self, takes_action: bool, frames: int, which: int = ALL) -> list[Launch]:
        """`frames` frames of simulation, the first of which begins with the agents' actions where they take some."""
        k, world, dt = self.kernels, self.state.warp, 1.0 / self.scenario.simulation_frequency
        commands = wp.from_torch(self.commands)
        if self.device.type == "cpu":
            inputs = (world, self.road, self.driver, self.controls, commands, dt, frames, int(takes_action), which)
            return [Launch(k.simulate, (), inputs)]
        slots = (self.state.slots,)
        regulation = [Launch(k.count_frame, (), (world, self.road, dt, which))]
        if self.scenario.regulated:
            regulation.append(Launch(k.predict_paths, slots, (world, self.road, which)))
            regulation.append(Launch(k.regulate, (), (world, self.road, which)))
        frame = [
            Launch(k.propose_lanes, slots, (world, self.road, self.driver, which)),
            Launch(k.settle_lanes, (), (world, self.road, self.driver, which)),
            Launch(k.command_vehicles, slots, (world, self.road, self.driver, which)),
            *regulation,
            Launch(k.move_vehicles, slots, (world, self.road, dt, which)),
            Launch(k.sort_vehicles, (), (world,)),
            Launch(k.collide_vehicles, slots, (world, self.road, dt, which)),
        ]
        return self.begin_phases() * takes_action + frame * frames

    def begin_phases(self) -> list[Launch]:
        """The agents take their actions."""
        inputs = (self.state.warp, self.road, self.controls, wp.from_torch(self.commands))
        return [Launch(self.kernels.begin_step, (), inputs)]

    def step_phases(self) -> list[Launch]:
        """The frames of a policy step. What is observed before anything has moved is observed in between."""
        frames = self.scenario.frames_per_step
        early = [launch for sensor in self.sensors if _early(sensor) for launch in sensor.launches(ALL)]
        if early:
            return [*self.begin_phases(), *early, *self.frame_phases(False, frames)]
        return self.frame_phases(True, frames)

    def score_phases(self) -> list[Launch]:
        """Rewards and endings, then observations of every world."""
        inputs = (self.state.warp, self.road, self.controls, self.task, wp.from_torch(self.commands))
        score = Launch(self.kernels.score, (), inputs)
        late = [launch for sensor in self.sensors if not _early(sensor) for launch in sensor.launches(ALL)]
        return [score, *late]

    def traffic_phases(self) -> list[Launch]:
        """Vehicles leave and enter, where the scenario has it and the episode goes on."""
        if not hasattr(self.kernels, "traffic"):
            return []
        inputs = (self.state.warp, self.road, self.controls, self.task, self._seed_array())
        return [Launch(self.kernels.traffic, (), inputs)]

    def observe_phases(self, which: int, restart: bool = False) -> list[Launch]:
        """Every sensor's observation of the worlds `which`, see `envs.sensors.base.Sensor.launches`."""
        return [launch for sensor in self.sensors for launch in sensor.launches(which, restart)]

    def renewal_phases(self) -> list[Launch]:
        """Where an episode ended: keep its last observation, begin the next episode and observe that."""
        stride = 1 if self.device.type == "cpu" else COPY_STRIDE
        ends = (wp.from_torch(self.state.terminated), wp.from_torch(self.state.truncated))
        keep = [
            Launch(phases.keep_rows, (stride,), (*ends, phases.words(output), phases.words(final), stride))
            for sensor in self.sensors
            for output, final in zip(sensor.outputs.values(), sensor.finals.values(), strict=True)
        ]
        return [*keep, *self._spawn(ENDED), *self.observe_phases(ENDED)]

    def _seed_array(self) -> wp.array:
        return wp.from_torch(self.seed, dtype=wp.uint64)

    def _spawn(self, which: int) -> list[Launch]:
        inputs = (self.state.warp, self.road, self.controls, self.task, self._seed_array(), which)
        program = [Launch(self.kernels.spawn, (), inputs)]
        if hasattr(self.kernels, "enter"):
            frames = round(self.scenario.warm_up * self.scenario.simulation_frequency)
            program += self.frame_phases(False, frames, which)
            program.append(Launch(self.kernels.enter, (), inputs))
        return program

    def reset_phases(self) -> list[Launch]:
        """Begin the next episode in every world and observe it."""
        return [*self._spawn(ALL), *self.observe_phases(ALL, restart=True)]

    # --- running it ---------------------------------------------------------------------------------------------

    def _record(self) -> None:
        """Record every launch once, for every slice; from then on a step costs no argument handling."""
        programs = {
            "frames": self.step_phases(),
            "first_frame": self.frame_phases(True, 1),
            "next_frame": self.frame_phases(False, 1),
            "score": self.score_phases(),
            "traffic": self.traffic_phases(),
            "renewal": self.renewal_phases(),
            "reset": self.reset_phases(),
            "observe": self.observe_phases(ALL, restart=True),
            "film": self.observe_phases(ALL),
            "film_ended": self.observe_phases(ENDED),
        }
        slices = self._workers.slices if self._workers else [(0, self.num_worlds)]
        self._programs = {
            name: [[launch.record(self.warp_device, *part) for launch in program] for part in slices]
            for name, program in programs.items()
        }
        self._graphs: dict[tuple[str, ...], Any] = {}
        if self._workers:
            self._ended = [
                (self.state.terminated[a : a + n].numpy(), self.state.truncated[a : a + n].numpy()) for a, n in slices
            ]

    def _run(self, *names: str) -> None:
        """Run programs in order: on every slice's thread, or as one CUDA graph."""
        if self._workers:
            self._workers.run(lambda k: self._run_slice(k, names))
            return
        stream = wp.stream_from_torch(torch.cuda.current_stream(self.device))
        if names not in self._graphs:
            with wp.ScopedCapture(device=self.warp_device) as capture:
                for name in names:
                    for launch in self._programs[name][0]:
                        launch.launch(stream=self.warp_device.stream)
            self._graphs[names] = capture.graph
        wp.capture_launch(self._graphs[names], stream=stream)

    def _run_slice(self, k: int, names: tuple[str, ...]) -> None:
        for name in names:
            if name == "renewal":
                terminated, truncated = self._ended[k]
                if not (terminated.any() or truncated.any()):
                    continue
            for launch in self._programs[name][k]:
                launch.launch()

    def reset(self, seed: int | None = None) -> None:
        """Begin a new episode in every world: the first of `seed`, or the next one of the present seed."""
        if seed is not None:
            # The generator's key is 64 bits; torch has no unsigned type of that size.
            self.seed.fill_(seed - 2**64 if seed >= 2**63 else seed)
            self.state.episode.fill_(-1)
        self._run("reset")

    def step(self, on_frame: Callable[[], None] | None = None) -> None:
        """One policy step under `commands`; worlds whose episode ends begin their next one.

        Args:
            on_frame: called after every frame, before scoring and renewal.
        """
        if on_frame is None:
            self._run("frames", "score", "traffic", "renewal")
            return
        for frame in range(self.scenario.frames_per_step):
            self._run("first_frame" if frame == 0 else "next_frame")
            on_frame()
        self._run("score", "traffic", "renewal")

    def step_once(self) -> None:
        """One policy step in which worlds that end are not renewed."""
        self._run("frames", "score")

    def exchange_traffic(self) -> None:
        """Let vehicles leave and enter, as a step with renewal does at its end."""
        self._run("traffic")

    def observe(self) -> None:
        """Let the sensors see the present state, as at the start of an episode."""
        self._run("observe")

    def film(self) -> None:
        """Let the sensors see the present state as the next one of the episode."""
        self._run("film")

    def film_on_one_thread(self) -> None:
        """`film` for every slice in turn on the calling thread: what one core does."""
        for k in range(len(self._workers.slices)):
            self._run_slice(k, ("film",))

    def film_ended(self) -> None:
        """Let the sensors see, as the start of an episode, the worlds whose last step ended one."""
        self._run("film_ended")

    def close(self) -> None:
        """End the threads."""
        if self._workers:
            self._workers.close()
            self._workers = None
