"""Random numbers of an objective that needs some: part of its state, so that a training goes on exactly."""

import torch
from torch import nn


class Draws(nn.Module):
    """A generator on the module's device, whose state is in the module's `state_dict`. Its seed comes from torch's."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seed", torch.randint(2**62, ()))
        self._generator: torch.Generator | None = None

    @property
    def generator(self) -> torch.Generator:
        """Made at the first use: only then it is known where the module lives."""
        if self._generator is None or self._generator.device != self.seed.device:
            self._generator = torch.Generator(self.seed.device).manual_seed(int(self.seed))
        return self._generator

    def uniform(self, *shape: int) -> torch.Tensor:
        """Uniform in [0, 1)."""
        return torch.rand(shape, generator=self.generator, device=self.seed.device)

    def normal(self, *shape: int) -> torch.Tensor:
        """Of mean 0 and deviation 1."""
        return torch.randn(shape, generator=self.generator, device=self.seed.device)

    def integers(self, below: int, *shape: int) -> torch.Tensor:
        """int64, each of 0 to below - 1 as likely."""
        return torch.randint(below, shape, generator=self.generator, device=self.seed.device)

    def get_extra_state(self) -> torch.Tensor:
        """The generator's state (uint8); torch puts it into the `state_dict`."""
        return self.generator.get_state()

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Continue from what `get_extra_state` gave."""
        self.generator.set_state(state.cpu())
