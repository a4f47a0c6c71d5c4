"""The order of charts in TensorBoard's tab Custom Scalars."""

from __future__ import annotations

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from gssr.domains import checked

# Names are regular expressions. A chart whose names were never logged stays empty.
LAYOUT: dict[str, dict[str, list[str]]] = {
    "1 KL and text": {
        "KL, raw and clipped (nats a step)": ["train/kl_raw", "train/kl_clipped", "train/free_nats", "val/kl_raw"],
        "text loss (nats a token)": ["train/loss_text$", "val/loss_text$"],
        "KL by latent dimension": ["val/kl_dim_.*"],
    },
    "2 forecasts and goals": {
        "open-loop error, the monitored score": ["val/open_loop_mae"],
        "open-loop error by horizon": ["val/mae_.*"],
        "share of goals hit": ["val/hit_.*"],
        "gain": ["train/gain_.*"],
    },
    "3 losses": {
        "weighted, training": ["train/loss$", "train/loss_.*_weighted"],
        "raw, training": ["train/loss_(value|kl|open|goal)$"],
        "raw, validation": ["val/loss_(value|kl|open|goal)$"],
    },
    "4 health": {
        "gradient norm by component": ["grad_norm/.*"],
        "distance from the initial weights": ["moved/.*"],
        "learning rate": ["train/lr", "lr-.*"],
    },
}


@checked
class ScalarLayout(Callback):
    """Writes the layout of TensorBoard's tab Custom Scalars once a run; the KL and the text loss come first.

    Args:
        layout: {category: {chart: [names of scalars as regular expressions]}}; null for the goal network's.
    """

    def __init__(self, layout: dict[str, dict[str, list[str]]] | None = None) -> None:
        self.layout = LAYOUT if layout is None else layout

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        charts = {
            name: {chart: ["Multiline", tags] for chart, tags in part.items()} for name, part in self.layout.items()
        }
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                logger.experiment.add_custom_scalars(charts)
