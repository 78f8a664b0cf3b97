"""What is shipped: it loads, it is as small as promised, and it drives."""

import json
from pathlib import Path

import torch

import envs
from agents import policies

ZOO = Path(__file__).parents[2] / "zoo"


def test_it_is_small_and_every_policy_has_its_card():
    sizes = [path.stat().st_size for path in ZOO.rglob("*") if path.is_file()]
    assert sum(sizes) <= 20e6 and max(sizes) <= 5e6
    for name in policies.zoo():
        card = json.loads((ZOO.parent / name / "card.json").read_text())
        assert {"command", "machine", "seconds", "figures"} <= card.keys()


def crashes(name: str, scenario: str, episodes: int) -> int:
    """Of held-out episodes."""
    policy = policies.load(name, scenario=scenario)
    worlds = envs.make_vec(scenario, episodes, device="cpu", seed=1_000_000, **policy.env_options)
    obs, _ = worlds.reset()
    alive, crashed = torch.ones(episodes, dtype=torch.bool), 0
    while alive.any():
        obs, _, terminated, truncated, info = worlds.step(policy.act(obs))
        crashed += int((info["crashed"] & terminated & alive).sum())
        alive &= ~(terminated | truncated)
    worlds.close()
    return crashed


def test_the_highway_policy_outlives_a_random_driver():
    """95 of 100 random ones end in a crash, of the policy's one or two."""
    assert crashes("zoo/highway-ppo", "highway-fast", 32) <= 6


def test_the_intersection_policy_crashes_less_than_drivers_do():
    """Of 64 episodes of IDM 12 or 13 end in a crash, of the policy's one or two."""
    assert crashes("zoo/intersection-ppo", "intersection", 64) <= 6


def test_the_merge_policy_merges():
    """Of 500 episodes none ended in a crash; a random driver's mostly do."""
    assert crashes("zoo/merge-ppo", "merge", 32) <= 1


def test_the_crossing_policy_stops_for_people():
    """Of 500 episodes 12 ended in a crash; at the same speed of 13.9 m/s all along more than half would."""
    assert crashes("zoo/crossing-ppo", "crossing", 64) <= 6
