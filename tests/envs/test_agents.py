"""Several agents a world: what each sees, what each is rewarded for, and PettingZoo's interface to them."""

from dataclasses import replace

import gymnasium
import highway_env  # noqa: F401  registers its environments
import numpy as np
import pytest
import torch

import envs
from envs.errors import UserError
from envs.scenarios.intersection import INTERSECTION

pytest.importorskip("pettingzoo")
from pettingzoo.test import parallel_api_test, parallel_seed_test  # noqa: E402

from envs.pettingzoo import parallel_env  # noqa: E402

CHANNELS = ("rgb", "depth", "semantic")


def drive(worlds: envs.VecWorlds, steps: int, seed: int = 0):
    """Random actions; yields what every step returns."""
    worlds.single_action_space.seed(seed)
    for _ in range(steps):
        actions = np.stack([worlds.single_action_space.sample() for _ in range(worlds.num_worlds)])
        yield worlds.step(torch.as_tensor(actions))


# --- what each sees ---------------------------------------------------------------------------------------------------


def test_an_agents_camera_is_that_of_a_world_of_its_own(make):
    """The second agent sees what the only agent of a world sees in which the two have changed places."""
    both = make("intersection-multi-agent", 6, frames=1, channels=CHANNELS, seed=3)
    both.reset()
    for _ in drive(both, 4):
        pass
    obs = both.observe()
    single = replace(INTERSECTION, vehicles=INTERSECTION.vehicles + 1)
    device, dtype = torch.device("cpu"), "float32"
    alone = envs.VecWorlds(single, 6, device, "camera", 3, 1, "policy", False, "surround", CHANNELS, dtype)
    alone.reset()
    slots = both.state.slots
    for agent, order in enumerate(([0, 1], [1, 0])):
        order = [*order, *range(2, slots)]
        for name, tensor in both.state.tensors.items():
            swapped = tensor[:, order] if tensor.ndim > 1 and tensor.shape[1] == slots else tensor
            alone.state.tensors[name].copy_(swapped)
        alone._memory["look"].copy_(both._memory["look"])
        alone._memory["paint"].copy_(both._memory["paint"][:, order])
        alone.sim.film()
        for name in ("camera", "depth", "semantic", "speed"):
            assert obs[name].shape[:2] == (6, 2)
            assert torch.equal(obs[name][:, agent], alone._obs[name]), (name, agent)
    assert not torch.equal(obs["camera"][:, 0], obs["camera"][:, 1])
    alone.close()


def test_frames_of_several_agents_are_stacked_apart(make):
    env = make("intersection-multi-agent", 3, frames=2, seed=1)
    obs = env.reset()[0]["camera"].clone()
    assert obs.shape[:3] == (3, 2, 6)
    assert torch.equal(obs[:, :, :3], obs[:, :, 3:])
    for new, *_ in drive(env, 2):
        new = new["camera"]
        running = env.state.episode_length > 0
        assert running.any()
        assert torch.equal(new[running][:, :, :3], obs[running][:, :, 3:])
        assert not torch.equal(new[running][:, :, 3:], obs[running][:, :, 3:])
        obs = new.clone()


def test_noise_of_two_agents_cameras_differs(make):
    env = make("intersection-multi-agent", 8, frames=1, randomize=True, channels=("rgb", "semantic"))
    obs = env.reset()[0]
    sky = (obs["semantic"] == 0).all(dim=1)
    assert sky.any()
    images = obs["camera"].transpose(2, 4).transpose(2, 3)  # (N, A, H, W, 3)
    assert (images[:, 0][sky] != images[:, 1][sky]).any()


@pytest.mark.parametrize("scenario", envs.list_scenarios())
def test_depth_and_classes_on_every_scenario(make, scenario):
    env = make(scenario, 2, frames=1, channels=CHANNELS)
    obs = env.reset()[0]
    assert all(env.single_observation_space[name].contains(rows[1].numpy()) for name, rows in obs.items())
    sky = obs["semantic"] == 0
    assert sky.any() and (~sky).any()
    assert (obs["depth"][sky] == obs["depth"].max()).all()
    # Every column's ground recedes upwards until something stands on it: its lowest pixel is its nearest.
    agents = env.scenario.agents
    columns = obs["depth"].view(2, agents, 64, 96)[:, :, :40]
    assert (columns.amin(dim=2) == columns[:, :, -1]).all()


