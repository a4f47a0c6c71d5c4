"""GoalNetwork, the LightningModule: a world model with its objective, forecaster, speaker and validation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from lightning import LightningModule
from torch import Tensor, nn

from gssr import ranks
from gssr.backbone.config import BackboneConfig
from gssr.checkpoint import read
from gssr.domains import Seed, checked
from gssr.network import compatibility, fitting
from gssr.network.calibration import Calibration
from gssr.network.forecaster import Forecaster, Plan, Rollouts
from gssr.network.objective import Objective, ObjectiveConfig
from gssr.network.optimizer import OptimizerConfig
from gssr.network.options import KINDS, Options, ValuesConfig
from gssr.network.pretrained import build_network, load_network
from gssr.network.speaker import Speaker, SpeechConfig
from gssr.network.steering import SteeringConfig
from gssr.network.validation import Validation
from gssr.network.world_model import WorldModel, WorldModelConfig
from gssr.sequences.record import Batch
from gssr.sequences.row_in_words import RowInWords

PROGRESS = ("open_loop_mae", "hit_true", "hit_borrowed")  # scores of validation in the progress bar


@checked
class GoalNetwork(LightningModule):
    """A recurrent state-space model of (value, text, goal) sequences around a frozen language model.

    Args:
        backbone: the frozen language model.
        world: the belief, and how it reads values, texts and goals.
        steering: how a goal steers the prior.
        speech: how the belief speaks through the frozen model.
        objective: the losses.
        optimizer: AdamW and its schedule.
        values: the Y value dimensions.
        seed: Of initial weights and training noise; every checkpoint holds the noise's state in each process.
    """

    precisions = ("32-true", "bf16-mixed", "16-mixed")  # of a Trainer; the trained parts stay float32
    world: WorldModel

    def __init__(
        self,
        backbone: BackboneConfig = BackboneConfig(),
        world: WorldModelConfig = WorldModelConfig(),
        steering: SteeringConfig = SteeringConfig(),
        speech: SpeechConfig = SpeechConfig(),
        objective: ObjectiveConfig = ObjectiveConfig(),
        optimizer: OptimizerConfig = OptimizerConfig(),
        values: ValuesConfig = ValuesConfig(),
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.options = Options(backbone, world, steering, speech, objective, optimizer, values)
        self.save_hyperparameters(self.options.plain() | {"seed": seed})
        self.backbone = self.options.backbone.load()
        self.backbone.require_layers([*self.options.world.text_layers, self.options.world.goal_layer])
        self.noise = torch.Generator().manual_seed(seed)
        self._saved_noise: list[Tensor] = []  # by rank, of the checkpoint that was loaded
        self.built, self.objective = False, None
        self.chosen: dict[str, Any] = {}  # options that were auto, by component
        if self.options.values.names is not None:
            self.build()

    # ------------------------------------------------------------------ construction

    def setup(self, stage: str) -> None:
        if self.trainer.precision not in self.precisions:
            raise ValueError(
                f"the trainer's precision is {self.trainer.precision}, but the trained parts are float32; expected one "
                f"of {', '.join(self.precisions)}"
            )
        fitting.adopt(self, self.trainer.datamodule, stage)

    def build(self) -> None:
        options = self.options
        values = options.values
        options.set_values(values.names, values.units, values.resolution, values.step, values.words)
        self.hparams.update({name: options.plain()[name] for name in ("values", *self.chosen)})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.hparams.seed)
            for name, part in self._parts().items():
                setattr(self, name, part)
        self.objective = Objective(options.objective, self.world, self.speaker)
        self.forecaster = Forecaster(self.world, self.speaker, self.calibration, options.steering.strength)
        self.validation = Validation(self.objective, self.forecaster, self.value_names, options.values.resolution)
        self.built = True

    def _parts(self) -> dict[str, nn.Module]:
        """New parts with weights, by the names of their attributes."""
        options, values = self.options, self.options.values
        width, sizes = len(self.value_names), (options.world.latent_dim, options.world.hidden_dim)
        row = options.speech.row and RowInWords(options.speech.row, values.names, values.units, values.resolution)
        return {
            "world": WorldModel(options.world, options.steering, self.backbone, width, values.goal_units()),
            "calibration": Calibration(width),
            "speaker": Speaker(options.speech, self.backbone, *sizes, row or None, width),
        }

    def _weights(self) -> dict[str, Tensor]:
        """The weights; of a network that is not built yet their names and shapes, without any memory."""
        if self.built:
            return self.state_dict()
        with torch.device("meta"):
            return nn.ModuleDict(self._parts()).state_dict()

    @property
    def value_names(self) -> list[str]:
        return list(self.options.values.names or ())

    @property
    def value_units(self) -> list[str]:
        return list(self.options.values.units or ())

    def components(self) -> dict[str, nn.Module]:
        """The trained parts by name."""
        return self.objective.components()

    def active_losses(self) -> dict[str, set[str]]:
        """The losses that train each component."""
        return self.objective.active_losses()

    # ------------------------------------------------------------------ training

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        fitting.require_batch(batch, self.value_names)
        return batch

    def on_fit_start(self) -> None:
        self.encode_texts(fitting.texts_of(self.trainer.datamodule))
        # Training noise differs between processes, and goes on in a resumed one.
        rank = ranks.rank()
        if rank < len(self._saved_noise):
            self.noise.set_state(self._saved_noise[rank])
        elif rank > 0 and self.noise.initial_seed() == self.hparams.seed:  # not so in a second fit
            self.noise.manual_seed(ranks.seed_of(self.hparams.seed, rank))
        self._saved_noise = []

    def training_step(self, batch: Batch, index: int) -> Tensor:
        losses = self.objective(batch, self.noise, training=True)
        means = {name: mean.detach() for name, (mean, _) in losses.means().items()}
        fitting.drop_logged(self.trainer, [f"train/{name}" for name in losses.figures.keys() - means.keys()])
        for name, value in (means | self.objective.weighted(means)).items():
            self.log(f"train/{name}", value, prog_bar=name in ("loss", "loss_text", "loss_open", "kl_raw"))
        for name, value in self.world.steering.schedule.figures().items():
            self.log(f"train/{name}", value)
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        return losses.total

    def configure_optimizers(self) -> dict[str, Any]:
        total = max(1, int(self.trainer.estimated_stepping_batches))
        return self.options.optimizer.build(self.parameters(), total)

    # ------------------------------------------------------------------ validation and test

    def on_validation_epoch_start(self) -> None:
        self._begin("val")

    def validation_step(self, batch: Batch, index: int) -> None:
        self.validation.measure(batch, fitting.single(self.trainer.val_dataloaders), index)

    def on_validation_epoch_end(self) -> None:
        self._log_means()
        # Errors of windows that are trained on would make the fans too narrow.
        if getattr(self.trainer.datamodule, "train_through", "train") == "train":
            self.validation.calibrate()

    def on_test_epoch_start(self) -> None:
        self._begin("test")

    def test_step(self, batch: Batch, index: int) -> None:
        self.validation.measure(batch, fitting.single(self.trainer.test_dataloaders), index)

    def on_test_epoch_end(self) -> None:
        self._log_means()

    def _begin(self, part: str) -> None:
        self.encode_texts(fitting.texts_of(self.trainer.datamodule))
        self.validation.begin(part)

    def _log_means(self) -> None:
        for name, mean in self.validation.means().items():
            # The means are the same in all processes; without sync_dist Lightning would warn that they might not be.
            self.log(name, mean, prog_bar=name.partition("/")[2] in PROGRESS, sync_dist=True)

    # ------------------------------------------------------------------ forecasts

    def predict_step(self, batch: Batch, index: int) -> tuple[Plan | None, Plan]:
        """Plans of a batch under its goals (None where no sequence has one) and without goals."""
        texts = "text" not in self.objective.lacks
        steered = self.plan(batch, batch.goal, texts=texts) if any(goal is not None for goal in batch.goal) else None
        recent = self.forecaster.recent(batch, fitting.data_of(self))
        return steered, self.plan(batch, [None] * len(batch), texts=texts, recent=recent)

    def rollout(self, batch: Batch, goals: Sequence[str | None], *args: Any, **options: Any) -> Rollouts:
        """See Forecaster.rollout."""
        return self._ready(goals).rollout(batch, goals, *args, **options)

    def plan(self, batch: Batch, goals: Sequence[str | None], *args: Any, **options: Any) -> Plan:
        """See Forecaster.plan."""
        return self._ready(goals).plan(batch, goals, *args, **options)

    def encode_texts(self, texts: Iterable[str]) -> None:
        """Read texts with the frozen model now, so that batches only look them up."""
        self.world.prepare(texts)

    def _ready(self, goals: Sequence[str | None]) -> Forecaster:
        if not self.built:
            raise ValueError("this network has no value dimensions yet; load a checkpoint, or fit it on data first")
        if self.options.objective.goal_dropout >= 1 and any(goal is not None for goal in goals):
            raise ValueError(
                "this network was trained without goals (objective.goal_dropout is 1), so none pulls it; `gssr plan "
                "--goal` finds paths in which a goal holds, and --data.goals hindsight trains a pull"
            )
        return self.forecaster

    # ------------------------------------------------------------------ checkpoints

    @classmethod
    def from_pretrained(
        cls, source: str | Path, revision: str | None = None, offline: bool = False, **changed: Any
    ) -> Self:
        """A trained network from a folder or hub id that ``gssr push`` wrote, ready for ``rollout`` and ``plan``.

        Args:
            source: a local folder or a hub id; ``revision`` and ``offline`` are for the latter.
            changed: options to have instead, such as ``backbone={"name": folder}`` where the same weights lie here.

        Raises:
            ValueError: the files or the backbone cannot be read, or do not fit each other.
        """
        return load_network(cls, source, revision, offline, changed)

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: str | Path,
        map_location: torch.device | str = "cpu",
        hparams_file: None = None,
        strict: bool = True,
        weights_only: bool = True,
        **changed: Any,
    ) -> Self:
        """A trained network from a checkpoint file, with its checksum verified, on the device ``map_location``.

        Args:
            hparams_file, strict, weights_only: Lightning's, with these values alone.
            changed: as in ``from_pretrained``.

        Raises:
            ValueError: the file or the backbone cannot be read, or do not fit each other.
        """
        if hparams_file is not None or not strict or not weights_only:
            raise ValueError(
                "a goal network is loaded whole and without running code; leave hparams_file, strict and weights_only "
                "out, and give other options by name, such as backbone={'name': folder}"
            )
        file = Path(checkpoint_path)
        return build_network(cls, read(file), str(file), changed).to(map_location)

    @classmethod
    def of_checkpoint(cls, options: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> Self:
        """A network of plain options that takes its weights from the contents of a checkpoint, once they fit.

        Raises:
            CheckpointMismatch: they do not. ValueError: the options or the backbone cannot be used.
        """
        network = cls(**{**options, "values": {}})
        network.options.set_values(**options["values"])
        network.on_load_checkpoint(dict(checkpoint))
        network.build()
        network.load_state_dict(checkpoint["state_dict"])
        return network

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        compatibility.require_finite(self)
        checkpoint["gssr"] = {
            "noise": ranks.gather(self.noise.get_state()),
            "backbone": self.backbone.identity(),
            # Lightning puts a caller's options over the hyper-parameters in a checkpoint, silently.
            "fixed": compatibility.fixed_options(self.hparams, KINDS),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved, values = compatibility.require_network(checkpoint), self.options.plain()["values"]
        own = compatibility.fixed_options(self.hparams | {"values": values}, KINDS)
        compatibility.refuse_other(saved["backbone"], self.backbone.identity(), saved["fixed"], own)
        if self.built or self.options.values.names is not None:
            compatibility.refuse_other_weights(checkpoint["state_dict"], self._weights())
        self._saved_noise = saved.get("noise", [])  # a shared network has none
