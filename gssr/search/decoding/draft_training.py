"""Train a drafter for a frozen model: it predicts the model's next final hidden states, and so its distributions.

    python -m datamodules.text.build --out corpus
    python train.py fit --config configs/draft.yaml

A batch is a dictionary with ``tokens`` (B, L+1), as `datamodules.TextCorpus` gives it. From each of some positions the
drafter is unrolled behind the text's own tokens, and each step is compared with what the model says there.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from gssr.backbone.config import BackboneConfig
from gssr.domains import Count, Few, Items, NonNegative, Positive, Width, checked
from gssr.search.decoding.drafting import HiddenDrafter
from gssr.training.around_frozen import AroundFrozen


@checked
class DraftTraining(AroundFrozen):
    """A drafter; the backbone stays as it is.

    Args:
        backbone: the frozen model.
        width: of the drafter.
        unrolled: steps from a position.
        positions: positions of a batch at which it is unrolled.
        hidden_weight: weight of the distance of hidden states beside the divergence in nats.
        export: safetensors file of the drafter, written at the end of ``fit``.
        lr: peak learning rate of AdamW; it falls linearly to zero.
        warmup_steps: steps of linear warm-up.
    """

    def __init__(
        self,
        backbone: BackboneConfig = BackboneConfig(),  # noqa: B008, frozen
        width: Width = 256,
        unrolled: Few = 4,
        positions: Items = 512,
        hidden_weight: NonNegative = 0.1,
        export: str = "draft.safetensors",
        lr: Positive = 2e-3,
        warmup_steps: Count = 20,
    ) -> None:
        super().__init__(backbone, export, lr, warmup_steps)
        self.drafter = HiddenDrafter(self.backbone.hidden_size, width).bind(self.backbone)
        self.unrolled, self.positions, self.hidden_weight = unrolled, positions, hidden_weight

    def training_step(self, batch: Mapping[str, Tensor], index: int) -> Tensor:
        divergence, distance, _ = self._unroll(batch["tokens"])
        self.log("train/nats_per_draft", divergence.mean(), prog_bar=True)
        return divergence.mean() + self.hidden_weight * distance.mean()

    def validation_step(self, batch: Mapping[str, Tensor], index: int, dataloader_idx: int = 0) -> None:
        divergence, _, overlap = self._unroll(batch["tokens"])
        # The chance that a token drawn from the draft is kept, at each place.
        self.log("val/nats_per_draft", divergence.mean(), prog_bar=True, add_dataloader_idx=False)
        for place, value in enumerate(overlap):
            self.log(f"val/kept_{place + 1}", value, add_dataloader_idx=False)

    def _unroll(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Divergence, distance and overlap at each place of a draft (unrolled,)."""
        with torch.no_grad():
            states = self.backbone.decoder(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
        last = states.shape[1] - self.unrolled
        if last < 1:
            raise ValueError(
                f"rows of {tokens.shape[1]} tokens are too short for {self.unrolled} steps; raise row_length"
            )
        chosen = torch.randperm(len(tokens) * last, device=tokens.device)[: self.positions]
        row, place = chosen // last, chosen % last
        hidden = states[row, place]
        state, found = self.drafter.start(hidden), []
        for k in range(1, self.unrolled + 1):
            state, hidden = self.drafter(state, hidden, tokens[row, place + k])
            own, theirs = (self.backbone.logits(x).float().log_softmax(-1) for x in (hidden, states[row, place + k]))
            scale = states.float().square().mean().sqrt()
            found.append(
                torch.stack(
                    [
                        F.kl_div(own, theirs, log_target=True, reduction="batchmean"),
                        F.smooth_l1_loss(hidden / scale, states[row, place + k].float() / scale),
                        torch.minimum(own, theirs).exp().sum(-1).mean(),
                    ]
                )
            )
        return torch.stack(found).unbind(1)

    def write(self, file: Path) -> None:
        self.drafter.save(file, self.backbone)
