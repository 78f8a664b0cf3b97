"""What a GPU runs: compiled without one, run phase by phase on the CPU, compared with the CPU where there is one."""

import contextlib
import functools

import pytest
import torch
import warp as wp

import envs
from envs.errors import UserError
from envs.launch import Launch
from envs.sensors.camera import CHANNELS
from envs.simulation import Simulation

ARCHITECTURES = [90]  # H100


@functools.cache
def kernels(dtype: str) -> list[wp.Kernel]:
    """Every kernel that a GPU would launch for any scenario, sensor and way of driving."""
    batches = [envs.make_vec(name, 1, device="cpu", observation="state", dtype=dtype) for name in envs.list_scenarios()]
    for name in ("highway-fast", "intersection-signals"):
        for observation in envs.api.OBSERVATIONS:
            options = {"channels": CHANNELS} if observation == "camera" else {}
            with contextlib.suppress(UserError):
                batches.append(envs.make_vec(name, 1, device="cpu", observation=observation, dtype=dtype, **options))
    found = {}
    for env in batches:
        sim = env.sim
        sim.device = torch.device("cuda")
        for launch in everything(sim):
            found[launch.kernel.module.name] = launch.kernel
        sim.device = torch.device("cpu")
        env.close()
    return list(found.values())


def everything(sim: Simulation) -> list[Launch]:
    """All launches of a simulation's programs."""
    return [*sim.step_phases(), *sim.score_phases(), *sim.traffic_phases(), *sim.renewal_phases(), *sim.reset_phases()]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_every_kernel_compiles_for_cuda(dtype, tmp_path):
    for kernel in kernels(dtype):
        artifacts = wp.compile_aot_module(kernel.module, arch=ARCHITECTURES, module_dir=tmp_path, use_ptx=True)
        assert [path.suffix for path in artifacts] == [".ptx"] * len(ARCHITECTURES)
        assert ".visible .entry" in artifacts[0].read_text()


class ByPhase:
    """Runs a batch on the CPU with the launches that a GPU would run."""

    def __init__(self, env: envs.VecWorlds):
        self.env, sim = env, env.sim
        sim.device = torch.device("cuda")
        launches = [*sim.step_phases(), *sim.score_phases(), *sim.traffic_phases(), *sim.renewal_phases()]
        sim.device = torch.device("cpu")
        assert {launch.kernel for launch in launches} >= {sim.kernels.propose_lanes, sim.kernels.collide_vehicles}
        self.commands = [launch.record(sim.warp_device, 0, sim.num_worlds) for launch in launches]
        sim.step = lambda on_frame: [command.launch() for command in self.commands]


def random_actions(env: envs.VecWorlds, seed: int) -> torch.Tensor:
    """Any actions for every world and agent."""
    generator = torch.Generator().manual_seed(seed)
    space, n = env.single_action_space, env.num_worlds
    if not env.action_names:
        return 2 * torch.rand((n, *space.shape), generator=generator) - 1
    return torch.randint(0, len(env.action_names), (n, *space.shape), generator=generator)


CASES = [(name, {"observation": "state", "dtype": "float64"}) for name in envs.list_scenarios()]
CASES += [(name, {"frames": 3, "randomize": True}) for name in ("highway-fast", "intersection-multi-agent", "crossing")]


@pytest.mark.parametrize(("scenario", "options"), CASES, ids=str)
def test_phase_by_phase_equals_the_fused_step(make, scenario, options):
    fused, split = (make(scenario, 6, seed=3, **options) for _ in range(2))
    ByPhase(split)
    for env in (fused, split):
        env.reset()
    ended, steps = 0, 0
    while ended == 0 and steps < 250:
        row = random_actions(fused, steps)
        results = [env.step(row) for env in (fused, split)]
        saved = [env.get_state() for env in (fused, split)]
        for name, tensor in saved[0].items():
            assert torch.equal(tensor, saved[1][name]), name
        over = results[0][4]["_final_obs"]
        for name in results[0][4]["final_obs"]:
            a, b = (result[4]["final_obs"][name][over] for result in results)
            assert torch.equal(a, b)
        ended += over.sum()
        steps += 1
    assert ended > 0 or scenario.startswith(("racetrack", "ring", "parking"))


DISCRETE = ("lane", "target_lane", "crashed", "order", "speed_index", "episode", "terminated", "truncated")


@pytest.mark.gpu
@pytest.mark.parametrize("scenario", envs.list_scenarios())
def test_cuda_drives_as_the_cpu_does(scenario):
    """float32 states within 1 mm after 20 policy steps, in worlds where no discrete decision fell differently."""
    cpu, gpu = (envs.make_vec(scenario, 512, device=device, observation="state", seed=5) for device in ("cpu", "cuda"))
    start = [{name: tensor.cpu() for name, tensor in env.reset()[0].items()} for env in (cpu, gpu)]
    torch.testing.assert_close(*start, rtol=0, atol=1e-5)
    same = torch.ones(512, dtype=torch.bool)
    for step in range(20):
        row = random_actions(cpu, step)
        if cpu.action_names:
            # Mostly IDLE: episodes that last.
            row = torch.where(torch.rand(row.shape) < 0.8, cpu.action_names.index("IDLE"), row)
        for env in (cpu, gpu):
            env.step(row.to(env.device))
        for name in DISCRETE:
            equal = cpu.state.tensors[name] == gpu.state.tensors[name].cpu()
            same &= equal.reshape(512, -1).all(dim=1)
    assert same.float().mean() > 0.5
    for name in ("x", "y"):
        torch.testing.assert_close(
            cpu.state.tensors[name][same], gpu.state.tensors[name].cpu()[same], rtol=0, atol=1e-3
        )
    for env in (cpu, gpu):
        env.close()


@pytest.mark.gpu
def test_cuda_sees_what_the_cpu_sees():
    cpu, gpu = (envs.make_vec("highway", 64, device=device, seed=5, channels=CHANNELS) for device in ("cpu", "cuda"))
    a, b = ({name: tensor.cpu() for name, tensor in env.reset()[0].items()} for env in (cpu, gpu))
    assert (a["semantic"] != b["semantic"]).float().mean() < 1e-3
    assert (a["camera"].int() - b["camera"].int()).abs().float().mean() < 0.5
    for env in (cpu, gpu):
        env.close()


@pytest.mark.gpu
def test_cuda_runs_of_a_seed_are_identical(actions):
    logs = []
    for _ in range(2):
        env = envs.make_vec("highway-fast", 64, device="cuda", seed=3, randomize=True)
        env.reset()
        for row in actions(12, 64):
            env.step(row.cuda())
        logs.append(env.get_state())
        env.close()
    assert all(torch.equal(tensor, logs[1][name]) for name, tensor in logs[0].items())
