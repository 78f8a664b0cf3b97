"""What in a picture spoke for and against the policy's decision, worked out while the window goes on."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from agents.policies import Policy, Tensors
from agents.saliency import Saliency
from evaluation.overlay import overlay
from evaluation.recorder import newest_picture


class Attention:
    """The looks of a policy at its decisions, on a thread of their own and never more than one at a time: where
    decisions come faster, some are left out, and the window has its pace.

    Args:
        policy: one that sees pictures.
        patient: wait for every look.
    """

    def __init__(self, policy: Policy, patient: bool):
        self._policy, self._patient = policy, patient
        self._by_method: dict[str, Saliency] = {}
        self._worker = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
        self._asked: tuple[Tensors, str] | None = None  # of which the latest look is, or will be
        self._coming: Future[np.ndarray] | None = None
        self._latest: np.ndarray | None = None

    def look(self, seen: Tensors, method: str) -> np.ndarray | None:
        """The picture of a decision under the colours of its shares; where that is not there yet the one before it, if
        any. Shape: (H, W, 3), uint8.

        Args:
            seen: what the policy was shown; the same object for the same decision. Shape: (1, ...).
            method: one of `perception.saliency.METHODS`.
        """
        self._take()
        asked = self._asked is not None and self._asked[0] is seen and self._asked[1] == method
        if not asked and self._coming is None:
            if self._asked is not None and self._asked[1] != method:
                self._latest = None
            self._asked = (seen, method)
            self._coming = self._worker.submit(self._work_out, seen, method)
            self._take()
        return self._latest

    def _take(self) -> None:
        """Take the look that is coming, if it is there."""
        if self._coming is not None and (self._patient or self._coming.done()):
            self._latest, self._coming = self._coming.result(), None

    def _work_out(self, seen: Tensors, method: str) -> np.ndarray:
        if method not in self._by_method:
            self._by_method[method] = Saliency(self._policy, method)
        shares = self._by_method[method].shares(seen)[0].cpu().numpy()
        return overlay(newest_picture(seen["camera"])[0].permute(1, 2, 0).cpu().numpy(), shares)

    def close(self) -> None:
        """End the thread."""
        self._worker.shutdown()
