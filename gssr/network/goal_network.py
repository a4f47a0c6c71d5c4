"""GoalNetwork, the LightningModule: losses, logging, optimizer and checkpoints around RSSM, heads and the frozen model."""

import math
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn

from gssr import ranks
from gssr.backbone import FrozenBackbone
from gssr.backbone.readings import MeanReading, Reading
from gssr.backbone.table import TextTable
from gssr.network.calibration import Calibration
from gssr.network.compatibility import CheckpointMismatch, fixed_part, refuse_other
from gssr.network.forecast_error import ForecastError
from gssr.network.goal_encoder import GoalEncoder
from gssr.network.heads import ValueHead
from gssr.network.normalisation import SCALES, WindowScale
from gssr.network.objective import goal_distance, kl_terms, masked_mean, value_nll
from gssr.network.open_loop import OpenLoop
from gssr.network.pretrained import Pretrained
from gssr.network.rollout import Planning
from gssr.network.rssm import RSSM, Filtered
from gssr.network.speaking import Speaking
from gssr.network.steering import Goal, SteeredPrior
from gssr.network.validation import Validation
from gssr.sequences.record import Batch
from gssr.sequences.scaler import Scaler

KEPT_GOALS = 10_000
LOSSES = ("value", "text", "kl", "open", "goal")


