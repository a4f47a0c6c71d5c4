"""Calibrated fans: factors for the spread of rollouts, fitted on validation windows.

The CRPS that trains a forecast's spread is flat around its minimum: a spread that is a quarter too small costs little,
but its intervals hold much less than they claim. One factor for each step ahead and dimension corrects that: it
stretches the central interval around the median of the rollouts until it holds its share of the validation values
(split conformal prediction with locally weighted residuals: Lei et al. 2018, section 5.2; two-sided as in Romano et
al. 2019).
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gssr.metrics import plotting_quantiles

LEVEL = 0.8
# With 20 windows the standard error of a share of 0.8 is 0.09; fewer give no useful factor.
FEWEST = 20
# Stretches of a horizon's length that count for one factor of all steps, and for a factor of 1 where fans would become
# narrower: windows overlap, and a few stretches may all be quiet ones.
BEFOREHAND = 10.0
SMALLEST, LARGEST = 0.25, 4.0
LEAST_GAIN = 0.005  # nats a token


class Calibration(nn.Module):
    """Factors (2, R, Y) of steps ahead 1 … R and value dimensions, without a goal and under one; 1 until ``fit``.

    Args:
        value_dim: Y. reach: R; a step further ahead takes the last factor.

    ``text_gain``: nats a token by which a text is likelier behind its own belief, with its values, than behind another
    one, as validation measured it; 1 until then, and 0 where the data have no texts.
    """

    factor: Tensor
    text_gain: Tensor

    def __init__(self, value_dim: int, reach: int = 64) -> None:
        super().__init__()
        self.register_buffer("factor", torch.ones(2, reach, value_dim))
        self.register_buffer("text_gain", torch.ones(()))

    def forward(self, sample: Tensor, under_goal: Tensor, recent: Tensor | None = None) -> Tensor:
        """Stretch samples (S, B, H, Y) around their median by the factors; under_goal (B,) is True with a goal.

        ``recent`` (B, Y): a further factor where there is no goal.
        """
        steps = torch.arange(sample.shape[2], device=sample.device).clamp(max=self.factor.shape[1] - 1)
        factor = self.factor[under_goal.long()][:, steps]
        if recent is not None:
            recent = recent.to(factor)[:, None]
            factor = factor * torch.where(under_goal[:, None, None], torch.ones_like(recent), recent)
        # A factor of 1 must keep every bit.
        middle = sample.median(0).values
        return torch.where(factor == 1, sample, middle + factor * (sample - middle))

    def tells(self) -> bool:
        """Whether beliefs say anything of texts; a warning where they do not."""
        if self.text_gain > LEAST_GAIN:
            return True
        warnings.warn(
            "plans have no texts: training had none, or those of validation were no likelier behind their own belief "
            f"than behind another one ({self.text_gain.item():+.3f} nats a token)",
            stacklevel=4,
        )
        return False

    def fit(self, goal: bool, needed: Sequence[Tensor]) -> None:
        """Set the factors without or under a goal from the ``stretch`` of batches, (N, H, Y) each; H may differ.

        A step's factor is drawn to that of all steps, and from below to 1, the more the fewer stretches of H steps
        there are: fans that a quiet validation part makes too narrow mislead more than fans that are too wide.
        """
        furthest = min(self.factor.shape[1], max(part.shape[1] for part in needed))
        own, stretches = [], []
        for step in range(furthest):
            # Step by step: torch takes quantiles of at most 16 million numbers.
            found = torch.cat([part[:, step] for part in needed if part.shape[1] > step]).to(self.factor)
            count = (~found.isnan()).sum(0)
            factor = found.nanquantile(LEVEL, dim=0).clamp(SMALLEST, LARGEST).log()
            own.append(torch.where(count >= FEWEST, factor, torch.zeros_like(factor)))
            stretches.append(count / furthest)
        log, count = torch.stack(own), torch.stack(stretches)
        log = (count * log + BEFOREHAND * log.mean(0)) / (count + BEFOREHAND)
        narrower = log * count / (count + BEFOREHAND)
        self.factor[int(goal), :furthest] = torch.where(log < 0, narrower, log).exp()
        self.factor[int(goal), furthest:] = self.factor[int(goal), furthest - 1]


def stretch(sample: Tensor, value: Tensor, value_mask: Tensor) -> Tensor:
    """The factor (B, H, Y) that stretches the central interval of samples (S, B, H, Y) to value (B, H, Y).

    NaN where the value was not observed, by value_mask (B, H, Y).
    """
    low, high = plotting_quantiles(sample, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    middle = sample.median(0).values
    away = value - middle
    half = torch.where(away > 0, high - middle, middle - low)
    return torch.where(value_mask, away.abs() / half.clamp(min=1e-12), torch.nan)
