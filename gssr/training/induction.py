"""Teach attention to be an induction head: it looks at what followed the same token before.

Attention can only do so where the residual stream holds the token before. Mamba-2 layers that already recall by
themselves do not bring it there, and next-token prediction alone gives hardly a gradient towards it.
Induction heads: Olsson et al. 2022 (arXiv:2209.11895).

Shapes: B rows, L tokens, E width, M query heads, R dimensions of a head.
"""

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from gssr.backbone.loading import decoder_layers
from gssr.domains import Positive, Range, checked
from gssr.training.objectives import Batch, WeightedTokens

NOWHERE = -1e9


@checked
class InductionHeads(WeightedTokens):
    """``WeightedTokens``, and beside it the nats by which attention misses the places behind earlier occurrences.

    Attention is taught in rows of repeated random tokens that it sees in full. The batch says which rows those are
    (``repeated`` and ``first``). Other batches, such as those of validation, have the loss of ``WeightedTokens``.

    Args:
        weight: of the attention's nats beside those of the next token.
        spared: heads of keys and values, from the first, that are not taught, with all of their query heads.

    Raises:
        ValueError: in the first step that teaches, where the model has no attention without positions, or no head left.
    """

    hooks_layers = True

    def __init__(self, weight: Positive = 1.0, spared: Annotated[int, Range(0, 1000)] = 1) -> None:
        self.weight, self.spared = weight, spared

    def __call__(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
        taught = batch["repeated"] & (batch["first"] == 0).all(-1) if "repeated" in batch else torch.zeros(1).bool()
        if not taught.any():
            return super().__call__(model, batch)
        read: list[Tensor] = []
        layers = self.attention(model)
        hooks = [
            layer.register_forward_pre_hook(
                lambda _, args, options: read.append(args[0] if args else options["hidden_states"]), with_kwargs=True
            )
            for layer in layers
        ]
        try:
            nats, weights = super().__call__(model, batch)
        finally:
            for hook in hooks:
                hook.remove()
        answers, counted = places(batch["tokens"][taught, :-1], batch["weights"][taught, 1:])
        missed = [self.missed(layer, x[taught], answers, counted) for layer, x in zip(layers, read, strict=True)]
        return nats + self.weight * torch.stack(missed).mean() * weights, weights

    def attention(self, model: PreTrainedModel) -> list[nn.Module]:
        """The attention layers, which must have no positions and more heads than are spared."""
        layers = [layer.self_attn for layer in decoder_layers(model) if getattr(layer, "self_attn", None) is not None]
        if not layers or getattr(model.config, "position_embedding_type", "rope") == "rope":
            raise ValueError(
                f"InductionHeads teaches attention without positions, and {type(model).__name__} has "
                f"{'rotary ones' if layers else 'no attention'}; train it with gssr.training.objectives.WeightedTokens"
            )
        if self.spared >= model.config.num_key_value_heads:
            raise ValueError(
                f"spared is {self.spared}, and the model has {model.config.num_key_value_heads} heads of keys and "
                "values; at least one must be left"
            )
        return layers

    def missed(self, attention: nn.Module, x: Tensor, answers: Tensor, counted: Tensor) -> Tensor:
        """Mean nats, -log of the attention that taught heads pay to the answers' places.

        Args:
            attention: a layer without positions. x: (B, L, E), what it reads.
            answers: (B, L, L), booleans: places to look at, from each place. counted: (B, L), booleans.
        """
        size, groups = attention.head_dim, attention.num_key_value_groups
        queries = (
            attention.q_proj(x).unflatten(-1, (-1, size)).transpose(1, 2)[:, self.spared * groups :]
        )  # (B, M, L, R)
        keys = attention.k_proj(x).unflatten(-1, (-1, size)).transpose(1, 2)[:, self.spared :]
        scores = (queries @ keys.repeat_interleave(groups, 1).mT).float() * attention.scaling
        ahead = torch.ones_like(answers[0]).triu(1)
        log_share = scores.masked_fill(ahead, NOWHERE).log_softmax(-1)
        found = torch.logsumexp(log_share.masked_fill(~answers[:, None], NOWHERE), -1)  # (B, M, L)
        return -(found * counted[:, None]).sum() / (counted.sum() * found.shape[1]).clamp(min=1)


def places(tokens: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Where an induction head looks: every place right behind an earlier occurrence of the token read.

    Args:
        tokens: (B, L), as read. weights: (B, L), of the tokens predicted; where 0 the answer cannot be known.

    Returns:
        (B, L, L), booleans: places to look at, from each place; (B, L), booleans: places that count.
    """
    before = F.pad(tokens[:, :-1], (1, 0), value=-1)
    answers = (tokens[..., None] == before[:, None, :]).tril()
    return answers, answers.any(-1) & (weights > 0)
