"""Self-supervised objectives: one file and one short pure loss each, with the modules the loss needs around an encoder.

An objective is a module made from an encoder. It is called with a `Batch` of augmented camera images and returns the
loss and a dict of figures to log; after each optimiser step the trainer calls its `update`. What is worth keeping is
the encoder alone.
"""

from envs.errors import unknown
from perception.objectives.atc import ATC
from perception.objectives.atc_behaviour import ATCBehaviour
from perception.objectives.barlow_twins import BarlowTwins
from perception.objectives.batch import Batch, Objective
from perception.objectives.beta_vae import BetaVAE
from perception.objectives.byol import BYOL
from perception.objectives.denoising import Denoising
from perception.objectives.latent_prediction import LatentPrediction
from perception.objectives.lejepa import LeJEPA
from perception.objectives.mae import MAE
from perception.objectives.moco import MoCo
from perception.objectives.moco_v3 import MoCoV3
from perception.objectives.rotation import Rotation
from perception.objectives.simclr import SimCLR
from perception.objectives.simsiam import SimSiam
from perception.objectives.vicreg import VICReg
from perception.objectives.vicreg_temporal import VICRegTemporal

OBJECTIVES: dict[str, type[Objective]] = {
    "atc": ATC,
    "atc_behaviour": ATCBehaviour,
    "latent_prediction": LatentPrediction,
    "vicreg": VICReg,
    "vicreg_temporal": VICRegTemporal,
    "lejepa": LeJEPA,
    "simclr": SimCLR,
    "moco": MoCo,
    "moco_v3": MoCoV3,
    "byol": BYOL,
    "simsiam": SimSiam,
    "barlow_twins": BarlowTwins,
    "mae": MAE,
    "beta_vae": BetaVAE,
    "denoising": Denoising,
    "rotation": Rotation,
}


def get(name: str) -> type[Objective]:
    """The objective's class, by name.

    Raises:
        UserError: no such objective.
    """
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    return OBJECTIVES[name]


__all__ = ["OBJECTIVES", "Batch", "Objective", "get"]
