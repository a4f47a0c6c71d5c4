"""Select among the rows of a prompt: best of K, best of K at each block, and particles.

All three write K rows a prompt and read the same number of tokens. Each works on top of any steering: its rows are
the steered model's.

Particles (Naesseth et al. 2019) have weights. With v_t the value of a row after t tokens, v_0 = 0 and v at the end the
score, a row gains the weight exp(s · (v_t - v_before)), s the sharpness; where the weights of a prompt's rows become
uneven, rows are drawn anew by weight. Whatever the values on the way,

    the mean over texts of exp(s · score), and the weighted mean of any function under p(text) · exp(s · score)

are estimated without bias, the latter but for the normalisation.

Shapes: P prompts, K rows a prompt, B = P · K rows, t new tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gssr.search.decoding.rows import Rows
from gssr.search.decoding.scoring import likelihood

Value = Callable[[Rows], Tensor]
RESAMPLE_BELOW = 0.5  # effective rows, as a share of K


@dataclass(frozen=True, eq=False)
class Selected:
    """What was written and which row is taken.

    Args:
        tokens, texts: of all rows, (B, t) and B.
        scores: (P, K), float64.
        chosen: (P,), the best row of each prompt, counted from 0; among equals the likeliest.
        log_weights: (P, K), normalised; even where rows are not weighed.
        log_evidence: (P,), log of the estimated mean of exp(s · score); None where rows are not weighed.
        effective: (P,), by resampling point, the effective number of rows before it.
        calls, read: forward calls, and tokens that they read in all rows together.
    """

    tokens: Tensor
    texts: list[str]
    scores: Tensor
    chosen: Tensor
    log_weights: Tensor
    log_evidence: Tensor | None
    effective: list[Tensor]
    calls: int
    read: int

    @property
    def best(self) -> list[str]:
        """The text that is taken for each prompt."""
        return [self.texts[row] for row in self.chosen_rows.tolist()]

    @property
    def chosen_rows(self) -> Tensor:
        """(P,), among all B rows."""
        return self.chosen + torch.arange(len(self.chosen)) * self.scores.shape[1]


def best_of(rows: Rows, score: Value) -> Selected:
    """Write all rows to their end; the best is taken."""
    rows.write(rows.decoding.tokens)
    return _select(rows, _by_prompt(rows, score(rows)))


def blockwise(rows: Rows, score: Value, every: int, value: Value | None = None) -> Selected:
    """After every block of tokens all rows of a prompt go on from its best.

    Args:
        every: tokens of a block.
        value: of unfinished rows; by default their score.
    """
    while True:
        rows.write(every)
        if rows.finished:
            return _select(rows, _by_prompt(rows, score(rows)))
        best = _best(_by_prompt(rows, (value or score)(rows)), lambda: rows.log_likelihood)
        rows.select(_places(rows, best[:, None].expand(-1, rows.copies)))


def particles(rows: Rows, score: Value, every: int, sharpness: float, value: Value | None = None) -> Selected:
    """Sequential Monte Carlo towards p(text) · exp(sharpness · score).

    Args:
        every: tokens between two looks at the values.
        value: of unfinished rows; by default their score. Any is right; a better one wastes fewer rows.
    """
    shape = (len(rows.prompts), rows.copies)
    before, log_weights = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    log_evidence = torch.zeros(shape[0], dtype=torch.float64)
    effective: list[Tensor] = []
    while True:
        rows.write(every)
        now = _by_prompt(rows, (score if rows.finished or value is None else value)(rows))
        # A forbidden row (-inf) stays without weight.
        log_weights = log_weights + torch.where(before == -math.inf, 0.0, sharpness * (now - before))
        before = now
        if rows.finished:
            log_evidence += _mean(log_weights)
            return _select(rows, now, log_weights, log_evidence, effective)
        weights = log_weights.softmax(1).nan_to_num(1 / shape[1])
        effective.append(1 / weights.square().sum(1))
        uneven = effective[-1] < RESAMPLE_BELOW * shape[1]
        if uneven.any():
            drawn = torch.where(uneven[:, None], _systematic(weights, rows), torch.arange(shape[1]))
            log_evidence = torch.where(uneven, log_evidence + _mean(log_weights), log_evidence)
            log_weights = torch.where(uneven[:, None], 0.0, log_weights)
            before = before.gather(1, drawn)
            rows.select(_places(rows, drawn))


def _mean(log_weights: Tensor) -> Tensor:
    """Log of the mean weight of each prompt's rows."""
    return log_weights.logsumexp(1) - math.log(log_weights.shape[1])


def _systematic(weights: Tensor, rows: Rows) -> Tensor:
    """Rows (P, K) drawn by weight (P, K), each as often as K times its weight, rounded up or down."""
    prompts, copies = weights.shape
    offset = torch.rand(prompts, 1, generator=rows.generator, device=rows.generator.device, dtype=torch.float64).cpu()
    places = (torch.arange(copies) + offset) / copies
    return torch.searchsorted(weights.cumsum(1), places).clamp(max=copies - 1)


def _by_prompt(rows: Rows, values: Tensor) -> Tensor:
    return values.double().cpu().view(len(rows.prompts), rows.copies)


def _places(rows: Rows, within: Tensor) -> Tensor:
    """Rows (P, K) counted within their prompt as rows (B,) among all."""
    first = torch.arange(len(within))[:, None] * rows.copies
    return (first + within).flatten().to(rows.tokens.device)


def _best(scores: Tensor, otherwise: Callable[[], Tensor]) -> Tensor:
    """The best row of each prompt (P,); among equals the best by ``otherwise`` (B,), called where there are any."""
    is_best = scores == scores.amax(1, keepdim=True)
    if bool((is_best.sum(1) > 1).any()):
        scores = otherwise().double().cpu().view_as(scores).masked_fill(~is_best, -math.inf)
    return scores.argmax(1)


def _select(
    rows: Rows,
    scores: Tensor,
    log_weights: Tensor | None = None,
    log_evidence: Tensor | None = None,
    effective: list[Tensor] | None = None,
) -> Selected:
    even = torch.full_like(scores, -math.log(scores.shape[1]))
    weights = even if log_weights is None else log_weights.log_softmax(1)
    weights = torch.where(weights.isnan(), even, weights)  # every row is forbidden
    chosen = _best(scores, lambda: likelihood(rows))
    return Selected(
        rows.tokens.cpu(), rows.texts(), scores, chosen, weights, log_evidence, effective or [], rows.calls, rows.read
    )
