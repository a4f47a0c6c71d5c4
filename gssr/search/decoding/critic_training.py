"""Train a critic on what a frozen model writes: from its states on the way, what a scorer gives the finished text.

    python -m datamodules.text.build --out corpus
    PYTHONPATH=. python train.py fit --config configs/critic.yaml --model.scorer mine:score

A batch is a dictionary with ``tokens`` (B, L+1), as `datamodules.TextCorpus` gives it; the first of them are prompts.
The model goes on from them at temperature 1, and every so many tokens the critic reads its states.

Shapes: B rows, n places of a text.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gssr.backbone.config import BackboneConfig
from gssr.domains import Count, Few, Layers, Positive, Width, checked
from gssr.search.decoding.critic import Critic
from gssr.search.decoding.rows import Decoding, Rows
from gssr.search.decoding.scoring import load_scorer, scored
from gssr.states.cache import LayerState, layer_states
from gssr.training.around_frozen import AroundFrozen


def concordance(values: Tensor, scores: Tensor) -> Tensor:
    """Of all pairs with different scores, the share whose values have the same order; equal values count half.

    For scores of 0 and 1 it is the area under the ROC curve. NaN where all scores (B,) are equal.
    """
    above = (scores[:, None] > scores[None]).float()
    order = torch.sign(values[:, None] - values[None])
    return (above * (0.5 + 0.5 * order)).sum() / above.sum()


@checked
class CriticTraining(AroundFrozen):
    """A critic; the backbone stays as it is.

    Args:
        backbone: the frozen model.
        scorer: module:function of a text, imported by its name; higher is better.
        prompt_tokens: tokens of each row that are the prompt.
        tokens: that the model writes behind it.
        every: tokens between two places at which states are read; the first place is behind so many.
        layers: that the critic reads; null is all of them.
        width: of a layer's head.
        export: safetensors file of the critic, written at the end of ``fit``.
        lr: peak learning rate of AdamW; it falls linearly to zero.
        warmup_steps: steps of linear warm-up.
    """

    def __init__(
        self,
        backbone: BackboneConfig = BackboneConfig(),  # noqa: B008, frozen
        scorer: str = "builtins:len",
        prompt_tokens: Few = 24,
        tokens: Few = 48,
        every: Few = 8,
        layers: Layers | None = None,
        width: Width = 32,
        export: str = "critic.safetensors",
        lr: Positive = 3e-3,
        warmup_steps: Count = 10,
    ) -> None:
        super().__init__(backbone, export, lr, warmup_steps)
        if every >= tokens:
            raise ValueError(f"every is {every} and tokens {tokens}; expected fewer, so that a state is on the way")
        self.scorer = load_scorer(scorer)
        self.prompt_tokens, self.tokens, self.every = prompt_tokens, tokens, every
        self.critic = Critic(self.backbone, layers, width)

    def training_step(self, batch: Mapping[str, Tensor], index: int) -> Tensor:
        values, scores = self._read(batch["tokens"], self.global_step)
        if self.global_step == 0:
            self.critic.mean.copy_(scores.mean())
            self.critic.std.copy_(scores.std().clamp(min=1e-6))
        wanted = (scores - self.critic.mean) / self.critic.std
        loss = (values - wanted).square().mean()
        self.log("train/squared_error", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], index: int, dataloader_idx: int = 0) -> None:
        """A batch is of one kind, so that its pairs do not ask which kind a prompt is of."""
        values, scores = self._read(batch["tokens"], index)
        for place, value in enumerate(values):
            if (found := concordance(value, scores)).isfinite():
                self.log(f"val/within_{(place + 1) * self.every}", found, add_dataloader_idx=False)
        wanted = (scores - self.critic.mean) / self.critic.std
        self.log("val/squared_error", (values - wanted).square().mean(), prog_bar=True, add_dataloader_idx=False)

    def _read(self, tokens: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Values (n, B) at places of texts that the model writes behind prompts, and scores (B,) of these texts."""
        if tokens.shape[1] < self.prompt_tokens:
            raise ValueError(f"rows have {tokens.shape[1]} tokens, the prompts {self.prompt_tokens}; raise row_length")
        decoding = Decoding(self.tokens, suppressed=(self.backbone.tokenizer.eos_token_id,))
        rows, values = Rows(self.backbone, tokens[:, : self.prompt_tokens], 1, decoding, seed=seed), []
        while not rows.finished:
            rows.write(self.every)
            if not rows.finished:
                # Writing on changes the states in place.
                states = [state.map(torch.clone) for state in layer_states(rows.cache)]
                values.append(self._values(states))
        return torch.stack(values), scored(self.scorer, rows.texts()).float().to(tokens.device)

    def _values(self, states: Sequence[LayerState]) -> Tensor:
        return self.critic(states)

    def write(self, file: Path) -> None:
        self.critic.save(file, self.backbone)
