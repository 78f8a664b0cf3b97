"""Fairness: the tests against scipy, the groups, and detection in worlds whose driver is known."""

import json

import numpy as np
import pytest
import torch
from scipy import stats

from envs.errors import UserError
from envs.scenarios import stage
from evaluation import backends, fairness
from evaluation.fairness import Drive, Person, crossed_by, detected, fisher, judged, people, rank_sum
from evaluation.suites import FAMILIES, draw


@pytest.mark.parametrize("table", [(3, 10, 1, 12), (0, 5, 4, 9), (20, 40, 61, 300), (5, 5, 5, 5), (0, 4, 0, 6)])
def test_the_exact_test_is_scipys(table):
    a, n, b, m = table
    assert fisher(*table) == pytest.approx(stats.fisher_exact([[a, n - a], [b, m - b]], alternative="greater").pvalue)


def test_the_rank_test_is_scipys():
    rng = np.random.default_rng(0)
    for _ in range(10):
        a, b = np.round(rng.normal(0, 3, 30)), np.round(rng.normal(1, 3, 50))  # with ties
        expected = stats.mannwhitneyu(a, b, alternative="less", method="asymptotic").pvalue
        assert rank_sum(a, b) == pytest.approx(expected)
    assert rank_sum(np.zeros(5), np.zeros(7)) == 1.0


def test_people_draw_every_attribute_from_all_of_it():
    crowd = people(500, 3)
    assert crowd == people(500, 3) and crowd != people(500, 4)
    heights = [person.height for person in crowd]
    assert stats.kstest(heights, stats.uniform(1.0, 0.95).cdf).pvalue > 1e-3
    assert {person.look for person in crowd} == set(range(1, 17))
    groups = {name: {person.groups[name] for person in crowd} for name in crowd[0].groups}
    assert {name: len(found) for name, found in groups.items()} == dict(height=5, clothing=3, light=3, weather=2)
    assert Person(1.0, 3, "day", "clear").groups["height"] == "1.00-1.20 m"
    assert Person(1.95, 3, "day", "clear").groups == {
        "height": "1.80-1.95 m", "clothing": "dark", "light": "day", "weather": "clear"
    }  # fmt: skip


def test_a_group_that_fares_worse_is_found_and_chance_is_not():
    crowd = people(400, 0)
    rng = np.random.default_rng(0)
    dark = np.array([person.groups["clothing"] == "dark" for person in crowd])
    contact = rng.random(400) < np.where(dark, 0.4, 0.1)
    seen_at = rng.uniform(10, 30, 400) * np.where(dark, 0.7, 1.0)
    seen_at[contact] = np.nan
    rows = judged(crowd, contact, seen_at, ["height", "clothing", "light", "weather"])
    assert [(row["group"], row["worse"]) for row in rows if row["worse"]] == [("dark", ["contact", "distance"])]
    (row,) = (row for row in rows if row["group"] == "dark")
    assert row["n"] == dark.sum() and row["contacts"] == contact[dark].sum()
    assert row["low"] < row["contacts"] / row["n"] < row["high"]

    # With 26 tests of groups that are alike, one in twenty evaluations may say that one is worse.
    wrong = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        rows = judged(people(200, seed), rng.random(200) < 0.2, rng.random(200), ["height", "clothing", "light"])
        wrong += any(row["worse"] for row in rows)
    assert wrong <= 8


def test_detection_is_the_first_braking_that_the_twin_does_not_do():
    def drive(braking):
        steps = torch.tensor(braking, dtype=torch.bool).T
        return Drive(
            torch.zeros(3, dtype=torch.bool), steps, torch.tensor([40.0, 30.0, 20.0, 10.0])[:, None].expand(4, 3)
        )

    with_person = drive([[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 0]])
    twin = drive([[0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]])
    found = detected(with_person, twin)
    assert found[:2].tolist() == [20.0, 40.0] and found[2].isnan()
    shorter = Drive(twin.contact, twin.braking[:2], twin.distance[:2])
    assert detected(with_person, shorter)[0] == 20.0


