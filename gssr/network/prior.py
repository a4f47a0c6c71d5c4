"""A forecaster of any single series, pretrained on generated ones: what a few hundred windows do not teach.

SeriesPrior.bundled()(y, season, steps)      # y (B, C), the next `steps` values: means and scales (B, steps)

python train.py fit --config configs/pretrain_series.yaml       trains the weights of the package anew
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from gssr.network.prior_inputs import ABOUT_CONTEXT, ABOUT_STEP, OF_CONTEXT, OF_STEP, of_context, of_steps
from gssr.states import state_file

FORM = "gssr-series-prior-1"
FILE = Path(__file__).parent / "prior.safetensors"
SHORTEST = 8  # steps of a context
WIDTH, ENCODED = 192, 128


class SeriesPrior(nn.Module):
    """Mean and scale of later values of contexts of any length, in whatever units:

        y_{C+h} = y_C + u (sum_k w_k(h) d_k + b(h) e_h),     its scale  u e_h s(h)

    u is the mean absolute deviation of the context. d are differences between its values, of the last ones, over
    seasons, and around the step of earlier seasons; e_h is the error of simple forecasts within the context
    (`gssr.network.prior_inputs`). Weights w, b and s are outputs of a net that has read d. So a forecast shifts and
    scales with its context, and values that repeat or grow exactly are continued exactly where the weights say so.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encode = _net(OF_CONTEXT + ABOUT_CONTEXT, WIDTH, WIDTH, ENCODED)
        self.decode = _net(ENCODED + OF_STEP + ABOUT_STEP, WIDTH, WIDTH, WIDTH, OF_CONTEXT + OF_STEP + 2)
        with torch.no_grad():
            self.decode[-1].weight.mul_(0.1)
            self.decode[-1].bias.zero_()

    def forward(self, y: Tensor, season: Tensor, ahead: Tensor | int) -> tuple[Tensor, Tensor]:
        """Means and scales (B, Q) of steps ahead.

        Args:
            y: (B, C), without a missing value, C at least SHORTEST. season: (B,), in steps, 0 where there is none.
            ahead: (B, Q) steps from 1 on, or how many.
        """
        if isinstance(ahead, int):
            ahead = torch.arange(1, ahead + 1, device=y.device).expand(len(y), -1)
        last, unit = y[:, -1:], spread_of(y)
        away = (y - last) / unit
        context = of_context(away, season)
        steps, expected = of_steps(away, season, ahead)
        encoded = self.encode(torch.cat([_squeezed(context.values), context.about], 1))
        encoded = encoded[:, None].expand(-1, ahead.shape[1], -1)
        weight = self.decode(torch.cat([encoded, _squeezed(steps.values), steps.about], -1))
        by_context, by_step, rest = weight.split([OF_CONTEXT, OF_STEP, 2], -1)
        mean = (by_context * context.values[:, None]).sum(-1) + (by_step * steps.values).sum(-1)
        mean = mean + rest[..., 1] * expected
        return last + unit * mean, unit * expected * rest[..., 0].clamp(-6, 6).exp()

    @classmethod
    @lru_cache(maxsize=1)
    def bundled(cls) -> SeriesPrior:
        """The one of the package. Raises ValueError where its file is damaged."""
        return cls.load(FILE)

    @classmethod
    def load(cls, file: str | Path) -> SeriesPrior:
        """Raises ValueError for a damaged file, and for one of another kind or size."""

        def build(tensors: dict[str, Tensor], about: dict[str, str]) -> SeriesPrior:
            # Also where a network without content is being built around it: the bundled one is kept.
            with torch.device("cpu"):
                prior = cls()
            expected = {name: tensor.shape for name, tensor in prior.state_dict().items()}
            if {name: tensor.shape for name, tensor in tensors.items()} != expected:
                raise ValueError("its sizes are not those of a series prior")
            if any(not tensor.is_meta for tensor in tensors.values()):
                prior.load_state_dict(tensors)
            return prior.eval().requires_grad_(False)

        return state_file.read(file, FORM, build)

    def save(self, file: str | Path, about: dict[str, str]) -> None:
        """Raises ValueError if the file cannot be written."""
        state_file.write(file, FORM, self.state_dict(), about)


def spread_of(y: Tensor) -> Tensor:
    """The mean absolute deviation (B, 1) of contexts (B, C), above 0."""
    found = (y - y.mean(1, keepdim=True)).abs().mean(1, keepdim=True)
    return torch.maximum(found, 1e-6 * y.abs().amax(1, keepdim=True)).clamp(min=1e-12)


def _net(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(a, b), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def _squeezed(values: Tensor) -> Tensor:
    return values.sign() * values.abs().log1p()
