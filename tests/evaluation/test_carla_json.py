import dataclasses
import json

import numpy as np
import pytest

from evaluation import endings
from evaluation.carla_json import INFRACTIONS, carla_json
from evaluation.metrics import METRICS
from evaluation.results import Outcome, Setting

SETTING = Setting("intersection", "lanewise", episodes=6, seed=1_000_000)
VEHICLE, STATIC, PERSON, RED, LATE = 0.6, 0.65, 0.5, 0.7, 0.7  # factors of leaderboard 2.0

# Six episodes: fine; hits a vehicle; hits an object after a red light; hits a person; too late, partly off the road;
# the policy raised.
NAN = np.nan
EPISODES = {
    "collision": [0, 1, 1, 1, 0, NAN],
    "collision_with_person": [NAN, 0, 0, 1, NAN, NAN],
    "success": [1, 0, 0, 0, 0, NAN],
    "route_completion": [1.0, 0.5, 0.5, 0.25, 0.8, NAN],
    "progress": [200.0, 100.0, 100.0, 50.0, 160.0, NAN],
    "off_road": [0, 0, 0, 0, 0.1, NAN],
    "red_lights": [0, 0, 1, 0, 0, NAN],
    "impact_speed": [NAN, 5.0, 4.0, 3.0, NAN, NAN],
    "duration": [20.0, 10.0, 10.0, 5.0, 30.0, NAN],
    "carla_driving_score_2_0": [100, 50 * VEHICLE, 50 * STATIC * RED, 25 * PERSON, 80 * 0.9 * LATE, NAN],
}


@pytest.fixture
def outcome():
    values = {name: np.array(EPISODES.get(name, [NAN] * 6), dtype=float) for name in METRICS}
    return Outcome(
        name="mine",
        spec="mine",
        values={name: np.nan_to_num(column) for name, column in values.items()},
        valid={name: ~np.isnan(column) for name, column in values.items()},
        endings=endings.unknown(6),
        replays={},
        seconds=12.0,
        steps=1,
        status=["ok"] * 5 + ["policy raised"],
        errors=[""] * 5 + ["ValueError"],
    )


def test_records(outcome):
    found = json.loads(json.dumps(carla_json(SETTING, outcome), allow_nan=False))
    fine, vehicle, static, person, late, broken = found["_checkpoint"]["records"]
    assert fine["status"] == "Perfect" and fine["num_infractions"] == 0
    assert fine["scores"] == {"score_route": 100.0, "score_penalty": 1.0, "score_composed": 100.0}
    assert fine["meta"] == {"route_length": 200.0, "duration_game": 20.0, "duration_system": 2.0}
    assert vehicle["status"] == "Failed - Agent collided" and vehicle["meta"]["route_length"] == 200.0
    assert vehicle["scores"]["score_penalty"] == pytest.approx(VEHICLE)
    for record, kind in (
        (vehicle, "collisions_vehicle"),
        (static, "collisions_layout"),
        (person, "collisions_pedestrian"),
    ):
        hits = {name: len(record["infractions"][name]) for name in INFRACTIONS if name.startswith("collisions")}
        assert hits == {"collisions_pedestrian": 0, "collisions_vehicle": 0, "collisions_layout": 0} | {kind: 1}
    assert "at 5.0 m/s" in vehicle["infractions"]["collisions_vehicle"][0]
    assert len(static["infractions"]["red_light"]) == 1 and static["num_infractions"] == 2
    assert late["status"] == "Failed - Agent timed out" and len(late["infractions"]["scenario_timeouts"]) == 1
    assert broken["status"] == "Failed - Agent crashed"
    assert broken["scores"] == {"score_route": None, "score_penalty": None, "score_composed": None}
    for record in found["_checkpoint"]["records"]:
        assert set(record["infractions"]) == set(INFRACTIONS)


def test_the_global_record(outcome):
    found = carla_json(SETTING, outcome)
    record = found["_checkpoint"]["global_record"]
    scores = np.array(EPISODES["carla_driving_score_2_0"][:5])
    assert record["scores_mean"]["score_composed"] == pytest.approx(scores.mean())
    assert record["scores_std_dev"]["score_composed"] == pytest.approx(scores.std(ddof=1), abs=5e-4)
    driven = 0.2 + 0.1 + 0.1 + 0.05 + 0.16  # km
    for name in ("collisions_vehicle", "collisions_layout", "collisions_pedestrian", "red_light", "scenario_timeouts"):
        assert record["infractions"][name] == pytest.approx(1 / driven, abs=5e-4)
    assert record["infractions"]["outside_route_lanes"] == pytest.approx(0.016)  # km
    assert record["status"] == "Failed" and len(record["meta"]["exceptions"]) == 5
    assert record["meta"]["exceptions"][0] == ["RouteScenario_1_rep0", 1, "Failed - Agent collided"]
    assert record["meta"]["duration_game"] == 75.0 and record["meta"]["routes_scored"] == 5
    assert found["_checkpoint"]["progress"] == [6, 6] and found["entry_status"] == "Finished" and found["eligible"]
    assert len(found["values"]) == len(found["labels"]) == 15
    assert found["values"][0] == str(record["scores_mean"]["score_composed"])


def test_without_routes_scores_are_null(outcome):
    names = ("route_completion", "carla_driving_score_2_0", "success")
    valid = outcome.valid | {name: np.zeros(6, bool) for name in names}
    found = carla_json(SETTING, dataclasses.replace(outcome, valid=valid))
    record = found["_checkpoint"]["records"][0]
    assert record["status"] == "Perfect" and record["scores"]["score_composed"] is None
    assert record["meta"]["route_length"] == 200.0
    assert found["_checkpoint"]["global_record"]["scores_mean"]["score_route"] is None
    assert found["values"][:3] == ["", "", ""]


def test_a_failed_simulator_is_no_result(outcome):
    found = carla_json(SETTING, dataclasses.replace(outcome, status=["ok"] * 5 + ["simulator failed"]))
    assert found["entry_status"] == "Crashed" and not found["eligible"]
    assert found["_checkpoint"]["records"][5]["status"] == "Failed - Simulation crashed"
