"""What a GPU runs: compiled without one, run phase by phase on the CPU, compared with the CPU where there is one."""

import gc

import pytest
import torch
import warp as wp

import envs
from envs import phases
from envs.sensors import columns, kinematics, painter
from envs.sensors.camera import CHANNELS

ARCHITECTURES = [90]  # H100


def kernels(real: type) -> set[wp.Kernel]:
    """Every kernel of the worlds and their sensors."""
    builds = [phases.build(real), columns.build(real), kinematics.build(real)]
    builds += [painter.build(real, channels) for channels in (("rgb",), CHANNELS)]
    found = {kernel for build in builds for kernel in vars(build).values() if isinstance(kernel, wp.Kernel)}
    return found | {phases.keep_rows}


@pytest.mark.parametrize("real", [wp.float32, pytest.param(wp.float64, marks=pytest.mark.slow)])
def test_every_kernel_compiles_for_cuda(real, tmp_path):
    for module in {kernel.module for kernel in kernels(real)}:
        artifacts = wp.compile_aot_module(module, arch=ARCHITECTURES, module_dir=tmp_path, use_ptx=True)
        assert [path.suffix for path in artifacts] == [".ptx"] * len(ARCHITECTURES)
        assert ".visible .entry" in artifacts[0].read_text()


def test_no_kernel_is_left_out(make):
    """What batches of every kind make Warp know of is what the test above compiles."""
    for options in ({}, {"channels": CHANNELS}, {"observation": "state"}):
        make("highway-fast", 1, **options)
    known = {kernel.func for kernel in gc.get_objects() if type(kernel) is wp.Kernel}
    known = {(func.__module__, func.__qualname__) for func in known if func.__module__.startswith("envs.")}
    assert known == {(kernel.func.__module__, kernel.func.__qualname__) for kernel in kernels(wp.float32)}


class ByPhase:
    """Runs a batch on the CPU with the launches that a GPU would run."""

    def __init__(self, env: envs.VecWorlds):
        self.env, sim = env, env.sim
        sim.device = torch.device("cuda")
        launches = [*sim.frame_phases(True, sim.scenario.frames_per_step), *sim.score_phases(), *sim.renewal_phases()]
        sim.device = torch.device("cpu")
        assert {launch.kernel for launch in launches} >= {sim.kernels.propose_lanes, sim.kernels.collide_vehicles}
        self.commands = [launch.record(sim.warp_device, 0, sim.num_worlds) for launch in launches]
        sim.step = lambda on_frame: [command.launch() for command in self.commands]


@pytest.mark.parametrize("scenario", envs.list_scenarios())
@pytest.mark.parametrize(
    "options", [{"frames": 3, "randomize": True}, {"observation": "state", "dtype": "float64"}], ids=str
)
def test_phase_by_phase_equals_the_fused_step(make, actions, scenario, options):
    fused, split = (make(scenario, 12, seed=3, **options) for _ in range(2))
    ByPhase(split)
    for env in (fused, split):
        env.reset()
    ended = 0
    for row in actions(10, 12):
        results = [env.step(row) for env in (fused, split)]
        saved = [env.get_state() for env in (fused, split)]
        for name, tensor in saved[0].items():
            assert torch.equal(tensor, saved[1][name]), name
        over = results[0][4]["_final_obs"]
        for name in results[0][4]["final_obs"]:
            a, b = (result[4]["final_obs"][name][over] for result in results)
            assert torch.equal(a, b)
        ended += over.sum()
    assert ended > 0


DISCRETE = ("lane", "target_lane", "crashed", "order", "speed_index", "episode", "terminated", "truncated")


@pytest.mark.gpu
@pytest.mark.parametrize("scenario", envs.list_scenarios())
def test_cuda_drives_as_the_cpu_does(scenario, actions):
    """float32 states within 1 mm after 20 policy steps, in worlds where no discrete decision fell differently."""
    cpu, gpu = (envs.make_vec(scenario, 512, device=device, observation="state", seed=5) for device in ("cpu", "cuda"))
    start = [env.reset()[0]["state"].cpu() for env in (cpu, gpu)]
    torch.testing.assert_close(*start, rtol=0, atol=1e-5)
    same = torch.ones(512, dtype=torch.bool)
    # Mostly IDLE: episodes that last.
    for row in torch.where(actions(20, 512) < 4, 1, actions(20, 512, seed=1)):
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
