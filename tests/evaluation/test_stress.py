"""Adaptive stress testing: a failure path known in closed form, the same drive again from its file, the command."""

import json
import signal

import numpy as np
import pytest
import torch

from envs.errors import UserError
from envs.scenarios import stage
from evaluation import backends, drive, stress
from evaluation.api import evaluate
from evaluation.disturbances import Sequences
from evaluation.drive import SPARED, Drive, scores_of
from evaluation.likeliest import Search
from evaluation.regressions import load_regressions
from evaluation.stress import confirmed, searched
from evaluation.suites import FAMILIES, draw
from evaluation.suites.base import robot, scene


class Coasting:
    """Keeps its speed."""

    name, env_options = "coasting", {"observation": "state"}

    def act(self, obs):
        return torch.zeros(len(obs["ego"]), 2)

    def reset(self, done=None):
        pass


def coasting(cases):
    return Coasting(), stage.of(cases)


def idm(cases):
    return backends.driver("idm", cases, "cpu")


def case_with(*actors, number=0, duration=6.0):
    return scene(f"test/0-{number:04d}", {}, "road", (200.0, 3.5, 0.0), 20.0, actors, duration=duration)


# --- search -----------------------------------------------------------------------------------------------------------


def test_the_likeliest_path_to_a_rear_end_collision_is_found():
    # The ego and the car ahead drive at 20 m/s. Braking a_k in second k brings them sum of a_k w_k together by the end,
    # w_k = end - (k + 1/2): of all paths that close the gap the one of the least sum of squares is a_k = gap w_k / w.w.
    gap, w = 25.0, 6.0 - (np.arange(6) + 0.5)
    truth = -0.5 * gap**2 / (w @ w)
    each = Sequences(case_with(robot(205.0 + gap, 3.5, 20.0)), 1.0)
    (search,) = searched([each], Drive(coasting, "cpu", 0), 800, 0)
    best = each.at(search.points[search.failures()[0]])
    # Collisions are looked for a frame ahead: 3 % of the gap at most.
    assert 1.15 * truth <= each.log_likelihood(best) <= 0.94 * truth
    brakes = -best.actors[0][:, 0]
    assert brakes @ w / (np.linalg.norm(brakes) * np.linalg.norm(w)) > 0.95
    assert np.abs(best.actors[0][:, 1]).max() < 0.2


def test_cases_that_fail_without_disturbance_take_one_batch():
    cases = [case_with(robot(220.0, 3.5, 10.0)), case_with(robot(400.0, 3.5, 20.0), number=1)]
    found = searched([Sequences(case, 2.0) for case in cases], Drive(coasting, "cpu", 0), 120, 0)
    assert [len(search.scores) for search in found] == [50, 120]
    assert found[0].failures()[0] == 0 and len(found[1].failures()) == 0


def test_a_failure_that_does_not_come_about_again_gives_way_to_the_next():
    (case,) = draw(FAMILIES["lead-stop"], 1, 3)
    each = Sequences(case, 1.0)
    # With the first disturbances the car ahead hardly brakes; without any it stops before the ego, which coasts on.
    harmless, harmful = np.zeros(each.shape), np.zeros(each.shape)
    harmless[0, :, 0] = 5.9
    search = Search(np.full(each.dimension, 20.0), np.random.default_rng(0))
    points = np.stack([harmless.reshape(-1), harmful.reshape(-1)])
    assert scores_of([each.at(point).of(case) for point in points], coasting, "cpu", 3)[0] > 0.0
    search.tell(points[:1], np.array([-1.0]))
    assert confirmed([each], [search], coasting, "cpu", 3) == []
    search.tell(points[1:], np.array([-1.0]))
    (failure,) = confirmed([each], [search], coasting, "cpu", 3)
    assert failure.log_likelihood == 0.0 and failure.score < 0.0


# --- at fault ---------------------------------------------------------------------------------------------------------


