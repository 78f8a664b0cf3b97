"""The probe benchmark: splits by episode, map and look, whole runs of a tiny one, the command and its bad input."""

import json
import shutil
import signal

import pytest
import torch

from agents.policies import ZOO
from envs import scenarios
from envs.errors import UserError
from envs.sensors.appearance import INDEX
from envs.sensors.rig import SURROUND
from evaluation.probes import __main__ as command
from evaluation.probes import benchmark, controls, dense, fits, looks, recording, report, sheet, summary
from evaluation.probes.benchmark import Row, Subject
from evaluation.probes.recording import check_apart, joined, maps_apart, record
from evaluation.probes.scores import FIGURES
from perception import encoders

WORLDS = 64


def subject(scenario: str = "highway", labels: tuple[str, ...] = ()) -> Subject:
    encoder = encoders.load(ZOO / "highway-small")
    return Subject(
        encoder,
        {"encoder": "small", "in_channels": 6, "height": 64, "width": 96},
        SURROUND,
        2,
        scenarios.get(scenario),
        WORLDS,
        labels,
        "cpu",
    )


@pytest.fixture(scope="module")
def short():
    """Everything as in the benchmark, but as short as it can be."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (recording, benchmark):
            patch.setattr(module, "PICTURES", 3)
        patch.setattr(controls, "STEPS", 3)
        patch.setattr(controls, "SUPERVISED_STEPS", 3)
        patch.setattr(fits, "STEPS", 20)
        patch.setattr(fits, "ITERATIONS", 5)
        patch.setattr(dense, "STEPS", 5)
        patch.setattr(dense, "WIDEST", 100)
        patch.setattr(sheet, "PICTURES", 2)
        patch.setattr(benchmark, "CORRUPTED", 20)
        yield


@pytest.fixture(scope="module")
def found(short):
    with torch.no_grad():
        return benchmark.pictures(subject(), 0)


# --- splits -----------------------------------------------------------------------------------------------------------


def test_no_episode_is_both_trained_and_tested_on(found):
    trained = set(map(tuple, found.train.episodes.tolist()))
    assert set(found.tests) == {"episodes", "maps", "weather", "surfaces"}
    for test in found.tests.values():
        assert len(test) > 0 and not trained & set(map(tuple, test.episodes.tolist()))
        same = (test.images[:, None, -3:, ::8, ::8] == found.train.images[None, :, -3:, ::8, ::8]).flatten(2).all(2)
        assert not same.any()


def test_a_single_leaked_frame_is_found(found):
    test = found.tests["episodes"]
    check_apart(found.train, test)
    last = torch.tensor([len(found.train) - 1])
    with pytest.raises(ValueError, match="1 episodes to test on are trained on too"):
        check_apart(found.train, joined([test, found.train.take(last)]))


def test_a_leak_ends_the_benchmark(short, monkeypatch):
    # Another recording under the seed of the training: other pictures of the same episodes.
    monkeypatch.setattr(benchmark, "record", lambda scenario, worlds, seed, *rest: record(scenario, 16, 7, *rest))
    with pytest.raises(ValueError, match="trained on too"):
        benchmark.pictures(subject(), 0)


def test_looks_are_held_out_of_the_training(found):
    def names(recording, group):
        return looks.is_held_out(recording.looks, group)

    assert not names(found.train, "weather").any() and not names(found.train, "surfaces").any()
    assert names(found.tests["weather"], "weather").all() and not names(found.tests["weather"], "surfaces").any()
    assert names(found.tests["surfaces"], "surfaces").all() and not names(found.tests["surfaces"], "weather").any()
    assert found.train.looks[:, INDEX["haze"]].min() > 105 and found.train.looks[:, INDEX["light"]].min() > 0.55
    assert not names(found.tests["maps"], "weather").any()


@pytest.mark.parametrize("name", ["highway", "town", "intersection-signals", "crossing"])
def test_other_maps_are_no_maps_of_the_training(name):
    known, elsewhere = maps_apart(scenarios.get(name))

    def drawn(scenario) -> set[str]:
        maps = [town.network for town in scenario.towns()[:3]] if "town" in scenario.name else scenario.maps()
        lines = [[line.tolist() for line, *_ in each.polylines()] for each in maps]
        laws = [(getattr(each, "junctions", ()), getattr(each, "crossings", ())) for each in maps]
        return {repr(both) for both in zip(lines, laws, strict=True)}

    assert not drawn(known) & drawn(elsewhere)


def test_a_scenario_with_one_map_has_no_others():
    assert maps_apart(scenarios.get("roundabout")) == (scenarios.get("roundabout"), None)


def test_recordings_keep_labels_and_pictures_together(found):
    train = found.train
    rows = torch.arange(0, len(train), 3)
    part = train.take(rows)
    assert torch.equal(part.images, train.images[rows]) and torch.equal(part.episodes, train.episodes[rows])
    place = {int(row): k for k, row in enumerate(train.dense)}
    for k, row in enumerate(part.dense.tolist()):
        at = place[int(rows[row])]
        assert torch.equal(part.segmentation[k], train.segmentation[at])
        assert torch.equal(part.occupancy[k], train.occupancy[at])
    both = joined([part, train])
    assert len(both) == len(part) + len(train) and torch.equal(both.dense[len(part.dense) :] - len(part), train.dense)
    assert torch.equal(both.labels["lane_offset"].value[: len(part)], part.labels["lane_offset"].value)


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(short):
    return benchmark.run(subject(), 0)[1]


def test_a_run_has_every_figure_of_every_reader(rows):
    where = {(row.test, row.features, row.probe, row.share) for row in rows if row.figure == "lane_offset MAE"}
    for features in ("encoder", "random", "supervised"):
        assert {("episodes", features, probe, 1.0) for probe in fits.PROBES} <= where
        assert {(test, features, "linear", 1.0) for test in ("maps", "weather", "surfaces", "clean", "fog 5")} <= where
    assert {("episodes", "pixels", "", 1.0), ("episodes", "constant", "", 1.0), ("noise 3", "pixels", "", 1.0)} <= where
    assert {row.figure for row in rows} <= set(FIGURES)
    absent = {"signal macro-F1", "curvature MAE"}
    assert not absent & {row.figure for row in rows}
    assert {row.probe for row in rows if row.figure == "occupancy IoU"} == {"decoder", ""}
    assert len({row[:-1] for row in rows}) == len(rows)


def test_the_same_seed_gives_the_same_figures(rows):
    assert benchmark.run(subject(), 0)[1] == rows


def test_a_label_that_the_scenario_lacks_is_named(short):
    with pytest.raises(UserError, match=r"'highway' has no label 'signal' to probe \(it has: lead_presence, .*\)"):
        benchmark.run(subject(labels=("lane_offset", "signal")), 0)


def some(features: dict[str, float], seeds: int = 1, figure: str = "lane_offset MAE") -> list[list[Row]]:
    probe = {"constant": "", "pixels": ""}
    return [
        [
            Row(figure, "episodes", name, probe.get(name, "linear"), 1.0, value + seed / 100)
            for name, value in features.items()
        ]
        for seed in range(seeds)
    ]


def test_what_comparing_says():
    found = summary.means(some({"constant": 0.8, "random": 0.6, "encoder": 0.3, "supervised": 0.2}))
    found["lane_offset MAE"]["episodes", "encoder", "linear", 0.01] = summary.interval([0.54])
    found["lane_offset MAE"]["clean", "encoder", "linear", 1.0] = summary.interval([0.3])
    for kind, value in zip(benchmark.CORRUPTIONS, (0.3, 0.33, 0.36, 0.3, 0.36), strict=True):
        found["lane_offset MAE"][f"{kind} 3", "encoder", "linear", 1.0] = summary.interval([value])
    verdict = summary.judged(found)["lane_offset MAE"]
    assert verdict["gap_closed"] == pytest.approx(0.75) and not verdict["gap_met"]
    assert verdict["few_labels"] == pytest.approx(0.9) and verdict["few_met"]
    assert verdict["growth"] == pytest.approx(0.1) and verdict["growth_met"]
    assert verdict["bar"] == 0.1 and not verdict["bar_met"]
    assert summary.skill(found, "lane_offset MAE", "encoder") == pytest.approx(1 - 0.3 / 0.8)
    assert summary.skill(found, "lane_offset MAE", "random", share=0.1) is None


def test_scores_are_turned_into_errors_before_they_are_compared():
    found = summary.means(
        some({"constant": 0.5, "random": 0.6, "encoder": 0.9, "supervised": 0.8}, figure="ttc_below_3s AUROC")
    )
    verdict = summary.judged(found)["ttc_below_3s AUROC"]
    assert verdict["gap_closed"] == pytest.approx(1.5) and verdict["gap_met"] and not verdict["bar_met"]
    assert summary.skill(found, "ttc_below_3s AUROC", "encoder") == pytest.approx(0.8)


def test_there_is_no_gap_where_supervision_is_no_better():
    found = summary.means(some({"random": 0.3, "encoder": 0.2, "supervised": 0.4}))
    assert summary.judged(found)["lane_offset MAE"]["gap_closed"] is None


def test_seeds_have_an_interval_around_their_mean():
    mean = summary.means(some({"encoder": 0.2}, seeds=5))["lane_offset MAE"]["episodes", "encoder", "linear", 1.0]
    assert mean["value"] == pytest.approx(0.22) and mean["seeds"] == pytest.approx([0.2, 0.21, 0.22, 0.23, 0.24])
    assert 0.2 <= mean["low"] < 0.22 < mean["high"] <= 0.24
    alone = summary.means(some({"encoder": 0.2}))["lane_offset MAE"]["episodes", "encoder", "linear", 1.0]
    assert alone["low"] is None and alone["high"] is None


# --- the command ------------------------------------------------------------------------------------------------------


def called(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["probes", *arguments])
    command.main()


def test_an_interrupted_run_goes_on_and_ends_like_one_that_was_not(short, rows, found, monkeypatch, tmp_path, capsys):
    calls = []

    def run(subject, seed, advance):
        calls.append(seed)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return found, [row._replace(value=row.value + seed / 1000) for row in rows]

    monkeypatch.setattr(benchmark, "run", run)
    arguments = ("--encoder", "zoo/highway-small", "--seeds", "3", "--worlds", "64", "--out")
    with pytest.raises(SystemExit) as ended:
        called(monkeypatch, *arguments, str(tmp_path / "a"))
    assert ended.value.code == 128 + signal.SIGTERM and not (tmp_path / "a/probes.json").exists()
    called(monkeypatch, *arguments, str(tmp_path / "a"))
    assert calls == [0, 1, 1, 2]
    one = json.loads((tmp_path / "a/probes.json").read_text())
    whole = summary.means([run(None, seed, None)[1] for seed in range(3)])
    assert one["figures"] == report.records(whole) and one["verdicts"] == summary.judged(whole)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["pictures.png", "probes.json", "probes.png"]
    assert (tmp_path / "a/probes.png").stat().st_size > 10_000
    figure = next(f for f in one["figures"] if f["figure"] == "lane_offset MAE" and f["features"] == "encoder")
    assert len(figure["seeds"]) == 3 and figure["low"] <= figure["value"] <= figure["high"]
    assert "Bars missed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--encoder", "zoo/highway-smal"], "unknown encoder 'zoo/highway-smal'; did you mean 'zoo/highway-small'?"),
        (["--encoder", "zoo/highway-ppo"], "encoder.json is missing"),
        (["--encoder", "zoo/highway-small", "--labels", "lane_ofset"], "did you mean 'lane_offset'?"),
        (["--encoder", "zoo/highway-small", "--env", "higway"], "did you mean 'highway'?"),
        (["--encoder", "zoo/highway-small", "--worlds", "4"], "at least 64 worlds"),
        (["--encoder", "zoo/highway-small", "--seeds", "0"], "a seed or more"),
    ],
)
def test_bad_input_is_named(monkeypatch, arguments, message):
    with pytest.raises(UserError) as error:
        called(monkeypatch, *arguments)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_an_encoder_of_another_size_or_rig_is_refused(monkeypatch, tmp_path):
    shutil.copytree(ZOO / "highway-small", tmp_path / "wide")
    path = tmp_path / "wide" / encoders.CARD
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"height": 48}))
    with pytest.raises(UserError, match=r"is for images of \[6, 48, 96\] .*, these are \[6, 64, 96\]"):
        called(monkeypatch, "--encoder", str(tmp_path / "wide"))
    card["rig"]["cameras"][0]["field_of_view"] = 70.0
    path.write_text(json.dumps(card))
    with pytest.raises(UserError, match="was trained with camera rig 'surround', whose cameras differ"):
        called(monkeypatch, "--encoder", str(tmp_path / "wide"))
    path.write_text(json.dumps(card | {"rig": {"name": "fisheye"}}))
    with pytest.raises(UserError, match="unknown camera rig 'fisheye'"):
        called(monkeypatch, "--encoder", str(tmp_path / "wide"))
