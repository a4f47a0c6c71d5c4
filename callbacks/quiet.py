"""Hides messages of libraries that a user of this project can do nothing about. Others stay, fit for a terminal."""

from __future__ import annotations

import logging
import warnings

from gssr import shown

_NOTES = (
    "Tip:",  # advertisements for other packages
    "TPU available",
    "HPU available",
    "Loading `train_dataloader` to estimate",
    "Restoring states from the checkpoint",  # train.py prints the same
    "Restored all states",
    "Loaded model weights from",
    "Seed set to",
    "was configured so 100% of the batches",  # of parts that are not limited
)
_WARNINGS = (
    r"The '\w+' does not have many workers",  # batches come from memory; workers would only cost time
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated",  # between Lightning and torch
    r"[\s\S]*skip_none parameter was deprecated",  # between Lightning and jsonargparse
    r"You have overridden `on_before_batch_transfer` in `LightningModule`",  # the data modules have none of their own
    r"Found \d+ module\(s\) in eval mode at the start of training",  # the frozen backbone
)


class _Unwanted(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        record.msg, record.args = shown.lines(message), ()
        return not any(note in message for note in _NOTES)


def quiet() -> None:
    """Install the filters; a second call changes nothing."""
    shown.clean_warnings()
    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.fabric.utilities.rank_zero",
        "lightning.fabric.utilities.seed",
    ):
        logger = logging.getLogger(name)
        if not any(isinstance(known, _Unwanted) for known in logger.filters):
            logger.addFilter(_Unwanted())
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
