"""Texts that grow side by side from one cache. Prompts are read once; their rows share what was read.

Shapes: P prompts of L tokens, K rows a prompt, B = P · K rows with the rows of a prompt side by side, t new tokens, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import TopPLogitsWarper

from gssr.backbone import FrozenBackbone
from gssr.domains import Count, Items, NonNegative, PositiveFraction, checked
from gssr.states.cache import cache_name, empty_cache
from gssr.states.intervention import inject
from gssr.states.rules import Rule


@checked
@dataclass(frozen=True)
class Decoding:
    """How tokens are drawn from the model's distribution, as ``model.generate`` draws them.

    Args:
        tokens: new tokens of a row at most.
        temperature: 0 takes the likeliest token.
        top_p: sample within this probability mass.
        suppressed: tokens that are never written; with end-of-text among them no text ends early.
    """

    tokens: Count = 64
    temperature: NonNegative = 1.0
    top_p: PositiveFraction = 1.0
    suppressed: tuple[int, ...] = ()

    def log_probs(self, logits: Tensor) -> Tensor:
        """The log-distribution (…, V) that tokens are drawn from, in float32."""
        scores = logits.float()
        if self.suppressed:
            scores = scores.clone()
            scores[..., list(self.suppressed)] = -torch.inf
        if self.temperature == 0:
            likeliest = F.one_hot(scores.argmax(-1), scores.shape[-1]).bool()
            return torch.zeros_like(scores).masked_fill(~likeliest, -torch.inf)
        if self.temperature != 1.0:
            scores = scores / self.temperature
        if self.top_p < 1.0:
            flat = scores.reshape(-1, scores.shape[-1])
            scores = TopPLogitsWarper(self.top_p)(None, flat).view_as(scores)
        return F.log_softmax(scores, -1)


class Rows:
    """B texts behind P prompts, K behind each. With K = 1 and a seed they are those of ``model.generate``.

    Args:
        prompts: token ids (P, L), without padding.
        copies: K.
        rules: of steering; token 0 of a schedule is the first new token, as in ``steer``. Rules with a change for each
            prompt apply it to all of its rows.
        seed: of the draws.

    Attributes:
        tokens: (B, t); behind an end-of-text stands padding. The last column is not read yet.
        ended: (B,), whether a row wrote its end-of-text.
        log_likelihood: (B,), of the tokens under the model as it is steered, whatever the decoding.
        calls, read: forward calls of the model, and the tokens that they read in all rows together.

    Raises:
        ValueError: prompts without a token, or a model whose states cannot be kept.
    """

    @torch.no_grad()
    def __init__(
        self,
        backbone: FrozenBackbone,
        prompts: Tensor,
        copies: Items,
        decoding: Decoding,
        rules: Sequence[Rule] = (),
        seed: int = 0,
    ) -> None:
        if prompts.ndim != 2 or not prompts.numel():
            raise ValueError(f"prompts are {tuple(prompts.shape)}; expected (P, L) with at least one token")
        self.backbone, self.decoding, self.rules, self.copies = backbone, decoding, list(rules), copies
        self.prompts = prompts = prompts.to(backbone.device)
        self.generator = torch.Generator(backbone.device).manual_seed(seed)
        self.cache = empty_cache(backbone.model)
        self.calls = self.read = 0
        if prompts.shape[1] > 1 and self._acts(0):
            self._read(prompts[:, :-1])
            inject(self.cache, self.rules, 0)
            self._logits = self._read(prompts[:, -1:])
        else:
            self._logits = self._read(prompts)
        rows = torch.arange(len(prompts), device=backbone.device).repeat_interleave(copies)
        self.tokens = prompts.new_empty(len(rows), 0)
        self.ended = torch.zeros(len(rows), dtype=torch.bool, device=backbone.device)
        self.log_likelihood = torch.zeros(len(rows), device=backbone.device)
        if copies > 1:
            self.cache.reorder_cache(rows)
            self._logits = self._logits[rows]

    @property
    def length(self) -> int:
        """t."""
        return self.tokens.shape[1]

    @property
    def finished(self) -> bool:
        return self.length >= self.decoding.tokens or bool(self.ended.all())

    @torch.no_grad()
    def write(self, count: int) -> None:
        """Write up to ``count`` tokens more in every row that has not ended."""
        for _ in range(count):
            if self.finished:
                return
            if self.length:
                if self._acts(self.length):
                    inject(self.cache, self.rules, self.length)
                self._logits = self._read(self.tokens[:, -1:])
            log_probs = self.decoding.log_probs(self._logits)
            if self.decoding.temperature == 0:
                drawn = log_probs.argmax(-1)
            else:
                drawn = torch.multinomial(log_probs.exp(), 1, generator=self.generator)[:, 0]
            own = F.log_softmax(self._logits.float(), -1).gather(1, drawn[:, None])[:, 0]
            self.log_likelihood += own.masked_fill(self.ended, 0.0)
            drawn = drawn.masked_fill(self.ended, self.backbone.pad_id)
            self.ended = self.ended | (~self.ended & (drawn == self.backbone.tokenizer.eos_token_id))
            self.tokens = torch.cat([self.tokens, drawn[:, None]], 1)

    def select(self, rows: Tensor) -> None:
        """Go on with these rows (B,), each of the prompt that stood there."""
        if torch.equal(rows, torch.arange(len(rows), device=rows.device)):
            return
        self.cache.reorder_cache(rows)
        self.tokens, self.ended, self._logits = self.tokens[rows], self.ended[rows], self._logits[rows]
        self.log_likelihood = self.log_likelihood[rows]

    @property
    def lengths(self) -> Tensor:
        """Tokens of each row (B,), its end-of-text included."""
        is_end = self.tokens == self.backbone.tokenizer.eos_token_id
        before = (is_end.long().cumsum(1) - is_end.long()) == 0
        return before.sum(1)

    def texts(self) -> list[str]:
        """The new text of each row, without special tokens."""
        kept = [row[:length].tolist() for row, length in zip(self.tokens, self.lengths.tolist(), strict=True)]
        return self.backbone.tokenizer.batch_decode(kept, skip_special_tokens=True)

    @torch.no_grad()
    def plain_log_likelihood(self) -> Tensor:
        """(B,), of the tokens under the model without steering; one more call of the model where it is steered."""
        if not any(self._acts(token) for token in range(self.length)):
            return self.log_likelihood
        plain = Rows(self.backbone, self.prompts, self.copies, self.decoding)
        first, logits = plain._logits, plain._read(self.tokens[:, :-1], all_logits=True) if self.length > 1 else None
        logits = first[:, None] if logits is None else torch.cat([first[:, None], logits], 1)
        self.calls, self.read = self.calls + plain.calls, self.read + plain.read
        own = F.log_softmax(logits.float(), -1).gather(2, self.tokens[..., None])[..., 0]
        counted = torch.arange(self.length, device=own.device) < self.lengths[:, None]
        return own.masked_fill(~counted, 0.0).sum(1)

    def _acts(self, token: int) -> bool:
        return any(rule.schedule.weight(token) and not rule.is_zero for rule in self.rules)

    def _read(self, tokens: Tensor, all_logits: bool = False) -> Tensor:
        """Logits (B, V) behind the last of tokens (B, n), or (B, n, V) behind each."""
        self.calls, self.read = self.calls + 1, self.read + tokens.numel()
        name = cache_name(self.backbone.model)
        out = self.backbone.decoder(input_ids=tokens, use_cache=True, **{name: self.cache})
        return self.backbone.logits(out.last_hidden_state if all_logits else out.last_hidden_state[:, -1])
