"""Cross-entropy of tokens from hidden states, a few rows at a time: memory does not grow with rows × V."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def token_nats(hidden: Tensor, target: Tensor, logits: Callable[[Tensor], Tensor], rows: int) -> Tensor:
    """Negative log-likelihood (M,) of target (M,) in nats, differentiable in hidden (M, E) only.

    Args:
        logits: maps (m, E) to (m, V), row by row; its weights get no gradient.
        rows: rows whose logits exist at a time.
    """
    return _TokenNats.apply(hidden, target, logits, rows)


class _TokenNats(torch.autograd.Function):
    """Computes each row's gradient, up to a factor, together with its logits, which are then needed only once."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, target: Tensor, logits: Callable[[Tensor], Tensor], rows: int) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        nats = hidden.new_empty(len(hidden), dtype=torch.float32)
        gradient = torch.empty_like(hidden) if wanted else None
        for start in range(0, len(hidden), rows):
            chunk = slice(start, start + rows)
            with torch.set_grad_enabled(wanted):
                part = hidden[chunk].detach().requires_grad_(wanted)
                out = logits(part)
            # In place: at most two tensors of logits exist at a time.
            scores, labels = out.detach().float(), target[chunk, None]
            largest, picked = scores.amax(1, keepdim=True), scores.gather(1, labels)
            total = scores.sub_(largest).exp_().sum(1, keepdim=True)
            nats[chunk] = (total.log() + largest - picked)[:, 0]
            if wanted:
                scores.div_(total).scatter_add_(1, labels, torch.full_like(total, -1.0))
                (gradient[chunk],) = torch.autograd.grad(out, part, scores.to(out.dtype))
            # Free the logits before the next chunk needs memory.
            del out, scores
        ctx.save_for_backward(gradient)
        return nats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dnats: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * dnats[:, None].to(gradient.dtype), None, None, None
