"""How much of a forecast is the pretrained one's, beside a linear autoregression: tried at rolling origins."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gssr.network.linear_fit import Fit, Linear, ahead, origins, refit
from gssr.network.prior import SHORTEST, SeriesPrior

TRIED = tuple(i / 20 for i in range(21))  # shares
PARTS = 3  # of the horizon, each with a share of its own
DRAWN = 0.5  # how far a part's share is drawn to that of all steps


class Share(NamedTuple):
    """The pretrained forecast's share of each step (H), and the error of the mixture over that of the autoregression
    alone."""

    each: Tensor
    error: Tensor


def prior_forecasts(prior: SeriesPrior, y: Tensor, season: int | Tensor | None, steps: int) -> Tensor:
    """The next values (N, H, Y) of contexts (N, C, Y), column by column, missing ones filled by those before."""
    size, length, width = y.shape
    rows = y.movedim(2, 1).reshape(size * width, length).float()
    seasons = torch.as_tensor(season or 0, device=y.device).expand(len(rows))
    return prior(rows, seasons, steps)[0].view(size, width, steps).movedim(1, 2)


@torch.no_grad()
def best_share(fit: Fit, forecasts: Tensor, longest: int) -> Share | None:
    """The shares whose mixture has the smallest mean absolute error at the origins at which autoregressions are chosen.

    None where there is no origin, or the context is too short.

    Args:
        fit: the autoregression of a dimension, see `linear_fit.fit_each`. forecasts: (N, H), of its windows.
        longest: P, the longest lag.
    """
    windows, context = fit.windows, fit.windows.context
    horizon, errors = windows.series.shape[1] - context, []
    if fit.linear is None or context < SHORTEST:
        return None
    shares = torch.tensor(TRIED, dtype=torch.float64)[:, None, None]
    for before, (first, end) in origins(windows):
        behind = windows.part(first, end)
        found = Linear(*(part[None] for part in refit(before, fit.candidate, min(longest, context))))
        ways, shift, _ = ahead(found, horizon)
        linear = behind.series[:, context - ways.shape[-1] : context].flip(1) @ ways[0].T + shift[0]
        away, known = behind.series[:, context:] - linear, behind.known[:, context:]
        error = (away - shares * (forecasts[first:end].double() - linear)).abs() * behind.size[:, None]
        count = known.sum(0).clamp(min=1)
        errors.append(torch.where(known, error, torch.zeros_like(error)).sum(1) / count)  # (tried, H)
    if not errors:
        return None
    error = torch.stack(errors).mean(0)
    tried = shares[:, 0, 0]
    middle = tried[(error / error.mean(0)).sum(1).argmin()]
    each = torch.empty(horizon, dtype=torch.float64)
    for part in torch.arange(horizon).tensor_split(min(PARTS, horizon)):
        score = error[:, part].mean(1)
        score = score + DRAWN * score.min() * (tried - middle).square()
        each[part] = tried[score.argmin()]
    best = error.gather(0, (each * (len(TRIED) - 1)).round().long()[None])[0]
    return Share(each.float(), (best.sum() / error[0].sum().clamp(min=1e-12)).float())
