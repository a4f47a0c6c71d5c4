"""A training inside of a benchmark: on the CPU, without a run folder; the module itself writes what it learned."""

from collections.abc import Callable
from typing import Any

from lightning import LightningModule, Trainer, seed_everything


def train(module_of: Callable[[], LightningModule], data: Any, steps: int, seed: int) -> None:
    """Build a module from a seed and train it for some optimizer steps.

    Args:
        module_of: makes the module, whose weights are drawn behind the seed.
        data: a data module, or a loader of training batches.
    """
    seed_everything(seed, verbose=False)
    module = module_of()
    Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        limit_val_batches=0,
        gradient_clip_val=1.0,
    ).fit(module, data)
