"""Diagonal Gaussians. Shapes: any leading axes, the last one is the dimension of the variable."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Gaussian(NamedTuple):
    """N(mean, std²) with independent dimensions; mean and std of one shape, std > 0."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor | float) -> Tensor:
        """mean + std · noise; noise is standard normal, or 0 for the mean."""
        return self.mean + self.std * noise

    def nll(self, value: Tensor) -> Tensor:
        """-log density of each dimension, in nats."""
        return 0.5 * ((value - self.mean) / self.std).square() + self.std.log() + 0.5 * math.log(2 * math.pi)

    def where(self, condition: Tensor, other: "Gaussian") -> "Gaussian":
        return Gaussian(torch.where(condition, self.mean, other.mean), torch.where(condition, self.std, other.std))


def kl(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p) of each dimension in nats (Kingma & Welling 2014, appendix B, for a general Gaussian p)."""
    ratio = (q.std / p.std).square()
    return 0.5 * (ratio + ((q.mean - p.mean) / p.std).square() - 1 - ratio.log())


def multiply(a: Gaussian, b: Gaussian) -> Gaussian:
    """The normalised product of two densities: precisions add up, and weigh the means."""
    precision = a.std.square().reciprocal() + b.std.square().reciprocal()
    mean = (a.mean / a.std.square() + b.mean / b.std.square()) / precision
    return Gaussian(mean, precision.rsqrt())