# --- what each is rewarded for ----------------------------------------------------------------------------------------


def test_rewards_and_ends_of_agents_are_highway_envs():
    theirs = gymnasium.make("intersection-multi-agent-v0", config={"initial_vehicle_count": 4}).unwrapped
    rng = np.random.default_rng(0)
    finished, compared = 0, 0
    for seed in range(3):
        theirs.reset(seed=seed)
        ours = envs.reference.from_highway_env(theirs)
        over = False
        while not over:
            actions = tuple(int(a) for a in rng.integers(1, 3, size=2))
            reward, end, cut = ours.step(actions)
            _, r, terminated, truncated, info = theirs.step(actions)
            state = ours.simulation.state
            assert reward == pytest.approx(r, abs=1e-9)
            assert state.reward_share[0, :2].tolist() == pytest.approx(info["agents_rewards"], abs=1e-9)
            assert (state.finished[0, :2] != 0).tolist() == list(map(bool, info["agents_terminated"]))
            assert end == terminated
            finished, compared = finished + sum(info["agents_terminated"]), compared + 1
            over = terminated or truncated
            ours.resume(theirs)  # it has drawn new traffic
    assert finished > 0 and compared > 15


def several(name: str, action: dict, observation: dict, agents: int = 3, **config):
    """A highway-env environment of several agents, which it has for any scenario."""
    kinds = {
        "controlled_vehicles": agents,
        "action": {"type": "MultiAgentAction", "action_config": action},
        "observation": {"type": "MultiAgentObservation", "observation_config": observation},
    }
    return gymnasium.make(name, config=kinds | config).unwrapped


def test_a_racing_agents_reward_is_the_one_that_it_would_have_alone():
    """highway-env rewards the first agent; with the agents in another order, another one."""
    action = {"type": "ContinuousAction", "longitudinal": False, "lateral": True, "target_speeds": [0, 5, 10]}
    theirs = several("racetrack-v0", action, {"type": "OccupancyGrid", "features": ["presence"]})
    rng = np.random.default_rng(1)
    finished = 0
    for seed in range(4):
        theirs.reset(seed=seed)
        ours = envs.reference.from_highway_env(theirs)
        for _ in range(8):
            actions = tuple(rng.uniform(-0.4, 0.4, size=(1,)).astype(np.float32) for _ in range(3))
            ours.step(actions)
            theirs.step(actions)
            agents = list(theirs.controlled_vehicles)
            for k, agent in enumerate(agents):
                theirs.controlled_vehicles = [agent]
                assert ours.simulation.state.reward_share[0, k].item() == pytest.approx(
                    theirs._reward(actions[k]), abs=1e-7
                )
                over = theirs._is_terminated()
                assert bool(ours.simulation.state.finished[0, k]) == over
                finished += over
            theirs.controlled_vehicles = agents
    assert finished > 0


def test_a_parking_agents_reward_is_for_its_own_goal():
    goal = {"type": "KinematicsGoal", "features": ["x", "y", "vx", "vy", "cos_h", "sin_h"], "normalize": False}
    goal |= {"scales": [100, 100, 5, 5, 1, 1]}
    theirs = several("parking-v0", {"type": "ContinuousAction"}, goal, agents=2)
    theirs.reset(seed=0)
    ours = envs.reference.from_highway_env(theirs)
    rng = np.random.default_rng(2)
    for _ in range(12):
        actions = tuple(rng.uniform(-1, 1, size=2).astype(np.float32) for _ in range(2))
        reward, end, _ = ours.step(actions)
        obs, r, terminated, _, _ = theirs.step(actions)
        assert reward == pytest.approx(r, abs=1e-6) and end == terminated
        for k, seen in enumerate(obs):
            own = theirs.compute_reward(seen["achieved_goal"], seen["desired_goal"], {})
            own += theirs.config["collision_reward"] * theirs.controlled_vehicles[k].crashed
            assert ours.simulation.state.reward_share[0, k].item() == pytest.approx(own, abs=1e-6)


def test_agents_results_are_of_the_step_before_any_reset(make):
    """An intersection's reward is the mean over its agents, also of the step that ends an episode."""
    env = make("intersection-multi-agent", 12, observation="state")
    env.reset()
    ended = 0
    for _, reward, terminated, _, info in drive(env, 25):
        assert info["agent_reward"].shape == info["agent_finished"].shape == (12, 2)
        torch.testing.assert_close(info["agent_reward"].mean(dim=1), reward)
        assert info["agent_finished"][terminated].any(dim=1).all()
        ended += int(terminated.sum())
    assert ended > 0


