"""The table of results: every row can be run, and the page says what the files of the rows hold."""

import importlib
import json

import pytest

import envs
from benchmarks import results, results_page
from benchmarks.results_rows import ROWS
from envs.errors import UserError
from train import common


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_rows_name_scenarios_and_commands_with_possible_settings(row, tmp_path):
    assert {row.trains, row.drives} <= set(envs.list_scenarios())
    assert (row.module is None) != (row.policy is None)
    if row.module is not None:
        command = importlib.import_module(row.module).COMMAND
        args = common.parse(command, row.options(1, tmp_path))
        assert args.env == row.trains
        command.check(args)


def run(seed, value, curve=()):
    figures = dict.fromkeys(results.KEPT) | {"episode_return": value, "collision": 0.25}
    return {"seed": seed, "steps": 1000, "seconds": 90, "machine": "m", "figures": figures, "curve": list(curve)}


def test_the_page_tells_interquartile_means_and_leaves_out_what_is_not_defined(tmp_path):
    (tmp_path / "results").mkdir()
    curve = [[100, 1.0, 0.5], [200, 2.0, 0.25]]
    row = {"format": 1, "title": "a driver", "scenario": "merge", "command": "python -m x", "episodes": 5}
    row |= {"runs": [run(seed, value, curve) for seed, value in enumerate((0.0, 10.0, 11.0, 12.0, 100.0))]}
    (tmp_path / "results" / "a.json").write_text(json.dumps(row))
    text = results_page.write_page(tmp_path).read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("| a driver")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    # A quarter of five, rounded down, is cut at either end: the mean of 10, 11 and 12.
    assert cells[:4] == ["a driver", "5", "1,000", "1.5"] and cells[4].startswith("11.00 (")
    assert cells[5] == "25.0 (25.0 to 25.0)" and "red lights" not in text
    assert (tmp_path / "images" / "results" / "merge.png").read_bytes().startswith(b"\x89PNG")


def test_a_curve_keeps_its_last_point_and_few_others(tmp_path):
    lines = [{"step": k, "charts/episodic_return": k / 3} for k in range(1, 1002)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    points = results.curve(tmp_path)
    assert 90 <= len(points) <= results.CURVE and points[-1] == [1001, 333.6667, 0.0]
    assert points == sorted(points)


def test_an_unknown_row_is_named(monkeypatch):
    monkeypatch.setattr("sys.argv", ["results", "--rows", "ppo-camera-merg"])
    with pytest.raises(UserError, match="did you mean 'ppo-camera-merge'"):
        results.main()
