"""Train the way back of thoughts around a frozen model, and the head that halts them.

    python train.py fit --config configs/pretrain_thoughts.yaml     # a small model that looks up
    python train.py fit --config configs/thoughts.yaml              # thoughts around it

A batch is a dictionary:

    prompt  (B, L), integers without padding; the last token is the first thought
    chain   (B, K+1), integers: that token and what each step should say, in turn
    answer  (B,), integers: the end of the chain

Only the first few steps are unrolled, on chains of all lengths that begin anywhere. Nothing at a greater depth is ever
trained, so that what works there was not learned there.
"""

from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gssr.backbone.config import BackboneConfig
from gssr.domains import Count, Few, Fraction, Positive, checked
from gssr.reasoning.halting import HaltingHead
from gssr.reasoning.saved import save_thinker
from gssr.reasoning.thinker import Memory, Thinker
from gssr.reasoning.thoughts import SoftToken, Thought
from gssr.training.around_frozen import AroundFrozen

Batch = Mapping[str, Tensor]


@checked
class ThoughtTraining(AroundFrozen):
    """A way back and a halting head; the backbone stays as it is.

    Args:
        backbone: the frozen model.
        thought: how a thought is made, a class of `gssr.reasoning.thoughts` or a subclass of ``Thought``.
        memory: what thoughts write, see `gssr.reasoning.thinker`.
        unrolled: steps that are trained by what they should say.
        watched: steps whose rightness the halting head learns; the gradient ends at the head.
        most: steps at most in validation.
        threshold: chance of being right at which validation halts.
        export: safetensors file of thought and head, written at the end of ``fit``.
        lr: peak learning rate of AdamW for the way back.
        halting_lr: that for the head, whose weights have further to go.
        warmup_steps: steps of linear warm-up; the rate then falls linearly to zero.
    """

    def __init__(
        self,
        backbone: BackboneConfig = BackboneConfig(),  # noqa: B008, frozen
        thought: Callable[[], Thought] = SoftToken,
        memory: Memory = "read_only",
        unrolled: Few = 2,
        watched: Few = 3,
        most: Few = 16,
        threshold: Fraction = 0.9,
        export: str = "thoughts.safetensors",
        lr: Positive = 3e-3,
        halting_lr: Positive = 2e-2,
        warmup_steps: Count = 20,
    ) -> None:
        super().__init__(backbone, export, lr, warmup_steps)
        self.thought = thought()
        self.thought.prepare(self.backbone)
        self.halting = HaltingHead(self.backbone.hidden_size)
        self.thinker = Thinker(self.backbone, self.thought, memory, self.halting)
        self.unrolled, self.watched, self.most, self.threshold = unrolled, watched, most, threshold
        self.halting_lr = halting_lr

    def groups(self) -> list[dict[str, Any]]:
        head = {"params": list(self.halting.parameters()), "lr": self.halting_lr}
        back = list(self.thought.parameters())
        return [{"params": back}, head] if back else [head]

    def training_step(self, batch: Batch, index: int) -> Tensor:
        said, halted = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        steps = islice(self.thinker.steps(batch["prompt"]), max(self.unrolled, self.watched))
        for k, step in enumerate(steps):
            if k < self.unrolled:
                said = said + F.cross_entropy(step.logits, _wanted(batch, k))
            if k < self.watched:
                is_right = (step.logits.argmax(-1) == batch["answer"]).float()
                halted = halted + F.binary_cross_entropy_with_logits(self.halting(step), is_right)
        self.log("train/nats_per_thought", said / self.unrolled, prog_bar=True)
        self.log("train/halting_nats", halted / self.watched)
        return said / self.unrolled + halted / self.watched

    def on_validation_epoch_start(self) -> None:
        self._right: dict[str, list[Tensor]] = {}

    def validation_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        sources = getattr(self.trainer.datamodule, "sources", None)
        name = sources[dataloader_idx] if sources else "all"
        lookups = (batch["chain"] != batch["answer"][:, None]).sum(1)
        found = self.thinker.readouts(batch["prompt"], self.most, self.threshold)
        at = lookups.clamp(1, self.most) - 1
        rows = torch.arange(len(at), device=at.device)
        right = found.said[rows, at] == batch["answer"]
        halted = found.said[rows, found.halted] == batch["answer"]
        self._right.setdefault(name, []).append(
            torch.stack([right.float(), halted.float(), found.halted + 1.0, lookups.float()]).cpu()
        )

    def on_validation_epoch_end(self) -> None:
        means = {name: torch.cat(parts, 1).mean(1) for name, parts in self._right.items()}
        for name, (right, halted, steps, lookups) in means.items():
            self.log(f"val/accuracy_{name}", right)
            self.log(f"val/accuracy_halted_{name}", halted)
            self.log(f"val/steps_over_lookups_{name}", steps / lookups)
        if means:
            self.log("val/accuracy", torch.stack([mean[0] for mean in means.values()]).mean(), prog_bar=True)

    def write(self, file: Path) -> None:
        save_thinker(file, self.thinker)


def _wanted(batch: Batch, step: int) -> Tensor:
    """What step ``step``, from 0, should say (B,); behind the end of the chain, the answer."""
    return batch["chain"][:, min(step + 1, batch["chain"].shape[1] - 1)]
