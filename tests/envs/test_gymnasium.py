"""The interfaces that other libraries know: Gymnasium's Env and VectorEnv, stable-baselines3's VecEnv."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_env_sb3
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

import envs
from envs.errors import UserError
from envs.sb3 import SB3VecEnv
from envs.state import KINDS

STATE, CONTINUOUS = {"observation": "state"}, {"observation": "state", "ego": "continuous"}


@pytest.mark.filterwarnings("ignore:.*observation space m.*imum value is -?infinity")  # as in highway-env
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scenario", envs.list_scenarios())
@pytest.mark.parametrize("options", [{}, STATE, CONTINUOUS], ids=["camera", "state", "continuous"])
def test_gymnasiums_check_env(scenario, options):
    env = gymnasium.make(f"lanewise/{scenario}-v0", render_mode="rgb_array", **options)
    check_env(env.unwrapped)
    env.close()


@pytest.mark.filterwarnings("ignore:.*unconventional shape")  # highway-env's observation is a table
@pytest.mark.parametrize("options", [{"frames": 1}, STATE, CONTINUOUS], ids=["camera", "state", "continuous"])
def test_stable_baselines3s_check_env(options):
    env = gymnasium.make("lanewise/highway-fast-v0", **options)
    check_env_sb3(env.unwrapped)
    env.close()


def simulator_seed(seed: int) -> int:
    """The simulator's seed comes from Gymnasium's generator, as other environments' draws do."""
    return int(np.random.default_rng(seed).integers(2**63))


def episode(env: gymnasium.Env, seed: int | None) -> tuple[list[float], dict, bool, bool]:
    """Rewards of an episode of SLOWER, its last observation and how it ended."""
    obs, info = env.reset(seed=seed)
    rewards, terminated, truncated = [], False, False
    while not (terminated or truncated):
        obs, reward, terminated, truncated, info = env.step(4)
        assert env.observation_space.contains(obs)
        assert info.keys() - {"is_success"} == {"speed", "crashed"} and info["crashed"] == terminated
        assert ("is_success" in info) == (terminated or truncated)
        rewards.append(reward)
    assert info["is_success"] == (not info["crashed"])
    return rewards, obs, terminated, truncated


def test_an_env_is_one_world_of_the_batch():
    env = gymnasium.make("lanewise/highway-fast-v0", observation="state")
    first, second = episode(env, 3), episode(env, None)
    assert first[0] != second[0]
    assert episode(env, 3)[0] == first[0]
    worlds = envs.make_vec("highway-fast", 1, device="cpu", observation="state")
    for seed, (rewards, last, terminated, truncated) in zip((simulator_seed(3), None), (first, second), strict=True):
        worlds.reset(seed=seed)
        for k, reward in enumerate(rewards):
            _, r, end, cut, info = worlds.step(torch.tensor([4]))
            assert r.item() == reward
            assert bool(info["_final_obs"]) == (k == len(rewards) - 1)
        assert (bool(end), bool(cut)) == (terminated, truncated)
        np.testing.assert_array_equal(last["state"], info["final_obs"]["state"][0].numpy())
    worlds.close()
    env.close()


def test_an_unseeded_env_draws_its_own_seed():
    starts = []
    for _ in range(2):
        env = gymnasium.make("lanewise/highway-fast-v0", observation="state")
        starts.append(env.reset()[0]["state"])
        env.close()
    assert not np.array_equal(*starts)


def test_rendering():
    env = gymnasium.make("lanewise/highway-v0", render_mode="rgb_array", observation="state")
    env.reset(seed=0)
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10
    env.close()


def test_unknown_options_are_told():
    with pytest.raises(UserError, match="did you mean 'camera'"):
        gymnasium.make("lanewise/highway-v0", observation="camra")


# --- vector environments ----------------------------------------------------------------------------------------------


