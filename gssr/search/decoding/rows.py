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
from gssr.states.hybrid_state import HybridState, check_backbone, from_cache
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
        prompts: token ids (P, L), without padding; or the state behind texts of the same length, to go on from there.
        copies: K.
        rules: of steering; token 0 of a schedule is the first new token, as in ``steer``. Rules with a change for each
            prompt apply it to all of its rows.
        seed: of the draws.
        written: new tokens at the end of a state. They count as the first tokens of its rows; so do schedules.

    Attributes:
        tokens: (B, t); behind an end-of-text stands padding. The last column is not read yet.
        ended: (B,), whether a row wrote its end-of-text.
        log_likelihood: (B,), of the tokens under the model as it is steered, whatever the decoding; without those of a
            state.
        calls, read: forward calls of the model, and the tokens that they read in all rows together.

    Raises:
        ValueError: prompts without a token, a model whose states cannot be kept, or a state of another model, of
            texts of several lengths, or with fewer tokens than are said to be written.
    """

    @torch.no_grad()
    def __init__(
        self,
        backbone: FrozenBackbone,
        prompts: Tensor | HybridState,
        copies: Items,
        decoding: Decoding,
        rules: Sequence[Rule] = (),
        seed: int = 0,
        written: int = 0,
    ) -> None:
        self.backbone, self.decoding, self.rules, self.copies = backbone, decoding, list(rules), copies
        self.generator = torch.Generator(backbone.device).manual_seed(seed)
        self.calls = self.read = 0
        if isinstance(prompts, HybridState):
            tokens = _tokens_of(prompts, backbone, written)
            self.prompts, new = tokens.tensor_split([tokens.shape[1] - written], 1)
            self.cache = prompts.to_cache(backbone.model)
            unread, begun = (None if written else tokens[:, -1:]), True
        else:
            if prompts.ndim != 2 or not prompts.numel() or written:
                shape = f"prompts are {tuple(prompts.shape)}, {written} tokens of them new"
                raise ValueError(f"{shape}; expected (P, L) with at least one token, none of them new")
            self.prompts = unread = prompts.to(backbone.device)
            self.cache, new = empty_cache(backbone.model), self.prompts[:, :0]
            if begun := unread.shape[1] > 1 and self._acts(0):
                self._read(unread[:, :-1])
                unread = unread[:, -1:]
        rows = torch.arange(len(self.prompts), device=backbone.device).repeat_interleave(copies)
        self.tokens = new[rows]
        self.ended = (self.tokens == backbone.tokenizer.eos_token_id).any(1)
        self.log_likelihood = torch.zeros(len(rows), device=backbone.device)
        self._logits: Tensor | None = None
        self._is_pulled = False
        if unread is not None:
            if begun:
                inject(self.cache, self.rules, 0)
            self._logits = self._read(unread)[rows]
        if copies > 1:
            self.cache.reorder_cache(rows)

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

    @torch.no_grad()
    def put(self, tokens: Sequence[int]) -> None:
        """Write these tokens in every row that has not ended; one call reads them all where no rule acts between."""
        if len(tokens) > 1 and any(self._acts(self.length + i) for i in range(len(tokens))):
            for token in tokens:
                self.put([token])
            return
        count = min(len(tokens), self.decoding.tokens - self.length)
        if not count or self.finished:
            return
        given = torch.tensor(tokens[:count], device=self.tokens.device).expand(len(self.tokens), -1)
        logits = [] if self._logits is None or self.length else [self._logits[:, None]]
        if self._acts(self.length) and self.length:
            inject(self.cache, self.rules, self.length)
        unread = torch.cat([self.tokens[:, -1:], given[:, :-1]], 1)
        if unread.shape[1]:
            logits.append(self._read(unread, all_logits=True))
        behind = torch.cat(logits, 1)
        own = F.log_softmax(behind.float(), -1).gather(2, given[..., None])[..., 0].sum(1)
        self.log_likelihood += own.masked_fill(self.ended, 0.0)
        given = given.masked_fill(self.ended[:, None], self.backbone.pad_id)
        self.ended = self.ended | (~self.ended & (given == self.backbone.tokenizer.eos_token_id).any(1))
        self.tokens, self._logits = torch.cat([self.tokens, given], 1), behind[:, -1]

    @torch.no_grad()
    def pull(self, rules: Sequence[Rule]) -> None:
        """Change the states now, once, as rules do at their first token; the next token is the first that it changes.

        Raises ValueError before the first token.
        """
        if not self.length:
            raise ValueError("no token is written yet; a pull acts on the token behind one that is not read")
        inject(self.cache, rules)
        self._is_pulled = True

    def select(self, rows: Tensor) -> None:
        """Go on with these rows (B,), each of the prompt that stood there."""
        if torch.equal(rows, torch.arange(len(rows), device=rows.device)):
            return
        self.cache.reorder_cache(rows)
        self.tokens, self.ended = self.tokens[rows], self.ended[rows]
        self._logits = None if self._logits is None else self._logits[rows]
        self.log_likelihood = self.log_likelihood[rows]

    def snapshot(self) -> HybridState:
        """The states behind all B rows, copied, for rows that go on from there with ``written`` = t.

        Raises ValueError before the first token.
        """
        if not self.length:
            raise ValueError("no token is written yet; a state behind rows needs one that is not read")
        tokens = torch.cat([self.prompts.repeat_interleave(self.copies, 0), self.tokens], 1)
        return from_cache(self.backbone, self.cache, tokens, torch.ones_like(tokens, dtype=torch.bool))

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
        if not self._is_pulled and not any(self._acts(token) for token in range(self.length)):
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


def _tokens_of(state: HybridState, backbone: FrozenBackbone, written: int) -> Tensor:
    """All tokens (P, L+1) that a state knows. Raises ValueError where rows cannot go on from it."""
    check_backbone(state, backbone)
    if not state.mask.all():
        raise ValueError("the state is behind texts of several lengths; select rows of one length")
    if not 0 <= written < state.tokens.shape[1]:
        raise ValueError(f"{written} of {state.tokens.shape[1]} tokens cannot be new; the first is of the prompt")
    return state.tokens.to(backbone.device)