def test_collisions_that_are_not_laid_to_the_ego_are_no_failures_where_only_those_are_meant():
    cases = [
        case_with(robot(220.0, 3.5, 10.0)),  # is run into
        case_with(robot(180.0, 3.5, 30.0), number=1),  # runs into the ego
        case_with(robot(240.0, 3.5, 20.0), number=2),  # keeps its distance
    ]
    np.testing.assert_allclose(scores_of(cases, coasting, "cpu", 0), [-10.0, -10.0, 35.0], atol=0.02)
    np.testing.assert_allclose(scores_of(cases, coasting, "cpu", 0, at_fault=True), [-10.0, SPARED, 35.0], atol=0.02)


# --- command ----------------------------------------------------------------------------------------------------------


def command(monkeypatch, out, *more):
    given = ["stress", "--policy", "idm", "--family", "cut-in-fast", "--cases", "3", "--budget", "200", "--out"]
    monkeypatch.setattr("sys.argv", [*given, str(out), *more])
    stress.main()


def test_the_command_finds_failures_that_drive_again_as_they_did(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    command(monkeypatch, out)
    found = json.loads((out / "stress.json").read_text())
    kept = json.loads((out / "regressions.json").read_text())["cases"]
    failed = [case for case in found["cases"] if case["log_likelihood"] is not None]
    assert 0 < len(failed) == len(kept) and f"{len(failed)} of 3 cases have a failure" in capsys.readouterr().out
    likelihoods = [each["log_likelihood"] for each in kept]
    assert likelihoods == sorted(likelihoods, reverse=True)
    # The file says all there is to say: its disturbances have the likelihood that it gives, and lead to its score.
    cases = load_regressions(out / "regressions.json")
    scores = scores_of(cases, idm, "cpu", found["seed"])
    assert scores == pytest.approx([each["score"] for each in kept], abs=1e-4) and (scores <= 0.0).all()
    for each in kept:
        (table,) = each["disturbances"]["actors"].values()
        z = np.array(table) / [1.0, 0.3]
        assert -0.5 * (z**2).sum() == pytest.approx(each["log_likelihood"], rel=1e-9)
    # An evaluation of the file is that drive too.
    results = evaluate("idm", suite=str(out / "regressions.json"), baselines=(), keep=0, out=tmp_path / "again")
    assert results["policies"][0]["summary"]["collision"]["value"] == 1.0
    assert (out / "stress.png").stat().st_size > 5000


def test_the_same_command_finds_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(stress, "_plot", lambda path, *found: path.touch())
    found = []
    for name, seed in (("one", "7"), ("two", "7"), ("other", "8")):
        command(monkeypatch, tmp_path / name, "--seed", seed, "--budget", "100", "--cases", "1", "--at-fault")
        document = json.loads((tmp_path / name / "stress.json").read_text())
        found.append((document["cases"], (tmp_path / name / "regressions.json").read_text()))
    assert found[0] == found[1] and found[0][0] != found[2][0]


def test_a_signal_ends_it_and_earlier_results_stay(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "stress.json").write_text("earlier")
    rolled, calls = drive._rolled, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return rolled(*arguments)

    monkeypatch.setattr(drive, "_rolled", interrupted)
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, out)
    assert ended.value.code == 128 + signal.SIGTERM and len(calls) == 2
    assert "nothing was replaced" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["stress.json"] and (out / "stress.json").read_text() == "earlier"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--family", "cut-inn"], "did you mean 'cut-in'"),
        (["--family", "roundabout-entry"], "nobody to disturb"),
        (["--policy", "carful"], "unknown policy"),
        (["--budget", "10"], "--budget at least 50"),
        (["--cases", "0"], "--cases must be at least 1"),
        (["--interval", "0"], "an interval of 0 s"),
    ],
)
def test_bad_input(arguments, message, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=message):
        command(monkeypatch, tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_bad_disturbances_in_a_file_are_named_with_their_case(tmp_path):
    case = {"family": "cut-in", "seed": 9, "parameters": draw(FAMILIES["cut-in"], 1, 7)[0].parameters}
    (tmp_path / "file.json").write_text(json.dumps({"cases": [case, case | {"disturbances": {"interval": -1.0}}]}))
    with pytest.raises(UserError, match="file.json: case 1: disturbances are an interval"):
        load_regressions(tmp_path / "file.json")
