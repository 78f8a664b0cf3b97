"""carla.json: the results of a policy as the CARLA leaderboard writes them, for tools that read that.

The names and their meaning are those of leaderboard 2.0, and so is the infraction penalty. What does not apply here
stays empty: nobody yields to emergency vehicles, no agent is blocked. An episode is a route; it ends with the first
collision, where CARLA drives on. Scores are null where an episode has no route, as on an open road; their means are
over the others, whose number is "routes_scored".

What was hit, if no person, is a vehicle or an object; the metrics do not say which, but the penalty in the driving
score does.

Source: statistics manager of the CARLA autonomous driving leaderboard 2.0.
"""

import math
from collections.abc import Sequence

import numpy as np

from evaluation.faults import NOT_FINITE, OK, RAISED, SIMULATOR
from evaluation.metrics.scores import FACTORS
from evaluation.results import Outcome, Setting

INFRACTIONS = {
    "collisions_pedestrian": "Collisions with pedestrians",
    "collisions_vehicle": "Collisions with vehicles",
    "collisions_layout": "Collisions with layout",
    "red_light": "Red lights infractions",
    "stop_infraction": "Stop sign infractions",
    "outside_route_lanes": "Off-road infractions",
    "route_dev": "Route deviations",
    "route_timeout": "Route timeouts",
    "vehicle_blocked": "Agent blocked",
    "yield_emergency_vehicle_infractions": "Yield emergency vehicles infractions",
    "scenario_timeouts": "Scenario timeouts",
    "min_speed_infractions": "Min speed infractions",
}
SCORES = ("score_composed", "score_route", "score_penalty")
COLLISIONS = {"pedestrian": "collisions_pedestrian", "vehicle": "collisions_vehicle", "static": "collisions_layout"}
FAULTS = {
    RAISED: "Failed - Agent crashed",
    NOT_FINITE: "Failed - Agent crashed",
    SIMULATOR: "Failed - Simulation crashed",
}


def carla_json(setting: Setting, outcome: Outcome) -> dict:
    """The results of a policy as the leaderboard writes them, ready for JSON.

    Args:
        setting: of the evaluation.
        outcome: of the policy.

    Returns:
        "_checkpoint" with "global_record", "progress" and "records", one an episode; "entry_status", "eligible",
        "sensors", "values" and "labels".
    """
    records = [_record(setting, outcome, episode) for episode in range(setting.episodes)]
    total = _global_record(records)
    simulator_failed = any(record["status"] == FAULTS[SIMULATOR] for record in records)
    figures = [total["scores_mean"][name] for name in SCORES] + [total["infractions"][name] for name in INFRACTIONS]
    return {
        "_checkpoint": {"global_record": total, "progress": [len(records), len(records)], "records": records},
        "entry_status": "Crashed" if simulator_failed else "Finished",
        "eligible": not simulator_failed,
        "sensors": [],
        "values": ["" if figure is None else str(figure) for figure in figures],
        "labels": ["Avg. driving score", "Avg. route completion", "Avg. infraction penalty", *INFRACTIONS.values()],
    }


