"""The batched environment: endings and renewals, and that a world's life depends on nothing but its seed."""

import pytest
import torch

import envs
from envs.errors import UserError
from envs.simulation import Simulation
from envs.state import FIELDS


def copies(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def roll(env, plan: torch.Tensor, **reset) -> list[dict[str, torch.Tensor]]:
    """Everything that a rollout returns, step by step."""
    log = [copies(env.reset(**reset)[0])]
    for row in plan:
        log.append(advance(env, row))
    return log


def advance(env, row: torch.Tensor, on_frame=None) -> dict[str, torch.Tensor]:
    obs, reward, terminated, truncated, info = env.step(row, on_frame)
    ended = info["_final_obs"]
    final = {f"final.{name}": rows[ended].clone() for name, rows in info["final_obs"].items()}
    facts = {name: info[name].clone() for name in ("speed", "crashed", "_final_obs")}
    facts |= {name: info[name][ended].clone() for name in ("episode_return", "episode_length")}
    return copies(obs) | final | facts | {"reward": reward, "terminated": terminated, "truncated": truncated}


def assert_same(a: list[dict], b: list[dict]) -> None:
    """Bit for bit."""
    assert len(a) == len(b)
    for step, (x, y) in enumerate(zip(a, b, strict=True)):
        assert x.keys() == y.keys()
        for name in x:
            assert torch.equal(x[name], y[name]), f"{name} of step {step}"


# --- endings ----------------------------------------------------------------------------------------------------------


def kinematics(frame: dict[str, torch.Tensor], lanes: int) -> torch.Tensor:
    """highway-env's observation of one world, from its definition. Shape: (5, 5)."""
    x, y, vx, vy = (frame[name].double() for name in ("x", "y", "vx", "vy"))
    rows = torch.stack((torch.ones_like(x), x, y, vx, vy), dim=1)
    others = rows[1:] - rows[0] * torch.tensor([0, 1, 1, 1, 1])
    seen = others[(others[:, 1] > -10) & (others[:, 1:3].norm(dim=1) < 200)]
    nearest = seen[seen[:, 1].abs().argsort(stable=True)][:4]
    table = torch.zeros(5, 5, dtype=torch.float64)
    table[: 1 + len(nearest)] = torch.cat((rows[:1], nearest))
    return (table / torch.tensor([1, 200, 4 * lanes, 80, 80])).clamp(-1, 1).float()


def test_final_observations_are_of_the_last_frame_and_the_next_of_the_new_episode(make, actions):
    env = make("highway-fast", 24, observation="state", seed=2)
    env.reset()
    frames = []

    def record():
        state = env.state
        moving = {"vx": state.speed * state.cos_heading, "vy": state.speed * state.sin_heading}
        frames.append(copies({"x": state.x, "y": state.y, "speed": state.speed, "crashed": state.crashed} | moving))

    total, length = torch.zeros(24), torch.zeros(24, dtype=torch.int32)
    endings = {"terminated": 0, "truncated": 0}
    for row in actions(45, 24):
        row = torch.where(torch.arange(24) < 12, row, 4)  # half of the worlds drive as slowly as they can
        frames.clear()
        obs, reward, terminated, truncated, info = env.step(row, record)
        assert len(frames) == 5
        last = frames[-1]
        total, length = total + reward, length + 1
        ended = terminated | truncated
        assert torch.equal(ended, info["_final_obs"])
        assert torch.equal(terminated, last["crashed"][:, 0] != 0)
        assert torch.equal(truncated, length >= 30)
        assert torch.equal(info["crashed"], terminated)
        assert torch.equal(info["speed"], last["speed"][:, 0])
        for k in range(24):
            expected = kinematics({name: column[k] for name, column in last.items()}, lanes=3)
            shown = info["final_obs"]["state"] if ended[k] else obs["state"]
            torch.testing.assert_close(shown[k], expected, rtol=0, atol=2e-6)
        torch.testing.assert_close(info["episode_return"][ended], total[ended], rtol=1e-5, atol=1e-5)
        assert torch.equal(info["episode_length"][ended], length[ended])
        # What begins where an episode ended.
        assert (env.state.time[ended] == 0).all() and (env.state.crashed[ended] == 0).all()
        assert (obs["state"][ended, 0, 3] == 25 / 80).all()
        assert not torch.equal(obs["state"][ended], info["final_obs"]["state"][ended]) or not ended.any()
        total[ended], length[ended] = 0.0, 0
        endings["terminated"] += int(terminated.sum())
        endings["truncated"] += int((truncated & ~terminated).sum())
    assert min(endings.values()) > 0
    assert (env.state.episode[length < 30] >= 0).all()


def test_a_renewed_world_is_the_next_episode_of_its_seed(make, actions):
    """The first observation after an end is what a reset of the next episode shows, camera and all."""
    env = make("highway-fast", 8, seed=4, randomize=True)
    others = make("highway-fast", 8, seed=4, randomize=True)
    first, _ = others.reset()
    second = copies(others.reset()[0])
    env.reset()
    seen = 0
    for row in actions(12, 8):
        obs, _, _, _, info = env.step(row)
        for k in torch.nonzero(info["_final_obs"] & (env.state.episode == 1)).flatten():
            assert all(torch.equal(obs[name][k], second[name][k]) for name in obs)
            seen += 1
    assert seen > 0


def test_final_camera_images_show_the_last_frame(make, actions):
    """The newest image of a final observation is a picture of the recorded last frame; the older is the step before."""
    options = dict(seed=6, frames=2, randomize=True)
    env, studio = make("highway-fast", 8, **options), make("highway-fast", 8, **options)
    studio.reset()
    obs, _ = env.reset()
    last, seen = {}, 0
    for row in actions(14, 8):
        before = obs["camera"].clone()
        obs, _, _, _, info = env.step(row, lambda: last.update(copies(env.state.tensors)))
        for k in torch.nonzero(info["_final_obs"]).flatten():
            for name, tensor in studio.state.tensors.items():
                tensor.copy_(last[name])
            # The picture's noise depends on the step's number, which scoring counts.
            studio.state.episode_length[k] += 1
            picture = studio.observe()["camera"][k, 3:]
            assert torch.equal(info["final_obs"]["camera"][k, 3:], picture)
            assert torch.equal(info["final_obs"]["camera"][k, :3], before[k, 3:])
            assert info["final_obs"]["speed"][k].item() == pytest.approx(last["speed"][k, 0].item() / 40)
            seen += 1
    assert seen > 0


def test_rewards_are_the_scenarios(make, actions):
    """highway-env's formula, from the state that is recorded before the renewal."""
    env = make("highway", 16, observation="state", seed=1)
    env.reset()
    last = {}
    for row in actions(10, 16):
        _, reward, _, _, _ = env.step(row, lambda: last.update(copies(env.state.tensors)))
        forward = last["speed"][:, 0] * last["heading"][:, 0].cos()
        fast = ((forward - 20) / 10).clamp(0, 1)
        total = 0.1 * last["target_lane"][:, 0] / 3 + 0.4 * fast - last["crashed"][:, 0]
        torch.testing.assert_close(reward, (total + 1) / 1.5, rtol=0, atol=1e-5)


# --- sameness ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("observation", ["camera", "state"])
def test_two_runs_of_a_seed_are_identical(make, actions, observation):
    plan = actions(12, 9)
    logs = [roll(make("highway-fast", 9, observation=observation, seed=3, randomize=True), plan) for _ in range(2)]
    assert_same(*logs)
    assert sum(step["_final_obs"].sum() for step in logs[0][1:]) > 0
    # Another seed is another run, and a reset to the old one forgets all that happened since.
    env = make("highway-fast", 9, observation=observation, seed=5, randomize=True)
    other = roll(env, plan)
    assert not torch.equal(other[0][observation], logs[0][0][observation])
    assert_same(roll(env, plan, seed=3), logs[0])


def test_several_kinds_of_observation_are_those_that_each_gives_alone(make, actions):
    kinds, plan = ("camera", "state", "bev"), actions(12, 6)
    together = make("highway-fast", 6, observation=kinds, seed=3)
    assert together.observed == {"camera": ["camera", "speed"], "state": ["state"], "bev": ["bev", "speed"]}
    log = roll(together, plan)
    assert sum(step["_final_obs"].sum() for step in log[1:]) > 0
    for kind in kinds:
        alone = roll(make("highway-fast", 6, observation=kind, seed=3), plan)
        assert_same([{name: step[name] for name in other} for step, other in zip(log, alone, strict=True)], alone)


def of_worlds(log: list[dict], first: int, count: int) -> list[dict]:
    """What `roll` would have logged of some of the worlds alone."""
    worlds, part = slice(first, first + count), []
    for step in log:
        # Some entries have a row for every world that ended, not for every world.
        ended = step.get("_final_obs", torch.zeros(0, dtype=torch.bool))
        rows = (ended.cumsum(0) - 1)[worlds][ended[worlds]]
        part.append(
            {
                name: value[rows] if name.startswith(("final.", "episode_")) else value[worlds]
                for name, value in step.items()
            }
        )
    return part


def test_a_world_lives_the_same_life_among_any_number_of_others(make, actions):
    scenario, options = "highway-fast", dict(seed=8, randomize=True)
    many = roll(make(scenario, 512, **options), actions(6, 512))
    for worlds in (1, 7):
        few = roll(make(scenario, worlds, **options), actions(6, worlds))
        assert_same(of_worlds(few, 0, worlds), of_worlds(many, 0, worlds))


@pytest.mark.slow
def test_a_world_lives_the_same_life_among_4096(make, actions):
    for scenario, options in (("highway", {"observation": "state"}), ("highway-fast", {"randomize": True})):
        many = roll(make(scenario, 4096, seed=8, **options), actions(20, 4096))
        for worlds in (1, 33):
            few = roll(make(scenario, worlds, seed=8, **options), actions(20, worlds))
            assert_same(of_worlds(few, 0, worlds), of_worlds(many, 0, worlds))


def test_first_world_names_the_worlds(make, actions):
    plan = actions(8, 12)
    whole = roll(make("highway-fast", 12, seed=1), plan)
    part = make("highway-fast", 4, seed=1)
    assert_same(roll(part, plan[:, 5:9].contiguous(), first_world=5), of_worlds(whole, 5, 4))
    # It stays until it is changed.
    assert torch.equal(part.reset(seed=1)[0]["camera"], whole[0]["camera"][5:9])
    assert torch.equal(part.reset(seed=1, first_world=0)[0]["camera"], whole[0]["camera"][:4])


def test_frame_by_frame_equals_the_fused_step(make, actions):
    plan = actions(12, 9)
    plain = roll(make("highway-fast", 9, seed=3, randomize=True), plan)
    env = make("highway-fast", 9, seed=3, randomize=True)
    log, calls = [copies(env.reset()[0])], []
    for row in plan:
        log.append(advance(env, row, lambda: calls.append(env.state.time[0].item())))
    assert_same(plain, log)
    assert len(calls) == 5 * len(plan)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing(make, actions, monkeypatch, threads):
    plan = actions(10, 13)
    logs = []
    for count in (1, threads):
        monkeypatch.setattr(Simulation, "threads", lambda self, count=count: count)
        logs.append(roll(make("highway-fast", 13, seed=3, randomize=True), plan))
    assert_same(*logs)


@pytest.mark.parametrize(
    "options",
    [{"frames": 3, "randomize": True}, {"observation": "state"}, {"observation": "state", "dtype": "float64"}],
    ids=str,
)
def test_saved_worlds_go_on_identically_in_another_batch(make, actions, options):
    plan = actions(16, 6)
    env = make("highway-fast", 6, seed=9, **options)
    roll(env, plan[:7])
    saved = env.get_state()
    here = [advance(env, row) for row in plan[7:]]
    other = make("highway-fast", 6, seed=0, **options)
    obs = other.set_state(saved)
    assert all(torch.equal(obs[name], saved[f"obs.{name}"]) for name in obs)
    assert_same([advance(other, row) for row in plan[7:]], here)
    # The copies are copies: they bring the first batch back as well.
    env.set_state(saved)
    assert_same([advance(env, row) for row in plan[7:]], here)


def test_saved_worlds_of_another_batch_are_refused(make):
    saved = make("highway-fast", 6, observation="state").get_state()
    for other in (make("highway-fast", 5, observation="state"), make("highway-fast", 6), make("highway", 6)):
        before = other.get_state()
        with pytest.raises(UserError, match="another scenario"):
            other.set_state(saved)
        assert all(torch.equal(before[name], tensor) for name, tensor in other.get_state().items())


def test_an_ego_that_drives_itself_ignores_actions(make, actions):
    plan = actions(10, 6)
    env = make("highway-fast", 6, observation="state", ego="idm", seed=2)
    assert_same(roll(env, plan, seed=2), roll(env, 4 - plan, seed=2))
    assert (env.state.kind == 1).all()


def test_continuous_ego_follows_throttle_and_steering(make):
    env = make("highway-fast", 3, observation="state", ego="continuous", seed=2)
    env.reset()
    assert env.single_action_space.shape == (2,)
    env.step(torch.tensor([[0.0, 0.0], [0.4, 0.0], [-0.4, 0.02]]))
    torch.testing.assert_close(env.state.speed[:, 0], torch.tensor([25.0, 27.0, 23.0]))
    assert (env.state.heading[:, 0] > 0).tolist() == [False, False, True]


# --- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"observation": "state"}, {"frames": 3}, {"channels": ("rgb", "depth", "semantic")}], ids=str
)
def test_observations_lie_in_their_spaces(make, actions, options):
    env = make("highway", 5, **options)
    obs, info = env.reset()
    assert info == {}
    for row in actions(3, 5):
        assert obs.keys() == env.single_observation_space.spaces.keys()
        for k in range(5):
            world = {name: rows[k].numpy() for name, rows in obs.items()}
            assert env.single_observation_space.contains(world)
        obs, reward, terminated, truncated, info = env.step(row)
        assert reward.shape == (5,) and reward.dtype == torch.float32
        assert terminated.dtype == truncated.dtype == torch.bool
        assert (reward >= 0).all() and (reward <= 1).all()