def test_vector_env_is_the_batch_with_same_step_autoreset():
    env = gymnasium.make_vec("lanewise/highway-fast-v0", num_envs=9, observation="state", device="cpu")
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert env.observation_space["state"].shape == (9, 5, 5)
    obs, _ = env.reset(seed=4)
    worlds = envs.make_vec("highway-fast", 9, device="cpu", observation="state")
    worlds.reset(seed=simulator_seed(4))
    env.action_space.seed(4)
    ended = 0
    for _ in range(20):
        actions = env.action_space.sample()
        assert env.observation_space.contains(obs)
        kept = {name: rows.copy() for name, rows in obs.items()}
        new, reward, terminated, truncated, info = env.step(actions)
        np.testing.assert_array_equal(obs["state"], kept["state"])  # what was returned is the caller's
        obs = new
        ours = worlds.step(torch.as_tensor(actions))
        np.testing.assert_array_equal(obs["state"], ours[0]["state"].numpy())
        np.testing.assert_array_equal(reward, ours[1].numpy())
        np.testing.assert_array_equal(terminated, ours[2].numpy())
        np.testing.assert_array_equal(truncated, ours[3].numpy())
        over = terminated | truncated
        assert ("final_obs" in info) == over.any()
        if over.any():
            np.testing.assert_array_equal(info["_final_obs"], over)
            for k in range(9):
                assert (info["final_obs"][k] is None) != over[k]
                if over[k]:
                    last = ours[4]["final_obs"]["state"][k].numpy()
                    np.testing.assert_array_equal(info["final_obs"][k]["state"], last)
        ended += over.sum()
    assert ended > 0
    worlds.close()
    env.close()


def test_gymnasiums_own_vectorization_holds_separate_worlds():
    env = gymnasium.make_vec("lanewise/highway-fast-v0", num_envs=2, vectorization_mode="sync", observation="state")
    obs, _ = env.reset(seed=0)
    assert not np.array_equal(obs["state"][0], obs["state"][1])
    env.step(np.array([1, 1]))
    env.close()


def test_episode_statistics_of_gymnasium_agree():
    """Gymnasium's wrapper counts what the simulator reports."""
    env = gymnasium.make_vec("lanewise/highway-fast-v0", num_envs=6, observation="state", device="cpu")
    recorded = gymnasium.wrappers.vector.RecordEpisodeStatistics(env)
    worlds = envs.make_vec("highway-fast", 6, device="cpu", observation="state")
    recorded.reset(seed=1)
    worlds.reset(seed=simulator_seed(1))
    rng, compared = np.random.default_rng(1), 0
    for _ in range(25):
        actions = rng.integers(5, size=6)
        _, _, _, _, info = recorded.step(actions)
        _, _, _, _, ours = worlds.step(torch.as_tensor(actions))
        for k in np.flatnonzero(ours["_final_obs"].numpy()):
            assert info["episode"]["l"][k] == ours["episode_length"][k].item()
            assert info["episode"]["r"][k] == pytest.approx(ours["episode_return"][k].item(), rel=1e-5)
            compared += 1
    assert compared > 0
    worlds.close()
    env.close()


# --- stable-baselines3 ------------------------------------------------------------------------------------------------


@pytest.fixture
def vec(make):
    def build(worlds: int, **options) -> SB3VecEnv:
        return SB3VecEnv(make("highway-fast", worlds, **options))

    return build


class Recorded(SB3VecEnv):
    """Remembers what it returned, before a wrapper adds to it."""

    def step_wait(self):
        result = super().step_wait()
        self.infos = result[3]
        return result


def test_vec_env_reports_episodes_as_monitor_does(make):
    """VecMonitor sums rewards on its own: its figures and ours must agree."""
    env = Recorded(make("highway-fast", 8, observation="state", seed=1))
    monitored = VecMonitor(env)
    monitored.reset()
    env.action_space.seed(5)
    ended, cut = 0, 0
    for step in range(70):
        # Half of the worlds drive wildly for a while, the other half as slowly as they can.
        actions = np.array([env.action_space.sample() if k < 4 and step < 30 else 4 for k in range(8)])
        obs, rewards, dones, infos = monitored.step(actions)
        assert obs["state"].dtype == np.float32 and rewards.dtype == np.float32
        for k in range(8):
            assert {"speed", "crashed"} <= infos[k].keys()
            assert ("terminal_observation" in infos[k]) == dones[k]
            if dones[k]:
                ours, theirs = env.infos[k]["episode"], infos[k]["episode"]
                assert ours["l"] == theirs["l"] and ours["r"] == pytest.approx(theirs["r"], rel=1e-5)
                assert infos[k]["TimeLimit.truncated"] == (not infos[k]["crashed"])
                assert infos[k]["is_success"] == (not infos[k]["crashed"])
                assert env.observation_space.contains(infos[k]["terminal_observation"])
                assert not np.array_equal(infos[k]["terminal_observation"]["state"], obs["state"][k])
                ended, cut = ended + 1, cut + infos[k]["TimeLimit.truncated"]
    assert ended > cut > 0


