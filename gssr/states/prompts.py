"""Prompts that are read once; texts behind them are measured and written from there, with embeddings in between.

    | prompt …   embeddings   its last token | text

A prompt's own reading knows nothing of the embeddings or of a change of the states. The last token is read behind
the embeddings, so that a text begins behind a token, as in training.

Shapes: N prompts, K tokens of the longest without its last one, P embeddings, L positions; E as in the legend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gssr.backbone import FrozenBackbone
from gssr.states.advance import advance, left_padded
from gssr.states.cache import empty_cache
from gssr.states.hybrid_state import HybridState, capture_tokens, from_cache

MOST = 512  # tokens of a prompt that are read, its last ones


class ReadPrompts:
    """N prompts that the model has read except for their last token, each different one once.

    A model whose states cannot be moved between caches, such as a plain transformer, keeps nothing and reads a prompt
    again with each text.

    Args:
        keep: whether to keep states; by default where the model allows it.

    Raises:
        ValueError: a prompt without a token.
    """

    def __init__(self, backbone: FrozenBackbone, prompts: Sequence[str], keep: bool | None = None) -> None:
        self.backbone = backbone
        different = list(dict.fromkeys(prompts))
        place = {prompt: i for i, prompt in enumerate(different)}
        self._place = [place[prompt] for prompt in prompts]
        self._tokens, self._mask = left_padded(backbone, different, backbone.pad_id, MOST)
        keep = can_keep(backbone) if keep is None else keep
        self.state: HybridState | None = capture_tokens(backbone, self._tokens, self._mask) if keep else None

    @property
    def last(self) -> Tensor:
        """Embeddings (N, 1, E) of the prompts' last tokens."""
        return self.backbone.embed(self._tokens[self._place, -1:])

    @property
    def skipped(self) -> int:
        """Positions that a call reads in front of the embeddings."""
        return 0 if self.state is not None else self._tokens.shape[1] - 1

    def read_on(self, rows: Sequence[int], embeddings: Tensor) -> Tensor:
        """Hidden states (n, L, E) of embeddings (n, L, E) that stand behind some of the prompts; differentiable."""
        chosen = [self._place[row] for row in rows]
        if self.state is not None:
            state = self.state.select(chosen)
            mask = F.pad(state.mask[:, :-1], (0, embeddings.shape[1]), value=True)
            return advance(self.backbone, state.to_cache(self.backbone.model), embeddings, mask)[0]
        embeddings, mask = self._again(chosen, embeddings)
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        given = {"inputs_embeds": embeddings, "attention_mask": mask.long(), "position_ids": positions}
        return self.backbone.decoder(**given, use_cache=False).last_hidden_state[:, self.skipped :]

    @torch.no_grad()
    def write(self, embeddings: Tensor, **options: Any) -> Tensor:
        """New tokens (N, new) behind prompts and embeddings (N, P, E), from ``model.generate`` with its options."""
        model = self.backbone.model
        if self.state is None:
            embeddings, mask = self._again(self._place, torch.cat([embeddings.to(self.last.dtype), self.last], 1))
            return model.generate(inputs_embeds=embeddings, attention_mask=mask.long(), **options)
        state = self.state.select(self._place)
        if embeddings.shape[1]:
            mask = F.pad(state.mask, (0, embeddings.shape[1]), value=True)
            _, cache = advance(self.backbone, state.to_cache(model), embeddings, mask[:, :-1])
            # The numbers of tokens that were read do not matter any more.
            read = F.pad(state.tokens[:, :-1], (0, embeddings.shape[1]), value=self.backbone.pad_id)
            state = from_cache(self.backbone, cache, torch.cat([read, state.tokens[:, -1:]], 1), mask)
        return state.generate(self.backbone, **options)

    def _again(self, chosen: Sequence[int], embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Prompts without their last token in front of embeddings (n, L, E), and mask (n, K + L)."""
        prompt = self.backbone.embed(self._tokens[list(chosen), :-1])
        mask = F.pad(self._mask[list(chosen), :-1], (0, embeddings.shape[1]), value=True)
        return torch.cat([prompt, embeddings.to(prompt.dtype)], 1), mask


def can_keep(backbone: FrozenBackbone) -> bool:
    """Whether states of the model can be kept and continued from."""
    try:
        empty_cache(backbone.model)
    except ValueError:
        return False
    return True
