"""Objectives of language models. A config chooses one by ``class_path``; a new one is a class with one method.

A batch is a dictionary:

    tokens   (B, L+1), integers; the model reads the first L and predicts the last L
    weights  (B, L+1), floats of at least 0, one for each token; needed by ``WeightedTokens`` only
    first    (B, L+1), integers; the first position that attention may see from each position, nowhere falling. May be
             absent: attention then sees everything before. What lies before it, recurrent states alone can tell.
    repeated (B), booleans: rows of random tokens said again; `gssr.training.induction` only
    dropout  (B), floats in [0, 1): share of the activations that training zeroes in each row; none where absent

Shapes: B rows, L tokens, V vocabulary.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

Batch = Mapping[str, Tensor]
IGNORED = -100


class Objective:
    """The loss of a batch. An objective that is also an ``nn.Module`` has its parameters trained with the model."""

    hooks_layers = False  # whether it hooks the model's layers in a step, which compiled layers ignore

    def __call__(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
        """
        Returns:
            Sums over the batch, each a scalar: weighted nats, with gradients, and weights. The loss is their ratio.
        """
        raise NotImplementedError


class NextToken(Objective):
    """Cross-entropy of every next token; padding has no weight."""

    def __call__(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
        logits, target = predictions(model, batch)
        total = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=IGNORED, reduction="sum")
        return total, (target >= 0).sum()


class WeightedTokens(Objective):
    """Cross-entropy of the next tokens by the weights in the batch, such as 1 for answers and 0 for questions."""

    def __call__(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
        if "weights" not in batch:
            raise ValueError(
                f"the batch holds {sorted(batch)}; WeightedTokens needs weights, one for each token. Let the data "
                "module give them, or train with gssr.training.objectives.NextToken"
            )
        logits, target = predictions(model, batch)
        nats = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=IGNORED, reduction="none")
        weights = batch["weights"][:, 1:].flatten() * (target.flatten() >= 0)
        return (nats * weights).sum(), weights.sum()


def predictions(model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits (B, L, V), float32, of the tokens in a batch, and their targets (B, L), ``IGNORED`` at padding."""
    tokens = batch["tokens"]
    seen = {"attention_mask": _masks(batch["first"][:, :-1])} if "first" in batch else {}
    logits = model(input_ids=tokens[:, :-1], use_cache=False, **seen).logits.float()
    target, pad = tokens[:, 1:].long(), model.config.pad_token_id
    return logits, target if pad is None else target.masked_fill(target == pad, IGNORED)


def _masks(first: Tensor) -> dict[str, Tensor | None]:
    """A mask for each kind of layer: (B, 1, L, L) for attention, none for recurrent layers, which see everything."""
    place = torch.arange(first.shape[1], device=first.device)
    return {
        "full_attention": ((place <= place[:, None]) & (place >= first[..., None]))[:, None],
        "linear_attention": None,
    }
