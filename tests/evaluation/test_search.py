"""The search of a family: its space, its scores, and the cases that it keeps."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest
import torch

from envs.errors import UserError
from envs.scenarios import stage
from evaluation import backends, search
from evaluation.rare import Found
from evaluation.regressions import load_regressions, regression, staged
from evaluation.search import Space, scores_of, worst
from evaluation.suites import FAMILIES, draw
from evaluation.suites.base import Family, Range, robot, scene

CUT_IN = FAMILIES["cut-in"]


def load(cases, policy="careful"):
    return backends.driver(policy, cases, "cpu")


# --- space ------------------------------------------------------------------------------------------------------------


def test_the_corners_of_the_cube_are_the_ends_of_the_ranges():
    space = Space(CUT_IN)
    assert space.names == tuple(CUT_IN.parameters)
    for point, end in ((np.zeros(5), "low"), (np.ones(5), "high")):
        assert space.at(point) == pytest.approx({name: getattr(r, end) for name, r in CUT_IN.parameters.items()})


def test_parameters_of_one_value_are_no_coordinates():
    space = Space(FAMILIES["ccr-braking"])
    assert "speed" not in space.names and space.at(np.zeros(len(space.names)))["speed"] == 50.0
    with pytest.raises(UserError, match="no parameter with more than one value"):
        Space(replace(CUT_IN, parameters={"speed": Range(20.0, 20.0)}))
    with pytest.raises(UserError, match="--disturb must be from 0 to below 1, not 1"):
        Space(CUT_IN, 1.0)


def test_points_are_valid_where_the_family_says_so():
    space, points = Space(CUT_IN), np.random.default_rng(0).random((500, 5))
    valid = space.cases_at(points)
    assert 0.3 < valid.mean() < 0.8
    for point, fine in zip(points, valid, strict=True):
        assert CUT_IN.valid(space.at(point)) == fine


def test_a_case_without_disturbance_is_the_familys_own():
    (case,) = draw(CUT_IN, 1, 7)
    assert staged(CUT_IN, case.id, case.parameters) == case


def test_disturbances_scale_what_scripted_actors_do():
    space = Space(CUT_IN, 0.2)
    assert space.names[5:] == ("disturb.speed", "disturb.duration", "disturb.acceleration", "disturb.lateral_speed")
    (case,) = draw(CUT_IN, 1, 7)
    parameters = case.parameters | {
        "disturb.speed": 1.1, "disturb.duration": 0.9, "disturb.acceleration": 1.0, "disturb.lateral_speed": 1.2
    }  # fmt: skip
    ((before,), (after,)) = case.actors, staged(CUT_IN, case.id, parameters).actors
    assert after.speed == pytest.approx(1.1 * before.speed) and len(after.script) == len(before.script)
    for one, two in zip(before.script, after.script, strict=True):
        assert two.duration == pytest.approx(0.9 * one.duration)
        assert two.lateral_speed == pytest.approx(1.2 * one.lateral_speed)
    ends = space.at(np.zeros(9)), space.at(np.ones(9))
    assert [end["disturb.duration"] for end in ends] == pytest.approx([0.8, 1.2])


# --- scores -----------------------------------------------------------------------------------------------------------


class Coasting:
    """Keeps its speed."""

    name, env_options = "coasting", {"observation": "state"}

    def act(self, obs):
        return torch.zeros(len(obs["ego"]), 2)

    def reset(self, done=None):
        pass


def coasting(cases):
    return Coasting(), stage.of(cases)


def test_a_score_is_the_least_distance_or_minus_the_speed_of_the_impact():
    def case(number, ahead, y, speed):
        others = [robot(200 + 5 + ahead, y, speed)]
        return scene(f"test/0-{number:04d}", {}, "road", (200.0, 3.5, 0.0), 20.0, others, duration=4.0)

    cases = [case(0, 10, 3.5, 12.0), case(1, 50, 3.5, 12.0), case(2, 10, 7.0, 12.0), case(3, 30, 3.5, 20.0)]
    scores = scores_of(cases, coasting, "cpu", 0)
    # 8 m/s into the back; 50 m less 4 s of 8 m/s; 3.5 m aside, less a width; always 30 m.
    np.testing.assert_allclose(scores, [-8, 18, 1.5, 30], atol=0.02)
    np.testing.assert_allclose(scores_of(cases, coasting, "cpu", 0, first=3), scores)  # each its own, wherever it lives
    np.testing.assert_allclose(scores_of(cases[:1], coasting, "cpu", 0), scores[:1])


# --- regressions ------------------------------------------------------------------------------------------------------


def test_the_worst_are_kept_but_none_twice():
    space = Space(Family("t", "", "", {"a": Range(0.0, 1.0), "b": Range(0.0, 1.0)}, lambda id, p: None))
    points = np.array([[0.1, 0.1], [0.11, 0.12], [0.5, 0.1], [0.9, 0.9], [0.3, 0.3]])
    scores = np.array([-2.0, -3.0, -1.0, 0.5, -0.1])
    found = Found(0, 0, 0, 0, 5, 1.0, points, scores, np.zeros(0), (), True, 0, 0, 1.0)
    assert [round(p["a"], 2) for p in worst(space, found, 10)] == [0.11, 0.5, 0.3]
    assert len(worst(space, found, 2)) == 2 and worst(space, found, 0) == []


def test_regressions_are_read_back_as_they_were(tmp_path):
    parameters = draw(CUT_IN, 1, 7)[0].parameters | {"disturb.speed": 1.1}
    path = tmp_path / "regressions.json"
    path.write_text(json.dumps({"cases": [{"family": "cut-in", "seed": 9, "parameters": parameters}]}))
    (case,) = load_regressions(path)
    assert case == regression(CUT_IN, 9, 0, parameters) and case.parameters == parameters
    assert case.id == "cut-in-found/9-0000" and case.family == "cut-in"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read"),
        ("{", "holds no regressions"),
        ('{"cases": []}', "found no failures"),
        ('{"cases": [{"family": "cut-inn", "seed": 0, "parameters": {}}]}', "did you mean 'cut-in'"),
        ('{"cases": [{"family": "cut-in", "seed": 0, "parameters": {"speed": 30}}]}', "lacks the parameters gap"),
    ],
)
def test_what_is_no_file_of_regressions_is_refused(text, message, tmp_path):
    path = tmp_path / "regressions.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_regressions(path)


# --- command ----------------------------------------------------------------------------------------------------------


def test_the_command_finds_the_failures_of_a_late_driver_and_writes_them_down(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    arguments = ["search", "--policy", "careful+late", "--family", "cut-in-fast", "--budget", "300", "--keep", "4"]
    monkeypatch.setattr("sys.argv", [*arguments, "--disturb", "0.1", "--seed", "3", "--out", str(out)])
    search.main()
    found = json.loads((out / "search.json").read_text())
    assert found["failures"] > 0 and 0 < found["low"] <= found["rate"] <= found["high"] <= 1
    assert found["low"] < found["plain_high"]
    table = pyarrow.parquet.read_table(out / "episodes.parquet")
    assert 200 < table.num_rows == found["episodes"] <= 300
    failed = np.array(table["score"]) <= 0
    assert failed.sum() == found["failures"]
    weights = table["weight"].to_numpy(zero_copy_only=False)
    assert np.nansum(weights[failed]) == pytest.approx(found["rate"])
    regressions = load_regressions(out / "regressions.json")
    kept = json.loads((out / "regressions.json").read_text())["cases"]
    again = scores_of(regressions, lambda cases: load(cases, "careful+late"), "cpu", 3)
    assert (again <= 0).all() and again == pytest.approx([each["score"] for each in kept], abs=1e-3)
    assert (out / "search.png").stat().st_size > 5000
    assert "failure rate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--family", "cut-inn"], "did you mean 'cut-in'"),
        (["--budget", "10"], "--budget must be at least 100"),
        (["--disturb", "-1"], "--disturb"),
        (["--policy", "carful"], "unknown policy"),
    ],
)
def test_bad_input(arguments, message, tmp_path, monkeypatch):
    given = ["search", "--policy", "careful", "--family", "cut-in", "--out", str(tmp_path / "out"), *arguments]
    monkeypatch.setattr("sys.argv", given)
    with pytest.raises(UserError, match=message):
        search.main()
    assert not (tmp_path / "out").exists()


def test_out_must_be_a_directory(tmp_path, monkeypatch):
    (tmp_path / "out").write_text("")
    given = ["search", "--policy", "careful", "--family", "cut-in", "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", given)
    with pytest.raises(UserError, match="must be a directory"):
        search.main()