class GoalNetwork(Planning, OpenLoop, Speaking, Validation, Pretrained, LightningModule):
    """A recurrent state-space model of (value, text, goal) sequences around a frozen language model.

    Args:
        backbone: ``nano``, a local folder or a hub id of a causal language model.
        backbone_revision: commit or tag of a hub id.
        backbone_dtype: precision of the frozen model; trained parts are float32 in any case.
        offline: take a hub id from the local cache only.
        latent_dim: D. hidden_dim: G and the width of all heads.
        injection: how the belief speaks to the frozen model: ``prefix``, ``state`` (its recurrent states) or ``both``.
        prefix_tokens: P. state_rank, state_layers: rank of a change of states, and the layers changed (None: all that have one).
        text_layers: layers whose mean token states are a step's text observation. text_reading: see TextTable.
        goal_layer: layer whose token states the goal encoder reads. goal_queries, goal_reading: see GoalEncoder.
        schedule, gamma, max_norm, gate, pull: see SteeredPrior. posterior: see RSSM.
        reads_changes: see RSSM. error_order: P of ForecastError; 1, or a season and one step more.
        normalisation: units in which values are seen: ``training``, mean and deviation of the training part; for series whose level
            drifts away from what was trained on ``window``, those of each window's own context, or ``last``, its last value and the
            deviation of the training part; the latter two only without goals, which name levels.
        strength: what every gain is multiplied with in forecasts and plans; training has 1.
        alpha_value, alpha_text, alpha_kl, alpha_open, alpha_goal: weights of the losses; 0 switches one off.
        free_nats: KL per step below which no KL gradient flows; FreeNatsAnnealing moves it.
        text_steps: (sequence, step) pairs of a batch whose text enters the text loss, drawn at random.
        text_dropout: share of training sequences whose texts are not observed, so that numbers alone can be filtered.
        goal_dropout: share of training sequences without their goal, so that one network forecasts with and without.
        shuffle_goals: train every sequence with the goal of its neighbour in the batch, which says nothing about it (for comparison).
        open_samples: rollouts S of a sequence in the open-loop loss, an even number. min_context: its shortest context.
        lr, weight_decay, warmup_steps: AdamW, linear warm-up, then cosine decay to a tenth.
        seed: of the training noise, whose generator state (of every process) is in every checkpoint.
        value_names, value_units, value_resolution: the Y value dimensions; None takes them from the data module.
    """

    def __init__(
        self,
        backbone: str = "nano",
        backbone_revision: str | None = None,
        backbone_dtype: str = "float32",
        offline: bool = False,
        latent_dim: int = 16,
        hidden_dim: int = 128,
        injection: str = "prefix",
        prefix_tokens: int = 4,
        state_rank: int = 8,
        state_layers: tuple[int, ...] | None = None,
        text_layers: tuple[int, ...] = (4,),
        text_reading: str = "mean",
        goal_layer: int = 3,
        goal_queries: int = 4,
        goal_reading: str = "attention",
        schedule: str = "arrival",
        gamma: float = 0.5,
        max_norm: float = 10.0,
        gate: str = "none",
        pull: str = "whole",
        strength: float = 1.25,
        posterior: str = "product",
        reads_changes: bool = False,
        error_order: int = 1,
        normalisation: str = "training",
        alpha_value: float = 1.0,
        alpha_text: float = 1.0,
        alpha_kl: float = 0.3,
        alpha_open: float = 10.0,
        alpha_goal: float = 1.0,
        free_nats: float = 1.0,
        text_steps: int = 16,
        text_dropout: float = 0.25,
        goal_dropout: float = 0.5,
        shuffle_goals: bool = False,
        open_samples: int = 4,
        min_context: int = 2,
        lr: float = 3e-3,
        weight_decay: float = 0.01,
        warmup_steps: int = 100,
        seed: int = 0,
        value_names: list[str] | None = None,
        value_units: list[str] | None = None,
        value_resolution: list[float] | None = None,
    ) -> None:
        super().__init__()
        if min_context < 1:
            raise ValueError(f"min_context is {min_context}; imagination needs at least 1 step to start from")
        if normalisation not in ("training", *SCALES):
            raise ValueError(f"normalisation {normalisation!r} is not known; expected one of {('training', *SCALES)}")
        if error_order < 1:
            raise ValueError(f"error_order is {error_order}; expected 1 (the last error alone) or more")
        if not strength >= 0:  # NaN, too
            raise ValueError(f"strength is {strength}; expected 0 (goals have no effect) or more")
        if open_samples < 4 or open_samples % 2:
            raise ValueError(
                f"open_samples is {open_samples}; rollouts come in pairs, and their spread needs at least 2 pairs: 4, 6 …"
            )
        self.save_hyperparameters()
        if not text_layers:
            raise ValueError("text_layers is empty; name at least one layer of the backbone from which texts are read")
        self.backbone = FrozenBackbone(backbone, backbone_revision, backbone_dtype, offline)
        self.backbone.require_layers([*text_layers, goal_layer])
        self.table = TextTable(self.backbone, text_layers, _reading(text_reading))
        self.goal_states: dict[str, Tensor] = {}
        self.free_nats = free_nats
        self.weights = dict(zip(LOSSES, (alpha_value, alpha_text, alpha_kl, alpha_open, alpha_goal), strict=True))
        self.noise = torch.Generator().manual_seed(seed)
        self._saved_noise: list[Tensor] = []  # by rank, of the checkpoint that was loaded
        self.lacks: set[str] = set()  # "text", "goals": what the data has none of
        self.known_values = 0  # of the data's last dimensions, which are not scored
        self.built = False
        if value_names is not None:
            self._build(list(value_names), list(value_units or [""] * len(value_names)), value_resolution)

    # ------------------------------------------------------------------ construction

    def setup(self, stage: str) -> None:
        data = self.trainer.datamodule
        self.known_values = getattr(data, "known_values", 0)
        self.lacks = {kind for kind in ("text", "goals") if not getattr(data, f"has_{kind}", True)}
        if self.hparams.normalisation in SCALES and "goals" not in self.lacks:
            raise ValueError(
                f"model.normalisation {self.hparams.normalisation} lets the network see values by each window's own level, but "
                "the goals of these data name levels; use normalisation training, or leave the goals out"
            )
        if not self.built:
            resolution = getattr(data, "value_resolution", None)
            self._build(list(data.value_names), list(data.value_units), resolution)
            self.scaler.load_state_dict(data.scaler.state_dict())
            self._set_floor()
        elif list(data.value_names) != self.value_names:
            raise ValueError(
                f"this network was trained on the values {self.value_names}, the data has {list(data.value_names)}"
            )

    def _build(self, names: list[str], units: list[str], resolution: Any) -> None:
        p, width = self.hparams, self.backbone.hidden_size
        self.value_names, self.value_units = names, units
        self.value_resolution = [0.0] * len(names) if resolution is None else [float(r) for r in resolution]
        self.hparams.update(value_names=names, value_units=units, value_resolution=self.value_resolution)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(p.seed)
            self.scaler = Scaler(len(names))
            self.text_projection = nn.Sequential(
                nn.LayerNorm(self.table.width), nn.Linear(self.table.width, p.latent_dim)
            )
            self.goal_encoder = GoalEncoder(width, p.latent_dim, p.hidden_dim, p.goal_queries, p.goal_reading)
            self.steering = SteeredPrior(p.schedule, p.gamma, p.max_norm, p.gate, p.pull, p.latent_dim)
            self.rssm = RSSM(len(names), p.latent_dim, p.hidden_dim, self.steering, p.posterior, p.reads_changes)
            self.value_head = ValueHead(p.latent_dim, p.hidden_dim, torch.full((len(names),), 0.02))
            self.forecast_error = ForecastError(len(names), p.latent_dim, p.hidden_dim, p.error_order)
            self.calibration = Calibration(len(names))
            self._build_speech()
        self.built = True

    def _set_floor(self) -> None:
        """The value's noise cannot be smaller than half of the data's own resolution."""
        half = torch.tensor(self.value_resolution) / 2 / self.scaler.std.cpu()
        self.value_head.floor.copy_(half.clamp(min=0.02))

    def components(self) -> dict[str, nn.Module]:
        """The trained parts by name."""
        names = ("rssm", "goal_encoder", "text_projection", "value_head", "forecast_error", "prefix", "state")
        return {name: part for name in names if (part := getattr(self, name)) is not None}

    def active_losses(self) -> dict[str, set[str]]:
        """Losses with a weight above zero that send a gradient into each component; none into what reads what is not there."""
        reach = {
            "rssm": {"value", "text", "kl", "open"},
            "goal_encoder": {"kl", "open", "goal"},
            "text_projection": {"value", "text", "kl", "open"},
            "value_head": {"value", "open", "goal"},
            "forecast_error": {"open"},
            "prefix": {"text"},
            "state": {"text"},
        }
        active = {name for name, weight in self.weights.items() if weight > 0}
        idle = {"text_projection", "prefix", "state"} if "text" in self.lacks else set()
        idle |= {"goal_encoder"} if "goals" in self.lacks else set()
        idle |= {"text_projection"} if self.hparams.text_reading == "none" else set()
        return {
            name: set() if name in idle else losses & active
            for name, losses in reach.items()
            if name in self.components()
        }

    # ------------------------------------------------------------------ inputs

    def on_fit_start(self) -> None:
        self._to_device()
        self.table.add(self.trainer.datamodule.texts())
        self._own_noise()

    def _own_noise(self) -> None:
        """Training noise is another one in each process, and in a resumed one goes on where it stood."""
        rank = ranks.rank()
        if rank < len(self._saved_noise):
            self.noise.set_state(self._saved_noise[rank])
        elif rank > 0 and self.noise.initial_seed() == self.hparams.seed:  # not so in a second fit
            self.noise.manual_seed(ranks.seed_of(self.hparams.seed, rank))
        self._saved_noise = []

    def _to_device(self) -> None:
        self.backbone.to(self.device)
        self.table.to(self.device)

    def encode_goals(self, batch: Batch, goals: list[str | None]) -> Goal:
        """Goals of a batch as points of the latent space; None is a sequence without a goal."""
        known = [goal for goal in goals if goal is not None]
        states, mask = self._goal_states(known)
        x = torch.zeros(len(goals), self.hparams.latent_dim, device=self.device)
        active = torch.tensor([goal is not None for goal in goals], device=self.device)
        encoded = self.goal_encoder(states, mask)
        # Without any goal the encoder still takes part, with nothing: an unused parameter would stop DDP.
        x = x.masked_scatter(active[:, None], encoded) if known else x + 0 * encoded.sum()
        length = batch.step_mask.sum(1)
        return Goal(x, active, batch.goal_start, batch.goal_step, length)

    def _goal_states(self, goals: list[str]) -> tuple[Tensor, Tensor]:
        """Token states (N, L, E) and mask (N, L), a row without tokens for no goals; sentences come again, so states are kept."""
        if len(self.goal_states) > KEPT_GOALS:
            self.goal_states.clear()
        new = sorted(set(goals) - self.goal_states.keys())
        if new:
            states, mask = self.backbone.token_states(new, self.hparams.goal_layer)
            self.goal_states |= {goal: row[m] for goal, row, m in zip(new, states, mask, strict=True)}
        rows = [self.goal_states[goal] for goal in goals]
        if not rows:
            empty = torch.zeros(1, 1, self.backbone.hidden_size, device=self.device)
            return empty, torch.zeros(1, 1, dtype=torch.bool, device=self.device)
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows], device=padded.device)
        return padded, torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]

    def observe(
        self, batch: Batch, noise: Tensor, goal: Goal | None = None, keep_text: Tensor | None = None
    ) -> Filtered:
        """Filter a whole batch; noise (B, T, D); keep_text (B,) False leaves a sequence's texts unread."""
        value = self.scale(batch).transform(batch.value, batch.value_mask)
        states, text_mask = self.table.look_up(batch.text)
        text_mask = text_mask & batch.step_mask
        if keep_text is not None:
            text_mask = text_mask & keep_text[:, None]
        return self.rssm.observe(value, batch.value_mask, self.text_projection(states), text_mask, noise, goal)

    def scale(self, batch: Batch) -> Scaler | WindowScale:
        """From data units to those that the network sees, and back."""
        scale = SCALES.get(self.hparams.normalisation)
        return self.scaler if scale is None else scale(batch, self.scaler)

    def draw(self, *shape: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise from a CPU generator (the training one unless given), so that every device sees the same."""
        return torch.randn(*shape, generator=generator or self.noise).to(self.device)

    # ------------------------------------------------------------------ training

    def losses(
        self, batch: Batch, generator: torch.Generator, training: bool
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """All loss terms, unweighted, and further figures to log."""
        p = self.hparams
        size, steps, _ = batch.value.shape
        keep_text = keep_goal = torch.ones(size, dtype=torch.bool)
        if training:
            keep_text = torch.rand(size, generator=generator) >= p.text_dropout
            keep_goal = torch.rand(size, generator=generator) >= p.goal_dropout
        goal = self.encode_goals(batch, batch.goal)
        steered = goal._replace(active=goal.active & keep_goal.to(self.device))

        filtered = self.observe(
            batch, self.draw(size, steps, p.latent_dim, generator=generator), steered, keep_text.to(self.device)
        )
        scaled = self.scale(batch).transform(batch.value, batch.value_mask)
        any_value = batch.value_mask.any(-1) & batch.step_mask
        seen = filtered.observed & batch.step_mask

        clipped, raw, per_dim = kl_terms(filtered.posterior, filtered.steered, seen, self.free_nats)
        value = masked_mean(value_nll(self.value_head(filtered.x), scaled, batch.value_mask), any_value)

        open_loop = self.open_loss(batch, filtered, steered, self.first_imagined(batch, generator), generator)

        promised = self.value_head(goal.x).mean
        low, high = self.scaler.transform(batch.goal_low), self.scaler.transform(batch.goal_high)
        reached = masked_mean(goal_distance(promised, low, high), goal.active)

        terms = {
            "value": value,
            "text": self.text_loss(batch, filtered.x, generator),
            "kl": clipped,
            "open": open_loop,
            "goal": reached,
        }
        figures = {"kl_raw": raw, "kl_clipped": clipped, "kl_per_dim": per_dim}
        return terms, figures

    def text_loss(self, batch: Batch, x: Tensor, generator: torch.Generator) -> Tensor:
        """Nats per token of the texts of ``text_steps`` random steps behind what x (B, T, D) says."""
        zero = self.silence(x[0, :1])
        if self.weights["text"] == 0:
            return zero
        rows = [(b, t) for b, texts in enumerate(batch.text) for t, text in enumerate(texts) if text is not None]
        chosen = [rows[i] for i in torch.randperm(len(rows), generator=generator)[: self.hparams.text_steps].tolist()]
        if not chosen:
            return zero
        b, t = torch.tensor(chosen, device=self.device).T
        nats, tokens = self.text_nats(x[b, t], [batch.text[i][j] for i, j in chosen])
        return nats.sum() / tokens.sum() + zero

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if not (self.hparams.shuffle_goals and self.trainer.training):
            return batch
        other = batch.select(torch.arange(len(batch)).roll(1))
        return batch.with_goals(other.goal, other.goal_low, other.goal_high)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        terms, figures = self.losses(batch, self.noise, training=True)
        loss = sum(self.weights[name] * term for name, term in terms.items())
        for name, value in self.figures(terms, figures, loss).items():
            self.log(f"train/{name}", value, prog_bar=name in ("loss", "loss_text", "loss_open", "kl_raw"))
        if self.steering.arrival is not None:
            self.log("train/gain_at_arrival", torch.sigmoid(self.steering.arrival))
        if self.steering.exponent is not None:
            self.log("train/gain_exponent", self.steering.exponent)
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        return loss

    def figures(self, terms: dict[str, Tensor], figures: dict[str, Tensor], loss: Tensor) -> dict[str, Tensor]:
        """All numbers of a batch that are logged, by name."""
        told = {f"loss_{name}": term for name, term in terms.items()}
        told |= {f"loss_{name}_weighted": self.weights[name] * term for name, term in terms.items()}
        told |= {"loss": loss, "kl_raw": figures["kl_raw"], "kl_clipped": figures["kl_clipped"]}
        return told | {f"kl_dim_{d:02d}": nats for d, nats in enumerate(figures["kl_per_dim"])}

    def configure_optimizers(self) -> dict[str, Any]:
        decayed = [p for p in self.parameters() if p.ndim >= 2]
        plain = [p for p in self.parameters() if p.ndim < 2]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": self.hparams.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=self.hparams.lr,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _rate(self, step: int) -> float:
        total = max(1, int(self.trainer.estimated_stepping_batches))
        warm = min(1.0, (step + 1) / max(1, self.hparams.warmup_steps))
        return warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total))))

    # ------------------------------------------------------------------ checkpoints

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, weights_only: bool = True, **kwargs: Any) -> Any:
        """As Lightning's, which would run code that comes with a checkpoint where it is given by its address in the web."""
        return super().load_from_checkpoint(checkpoint_path, *args, weights_only=weights_only, **kwargs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["gssr"] = {
            "noise": ranks.gather(self.noise.get_state()),
            "backbone": self.backbone.identity(),
            "fixed": fixed_part(self.hparams),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "gssr" not in checkpoint:
            raise CheckpointMismatch("this is no checkpoint of a goal network; it names no backbone")
        saved = checkpoint["gssr"]
        fixed = saved.get("fixed", checkpoint.get("hyper_parameters", {}))
        refuse_other(saved["backbone"], self.backbone.identity(), fixed, self.hparams)
        self._saved_noise = saved.get("noise", [])  # a network that was shared brings none


def _reading(name: str) -> Reading:
    from benchmarks.ablations.readings import ConstantReading, NoReading

    readings = {"mean": MeanReading, "constant": ConstantReading, "none": NoReading}
    if name not in readings:
        raise ValueError(f"text reading {name!r} is not known; expected one of {tuple(readings)}")
    return readings[name]()
