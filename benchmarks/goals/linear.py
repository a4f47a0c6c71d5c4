"""Paths of a linear autoregression with normal errors: what chances of goals are compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gssr.evaluation.baselines import LinearAutoregression, horizon_truth
from gssr.evaluation.imagining import pick_evenly
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch, Record

MOST = 4000  # windows


class LinearGaussian:
    """A ridge regression from the context to every later value; its errors are normal, and correlated over steps and
    values as they are on the training windows, which it is fitted to.

    Args:
        windows: of the training part, of one length.
    """

    def __init__(self, windows: Sequence[Record]) -> None:
        batch = collate([windows[i] for i in pick_evenly(len(windows), MOST)])
        self.linear = LinearAutoregression(ridge=1e-3).fit(batch)
        errors = (horizon_truth(batch) - self.linear.predict(batch)).flatten(1).double()
        spread = torch.cov(errors[errors.isfinite().all(1)].T)
        self.root = torch.linalg.cholesky(spread + 1e-6 * torch.diag(spread.diagonal() + 1e-6))

    def paths(self, batch: Batch, count: int, generator: torch.Generator) -> Tensor:
        """Paths (S, H, Y) of a batch of one sequence, in data units."""
        mean = self.linear.predict(batch)
        noise = torch.randn(count, len(self.root), generator=generator, dtype=self.root.dtype)
        return mean + (noise @ self.root.T).float().view(count, *mean.shape[1:])