def test_state_has_the_documented_arrays(make):
    env = make("highway", 3, observation="state")
    for field in FIELDS:
        tensor = getattr(env.state, field.name)
        shapes = {"vehicle": (3, 51), "route": (3, 51, 1), "signal": (3, 1), "junction": (3, 1), "world": (3,)}
        assert tensor.shape == shapes[field.scope]
        assert tensor.dtype == (torch.float32 if field.kind == "real" else torch.int32)
    assert (env.scenario.simulation_frequency, env.scenario.policy_frequency, env.scenario.duration) == (15, 1, 40)
    assert (env.road.lanes, env.road.lane_width, env.road.length) == (4, 4.0, 10_000.0)
    assert env.action_names == ("LANE_LEFT", "IDLE", "LANE_RIGHT", "FASTER", "SLOWER")
    assert {"highway", "highway-fast", "merge", "roundabout", "intersection"} <= set(envs.list_scenarios())


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scenario": "highwai"}, "unknown scenario 'highwai'; did you mean 'highway'?"),
        ({"scenario": "moon"}, "unknown scenario 'moon' (known: "),
        ({"observation": "camra"}, "did you mean 'camera'?"),
        ({"observation": ("state", "camra")}, "did you mean 'camera'?"),
        ({"ego": "polcy"}, "did you mean 'policy'?"),
        ({"device": "cpuu"}, "did you mean 'cpu'?"),
        ({"device": "mps"}, "unknown device 'mps'"),
        ({"dtype": "float46"}, "did you mean 'float64'?"),
        ({"rig": "suround"}, "did you mean 'surround'?"),
        ({"channels": ("rgb", "dept")}, "did you mean 'depth'?"),
        ({"num_worlds": 0}, "num_worlds must be between 1 and"),
        ({"num_worlds": -3}, "not -3"),
        ({"num_worlds": 2**40}, "num_worlds must be between 1 and"),
        ({"frames": 0}, "frames must be at least 1, not 0"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_arguments_are_told_in_one_line(options, told):
    with pytest.raises(UserError) as refused:
        envs.make_vec(**{"scenario": "highway", "num_worlds": 2, "device": "cpu"} | options)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_told_in_one_line():
    with pytest.raises(UserError, match="torch sees no GPU here"):
        envs.make_vec("highway", 2, device="cuda")


def test_bad_arguments_of_the_highway_env_back_end():
    for options in ({"num_worlds": 0}, {"num_worlds": -3}, {"scenario": "highwai"}, {"ego": "continuous"}):
        with pytest.raises(UserError):
            envs.reference.HighwayEnvWorlds(**options)


def test_a_step_needs_a_reset(make):
    env = make("highway-fast", 2, observation="state")
    with pytest.raises(RuntimeError, match="reset"):
        env.step(torch.ones(2, dtype=torch.int64))


def test_closing_twice_is_harmless(make):
    env = make("highway-fast", 16, observation="state")
    env.reset()
    env.close()
    env.close()
