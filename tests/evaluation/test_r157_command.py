"""The grids of UN R157 against stopping distances in closed form and the published program, and the command."""

import csv
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.r157 import MODELS, Scene
from envs.errors import exit_on_user_error
from evaluation import r157 as command
from evaluation.r157 import simulate, time_to_collision
from evaluation.r157_grids import GRIDS, LENGTH, STEPS, Cases, Grid, Others

SIZES = {"cut-in-low": 15930, "cut-in-high": 14040, "cut-out": 5850, "car-following": 1121}


def standing(speed: float, gaps: list[float]) -> Grid:
    """A vehicle stands `gaps` ahead."""
    gap = torch.tensor(gaps, dtype=torch.float64)
    nothing = torch.zeros(STEPS, len(gaps), dtype=torch.float64)
    cases = Cases(torch.full_like(gap, 3.6 * speed), 0 * gap, gap, 0 * gap, 0 * gap)
    half = nothing + LENGTH / 2
    others = Others(nothing + gap + LENGTH, nothing, nothing, nothing, half, nothing == 0)
    return Grid(lambda driver: cases, lambda cases, driver: others, evident=True)


def run(*arguments, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["r157", *map(str, arguments)])
    exit_on_user_error(command.main)


def rows(path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_grids_have_the_published_cases():
    found = {name: grid.cases(MODELS["fsm"]) for name, grid in GRIDS.items()}
    assert {name: len(cases.ego_kmh) for name, cases in found.items()} == SIZES and sum(SIZES.values()) == 36941
    low, high = found["cut-in-low"], found["cut-in-high"]
    assert (low.other_kmh < low.ego_kmh).all() and (high.other_kmh < high.ego_kmh).all()
    assert (low.ego_kmh.min(), low.ego_kmh.max(), low.gap_m.min(), low.gap_m.max()) == (20, 60, 1, 59)
    assert (high.ego_kmh.min(), high.ego_kmh.max(), high.gap_m.min(), high.gap_m.max()) == (70, 130, 1, 119)
    assert low.lateral_ms.unique().tolist() == pytest.approx([value / 10 for value in range(18)])
    assert (found["cut-out"].gap_m.min(), found["cut-out"].gap_m.max()) == (2, 147)
    assert found["car-following"].braking_g.unique().tolist() == pytest.approx([value / 20 for value in range(1, 20)])


def test_a_cut_in_has_its_gap_when_it_has_its_lateral_speed():
    cases = GRIDS["cut-in-low"].cases(MODELS["fsm"])
    cases = Cases(*(column[cases.lateral_ms > 0][::7] for column in cases))
    others = GRIDS["cut-in-low"].others(cases, MODELS["fsm"])
    across, along, approach = others.across, others.along, others.approach
    start = (across >= 3.5 - 1e-9).sum(0)[None] - 1  # the last step in the middle of its lane
    ego = cases.ego_kmh / 3.6 * start[0] / 10
    torch.testing.assert_close(along.gather(0, start)[0] - ego - LENGTH, cases.gap_m)
    torch.testing.assert_close(approach.gather(0, start)[0], cases.lateral_ms)
    crosses = across[1:] > 1e-9
    torch.testing.assert_close(-across.diff(dim=0)[crosses] * 10, approach[:-1][crosses])
    assert (approach.diff(dim=0) <= 0.15 + 1e-9).all()
    ends = across[-1][cases.lateral_ms > 0.15]  # within a step of the ego's middle
    assert (ends <= 1e-9).all() and (ends > -0.2).all()


def test_stopping_distances_decide():
    # Four steps of .1 s at 12 m/s, then 11.4, 10.8, ... 0 m/s: 4.8 + 11.4 m.
    _, verdicts = simulate(MODELS["reg157"], standing(12.0, [16.1, 16.3]))
    assert verdicts.crash.tolist() == [True, False]
    assert verdicts.distance.tolist() == pytest.approx([0, 0.1])
    # cc: eight steps of -.4 m/s2, rising by 1.265 m/s2 a step to 7.593 m/s2.
    speed, gone, deceleration = 12.0, 0.0, 0.4
    for step in range(100):
        deceleration = 0.4 if step < 8 else min(deceleration + 1.265, 0.774 * 9.81)
        speed = max(speed - deceleration / 10, 0)
        gone += speed / 10
    _, verdicts = simulate(MODELS["cc"], standing(12.0, [gone - 0.01, gone + 0.01]))
    assert verdicts.crash.tolist() == [True, False]
    assert verdicts.ttc[0] == 0 and verdicts.distance[1] == pytest.approx(0.01)


@pytest.mark.parametrize("driver", MODELS.values(), ids=MODELS)
@settings(max_examples=5, deadline=None)
@given(speed=st.floats(1, 36))
def test_more_room_to_a_standing_vehicle_never_makes_a_crash(driver, speed):
    crash = simulate(driver, standing(speed, [0.5 + room / 2 for room in range(400)]))[1].crash.int()
    assert crash[-1] == 0 and (crash.diff() <= 0).all()


# Crashes that the Joint Research Centre's program counts (its tools for single cases where it has no grid for reg157).
@pytest.mark.parametrize(
    "scenario, model, crashes",
    [
        ("cut-in-low", "cc", 3728),
        ("cut-in-low", "fsm", 901),
        ("cut-out", "cc", 848),
        ("cut-out", "reg157", 746),
        ("cut-out", "rss", 936),
        ("cut-out", "fsm", 980),
        ("car-following", "cc", 0),
        ("car-following", "reg157", 0),
        ("car-following", "rss", 21),
        ("car-following", "fsm", 0),
    ],
)
def test_crashes_are_as_many_as_published(scenario, model, crashes):
    found = int(simulate(MODELS[model], GRIDS[scenario])[1].crash.sum())
    assert abs(found - crashes) <= 0.002 * SIZES[scenario]  # what rounding can decide on another machine


def test_time_to_collision_is_the_later_of_two_times():
    def ttc(speed, other_speed, gap, clearance, approach):
        values = speed, 0.0, other_speed, gap, 4.3, clearance, approach
        return time_to_collision(Scene(*(torch.tensor(value) for value in values))).item()

    assert ttc(20.0, 10.0, 30.0, 1.0, 0.5) == 3
    assert ttc(20.0, 10.0, 30.0, 2.0, 0.5) == 4
    assert ttc(20.0, 10.0, 30.0, -1.0, 0.0) == 3
    assert ttc(20.0, 10.0, -1.0, 2.0, 0.5) == 4
    assert ttc(20.0, 10.0, -1.0, -1.0, 0.0) == 0
    for never in ((10.0, 10.0, 30.0, -1.0, 0.0), (20.0, 10.0, 30.0, 1.0, 0.0), (20.0, 10.0, -9.0, -1.0, 0.0)):
        assert ttc(*never) == float("inf")


def test_one_model_in_one_scenario_has_exactly_the_columns(tmp_path, monkeypatch, capsys):
    out = tmp_path / "new" / "table.csv"
    run("--model", "rss", "--scenario", "cut-out", "--out", out, monkeypatch=monkeypatch)
    header = out.read_text().splitlines()[0]
    assert header == "ego_kmh,other_kmh,gap_m,lateral_ms,crash,min_distance_m,min_ttc_s"
    found = rows(out)
    assert len(found) == SIZES["cut-out"] and list(out.parent.iterdir()) == [out]
    assert found[0]["ego_kmh"] == "10" and found[0]["gap_m"] == "2" and found[0]["lateral_ms"] == "0.1"
    for row in found:
        assert (row["crash"] == "1") == (row["min_distance_m"] == "0.000")
        assert row["crash"] == "0" or row["min_ttc_s"] == "0.000"
    assert "16.00%" in capsys.readouterr().out


def test_all_models_are_told_apart_and_summed_up(tmp_path, monkeypatch):
    out = tmp_path / "table.csv"
    run("--scenario", "car-following", "--out", out, monkeypatch=monkeypatch)
    found = rows(out)
    assert list(found[0]) == ["scenario", "model", *command.COLUMNS, "braking_g"]
    assert len({tuple(row.values())[:6] + (row["braking_g"],) for row in found}) == 4 * SIZES["car-following"]
    sums = {row["model"]: row for row in rows(tmp_path / "table-summary.csv")}
    assert list(sums) == list(MODELS)
    for model, row in sums.items():
        crashes = [other["crash"] == "1" for other in found if other["model"] == model]
        assert (int(row["cases"]), int(row["crashes"])) == (len(crashes), sum(crashes))
        assert float(row["share"]) == pytest.approx(sum(crashes) / len(crashes), abs=1e-6)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--model", "fsmm"), "did you mean 'fsm'?"),
        (("--scenario", "cut-in"), "unknown scenario 'cut-in'"),
        (("--out", "."), "--out must be a file"),
    ],
)
def test_bad_input_ends_with_one_line_and_code_2(arguments, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        run(*arguments, monkeypatch=monkeypatch)
    assert end.value.code == 2
    line = capsys.readouterr().err.strip()
    assert message in line and "\n" not in line
