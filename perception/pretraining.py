"""Self-supervised training of an encoder: collect a drive, learn from it a few times over, collect the next.

Nothing here knows which objective it trains. Between two iterations the whole training can be written down and
continued exactly.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from envs.errors import UserError
from perception import diagnostics, objectives
from perception.augment import Augmentation
from perception.data import Drive, DrivingData
from perception.encoders import Encoder

COLLAPSED = 0.1  # of the spread 1/sqrt(d) of features that use every direction
MEASURED_EVERY, MEASURED_BATCHES = 10, 8  # iterations between two measurements, and how many batches one looks at


@dataclass(frozen=True)
class Settings:
    """How to train. The defaults are for two CPU cores and 64x96 images."""

    steps: int = 16  # policy steps of one drive, T
    worlds_per_batch: int = 16  # so a batch has steps x worlds_per_batch images
    passes: int = 2  # times each drive is learnt from
    learning_rate: float = 1e-3  # at its highest; rises over the first 2 % and falls as a cosine
    weight_decay: float = 1e-4
    gradient_norm: float = 5.0  # gradients are clipped to this


class Pretraining:
    """An encoder, the objective around it, the optimiser and the data, one iteration at a time.

    Args:
        encoder: what to train, on the data's device.
        objective: name of an objective.
        data: where images come from.
        augmentation: applied to every image once a pass.
        settings: how to train.
        seed: of the objective's heads and the order of the worlds.
    """

    def __init__(
        self,
        encoder: Encoder,
        objective: str,
        data: DrivingData,
        augmentation: Augmentation,
        settings: Settings,
        seed: int = 0,
    ):
        self.encoder, self.data, self.augmentation, self.settings = encoder, data, augmentation, settings
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.objective = objectives.get(objective)(encoder, data.num_actions).to(data.device)
        matrices = [p for p in self.objective.parameters() if p.requires_grad and p.ndim > 1]
        vectors = [p for p in self.objective.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
        self.order = torch.Generator().manual_seed(seed)
        self.drive: Drive | None = None
        self.frames = 0

    def iterate(self, progress: float) -> dict[str, float]:
        """Collect one drive and learn from it.

        Args:
            progress: share of the training that is done, 0 to 1; sets the learning rate.

        Returns:
            means of the objective's figures, "loss", "spread" and "learning_rate"; at the first and every tenth
            iteration also what `_measure` finds.

        Raises:
            UserError: the features have collapsed, or the loss is not a number.
        """
        rate = (
            self.settings.learning_rate
            * min(1.0, progress / 0.02 + 0.01)
            * 0.5
            * (1 + torch.cos(torch.tensor(torch.pi * min(progress, 1.0))).item())
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.drive = self.data.collect(self.settings.steps, self.drive)
        self.frames += self.settings.steps * self.data.num_worlds
        measured = (self.frames // self.drive.actions.numel() - 1) % MEASURED_EVERY == 0
        figures, recent = [], deque(maxlen=MEASURED_BATCHES)
        for batch in self.batches(self.drive):
            found, features = self.learn(batch)
            figures.append(found)
            recent.append(features)
        means = {name: torch.stack([figure[name] for figure in figures]).mean().item() for name in figures[0]}
        check(means, self.encoder.features)
        if measured:
            means |= self._measure(torch.cat(tuple(recent)), batch)
        return means | {"learning_rate": rate}

    def batches(self, drive: Drive) -> Iterator[objectives.Batch]:
        """What is learnt from a drive: each of its worlds in every pass, in a random order."""
        for _ in range(self.settings.passes):
            order = torch.randperm(self.data.num_worlds, generator=self.order).to(self.data.device)
            for worlds in order.split(self.settings.worlds_per_batch):
                images = drive.images.index_select(1, worlds)  # on a CPU several times as fast as indexing
                changed = self.augmentation(images.flatten(0, 1)).view_as(images)
                second = None
                if self.objective.VIEWS == 2:
                    second = self.augmentation(images.flatten(0, 1)).view_as(images)
                yield objectives.Batch(changed, images, drive.actions[:, worlds], drive.episodes[:, worlds], second)

    def learn(self, batch: objectives.Batch) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """One optimiser step: the figures of its batch, and the features [N, features]."""
        loss, figures = self.objective(batch)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.objective.parameters(), self.settings.gradient_norm)
        self.optimizer.step()
        self.objective.update()
        features = figures.pop("features")
        figures = {name: value.detach() for name, value in figures.items()}
        return figures | {"loss": loss.detach(), "spread": spread(features)}, features

    @torch.no_grad()
    def _measure(self, features: torch.Tensor, batch: objectives.Batch) -> dict[str, float]:
        """Diagnostics, alike for all objectives: "rankme" and "uniformity" of the latest batches' features
        [N, features], and "alignment" of the features of a batch's plain images with those of their augmentations.
        """
        plain, augmented = (self.encoder(images.flatten(0, 1)) for images in (batch.plain, batch.augmented))
        figures = {
            "rankme": diagnostics.rankme(features),
            "uniformity": diagnostics.uniformity(features),
            "alignment": diagnostics.alignment(plain, augmented),
        }
        return {name: value.item() for name, value in figures.items()}

    def state(self) -> dict[str, torch.Tensor]:
        """Everything needed to go on exactly, as tensors by name. Take it between iterations."""
        state = {f"objective.{name}": value for name, value in self.objective.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
        state |= {f"data.{name}": value for name, value in self.data.state().items()}
        return state | {
            "augmentation": self.augmentation.state(),
            "order": self.order.get_state(),
            "frames": torch.tensor(self.frames),
        }

    def set_state(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from what `state` gave, in a training made with the same arguments.

        Raises:
            UserError: the state is of another objective, encoder or number of worlds.
        """

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

        try:
            self.objective.load_state_dict(part("objective."))
            moments: dict[int, dict[str, torch.Tensor]] = {}
            for name, value in part("optimizer.").items():
                index, moment = name.split(".")
                moments.setdefault(int(index), {})[moment] = value
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
            self.data.set_state(part("data."))
            self.augmentation.set_state(state["augmentation"])
            self.order.set_state(state["order"])
            self.frames = int(state["frames"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise UserError(f"the checkpoint does not fit this training: {str(error).splitlines()[0]}") from None


def spread(features: torch.Tensor) -> torch.Tensor:
    """Mean over directions of the standard deviation of l2-normalised features [N, d]: about 1/sqrt(d) when all are
    used, 0 when all features are one.
    """
    return torch.nn.functional.normalize(features, dim=1).std(0).mean()


def check(figures: dict[str, float], features: int) -> None:
    """The collapse alarm.

    Args:
        figures: means of one iteration, with "loss" and "spread".
        features: size of the encoder's output, d.

    Raises:
        UserError: the spread is far below 1/sqrt(d), or the loss is not finite.
    """
    if not figures["loss"] < float("inf"):
        raise UserError("the training diverged: its loss is not a number; lower the learning rate")
    if figures["spread"] < COLLAPSED / features**0.5:
        healthy = features**-0.5
        raise UserError(
            f"the features collapsed: their spread is {figures['spread']:.2g}, about {healthy:.2g} is healthy; "
            "no encoder was written"
        )
