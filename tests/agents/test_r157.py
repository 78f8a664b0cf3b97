"""The driver models of UN R157 against decisions worked out by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents import r157
from agents.r157 import FSM, MODELS, RSS, CCHuman, Reg157, Scene, following_distance

ALL = pytest.mark.parametrize("driver", MODELS.values(), ids=MODELS)


def scene(speed=20.0, other_speed=10.0, gap=30.0, clearance=-1.0, approach=0.0, acceleration=0.0, length=4.3):
    values = speed, acceleration, other_speed, gap, length, clearance, approach
    return Scene(*torch.broadcast_tensors(*(torch.as_tensor(value, dtype=torch.float64) for value in values)))


def braking(driver, steps: int, **scenes) -> list[float]:
    """Accelerations of the first steps in a scene that stays as it is."""
    now, found = scene(**{key: [value] for key, value in scenes.items()}), []
    memory = driver.start(now.speed)
    for _ in range(steps):
        acceleration, memory = driver.react(now, memory)
        found.append(acceleration.item())
    return found


def test_following_distances_are_those_of_the_regulation():
    speeds = torch.tensor([0.0, 7.2, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]) / 3.6
    expected = torch.tensor([2.0, 2.0, 3.1, 6.7, 10.8, 15.6, 20.8, 26.7])
    torch.testing.assert_close(following_distance(speeds), expected, atol=0.05, rtol=0)
    assert following_distance(torch.tensor([[25.0 / 3.6]])).item() == pytest.approx(25 / 3.6 * 1.25)
    assert following_distance(torch.tensor(30.0)).item() == pytest.approx(48.0)


def test_cc_brakes_at_two_seconds_once_the_boxes_overlap_sideways():
    gap = torch.tensor([20.0, 20.1, 20.0, 20.0])
    clearance = torch.tensor([0.0, 0.0, 0.01, -1.0])
    assert CCHuman().danger(scene(gap=gap, clearance=clearance)).tolist() == [True, False, False, True]
    assert CCHuman().harmless(scene(gap=gap, clearance=clearance)).tolist() == [False, True, False, False]
    lifts, presses, hardest = [-0.4] * 8, [-1.665, -2.93, -4.195, -5.46, -6.725], [-0.774 * 9.81] * 2
    assert braking(CCHuman(), 15, gap=15.0) == pytest.approx(lifts + presses + hardest)


def test_reg157_brakes_within_the_time_that_it_needs():
    limit = 12 * (12 / 12 + 0.35 + 0.1)  # m at 12 m/s of difference
    gap = torch.tensor([limit - 0.01, limit + 0.01, limit - 0.01])
    clearance = torch.tensor([0.5, 0.5, 0.51])
    found = Reg157().danger(scene(speed=22.0, gap=gap, clearance=clearance))
    assert found.tolist() == [True, False, False]
    assert braking(Reg157(), 6, gap=5.0, clearance=0.4) == pytest.approx([0, 0, 0, 0, -6, -6])


def test_rss_brakes_where_both_distances_are_short():
    safe = 10 * 0.75 + 3 * 0.75**2 / 2 + (10 + 2.25) ** 2 / 12 - 10**2 / 12
    gap = torch.tensor([safe - 0.01, safe + 0.01])
    assert RSS().danger(scene(speed=10.0, gap=gap)).tolist() == [True, False]
    for approach, lateral in ((0.0, 0.3 + 0.75**2 / 2 * 2), (1.0, 0.3 + (2 + 0.75) * 0.75 / 2 + 1.75**2 / 2)):
        clearance = torch.tensor([lateral - 0.01, lateral + 0.01])
        assert RSS().danger(scene(gap=5.0, clearance=clearance, approach=approach)).tolist() == [True, False]
    assert braking(RSS(), 10, gap=5.0) == pytest.approx([0] * 8 + [-1.265, -2.53])


def test_rss_follows_at_a_distance_that_is_safe_after_its_delay():
    speed, delay, brakes = 25.0, 0.75, 6.0
    gap = RSS().keeps(torch.tensor(speed, dtype=torch.float64)) - brakes * delay**2 / 2  # lost while the leader braked
    leader = speed - brakes * delay
    near = scene(speed=speed, other_speed=leader, gap=torch.stack((gap - 1e-6, gap + 1e-6)))
    assert RSS().danger(near).tolist() == [True, False]


def test_fsm_brakes_in_proportion():
    safe = 20 * 0.75 + 20**2 / 8 - 20**2 / 14 + 2
    unsafe = 20 * 0.75 + 20**2 / 12 - 20**2 / 14
    gap = 2 + torch.tensor([safe + 1, (safe + unsafe) / 2, unsafe - 1], dtype=torch.float64)
    same_speed = scene(other_speed=20.0, gap=gap)
    assert FSM().proactive(same_speed).tolist() == pytest.approx([0, 0.5, 1])
    assert FSM().critical(same_speed).tolist() == [0, 0, 0]
    assert FSM().wanted(same_speed).tolist() == pytest.approx([0, 2, 4])
    assert FSM().danger(same_speed).tolist() == [False, True, True]
    assert braking(FSM(), 11, other_speed=20.0, gap=gap[1].item()) == pytest.approx([0] * 8 + [-1.265, -2, -2])

    rolled = 10 * 0.75
    gap = torch.tensor([rolled + 13, rolled + (100 / 8 + 100 / 12) / 2, rolled + 8], dtype=torch.float64)
    assert FSM().critical(scene(gap=gap)).tolist() == pytest.approx([0, 0.5, 1])
    assert FSM().wanted(scene(gap=gap)).tolist()[1:] == pytest.approx([5, 6])


def test_fsm_counts_on_the_braking_that_it_does_already():
    rolled, after = (10 - 4 * 0.375) * 0.75, 10 - 4 * 0.75
    middle = rolled + (after**2 / 8 + after**2 / 12) / 2
    for acceleration in (-4.0, -5.0):  # nobody counts on more than the gentle 4 m/s2
        assert FSM().critical(scene(gap=middle, acceleration=acceleration)).item() == pytest.approx(0.5)
    slow = scene(speed=12.0, gap=torch.tensor([0.49, 0.51]), acceleration=-4.0)  # 2 m/s are gone after .5 m
    assert FSM().critical(slow).tolist() == [1, 0]


def test_fsm_lets_pass_what_comes_too_late_sideways():
    gap = torch.tensor([0.3, 0.5])  # front to front + two lengths at 10 m/s: .89 s and .91 s, and .1 s
    assert FSM().danger(scene(gap=gap, clearance=1.0, approach=1.0)).tolist() == [False, True]
    assert not FSM().danger(scene(gap=5.0, clearance=1.0, approach=torch.tensor([0.0, -1.0]))).any()


@ALL
def test_nobody_brakes_for_what_is_behind(driver):
    assert driver.danger(scene(gap=-4.2)).item()
    assert not driver.danger(scene(gap=-4.4)).item()


@ALL
def test_speed_is_held_after_danger_and_the_delay_runs_once(driver):
    danger, free = scene(gap=[3.0]), scene(gap=[3000.0])
    memory = driver.start(danger.speed)
    assert not memory.reacted.any()
    for _ in range(9):
        _, memory = driver.react(danger, memory)
    acceleration, rested = driver.react(free, memory)
    assert acceleration.item() == 0 and rested.reacted.item() and rested.braking.item() == memory.braking.item()
    assert driver.react(danger, rested)[0].item() < -1
    fresh = driver.start(danger.speed).where(torch.tensor([True]), rested)
    assert not fresh.reacted.item() and fresh.delay.item() == driver.delay


@ALL
def test_danger_decided_elsewhere_is_followed(driver):
    far = scene(gap=[3000.0])
    assert not driver.react(far, driver.start(far.speed))[1].reacted.item()
    assert driver.react(far, driver.start(far.speed), danger=torch.tensor([True]))[1].reacted.item()


NUMBER = st.floats(0, 40)


@ALL
@given(speed=NUMBER, other_speed=NUMBER, gap=st.floats(0, 200), more=st.floats(0, 50), approach=st.floats(-2, 2))
def test_more_room_never_means_more_danger(driver, speed, other_speed, gap, more, approach):
    near, far = (scene(speed, other_speed, [room], -1.0, approach) for room in (gap, gap + more))
    assert driver.danger(near).item() >= driver.danger(far).item()
    assert driver.wanted(near).item() >= driver.wanted(far).item()


@ALL
@given(*[NUMBER] * 2, st.floats(-50, 200), st.floats(-2, 5), st.floats(-2, 2), st.floats(-8, 5))
def test_accelerations_are_finite_and_within_the_brakes(driver, speed, other_speed, gap, clearance, approach, before):
    now = Scene(*(value.float()[None] for value in scene(speed, other_speed, gap, clearance, approach, before)))
    memory = driver.start(now.speed)
    for _ in range(20):
        acceleration, memory = driver.react(now, memory)
        assert acceleration.dtype == torch.float32
        assert -driver.hardest - 1e-5 <= acceleration.item() <= 0


def test_wandering_is_less_than_half_the_room_in_a_lane():
    assert 0 < r157.WANDERING < (3.5 - 1.9) / 2
