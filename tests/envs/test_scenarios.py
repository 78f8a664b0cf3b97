"""What holds for every scenario, and the ring road against the theory of car following."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import envs
from benchmarks.traffic import equilibrium_speed, string_stable
from envs.errors import UserError
from envs.roads.lanes import straight
from envs.roads.network import RoadNetwork
from envs.roads.signals import Junction, Phase, Signal
from envs.scenarios.ring import RING
from envs.simulation import Simulation, resolve_device

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", envs.list_scenarios())
def test_is_documented_with_a_picture(name):
    text = (ROOT / "docs/scenarios.md").read_text()
    assert f"`{name}`" in text or any(f"`-{suffix}`" in text for suffix in (name.split("-", 1)[-1],))
    assert (ROOT / f"docs/images/scenarios/{name}.png").stat().st_size > 5_000


def any_action(env: envs.VecWorlds) -> torch.Tensor:
    space = env.single_action_space
    if env.action_names:
        return torch.randint(0, len(env.action_names), (env.num_worlds, *space.shape))
    return 2 * torch.rand(env.num_worlds, *space.shape) - 1


@pytest.mark.parametrize("name", envs.list_scenarios())
def test_stays_finite_and_does_not_depend_on_the_batch(name, make):
    """World 2 of three lives the life of a world alone."""
    batch, alone = make(name, 3, observation="state", seed=9), make(name, 1, observation="state", seed=9)
    batch.reset()
    alone.reset(first_world=2)
    torch.manual_seed(0)
    for _ in range(12):
        action = any_action(batch)
        obs, reward, *_ = batch.step(action)
        one, reward_one, *_ = alone.step(action[2:])
        for key, values in obs.items():
            assert torch.isfinite(values).all(), key
            assert torch.equal(values[2], one[key][0]), key
        assert torch.isfinite(reward).all() and reward[2] == reward_one[0]
        for field in ("x", "y", "heading", "speed"):
            assert torch.isfinite(batch.state.tensors[field]).all()


@pytest.mark.parametrize("vehicles", [5, 12, 20])
def test_the_ring_settles_at_the_equilibrium_of_the_law(vehicles):
    gap = RING.length / vehicles
    assert string_stable(gap)
    scenario = replace(RING, vehicles=vehicles - 1, duration=math.inf)
    sim = Simulation(scenario, 2, resolve_device("cpu"), "float64", "idm")
    sim.reset(0)
    for _ in range(300):
        sim.step()
    torch.testing.assert_close(
        sim.state.speed, torch.full_like(sim.state.speed, equilibrium_speed(gap)), rtol=5e-3, atol=0
    )


def test_dense_platoons_are_unstable_in_theory_and_in_simulation():
    gap = RING.length / 36
    assert not string_stable(gap)
    sim = Simulation(replace(RING, vehicles=35, duration=math.inf), 2, resolve_device("cpu"), "float64", "idm")
    sim.reset(0)
    spread = []
    for step in range(200):
        sim.step()
        if step in (20, 199):
            spread.append(float(sim.state.speed.std(dim=1).mean()))
    assert spread[1] > 3 * spread[0]


def test_the_example_of_a_scenario_is_short():
    assert len((ROOT / "envs/scenarios/ring.py").read_text().splitlines()) < 60


# --- impossible ones --------------------------------------------------------------------------------------------------


def gap_between_lanes() -> None:
    network = RoadNetwork()
    network.add_lane("a", "b", straight((0, 0), (50, 0)))
    network.add_lane("b", "c", straight((60, 0), (90, 0)))
    network.check()


def route_to_nowhere() -> None:
    network = RoadNetwork()
    network.add_lane("a", "b", straight((0, 0), (50, 0)))
    network.shortest_path("b", "a")


@pytest.mark.parametrize(
    ("impossible", "told"),
    [
        (gap_between_lanes, "10.0 m from the end of every lane"),
        (route_to_nowhere, "no road leads from node 'b' to node 'a'"),
        (lambda: RoadNetwork().check(), "at least one lane"),
        (lambda: straight((3, 4), (3, 4)), "no length"),
        (lambda: straight((0, 0), (9, 0), width=0.0), "cannot be driven"),
        (lambda: Signal((), (0.0, 0.0), 0.0), "controls no lane"),
        (lambda: Phase((0,), green=0.0), "green must be positive"),
        (lambda: Junction((0,), (Phase((1,)),)), "heads are the junction's own"),
        (lambda: replace(RING, vehicles=-1), "no fewer than 0"),
        (lambda: replace(RING, policy_frequency=20), "at least policy_frequency"),
    ],
)
def test_impossible_roads_and_scenarios_are_told_in_one_line(impossible, told):
    with pytest.raises(UserError, match=told) as refused:
        impossible()
    assert "\n" not in str(refused.value)
