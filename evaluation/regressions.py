"""Cases that a search has found: a suite of regressions, which later evaluations include."""

import json
from dataclasses import replace
from pathlib import Path

from envs.errors import UserError, unknown
from envs.scenarios.stage import Case
from evaluation.disturbances import Disturbances
from evaluation.suites import FAMILIES, Family

Parameters = dict[str, float]
DISTURBANCES = ("speed", "duration", "acceleration", "lateral_speed")


def staged(family: Family, id: str, parameters: Parameters) -> Case:
    """The case of a family for parameters and disturbances, see `Space.at`."""
    own = {name: parameters[name] for name in family.parameters}
    case = family.build(id, own)
    scales = {name: parameters.get(f"disturb.{name}", 1.0) for name in DISTURBANCES}
    speed = scales.pop("speed")
    if speed == 1.0 and set(scales.values()) == {1.0}:
        return case
    actors = tuple(
        replace(
            actor,
            speed=actor.speed * speed,
            script=tuple(
                replace(piece, **{name: getattr(piece, name) * scale for name, scale in scales.items()})
                for piece in actor.script
            ),
        )
        if actor.motion == "scripted"
        else actor
        for actor in case.actors
    )
    return replace(case, actors=actors, parameters=dict(parameters))


def regression(family: Family, seed: int, number: int, parameters: Parameters) -> Case:
    """A case under an id of its own, as "cut-in-found/7-0003": it is no draw of its family."""
    case = staged(family, f"{family.name}/{seed}-{number:04d}", parameters)
    return replace(case, id=f"{family.name}-found/{seed}-{number:04d}")


def load_regressions(path: str | Path) -> list[Case]:
    """The cases of a regressions.json, those of `evaluation.stress` with their disturbances.

    Raises:
        UserError: the file is missing or is none.
    """
    try:
        found = json.loads(Path(path).read_text())
        wanted = [
            (each["family"], int(each["seed"]), dict(each["parameters"]), each.get("disturbances"))
            for each in found["cases"]
        ]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds no regressions, as evaluation.search writes them: {error!r}") from None
    if not wanted:
        raise UserError(f"{path} has no cases: the search found no failures")
    cases = []
    for number, (name, seed, parameters, disturbances) in enumerate(wanted):
        if name not in FAMILIES:
            raise unknown("family", name, FAMILIES)
        if missing := FAMILIES[name].parameters.keys() - parameters.keys():
            raise UserError(f"{path}: case {number} lacks the parameters {', '.join(sorted(missing))} of '{name}'")
        case = regression(FAMILIES[name], seed, number, parameters)
        if disturbances is not None:
            try:
                case = Disturbances.read(case, disturbances).of(case)
            except UserError as error:
                raise UserError(f"{path}: case {number}: {error}") from None
        cases.append(case)
    return cases