def test_success(make):
    """At an intersection: to have arrived; on a highway, which has no goal: to get through the time."""
    crossing = make("intersection", 12, observation="state", ego="idm")
    crossing.reset()
    seen = 0
    for _, _, terminated, truncated, info in drive(crossing, 28):
        ended = terminated | truncated
        assert torch.equal(info["success"][ended], (terminated & ~info["crashed"])[ended])
        seen += int(info["success"].sum())
    assert seen > 0
    highway = make("highway-fast", 12, observation="state")
    highway.reset()
    for _, _, terminated, truncated, info in drive(highway, 31):
        assert torch.equal(info["success"], truncated & ~terminated)


# --- how many there are -----------------------------------------------------------------------------------------------


def test_the_number_of_agents_is_an_option(make):
    asked, given = (make(*name, 4, observation="state") for name in (("intersection-multi-agent",), ("intersection",)))
    given.close()
    given = make("intersection", 4, observation="state", agents=2)
    assert torch.equal(asked.reset()[0]["state"], given.reset()[0]["state"])
    for a, b in zip(drive(asked, 5), drive(given, 5), strict=True):
        assert torch.equal(a[0]["state"], b[0]["state"]) and torch.equal(a[1], b[1])
    parked = make("parking-parked", 2, observation="state", agents=4)
    obs = parked.reset()[0]
    goals = obs["desired_goal"][..., :2]
    assert len(torch.unique(goals[0], dim=0)) == 4
    # Nobody stands on another's goal: the walls, goals and parked cars all have slots of their own.
    kinds = parked.state.kind[0]
    assert [int((kinds == kind).sum()) for kind in (5, 6)] == [4, 4] and int((kinds != 0).sum()) == 4 + 4 + 10 + 4


def test_too_many_agents_are_told(make):
    with pytest.raises(UserError, match="room for one agent"):
        make("highway", 1, agents=2)
    with pytest.raises(UserError, match="1 to 4 agents"):
        make("racetrack", 1, agents=5)
    with pytest.raises(UserError, match="1 to 4 agents"):
        make("parking", 1, agents=0)


# --- PettingZoo -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "options"),
    [
        ("intersection-multi-agent", {"observation": "state"}),
        ("intersection-continuous", {"observation": "bev", "agents": 2}),
        ("racetrack", {"observation": "grid", "agents": 3}),
        ("parking", {"observation": "state", "agents": 2}),
        ("highway-fast", {"observation": "lidar"}),
    ],
)
def test_pettingzoos_own_tests(scenario, options):
    env = parallel_env(scenario, **options)
    parallel_api_test(env, num_cycles=60)
    env.close()
    parallel_seed_test(lambda: parallel_env(scenario, **options), num_cycles=20)


def test_an_agent_that_has_finished_leaves():
    """The world goes on, and the rewards of those who stay are those of the batch."""
    env = parallel_env("intersection-multi-agent", observation="state")
    worlds = envs.make_vec("intersection-multi-agent", 1, device="cpu", observation="state")
    left = 0
    for seed in range(20):
        env.reset(seed=seed)
        worlds.reset(seed=int(np.random.default_rng(seed).integers(2**63)))
        gone: set[str] = set()
        while env.agents:
            before = list(env.agents)
            # The first agent hurries, the second follows later.
            choice = {"agent_0": 2, "agent_1": 1}
            _, rewards, terminations, truncations, infos = env.step({agent: choice[agent] for agent in before})
            joint = [1 if f"agent_{k}" in gone else choice[f"agent_{k}"] for k in range(2)]
            _, _, over, cut, info = worlds.step(torch.tensor([joint]))
            assert list(rewards) == before
            for agent in before:
                k = int(agent[-1])
                assert rewards[agent] == info["agent_reward"][0, k].item()
                assert terminations[agent] == bool(over[0] | info["agent_finished"][0, k])
                assert truncations[agent] == bool(cut[0])
            gone = set(env.possible_agents) - set(env.agents)
            left += len(env.agents) == 1 and len(before) == 2
    assert left > 0
    env.close()
    worlds.close()
