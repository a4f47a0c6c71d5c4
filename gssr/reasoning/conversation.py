"""Read and write by turns on one cache: what was read or written is never read again."""

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from gssr.backbone import FrozenBackbone
from gssr.states.advance import advance
from gssr.states.cache import any_cache, inputs
from gssr.states.hybrid_state import HybridState, check_backbone, from_cache


class Conversation:
    """One text that grows by what is read and what is written; any causal language model.

    ``tokens`` (1, L+1) are all of it. The model has read the first L of them; the last one is read with the next turn.
    """

    def __init__(self, backbone: FrozenBackbone, behind: HybridState | None = None) -> None:
        """``behind``: a state of one row to go on from, see ``resume``."""
        self.backbone = backbone
        if behind is None:
            self.cache, tokens = any_cache(backbone.model), torch.tensor([[backbone.start_id]])
        else:
            self.cache, tokens = behind.to_cache(backbone.model), behind.tokens
        self.tokens = tokens.to(backbone.device)

    @classmethod
    def resume(cls, backbone: FrozenBackbone, state: HybridState) -> "Conversation":
        """Go on behind a state of one row; the state stays as it is.

        Raises ValueError for another model's state, or one of several texts.
        """
        check_backbone(state, backbone)
        if state.rows != 1:
            raise ValueError(f"the state is behind {state.rows} texts, and a conversation is one")
        return cls(backbone, state)

    def state(self) -> HybridState:
        """A copy of the states. Raises ValueError before anything was read, or for a model without recurrent states."""
        return from_cache(self.backbone, self.cache, self.tokens, torch.ones_like(self.tokens, dtype=torch.bool))

    @torch.no_grad()
    def read(self, text: str) -> int:
        """Read a text, up to its last token. It takes the place of an end-of-text that ends what was written.

        Returns the place of its first token.

        Raises ValueError for a text without a token.
        """
        (ids,) = self.backbone.tokenize([text])
        if not ids:
            raise ValueError(f"the text {text!r} has no token; give a text of at least one character")
        done = self.tokens.shape[1] - 1
        kept = self.tokens[:, :-1] if done and self._is_end(self.tokens[0, -1]) else self.tokens
        self.tokens = torch.cat([kept, torch.tensor([ids], device=self.backbone.device)], 1)
        unread = self.tokens[:, done:-1]
        if unread.shape[1]:
            mask = torch.ones_like(self.tokens[:, :-1], dtype=torch.bool)
            _, self.cache = advance(self.backbone, self.cache, self.backbone.embed(unread), mask)
        return kept.shape[1]

    @torch.no_grad()
    def write(self, stop: str | None = None, **options: object) -> str:
        """Write on until end-of-text, ``stop`` in the text, or as many tokens as ``options`` of ``generate`` allow."""
        if self.tokens.shape[1] < 2:
            raise ValueError("nothing was read yet; read a text first")
        if stop is not None:
            options["stopping_criteria"] = StoppingCriteriaList([_Ends(self.backbone, stop)])
        given = inputs(self.backbone.model, self.cache, self.tokens, torch.ones_like(self.tokens))
        options.setdefault("pad_token_id", self.backbone.pad_id)
        new = self.backbone.model.generate(**given, **options)[:, given["input_ids"].shape[1] :]
        self.tokens = torch.cat([self.tokens, new], 1)
        return self.backbone.tokenizer.decode(new[0], skip_special_tokens=True)

    def _is_end(self, token: Tensor) -> bool:
        ends = self.backbone.model.generation_config.eos_token_id
        return int(token) in (ends if isinstance(ends, list) else [ends])


class _Ends(StoppingCriteria):
    """Whether a text is in what was written; called once after each new token."""

    def __init__(self, backbone: FrozenBackbone, text: str) -> None:
        self.backbone, self.text, self.count = backbone, text, 0

    def __call__(self, input_ids: Tensor, scores: object, **more: object) -> Tensor:
        self.count += 1
        written = self.backbone.tokenizer.decode(input_ids[0, -self.count :])
        return torch.full((len(input_ids),), self.text in written, device=input_ids.device)
