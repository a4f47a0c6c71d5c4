"""The terms of the objective. Means run over valid (sequence, step) pairs; masks act before arithmetic."""

from typing import NamedTuple

import torch
from torch import Tensor

from gssr.network.gaussian import Gaussian, kl


class Measured(NamedTuple):
    """A mean, and the number of items (steps, tokens, goals) that it is over: 0 items have the mean 0."""

    mean: Tensor
    count: Tensor


class Losses(NamedTuple):
    """Unweighted losses by name, and their weighted sum; ``figures`` for the log: these losses, and KLs in nats."""

    terms: dict[str, Tensor]
    total: Tensor
    figures: dict[str, Measured]

    def means(self) -> dict[str, tuple[Tensor, int]]:
        """The figures that were measured on anything, each with its number of items."""
        counts = torch.stack([figure.count for figure in self.figures.values()]).tolist()  # waits for a GPU once
        return {
            name: (figure.mean, count)
            for (name, figure), count in zip(self.figures.items(), counts, strict=True)
            if count
        }


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values where mask is True, 0 (with a zero gradient) where nothing is; one shape for both."""
    kept = torch.where(mask, values, torch.zeros_like(values))
    return kept.sum() / mask.sum().clamp(min=1)


def value_nll(p: Gaussian, value: Tensor, value_mask: Tensor) -> Tensor:
    """-log p(y_t | x_t) in nats, summed over the observed of Y dimensions: (…, Y) to (…)."""
    return torch.where(value_mask, p.nll(value), torch.zeros_like(value)).sum(-1)


def kl_terms(q: Gaussian, p: Gaussian, mask: Tensor, free_nats: float) -> tuple[Tensor, Tensor, Tensor]:
    """KL(q || p) of (B, T, D) Gaussians over the steps of mask (B, T).

    Returns:
        clipped: mean of max(KL, free_nats) per step, KL summed over D (Kingma et al. 2016, "free bits", on the sum);
        raw: mean KL per step; per_dim: (D,) mean KL of each latent dimension. All in nats.
    """
    each = kl(q, p)
    total = each.sum(-1)
    per_dim = torch.where(mask[..., None], each, torch.zeros_like(each)).sum((0, 1)) / mask.sum().clamp(min=1)
    return masked_mean(total.clamp(min=free_nats), mask), masked_mean(total, mask), per_dim


def goal_distance(value: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Squared distance of value (…, Y) outside [low, high], 0 where a bound is NaN, summed over Y."""
    unbounded = torch.isnan(low) | torch.isnan(high)
    below = torch.where(unbounded, torch.zeros_like(value), low.nan_to_num() - value).clamp(min=0)
    above = torch.where(unbounded, torch.zeros_like(value), value - high.nan_to_num()).clamp(min=0)
    return (below.square() + above.square()).sum(-1)


def antithetic_crps(sample: Tensor, value: Tensor, value_mask: Tensor) -> Tensor:
    """Unbiased CRPS of S samples (S, B, T, Y) against (B, T, Y), summed over the observed of Y dimensions: (B, T).

        mean_i |v_i - y| - E|V - V'| / 2        (Gneiting & Raftery 2007, equation 21)

    Samples i and i + S/2 come from noise of opposite sign (Hammersley & Morton 1956), which takes most of the noise out
    of the first term's gradient. Such a pair is not independent, so the second term is the mean over all other pairs.
    S is even and at least 4.
    """
    size = len(sample)
    ordered = sample.sort(dim=0).values
    # sum_ij |v_i - v_j| = 2 rank . ordered
    rank = torch.arange(1 - size, size, 2, dtype=sample.dtype, device=sample.device)
    all_pairs = 2 * torch.tensordot(rank, ordered, dims=1)
    opposite = 2 * (sample[: size // 2] - sample[size // 2 :]).abs().sum(0)
    spread = (all_pairs - opposite) / (size * (size - 2))
    score = (sample - value).abs().mean(0) - spread / 2
    return torch.where(value_mask, score, torch.zeros_like(score)).sum(-1)