def test_a_case_differs_from_its_twin_by_the_person_alone():
    (case,) = draw(FAMILIES["cp-near-side"], 1, 5)
    there, gone = crossed_by(case, Person(1.12, 7, "dusk", "haze"))
    assert there.actors[0].size == (*case.actors[0].size[:2], 1.12) and there.actors[0].look == 7
    assert gone.actors == () and gone.x == case.x
    with pytest.raises(UserError, match="0 people"):
        crossed_by(draw(FAMILIES["cut-in"], 1, 5)[0], Person(1.5, 1, "day", "clear"))


# --- in worlds --------------------------------------------------------------------------------------------------------


def driven(name: str, cases, crowd):
    policy, scenario = backends.driver(name, cases, "cpu")
    worlds = backends.make_worlds("lanewise", scenario, len(cases), "cpu", policy.env_options)
    found = fairness.drive(worlds, policy, torch.ones(len(cases), dtype=torch.int64), crowd, 1, 0)
    worlds.close()
    return found


@pytest.mark.parametrize("name", ["careful", "idm", "random"])
def test_who_looks_brakes_for_people(name):
    cases, crowd = draw(FAMILIES["cp-near-side"], 8, 5), people(8, 5)
    pairs = [crossed_by(case, person) for case, person in zip(cases, crowd, strict=True)]
    drives = [driven(name, [pair[k] for pair in pairs], crowd) for k in (0, 1)]
    assert not drives[1].contact.any()
    if name != "random":
        at = detected(*drives)
        assert not drives[0].contact.any() and not drives[1].braking.any()
        # In time to stop at 8 m/s2.
        speeds = torch.tensor([case.speed for case in cases])
        assert (at > (speeds**2 / 16).clamp(max=5)).all() and (at < 100).all()


def test_light_and_haze_are_those_of_the_person_and_nothing_else_differs():
    (case,) = draw(FAMILIES["cp-near-side"], 1, 5)
    crowd = [Person(1.7, 1, "day", "clear"), Person(1.7, 1, "night", "clear"), Person(1.7, 1, "day", "haze")]
    worlds = backends.make_worlds(
        "lanewise", stage.of([crossed_by(case, crowd[0])[0]]), 3, "cpu", {"ego": "continuous"}
    )
    obs, _ = worlds.reset(seed=2, first_world=0)
    plain = obs["camera"].clone().float()
    fairness._light_up(worlds, crowd)
    day, night, haze = obs["camera"].float()
    assert torch.equal(day, plain[0])
    assert night.mean() == pytest.approx(0.45 * float(day.mean()), rel=0.05)
    assert (haze - day).abs().mean() > 3 and torch.equal(obs["camera"][:, :3], obs["camera"][:, 3:])
    worlds.close()


def test_the_command_writes_its_files(tmp_path, monkeypatch, capsys):
    arguments = ["fairness", "--policy", "careful", "--families", "cp-near-side", "--people", "20", "--seed", "3"]
    monkeypatch.setattr("sys.argv", [*arguments, "--out", str(tmp_path / "out")])
    fairness.main()
    found = json.loads((tmp_path / "out" / "fairness.json").read_text())
    assert found["people"] == 20 and not found["camera"]
    assert {row["attribute"] for row in found["groups"]} == {"height"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"fairness.json", "people.parquet", "fairness.png"}
    assert "has no camera" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--families", "cut-inn"], "did you mean 'cut-in'"),
        (["--families", "cut-in"], "0 people in a case"),
        (["--people", "5"], "20 people for each"),
        (["--policy", "carful"], "unknown policy"),
    ],
)
def test_bad_input(arguments, message, tmp_path, monkeypatch):
    given = ["fairness", "--policy", "careful", "--people", "40", "--out", str(tmp_path / "out"), *arguments]
    monkeypatch.setattr("sys.argv", given)
    with pytest.raises(UserError, match=message):
        fairness.main()
    assert not (tmp_path / "out").exists()
