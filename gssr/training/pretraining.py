"""Pretrain the nano backbone: a small GraniteMoeHybrid language model on plain text.

    python -m datamodules.text.build --out corpus
    python train.py fit --config configs/pretrain_nano.yaml

Matrices are trained by Muon (Jordan et al. 2024), everything else by AdamW. After warm-up the rate stays constant and falls
linearly to zero over the last share of the steps, so a run can be shortened or prolonged by ``trainer.max_steps`` alone.
"""

import math
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GraniteMoeHybridConfig, GraniteMoeHybridForCausalLM
from transformers.models.granitemoehybrid import modeling_granitemoehybrid

from gssr.backbone.accelerate import accelerate_on_cpu
from gssr.backbone.cpu import prepare_cpu


def nano_config(vocab_size: int = 4096, hidden_size: int = 192, layers: int = 8) -> GraniteMoeHybridConfig:
    """Granite-4.0-H in small: every fourth layer attends, the others are Mamba-2; no positions, no experts, tied embeddings."""
    head = 48
    return GraniteMoeHybridConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=8 * hidden_size // 3,
        shared_intermediate_size=8 * hidden_size // 3,
        num_hidden_layers=layers,
        layer_types=["full_attention" if i % 4 == 3 else "linear_attention" for i in range(layers)],
        num_attention_heads=hidden_size // head,
        num_key_value_heads=hidden_size // head // 2,
        attention_multiplier=1 / head,
        mamba_n_heads=2 * hidden_size // 32,
        mamba_d_head=32,
        mamba_d_state=64,
        mamba_n_groups=1,
        mamba_d_conv=4,
        mamba_expand=2,
        mamba_chunk_size=64,
        num_local_experts=0,
        num_experts_per_tok=0,
        position_embedding_type=None,
        embedding_multiplier=12,
        logits_scaling=3,
        residual_multiplier=0.246,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )


class MuonAdamW(torch.optim.Optimizer):
    """Muon for matrices and AdamW for the rest behind one optimizer, so that one scheduler and one checkpoint serve both."""

    def __init__(
        self, matrices: list[nn.Parameter], others: list[nn.Parameter], lr: float, weight_decay: float
    ) -> None:
        self.muon = torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self.adamw = torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
        self.defaults: dict[str, Any] = {}
        super().__init__([*self.muon.param_groups, *self.adamw.param_groups], {})
        self._share()

    def _share(self) -> None:
        """The groups seen from outside are those of the two optimizers, so that a scheduler moves both; states are for show."""
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]
        self.state.clear()
        self.state.update({**self.muon.state, **self.adamw.state})

    def step(self, closure: Any = None) -> Any:
        with torch.enable_grad():
            loss = closure() if closure is not None else None
        self.muon.step()
        self.adamw.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self._share()


class NanoPretraining(LightningModule):
    """Next-token training of a nano backbone.

    Args:
        hidden_size: E, a multiple of 96.
        layers: at least eight gives six Mamba-2 and two attention layers.
        lr: peak learning rate of Muon and AdamW alike (Muon's update is scaled to AdamW's typical size).
        warmup_steps: steps of linear warm-up.
        decay_share: last share of ``trainer.max_steps`` over which the rate falls to zero.
        compile_layers: fuse each layer with ``torch.compile``; about twice as fast on a CPU, needs a C++ compiler.
        export: folder for the finished model (bf16 safetensors, config, tokenizer), written at the end of ``fit``.
    """

    def __init__(
        self,
        vocab_size: int = 4096,
        hidden_size: int = 192,
        layers: int = 8,
        lr: float = 4e-3,
        weight_decay: float = 0.1,
        warmup_steps: int = 100,
        decay_share: float = 0.4,
        compile_layers: bool = True,
        export: str = "corpus/nano",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr, self.weight_decay = lr, weight_decay
        self.warmup_steps, self.decay_share = warmup_steps, decay_share
        self.compile_layers, self.export = compile_layers, export
        prepare_cpu()
        accelerate_on_cpu(modeling_granitemoehybrid)
        self.model = GraniteMoeHybridForCausalLM(nano_config(vocab_size, hidden_size, layers))

    def on_fit_start(self) -> None:
        if self.trainer.world_size > 1:
            raise ValueError(
                f"pretraining runs in one process, not in {self.trainer.world_size}: its bits per byte are sums over all held-out "
                "rows; set --trainer.devices 1"
            )
        if self.compile_layers:
            for layer in self.model.model.layers:
                layer.compile()

    def nats(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Summed next-token cross-entropy in nats and the number of tokens it covers; padding counts nothing. rows: (B, L+1)."""
        hidden = self.model.model(input_ids=rows[:, :-1], use_cache=False).last_hidden_state
        logits = self.model.lm_head(hidden) / self.model.config.logits_scaling
        target = rows[:, 1:].long()
        target = target.masked_fill(target == self.model.config.pad_token_id, -100)
        total = F.cross_entropy(logits.flatten(0, 1).float(), target.flatten(), ignore_index=-100, reduction="sum")
        return total, (target >= 0).sum()

    def training_step(self, rows: Tensor, index: int) -> Tensor:
        total, count = self.nats(rows)
        loss = total / count
        if not torch.isfinite(loss):
            raise RuntimeError(
                f"the loss is {loss.item()} at step {self.global_step}; resume from the last checkpoint with a lower lr"
            )
        self.log("train/nats_per_token", loss, prog_bar=True)
        self.log("train/lr", self.optimizers().param_groups[0]["lr"])
        return loss

    def on_validation_epoch_start(self) -> None:
        self._heldout_nats = dict.fromkeys(self.trainer.datamodule.sources, 0.0)

    def validation_step(self, rows: Tensor, index: int, dataloader_idx: int = 0) -> None:
        source = self.trainer.datamodule.sources[dataloader_idx]
        self._heldout_nats[source] += self.nats(rows)[0].double().item()

    def on_validation_epoch_end(self) -> None:
        size = self.trainer.datamodule.heldout_bytes
        bits = {name: nats / math.log(2) / size[name] for name, nats in self._heldout_nats.items()}
        for name, value in bits.items():
            self.log(f"val/bits_per_byte_{name}", value)
        self.log("val/bits_per_byte", sum(bits.values()) / len(bits), prog_bar=True)

    def configure_optimizers(self) -> dict[str, Any]:
        trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        is_matrix = [p.ndim == 2 and "embed" not in name and "lm_head" not in name for name, p in trained]
        matrices = [p for (_, p), matrix in zip(trained, is_matrix, strict=True) if matrix]
        others = [p for (_, p), matrix in zip(trained, is_matrix, strict=True) if not matrix]
        optimizer = MuonAdamW(matrices, others, self.lr, self.weight_decay)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _rate(self, step: int) -> float:
        total = self.trainer.max_steps
        warm = min(1.0, (step + 1) / self.warmup_steps)
        return warm * min(1.0, max(0.0, total - step) / max(1.0, self.decay_share * total))

    def on_train_end(self) -> None:
        if self.trainer.is_global_zero and self.trainer.global_step >= self.trainer.max_steps:
            self.save_pretrained(Path(self.export))

    def save_pretrained(self, folder: Path) -> None:
        """Write the model as a transformers folder: bf16 safetensors, config and tokenizer."""
        model = GraniteMoeHybridForCausalLM(self.model.config)
        model.load_state_dict(self.model.state_dict())
        model.to(torch.bfloat16).save_pretrained(folder)
        self.trainer.datamodule.tokenizer.save_pretrained(folder)
