"""The comparison of two results directories, as a command."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from scipy import stats

from envs.errors import exit_on_user_error
from envs.scenarios.stage import Case
from evaluation import compare, results
from evaluation.comparison import compared
from evaluation.results import Setting, document, evaluate

SETTING = Setting("fake", "lanewise", episodes=40, seed=1_000_000)
# Failures of A and B by case: both 4, A alone 2, B alone 14, neither 20.
A = np.array([1.0] * 4 + [1.0] * 2 + [0.0] * 14 + [0.0] * 20)
B = np.array([1.0] * 4 + [0.0] * 2 + [1.0] * 14 + [0.0] * 20)


@pytest.fixture
def outcome(make_worlds, policy):
    return evaluate(make_worlds, policy, "spec", SETTING)


def with_collisions(outcome, name: str, collision: np.ndarray, **more):
    values = outcome.values | {"collision": collision, "collision_at_fault": np.zeros(40)}
    valid = outcome.valid | {"collision": np.ones(40, bool), "collision_at_fault": np.zeros(40, bool)}
    return dataclasses.replace(outcome, name=name, values=values, valid=valid, **more)


def written(folder, outcome, setting=SETTING):
    folder.mkdir()
    found = document(setting, [outcome], {})
    results.write_json(folder / "results.json", found)
    results.write_parquet(folder / "episodes.parquet", found)
    return folder


def run(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, arguments)])
    exit_on_user_error(compare.main)


def fails(monkeypatch, capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    return said[0]


def staged(outcome, name: str, collision: np.ndarray, cases=None):
    cases = cases or [
        Case(f"{family}/7-{number:04}", family, "road", 0.0, 0.0, 0.0, 20.0, 20.0)
        for family in ("cut-in", "lead-stop")
        for number in range(20)
    ]
    return with_collisions(outcome, name, collision, cases=cases)


def test_the_verdict_comes_first(outcome, tmp_path, monkeypatch, capsys):
    a = written(tmp_path / "a", with_collisions(outcome, "old", A))
    b = written(tmp_path / "b", with_collisions(outcome, "new", B))
    run(monkeypatch, a, b / "results.json", "--out", tmp_path / "out", "--metrics", "collision", "success")
    printed = capsys.readouterr().out
    p = stats.binomtest(2, 16, 0.5).pvalue
    assert printed.startswith(f"new is worse than old: collision rate 45.0 % against 15.0 %, p = {p:.3f}.")
    found = json.loads((tmp_path / "out/compare.json").read_text())
    assert found["verdict"] == "worse" and found["cases"] == 40
    collision = found["metrics"]["collision"]
    assert (collision["lower"], collision["equal"], collision["higher"]) == (2, 24, 14)
    assert collision["p"] == pytest.approx(p) == collision["p_corrected"]  # nothing else decides: no goal, no fault
    assert collision["difference"] == pytest.approx(0.3)
    assert 0 < collision["low"] < 0.3 < collision["high"]
    assert found["metrics"]["mean_speed"]["verdict"] == "not shown" and found["metrics"]["mean_speed"]["p"] == 1.0
    assert [entry["collided"] for entry in found["apart"]] == ["old"] * 2 + ["new"] * 14
    page = (tmp_path / "out/compare.html").read_text()
    assert "new is worse than old" in page and "<script" not in page


def test_the_other_way_round_it_is_better(outcome, tmp_path, monkeypatch, capsys):
    a = written(tmp_path / "a", with_collisions(outcome, "old", A))
    b = written(tmp_path / "b", with_collisions(outcome, "new", B))
    run(monkeypatch, b, a)
    assert capsys.readouterr().out.startswith("old is better than new: collision rate 15.0 % against 45.0 %")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_too_little_is_not_shown(outcome, tmp_path, monkeypatch, capsys):
    few = A.copy()
    few[10:14] = 1.0  # four cases more than A: p = 1/8
    a = written(tmp_path / "a", with_collisions(outcome, "same", A))
    b = written(tmp_path / "b", with_collisions(outcome, "same", few))
    run(monkeypatch, a, b, "--metrics", "collision", "success")
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"Neither is shown to be better, same ({a}) or same ({b}): collision rate")
    assert first.endswith("p = 0.12.")


def test_cases_of_a_suite_are_matched_by_their_names(outcome, tmp_path, monkeypatch, capsys):
    setting = dataclasses.replace(SETTING, suite="highway")
    first = staged(outcome, "old", A)
    backwards = staged(outcome, "new", B[::-1].copy(), cases=first.cases[::-1])
    a, b = written(tmp_path / "a", first, setting), written(tmp_path / "b", backwards, setting)
    run(monkeypatch, a, b, "--out", tmp_path / "out")
    found = json.loads((tmp_path / "out/compare.json").read_text())
    assert found["metrics"]["collision"]["higher"] == 14
    assert found["families"]["cut-in"] == {"n": 20, "a": 6, "b": 18, "only_a": 2, "only_b": 14}
    assert found["families"]["lead-stop"] == {"n": 20, "a": 0, "b": 0, "only_a": 0, "only_b": 0}
    assert found["apart"][0] == {"case": "cut-in/7-0004", "collided": "old"}


def test_faults_are_told(outcome, tmp_path, monkeypatch, capsys):
    status = ["ok"] * 37 + ["policy raised"] * 3
    broken = with_collisions(outcome, "new", A, status=status, errors=[""] * 37 + ["ValueError"] * 3)
    broken.valid["collision"][37:] = False
    a = written(tmp_path / "a", with_collisions(outcome, "old", A))
    run(monkeypatch, a, written(tmp_path / "b", broken))
    assert "new had faults: policy raised in 3 of 40 cases" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"seed": 2_000_000}, "has seed 1000000, and"),
        ({"scenario": "highway"}, "has scenario fake, and"),
        ({"backend": "highway-env"}, "has backend lanewise, and"),
        ({"suite": "ncap"}, "has suite None, and"),
    ],
)
def test_other_cases_are_refused(setting, message, outcome, tmp_path, monkeypatch, capsys):
    a = written(tmp_path / "a", staged(outcome, "old", A))
    b = written(tmp_path / "b", staged(outcome, "new", B), dataclasses.replace(SETTING, **setting))
    said = fails(monkeypatch, capsys, a, b)
    assert "the cases differ" in said and message in said


def test_missing_cases_are_named(outcome, tmp_path, monkeypatch, capsys):
    setting = dataclasses.replace(SETTING, suite="highway")
    first = staged(outcome, "old", A)
    other = [dataclasses.replace(case, id=f"x{case.id}") if k > 35 else case for k, case in enumerate(first.cases)]
    a = written(tmp_path / "a", first, setting)
    b = written(tmp_path / "b", staged(outcome, "new", B, cases=other), setting)
    said = fails(monkeypatch, capsys, a, b)
    assert f"{a} lacks xlead-stop/7-0016, xlead-stop/7-0017, xlead-stop/7-0018 and 1 more" in said


def test_bad_input(outcome, tmp_path, monkeypatch, capsys):
    a = written(tmp_path / "a", with_collisions(outcome, "old", A))
    assert "no results.json" in fails(monkeypatch, capsys, a, tmp_path / "nothing")
    assert "did you mean 'collision'" in fails(monkeypatch, capsys, a, a, "--metrics", "colision")
    assert "cannot decide" in fails(monkeypatch, capsys, a, a, "--metrics", "duration")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/results.json").write_bytes((a / "results.json").read_bytes())
    assert "no episodes.parquet" in fails(monkeypatch, capsys, a, tmp_path / "c")
    (tmp_path / "c/episodes.parquet").write_bytes(b"PAR1")
    assert "damaged" in fails(monkeypatch, capsys, a, tmp_path / "c")
    (tmp_path / "c/results.json").write_text("{")
    assert "damaged" in fails(monkeypatch, capsys, a, tmp_path / "c")
    assert "is a file" in fails(monkeypatch, capsys, a, a, "--out", a / "results.json")


def test_the_most_important_difference_decides_and_the_others_are_named(outcome, tmp_path):
    a = compare.load(written(tmp_path / "a", with_collisions(outcome, "old", A)))
    b = compare.load(written(tmp_path / "b", with_collisions(outcome, "new", B)))
    a.values["mean_speed"], b.values["mean_speed"] = np.full(40, 20.0), np.full(40, 25.0)
    found = compared(a, b, ("collision", "mean_speed"))
    assert found["verdict"] == "worse"
    assert "But it is better in: speed 25.00 m/s against 20.00 m/s, p < 0.001." in found["sentence"]
    assert compared(a, b, ("mean_speed", "collision"))["verdict"] == "better"
