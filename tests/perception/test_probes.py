"""Probes: the regressions and scores against closed forms, the labels against a road laid out by hand."""

from types import SimpleNamespace

import pytest
import scipy.stats
import torch

import envs
from perception import probes
from perception.probes import Frames, Label


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def frames(count: int, noise: float = 0.1, shuffled: bool = False) -> Frames:
    """Features that hold every label linearly, or not at all."""
    features = torch.randn(count, 16, generator=generator())
    read = features @ torch.randn(16, 4, generator=generator())
    if shuffled:
        read = read[torch.randperm(count, generator=generator())]
    everywhere = torch.ones(count, dtype=torch.bool)
    labels = {
        "lead_presence": Label((read[:, 0] > 0).float(), everywhere, "presence"),
        "lead_distance": Label((3 + read[:, 1] / 4).exp(), everywhere, "distance"),
        "lead_speed": Label(read[:, 2] + noise * torch.randn(count, generator=generator()), everywhere, "amount"),
        "lane": Label((read[:, 3] > 0).float(), everywhere, "class"),
    }
    return Frames(features, labels, torch.arange(count) % 20)


def halves(whole: Frames) -> tuple[Frames, Frames]:
    """The first and the last half of the frames."""
    middle = len(whole.features) // 2

    def cut(part: slice) -> Frames:
        labels = {name: Label(label.value[part], label.mask[part], label.kind) for name, label in whole.labels.items()}
        return Frames(whole.features[part], labels, whole.worlds[part])

    return cut(slice(middle)), cut(slice(middle, None))


def test_what_the_features_hold_is_read():
    figures = probes.probe(*halves(frames(4000)))
    assert figures["lead_presence"] > 0.99 and figures["lane"] > 0.95
    assert figures["lead_speed"] == pytest.approx(0.1 * (2 / torch.pi) ** 0.5, rel=0.1)  # the label's own noise
    assert max(figures["lead_distance"].values()) < 0.01


def test_shuffled_labels_score_chance():
    figures = probes.probe(*halves(frames(4000, shuffled=True)))
    assert figures["lead_presence"] == pytest.approx(0.5, abs=0.05)
    assert figures["lane"] == pytest.approx(0.5, abs=0.05)


def test_masked_rows_are_neither_learnt_from_nor_scored():
    train, test = halves(frames(4000))
    clean = probes.probe(train, test)["lead_speed"]
    for half in (train, test):
        label = half.labels["lead_speed"]
        label.mask[::3] = False
        label.value[::3] = 1e6
    assert probes.probe(train, test)["lead_speed"] == pytest.approx(clean, rel=0.2)