def test_success_is_to_reach_the_goal(make):
    """A parking agent that stands still neither crashes nor succeeds; one on its spot does."""
    worlds = make("parking-action-repeat", 2, observation="state")
    env = SB3VecEnv(worlds)
    env.reset()
    state = worlds.state
    for _ in range(19):
        env.step(np.zeros((2, 2), dtype=np.float32))
    goal = int((state.kind[1] == KINDS["landmark"]).nonzero()[0])
    for name in ("x", "y", "heading", "cos_heading", "sin_heading"):
        state.tensors[name][1, 0] = state.tensors[name][1, goal]
    _, _, dones, infos = env.step(np.zeros((2, 2), dtype=np.float32))
    assert dones.all()
    assert [info["is_success"] for info in infos] == [False, True]
    assert [info["crashed"] for info in infos] == [False, False]


@pytest.mark.parametrize("scenario", ["racetrack", "parking", "lane-keeping", "intersection-continuous", "exit"])
def test_vec_env_takes_every_kind_of_action(make, scenario):
    env = SB3VecEnv(make(scenario, 3, observation="state"))
    env.reset()
    env.action_space.seed(0)
    for _ in range(3):
        obs, rewards, _, _ = env.step(np.stack([env.action_space.sample() for _ in range(3)]))
    assert all(env.observation_space[name].contains(rows[0]) for name, rows in obs.items())
    assert np.isfinite(rewards).all()


def test_vec_env_refuses_several_agents(make):
    with pytest.raises(UserError, match="envs.pettingzoo"):
        SB3VecEnv(make("intersection-multi-agent", 2, observation="state"))


def test_vector_env_passes_several_agents_on():
    env = gymnasium.make_vec("lanewise/parking-v0", num_envs=3, observation="state", agents=2, device="cpu")
    obs, _ = env.reset(seed=0)
    assert obs["observation"].shape == (3, 2, 6)
    assert env.single_action_space.shape == (2, 2)
    _, reward, _, _, info = env.step(env.action_space.sample())
    assert reward.shape == (3,)
    assert info["agent_reward"].shape == info["agent_finished"].shape == (3, 2)
    env.close()


def test_seeding_a_vec_env(vec):
    env, other = vec(3, observation="state", seed=1), vec(3, observation="state", seed=2)
    env.seed(7)
    first = env.reset()["state"]
    assert not np.array_equal(env.reset()["state"], first)  # a seed counts once
    other.seed(7)
    np.testing.assert_array_equal(other.reset()["state"], first)


def test_vec_env_attributes(vec):
    env = vec(3, observation="state")
    assert env.get_attr("num_worlds") == [3, 3, 3]
    assert env.get_attr("render_mode", indices=[0]) == ["rgb_array"]
    assert env.env_is_wrapped(VecMonitor) == [False] * 3
    assert len(env.env_method("reset")) == 3
    env.set_attr("marked", True)
    assert env.worlds.marked
    with pytest.raises(ValueError, match="all worlds"):
        env.set_attr("marked", False, indices=0)
    images = env.get_images()
    assert len(images) == 3 and images[0].ndim == 3
    with pytest.raises(AttributeError):
        env.get_attr("wings")


@pytest.mark.filterwarnings("ignore:.*Monitor")  # ours reports episodes itself
@pytest.mark.parametrize("options", [STATE, {"frames": 1}], ids=["state", "camera"])
def test_stable_baselines3s_ppo_trains_on_it(vec, options):
    env = vec(4, **options)
    model = PPO("MultiInputPolicy", env, n_steps=8, batch_size=16, n_epochs=1, seed=0, device="cpu")
    before = [p.clone() for p in model.policy.parameters()]
    model.learn(64)
    assert model.num_timesteps == 64
    assert any(not torch.equal(a, b) for a, b in zip(before, model.policy.parameters(), strict=True))
    assert len(model.ep_info_buffer) > 0
    assert evaluate_policy(model, env, n_eval_episodes=4)[0] > 0