def _record(setting: Setting, outcome: Outcome, episode: int) -> dict:
    """One episode."""

    def value(name: str) -> float | None:
        return float(outcome.values[name][episode]) if outcome.valid[name][episode] else None

    case = None if outcome.cases is None else outcome.cases[episode]
    completed, score = value("route_completion"), value("carla_driving_score_2_0")
    off_road = value("off_road") or 0.0
    penalty = score / (100 * completed) if score is not None and completed else None
    counts = {"red_light": round(value("red_lights") or 0), "stop_infraction": round(value("stop_line") or 0)}
    timeout = value("success") == 0 and not value("collision")
    infractions: dict[str, list[str]] = {name: [] for name in INFRACTIONS}
    for name, count in counts.items():
        infractions[name] = [f"Agent ran a {'red light' if name == 'red_light' else 'stop line'}"] * count
    if value("collision"):
        rest = 1 - off_road
        for name, count in (("red_light", counts["red_light"]), ("stop_sign", counts["stop_infraction"])):
            rest *= FACTORS[name] ** count
        hit = _struck(value("collision_with_person"), penalty, rest)
        speed = value("impact_speed")
        how = "" if speed is None else f" at {speed:.1f} m/s relative speed"
        infractions[COLLISIONS[hit]] = [f"Agent collided with {hit} in case {_name(setting, case, episode)}{how}"]
    if off_road:
        driven = off_road * (value("progress") or 0.0)
        # The words are those from which the leaderboard's tools read the distance, the ninth of them.
        infractions["outside_route_lanes"] = [
            f"Agent went outside its route lanes for about {driven:.3f} meters "
            f"({100 * off_road:.2f}% of the completed route)"
        ]
    if timeout:
        infractions["scenario_timeouts"] = ["Agent timed out before the goal"]
    number = sum(len(messages) for messages in infractions.values())
    driven = value("progress")
    return {
        "index": episode,
        "route_id": f"RouteScenario_{episode}_rep0",
        "scenario_name": setting.scenario if case is None else case.family,
        "save_name": _name(setting, case, episode),
        "status": _status(outcome, episode, bool(value("collision")), timeout, number),
        "num_infractions": number,
        "infractions": infractions,
        "scores": {
            "score_route": None if completed is None else round(100 * completed, 6),
            "score_penalty": None if penalty is None else round(penalty, 6),
            "score_composed": None if score is None else round(score, 6),
        },
        "meta": {
            "route_length": round(driven / completed, 3) if driven and completed else round(driven or 0.0, 3),
            "duration_game": round(value("duration") or 0.0, 3),
            "duration_system": round(outcome.seconds / setting.episodes, 3),
        },
    }


def _name(setting: Setting, case, episode: int) -> str:
    return f"{setting.scenario}/{setting.seed}-{episode:04}" if case is None else case.id


def _struck(person: float | None, penalty: float | None, rest: float) -> str:
    """What was hit: the kind whose factor comes closest to what is left of the penalty without the other infractions.

    Args:
        person: 1 for a person, 0 for anything else, None where that is not known.
        penalty: of the episode; None where it has none.
        rest: what the other infractions make of it.
    """
    if person:
        return "pedestrian"
    if penalty is None or not rest:
        return "vehicle"
    return min(("vehicle", "static"), key=lambda kind: abs(FACTORS[kind] - penalty / rest))


def _status(outcome: Outcome, episode: int, collided: bool, timeout: bool, infractions: int) -> str:
    fault = outcome.status[episode] if outcome.status else OK
    if fault != OK:
        return FAULTS[fault]
    if collided:
        return "Failed - Agent collided"
    if timeout:
        return "Failed - Agent timed out"
    return "Completed" if infractions else "Perfect"


def _global_record(records: Sequence[dict]) -> dict:
    """All episodes together: means and deviations of the scores, and infractions for each kilometre driven."""
    failed = [record for record in records if record["status"].startswith("Failed")]
    driven = 0.0
    for record in records:
        share = record["scores"]["score_route"]
        driven += record["meta"]["route_length"] / 1000 * (1.0 if share is None else share / 100)
    driven = max(driven, 0.001)
    infractions = {}
    for name in INFRACTIONS:
        messages = [message for record in records for message in record["infractions"][name]]
        if name == "outside_route_lanes":  # kilometres, not a count
            infractions[name] = round(sum(float(message.split()[8]) for message in messages) / 1000, 3)
        else:
            infractions[name] = round(len(messages) / driven, 3)
    scored = sum(record["scores"]["score_composed"] is not None for record in records)
    means, deviations = {}, {}
    for name in SCORES:
        values = [record["scores"][name] for record in records if record["scores"][name] is not None]
        means[name] = round(float(np.mean(values)), 6) if values else None
        deviations[name] = round(float(np.std(values, ddof=1)), 3) if len(values) > 1 else 0
    worst = "Failed" if failed else "Completed" if any(record["num_infractions"] for record in records) else "Perfect"
    return {
        "index": -1,
        "route_id": -1,
        "status": worst,
        "infractions": infractions,
        "scores_mean": means,
        "scores_std_dev": deviations,
        "meta": {
            "total_length": round(math.fsum(record["meta"]["route_length"] for record in records), 3),
            "duration_game": round(math.fsum(record["meta"]["duration_game"] for record in records), 3),
            "duration_system": round(math.fsum(record["meta"]["duration_system"] for record in records), 3),
            "routes_scored": scored,
            "exceptions": [[record["route_id"], record["index"], record["status"]] for record in failed],
        },
    }
