"""The progress line and the rows that are written."""

import json

import pytest

from train.progress import MetricsFile, describe, renamed


def test_names_are_cleanrls_and_entropy_changes_sign():
    values = {"train/entropy_loss": -1.5, "time/fps": 1200, "train/policy_gradient_loss": 0.1, "time/iterations": 3}
    assert renamed(values) == {"losses/entropy": 1.5, "charts/SPS": 1200.0, "losses/policy_loss": 0.1}


def test_the_line_says_how_well_it_drives_and_how_long_it_takes():
    values = {
        "charts/SPS": 5000.0,
        "charts/episodic_return": 21.26,
        "rollout/collision_rate": 0.043,
        "rollout/mean_speed": 24.04,
    }
    text = describe(values, step=1_000_000, total=20_000_000)
    assert text == "5,000 steps/s  return 21.3  crashed 4.3%  24.0 m/s  1:03:20 left"
    assert describe({}, 0, 10) == ""


def test_rows_after_the_checkpoint_are_dropped_on_resume(tmp_path):
    first = MetricsFile(tmp_path, None)
    for step in (10, 20, 30):
        first.write({"time/fps": 1.0, "train/value_loss": float("nan")}, {}, step)
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4')  # cut off by the kill
    again = MetricsFile(tmp_path, 20)
    again.write({"time/fps": 2.0}, {}, 30)
    again.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["charts/SPS"]) for row in rows] == [(10, 1.0), (20, 1.0), (30, 2.0)]
    assert rows[0]["losses/value_loss"] is None


@pytest.mark.parametrize("cut", [0, 5])
def test_a_fresh_file_is_appended_to(tmp_path, cut):
    log = MetricsFile(tmp_path, None if cut == 0 else cut)
    log.write({"time/fps": 1.0}, {}, 10)
    log.close()
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 1
