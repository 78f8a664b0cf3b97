"""Self-supervised objectives: one file and one short pure loss each, with the modules the loss needs around an encoder.

An objective is a module made from an encoder. It is called with a `Batch` of augmented camera images and returns the
loss and a dict of figures to log; after each optimiser step the trainer calls its `update`. What is worth keeping is
the encoder alone.
"""

from envs.errors import unknown
from perception.objectives.atc import ATC
from perception.objectives.batch import Batch, Objective

OBJECTIVES: dict[str, type[Objective]] = {"atc": ATC}


def get(name: str) -> type[Objective]:
    """The objective's class, by name.

    Raises:
        UserError: no such objective.
    """
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    return OBJECTIVES[name]


__all__ = ["OBJECTIVES", "Batch", "Objective", "get"]
