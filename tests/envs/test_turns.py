"""Which way roads turn: against maps that know by their construction, and against how egos come out of a junction."""

import math

import torch

from envs import scenarios
from envs.roads import crossings, town
from envs.roads.turns import turns
from envs.scenarios import stage
from envs.scenarios.stage import Case
from envs.sensors.route import MANOEUVRES


def test_turns_are_those_that_towns_were_built_with():
    seen = set()
    for seed in range(6):
        built = town.generate(seed)
        found = turns(built.network)
        for road, turn in built.turns.items():
            ring = {built.turns.get((road[0], end)) for end in built.network.graph[road[0]]} & {crossings.ROUNDABOUT}
            if road in found and not ring:
                assert found[road] == turn, road
                seen.add(turn)
    assert seen == {"left", "straight", "right"}


def test_an_ego_leaves_the_crossing_as_its_route_says(make):
    env = make("intersection-signals", num_worlds=64, observation="state", ego="idm")
    obs, _ = env.reset(seed=3)
    told, before = obs["route"].clone(), env.state.heading[:, 0].clone()
    assert (told[:, :3].sum(1) == 1).all()  # everybody has a crossing ahead
    open_, right = torch.ones(64, dtype=torch.bool), torch.zeros(64)
    arrived = torch.zeros(64, dtype=torch.bool)
    for _ in range(80):
        bend = env.state.heading[:, 0] - before
        right = torch.where(open_, torch.atan2(bend.sin(), bend.cos()), right)
        _, _, terminated, truncated, info = env.step(torch.ones(64, dtype=torch.int64))
        arrived |= open_ & terminated
        open_ &= ~(terminated | truncated)
    expected = torch.tensor([-math.pi / 2, 0.0, math.pi / 2])[told[:, :3].argmax(1)]
    assert arrived.sum() > 40 and len(told[arrived, :3].argmax(1).unique()) == 3
    assert ((right - expected).abs()[arrived] < 0.2).all()


def test_staged_cases_tell_those_who_learnt_with_a_route(make):
    start = (2.0, 80.0, -math.pi / 2, 8.0, 10.0)  # from the south
    cases = [Case(f"{to}/0-0", to, "signals", *start, f"x.{to}.to") for to in "wne"]
    env = make(stage.of(cases, like=scenarios.get("intersection-signals")), num_worlds=3, observation="state")
    obs, _ = env.reset(seed=0)
    assert [MANOEUVRES[k] for k in obs["route"].argmax(1)] == ["left", "straight", "right"]
    without = make(stage.of(cases, like=scenarios.get("crossing")), num_worlds=3, observation="state")
    assert "route" not in without.reset(seed=0)[0]
