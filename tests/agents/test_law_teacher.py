"""The law of drivers as a teacher: against the drivers themselves, in worlds of the same seeds, and in plain scenes."""

import pytest
import torch

import envs
from agents.law_teacher import LawTeacher
from agents.teacher import make_taught
from envs.errors import UserError
from tests.agents.test_dagger import StateReader


def ends(worlds, steps: int, act) -> dict[str, float]:
    """How the first episode of every world ends: shares, and the mean return and number of steps."""
    count = worlds.num_worlds
    goes_on = torch.ones(count, dtype=torch.bool)
    result = {name: torch.zeros(count) for name in ("crashed", "success", "episode_return", "episode_length", "red")}
    for _ in range(steps):
        red = worlds.state.red_lights.clone().float()
        _, _, _, _, info = worlds.step(act())
        ending = goes_on & info["_final_obs"]
        for name in result:
            found = red if name == "red" else info[name].float()
            result[name] = torch.where(ending, found, result[name])
        goes_on &= ~ending
    assert not goes_on.any()
    return {name: value.mean().item() for name, value in result.items()}


def test_a_crossing_is_driven_as_the_drivers_do():
    """Who does what it teaches runs no red light, hits nobody, and gets through in nearly their time."""
    taught = envs.make_vec("intersection-signals", num_worlds=48, observation="state")
    taught.reset(5)
    teacher = LawTeacher(taught)
    ours = ends(taught, 90, lambda: teacher.advise({}).argmax(1))
    drivers = envs.make_vec("intersection-signals", num_worlds=48, observation="state", ego="idm")
    drivers.reset(5)
    theirs = ends(drivers, 90, lambda: torch.ones(48, dtype=torch.int64))
    assert ours["crashed"] == ours["red"] == 0
    assert ours["episode_return"] == pytest.approx(theirs["episode_return"], abs=0.2)
    assert ours["success"] >= theirs["success"] - 0.1
    assert ours["episode_length"] == pytest.approx(theirs["episode_length"], rel=0.1)


def test_advice_leaves_the_worlds_as_they_are():
    worlds = envs.make_vec("crossing", num_worlds=6, observation="state")
    worlds.reset(1)
    teacher, before = LawTeacher(worlds), worlds.get_state()
    first = teacher.advise({})
    after = worlds.get_state()
    assert all(torch.equal(before[name], after[name]) for name in before)
    for _ in range(3):
        worlds.step(torch.ones(6, dtype=torch.int64))
        teacher.advise({})
    worlds.set_state(before)
    assert torch.equal(teacher.advise({}), first)  # it remembers nothing


@pytest.mark.parametrize(
    ("gap", "speed", "expected"), [(400.0, 20.0, "FASTER"), (8.0, 24.0, "SLOWER"), (400.0, 30.0, "FASTER")]
)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_speeds_on_a_highway(gap, speed, index, expected):
    """On the only lane that is free of all but one, which stands `gap` ahead. The target speed of before is in no
    observation, and where an action that is relative to the speed does as well, it decides nothing."""
    worlds = envs.make_vec("highway-fast", num_worlds=1, observation="state")
    worlds.reset(0)
    s = worlds.state
    s.kind[:, 2:] = 0
    s.x[:, 1], s.y[:, 1], s.speed[:, 1] = s.x[:, 0] + gap, s.y[:, 0], 0.0
    s.target_speed[:, 1], s.heading[:, 0] = 0.0, 0.0
    s.speed[:, 0] = s.target_speed[:, 0] = speed
    s.speed_index[:, 0] = index
    teacher = LawTeacher(worlds)
    teacher.changes = 0
    assert worlds.action_names[int(teacher.advise({}).argmax())] == expected


def test_it_changes_lanes_where_drivers_do():
    """To pass who is slow, on parallel lanes; which way is left is the worlds' to say."""
    worlds = envs.make_vec("highway-fast", num_worlds=64, observation="state")
    worlds.reset(3)
    teacher, seen = LawTeacher(worlds), set()
    for _ in range(20):
        lane = worlds.state.target_lane[:, 0].clone()
        advice = teacher.advise({}).argmax(1)
        *_, info = worlds.step(advice)
        stays = ~info["_final_obs"]
        for name, step in (("LANE_LEFT", -1), ("LANE_RIGHT", 1)):
            told = (advice == worlds.action_names.index(name)) & stays
            assert torch.equal(worlds.state.target_lane[told, 0], lane[told] + step)
            seen |= {name} if told.any() else set()
    assert seen == {"LANE_LEFT", "LANE_RIGHT"}


@pytest.mark.parametrize(
    ("scenario", "told"),
    [("parking", "has other actions"), ("intersection-multi-agent", "has 2 agents")],
)
def test_where_it_cannot_teach_is_one_clear_line(scenario, told):
    with pytest.raises(UserError) as error:
        make_taught(StateReader({"observation": "state", "ego": "idm"}), scenario, observation="state", num_worlds=2)
    assert told in str(error.value) and "\n" not in str(error.value)
