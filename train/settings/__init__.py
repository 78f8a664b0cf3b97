"""Settings that suit a scenario, in files: ALGORITHM-SCENARIO.json, as ppo-intersection.json.

A file holds "settings" (fields of the command's arguments that differ from its defaults) and "why": what they were
compared with. They stand in for the command's defaults; what the user writes goes before both.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def read(algorithm: str, scenario: str) -> dict[str, Any]:
    """The settings of an algorithm in a scenario; none where there is no file.

    Args:
        algorithm: as "PPO".
        scenario: its name.
    """
    path = FOLDER / f"{algorithm.lower()}-{scenario}.json"
    if not path.exists():
        return {}
    settings = json.loads(path.read_text())["settings"]
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


def suited(args: type, algorithm: str, scenario: str) -> Any:
    """A command's arguments with the settings that suit a scenario in place of the defaults."""
    return dataclasses.replace(args(env=scenario), **read(algorithm, scenario))