def test_ridge_is_least_squares_where_it_need_not_shrink():
    x = torch.randn(500, 5, generator=generator())
    y = x @ torch.randn(5, 2, generator=generator()) + 3
    torch.testing.assert_close(probes.ridge(x, y, torch.arange(500) % 10)(x), y, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("levels", [5, 100_000])
def test_auroc_is_the_mann_whitney_statistic(levels):
    scores = torch.randint(0, levels, (400,), generator=generator()).float()
    positive = torch.rand(400, generator=generator()) < 0.3
    u = scipy.stats.mannwhitneyu(scores[positive], scores[~positive]).statistic
    assert probes.auroc(scores, positive) == pytest.approx(u / (positive.sum() * (~positive).sum()).item())


def test_auroc_of_one_class_is_undefined():
    assert probes.auroc(torch.rand(5), torch.ones(5)) != probes.auroc(torch.rand(5), torch.ones(5))


def test_relative_error_by_range():
    true = torch.tensor([0.5, 5.0, 15.0, 15.0, 30.0])
    figures = probes.relative_error_by_range(true * 1.2, true)
    assert figures == pytest.approx({"0-10": (0.1 + 0.2) / 2, "10-20": 0.2, "20-40": 0.2})


def road(*cars: tuple[float, float, float]) -> SimpleNamespace:
    """One world of three 4 m lanes: the ego (first) and others as (x, y, speed), all 5 m long."""
    x, y, speed = (torch.tensor(values)[None] for values in zip(*cars, strict=True))
    state = SimpleNamespace(
        x=x, y=y, speed=speed, length=torch.full_like(x, 5), kind=torch.ones_like(x).int(), time=torch.tensor([5.0])
    )
    return SimpleNamespace(state=state, road=SimpleNamespace(lanes=3, lane_width=4.0))


def read(env: SimpleNamespace) -> dict[str, float | None]:
    """Label values of the only world, None where they are not defined."""
    return {name: label.value.item() if label.mask.item() else None for name, label in probes.labels(env).items()}


def test_lead_is_the_nearest_ahead_in_the_own_lane():
    found = read(
        road((100.0, 4.0, 25.0), (160.0, 4.2, 30.0), (130.0, 3.8, 20.0), (90.0, 4.0, 20.0), (110.0, 8.0, 20.0))
    )
    assert (found["lead_presence"], found["lead_distance"], found["lead_speed"]) == (1, 25, -5)


def test_no_lead_beyond_range():
    found = read(road((100.0, 4.0, 25.0), (165.1, 4.0, 30.0)))
    assert (found["lead_presence"], found["lead_distance"], found["lead_speed"]) == (0, None, None)


def test_neighbour_lanes():
    found = read(road((100.0, 4.0, 25.0), (104.0, 8.0, 25.0), (120.0, 0.0, 25.0), (80.0, 0.0, 25.0)))
    assert (found["right_ahead"], found["right_beside"], found["right_behind"]) == (0, 1, 0)
    assert (found["left_ahead"], found["left_beside"], found["left_behind"]) == (1, 0, 1)
    assert found["left_distance"] == 15


def test_outermost_lane_has_one_neighbour():
    found = read(road((100.0, 0.3, 25.0), (120.0, 4.0, 25.0)))
    assert found["lane"] == 0 and found["lane_offset"] == pytest.approx(0.3)
    assert found["left_ahead"] is None and found["left_distance"] is None and found["right_ahead"] == 1


def test_relative_speed_is_not_asked_of_a_stack_of_one_frame():
    env = road((100.0, 4.0, 25.0), (120.0, 4.0, 20.0))
    env.state.time[:] = 0
    assert read(env)["lead_speed"] is None


def test_labels_on_a_network_follow_the_lanes():
    env = envs.make_vec("merge", num_worlds=1, device="cpu", observation="state")
    env.reset(seed=0)
    s, network = env.state, env.road
    left, right = network.number(("a", "b", 0)), network.number(("a", "b", 1))
    s.kind[:, 1:] = 0
    s.lane[0, 0], s.lane_s[0, 0], s.lane_r[0, 0], s.time[:] = right, 30.0, 0.5, 5.0
    for slot, (lane, along, speed, kind) in enumerate(
        [(right, 65.0, 20.0, 1), (left, 35.0, 25.0, 1), (right, 50.0, 0.0, 5)]
    ):
        s.lane[0, slot + 1], s.lane_s[0, slot + 1], s.speed[0, slot + 1] = lane, along, speed
        s.kind[0, slot + 1] = kind
    s.speed[0, 0] = 25.0
    s.length[:] = 5.0
    found = probes.labels(env)
    said = {name: float(label.value) if label.mask else None for name, label in found.items()}
    assert said["lead_presence"] == 1 and said["lead_distance"] == pytest.approx(30.0)  # an obstacle is no car
    assert said["lead_speed"] == pytest.approx(-5.0) and said["left_beside"] == 1 and said["left_ahead"] == 0
    assert said["right_ahead"] is None and said["lane"] == 1 and said["lane_offset"] == pytest.approx(0.5)
    # 20 m before the end of the road nothing can be said of what is beyond.
    s.lane_s[0, 0] = network.lane(("a", "b", 1)).length - 20
    assert not probes.labels(env)["lead_presence"].mask
    env.close()


def test_where_nobody_drives_on_lanes_there_are_no_labels():
    env = envs.make_vec("parking", num_worlds=3, device="cpu", observation="state")
    env.reset(seed=0)
    assert not any(label.mask.any() for label in probes.labels(env).values())
    env.close()
