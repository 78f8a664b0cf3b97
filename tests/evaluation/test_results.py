import dataclasses
import html.parser
import json
import math
import re

import numpy as np
import pyarrow.parquet
import pytest

from envs.scenarios.stage import Case
from evaluation import plots, results
from evaluation.metrics import METRICS
from evaluation.report import html_report, rich_table, verdict
from evaluation.results import Setting, document, evaluate, summarise

SETTING = Setting("fake", "lanewise", episodes=40, seed=1_000_000)


@pytest.fixture
def outcome(make_worlds, policy):
    return evaluate(make_worlds, policy, "spec", SETTING, keep=3)


def without_collisions(outcome):
    values = outcome.values | {"collision": np.zeros(40)}
    return dataclasses.replace(outcome, name="careful", values=values, replays={})


def test_failures_and_one_success_are_kept(outcome):
    # Episode e starts at 20 + e m and ends without a collision from 45 m on.
    assert outcome.values["collision"].tolist() == [1.0] * 25 + [0.0] * 15
    assert sorted(outcome.replays) == [0, 1, 2, 25]
    assert outcome.replays[1].about["collision_time"] == pytest.approx((21 - 5 + 1) / 5)
    assert outcome.replays[25].about["collision_time"] is None
    assert outcome.steps == sum(-(-(e + 16) // 5) if e < 25 else 8 for e in range(40))


def test_summaries():
    rate = summarise(METRICS["collision"], np.array([0.0, 1, 0, 0]), np.array([True, True, True, False]))
    assert (rate["n"], rate["count"], rate["value"]) == (3, 1, pytest.approx(1 / 3))
    none = summarise(METRICS["collision"], np.zeros(298), np.ones(298, bool))
    assert none["bound"] == pytest.approx(0.01, rel=1e-3) and none["low"] == 0
    ttc = np.array([0.5, 0.9, 1.0, 4.0, np.inf])
    mean = summarise(METRICS["minimum_time_to_collision"], ttc, np.isfinite(ttc))
    assert mean["value"] == pytest.approx(1.6) and mean["low"] < 1.6 < mean["high"]
    assert mean["quantiles"][3] == pytest.approx(0.95)
    assert (mean["critical"]["count"], mean["critical"]["n"]) == (2, 4)
    assert summarise(METRICS["mean_speed"], np.zeros(2), np.zeros(2, bool))["value"] is None
    capped = dataclasses.replace(METRICS["mean_speed"], limit=3.0)
    speeds = summarise(capped, np.array([2.0, 3.0, 4.0, 5.0]), np.ones(4, bool))
    assert (speeds["critical"]["count"], speeds["critical"]["n"]) == (2, 4)


def test_files_hold_the_same(outcome, tmp_path):
    found = document(SETTING, [outcome, without_collisions(outcome)], {0: {"replay": "replays/a"}})
    results.write_json(tmp_path / "results.json", found)
    results.write_parquet(tmp_path / "episodes.parquet", found)

    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    read = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    assert read["policies"][0]["summary"]["collision"]["count"] == 25
    assert read["held_out"] and read["seed"] == 1_000_000
    assert read["versions"]["torch"] and read["machine"]["cores"] >= 1
    assert read["policies"][0]["recordings"] == [{"episode": 0, "replay": "replays/a"}]

    table = pyarrow.parquet.read_table(tmp_path / "episodes.parquet").to_pylist()
    assert len(table) == 80
    for row, expected in zip(table, read["policies"][0]["episodes"], strict=False):
        assert {"policy": "straight"} | expected == row
    assert table[30]["impact_speed"] is None and table[3]["impact_speed"] == pytest.approx(5.0)
    # Episode 3 begins 23 m behind a car of 5 m; the gap falls by 1 m a frame, of 5 m of the ego.
    assert (table[3]["failure"], table[3]["map"], table[30]["failure"]) == ("collision at fault", "0", None)
    assert table[3]["failure_x"] == table[3]["end_x"] == pytest.approx(5.0 * (23 - 5 + 1))
    assert table[30]["failure_x"] is None and table[30]["end_x"] == pytest.approx(5.0 * 40)


def staged(outcome, families=("near", "far")):
    """The same outcome over cases: the first 20 episodes of one family, the others of another."""
    cases = [
        Case(f"{families[k // 20]}/0-{k:04d}", families[k // 20], "road", 0, 0, 0, 25, 25, parameters={"gap": 20.0 + k})
        for k in range(40)
    ]
    return dataclasses.replace(outcome, cases=cases)


def test_families_are_summarised_apart(outcome):
    found = staged(outcome).families
    assert list(found) == ["near", "far"]
    assert (found["near"]["collision"]["count"], found["far"]["collision"]["count"]) == (20, 5)
    whole = outcome.summary["mean_speed"]["value"]
    assert np.mean([found[name]["mean_speed"]["value"] for name in found]) == pytest.approx(whole)
    assert outcome.families == {}


def test_cases_and_faults_in_the_files(outcome, tmp_path):
    status = ["policy raised"] + ["ok"] * 38 + ["not finite"]
    errors = ["ValueError: no"] + [""] * 38 + ["nan"]
    tested = dataclasses.replace(staged(outcome), status=status, errors=errors)
    tested.valid["collision"][0] = False
    everywhere = outcome.valid | {"collision": np.ones(40, bool)}
    careful = dataclasses.replace(without_collisions(staged(outcome)), valid=everywhere)
    found = document(dataclasses.replace(SETTING, suite="two"), [tested, careful], {})
    assert (found["suite"], found["cases"]) == ("two", 40)
    policy = found["policies"][0]
    assert policy["faults"] == {"policy raised": 1, "not finite": 1}
    assert (policy["avoidable"]["reference"], policy["avoidable"]["count"]) == ("careful", 24)
    results.write_parquet(tmp_path / "episodes.parquet", found)
    table = pyarrow.parquet.read_table(tmp_path / "episodes.parquet")
    assert table.column_names[:8] == ["policy", "episode", "case", "family", "status", "error", "failure", "map"]
    rows = table.to_pylist()
    assert [row["status"] for row in rows[:40]] == status and rows[39]["error"] == "nan" and rows[1]["error"] is None
    assert rows[0]["collision"] is None and rows[25]["parameter.gap"] == 45.0 and rows[25]["family"] == "far"
    assert {row["map"] for row in rows} == {"road"}


def test_the_command_is_told_without_where_it_was_done(outcome, monkeypatch):
    given = ["--policy", "a b", "--workers", "3", "--ray-address=auto", "--seed", "7", "--workers=2"]
    monkeypatch.setattr(results.sys, "argv", ["evaluation", *given])
    assert document(SETTING, [outcome], {})["command"] == "python -m evaluation --policy 'a b' --seed 7"


def test_verdict(outcome):
    headline, sentences = verdict(SETTING, [outcome, without_collisions(outcome)])
    assert headline == "straight collided in 25 of 40 episodes: 62.5 % (95 % interval 45.8 to 77.3 %)."
    assert "5.0 m/s faster than the traffic" in sentences[0]
    assert "careful 0.0 %" in sentences[1]
    headline, sentences = verdict(dataclasses.replace(SETTING, seed=3), [without_collisions(outcome)])
    bound = 100 * (1 - math.exp(math.log(0.05) / 40))
    assert headline.endswith(f"with 95 % confidence it collides in fewer than {bound:.2g} %.")
    assert sentences[-1].startswith("The episodes are not held out")


class Page(html.parser.HTMLParser):
    """Collects what a page would load, and checks that its tags match."""

    VOID = {"meta", "link", "br", "line", "circle", "rect"}

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.text, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "poster")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in self.VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_report_is_one_file(outcome, tmp_path):
    outcome = dataclasses.replace(outcome, name="<b>straight & on</b>")
    outcomes = [outcome, without_collisions(outcome)]
    (tmp_path / "a.mp4").write_bytes(b"film")
    found = document(SETTING, outcomes, {0: {"replay": "replays/a.safetensors"}})
    setting = dataclasses.replace(SETTING, scenario="highway")  # the road of these worlds
    content = html_report(setting, outcomes, found, {0: tmp_path / "a.mp4"}, tmp_path)
    page = Page()
    page.feed(content)
    assert page.open == []
    assert page.loads and all(address.startswith("data:") for address in page.loads)
    assert not re.search(r"https?://|url\(|<script|<b>", content)
    text = "".join(page.text)
    assert text.index("collided in 25 of 40") < text.index("Collision rate, with 95 % interval")
    for metric in METRICS.values():  # these worlds have no goal, for one
        assert (metric.title in text) == (metric.everywhere or outcome.valid[metric.name].any()), metric.name
    assert "video" in page.tags and f"--replay {tmp_path}/replays/a.safetensors" in text
    assert "<svg" in content


def test_the_table_has_a_column_a_policy(outcome):
    table = rich_table(SETTING, [outcome, without_collisions(outcome)])
    assert [column.header for column in table.columns] == ["", "straight", "careful"]
    assert [str(cell) for column in table.columns for cell in list(column.cells)[:1]] == [
        "Collision rate",
        "62.5 %  45.8 to 77.3",
        "0.0 %  0.0 to 8.8",
    ]


@pytest.mark.parametrize(
    "samples",
    [[[1.0]], [[1.0, 1.0], []], [[-3.0, 5.0], [2.0]], [[0.0] * 99 + [1e6]], [list(range(1000))], [[1e-9, 2e-9]]],
    ids=["one value", "equal values", "negative", "outlier", "many", "tiny"],
)
def test_plots_stay_in_their_frame(samples):
    plot = plots.histograms([f"p{k}" for k in range(len(samples))], [np.array(s) for s in samples], "m", 1.0)
    for x in re.findall(r' x[12]?="([^"]+)"', plot):
        assert -1 <= float(x) <= plots.WIDTH
    assert "nan" not in plot and "inf" not in plot


def test_a_plot_of_nothing_is_left_out():
    assert plots.histograms(["a"], [np.array([])], "m") == ""
