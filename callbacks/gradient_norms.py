"""Checks that each component learns: its gradient at each step, its distance from the initial weights at the end."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from gssr import ranks
from gssr.domains import Count, checked

PROJECTIONS = 8


class GradientError(RuntimeError):
    """A part of the network does not learn, or the loss is not finite."""


@checked
class GradientNormCheck(Callback):
    """Logs `grad_norm/<component>` and stops a run in which a component that has a loss gets no gradient.

    `pl_module.components()` names the components, `pl_module.active_losses()` the losses that train each. A loss or a
    gradient that is not finite stops the run before the update. Float16 loss scaling skips such updates itself; there
    the run stops only after `patience` steps.

    At the end of training every component with a loss must have moved. The distance is logged as `moved/<component>`,
    relative to the norm of the initial weights. It is estimated from a few random projections, which are small enough
    for the checkpoint, so that a resumed run compares with the initial weights of its beginning.

    Args:
        patience: consecutive optimizer steps in which a component may have a norm of exactly zero.
        every: optimizer steps between two checks of the gradients.
    """

    needs = ("components", "active_losses")

    def __init__(self, patience: Count = 50, every: Count = 1) -> None:
        self.patience, self.every = patience, every
        self.without_gradient: dict[str, int] = {}  # consecutive steps without a usable gradient, by component
        self.start: dict[str, list[float]] = {}  # projections of the initial weights, and their norm

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and not (hasattr(pl_module, "components") and hasattr(pl_module, "active_losses")):
            raise ValueError(
                f"GradientNormCheck needs components() and active_losses(), which {type(pl_module).__name__} lacks"
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.start:
            self.start = {name: projections(module) for name, module in pl_module.components().items()}

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if trainer.global_step % self.every:
            return
        # A loss belongs to one process; the others would wait for one that stops without them.
        finite = bool(torch.isfinite(loss))
        if ranks.any_rank(not finite):
            what = f"the loss is {loss.item()}" if not finite else "the loss of another process is not finite"
            raise GradientError(
                f"{what} at step {trainer.global_step}, before any update with it. Look at the last rows of "
                "metrics.csv for the term that grew; go on from the last checkpoint with a smaller learning rate "
                "or with clipping."
            )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if trainer.global_step % self.every:
            return
        norms = component_norms(pl_module.components())
        pl_module.log_dict({f"grad_norm/{name}": norm for name, norm in norms.items()})
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        for name, losses in pl_module.active_losses().items():
            norm = norms[name]
            if not math.isfinite(norm) and not scaled:
                raise GradientError(
                    f"the gradient of {name} is {norm} at step {trainer.global_step}, before any update with it; its "
                    f"losses are {_list(losses)}. {_ADVICE_INFINITE}"
                )
            usable = math.isfinite(norm) and norm > 0
            self.without_gradient[name] = 0 if usable or not losses else self.without_gradient.get(name, 0) + self.every
            if self.without_gradient[name] >= self.patience:
                what = "zero" if norm == 0 else f"{norm}"
                raise GradientError(
                    f"{name} has had no usable gradient for {self.without_gradient[name]} steps (its norm is {what} at "
                    f"step {trainer.global_step}), though these losses should train it: {_list(losses)}. "
                    f"{_ADVICE_ZERO if norm == 0 else _ADVICE_INFINITE}"
                )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == 0 or not self.start:
            return
        moved = {name: distance(self.start[name], projections(part)) for name, part in pl_module.components().items()}
        for logger in trainer.loggers:
            logger.log_metrics({f"moved/{name}": far for name, far in moved.items()}, step=trainer.global_step - 1)
        active = pl_module.active_losses()
        still = sorted(name for name, far in moved.items() if active.get(name) and not far > 0)
        if still:
            raise GradientError(
                f"{_list(still)}: the weights are still the initial ones after {trainer.global_step} steps, though "
                f"{'; '.join(f'{name} is trained by {_list(active[name])}' for name in still)}. {_ADVICE_ZERO}"
            )

    def state_dict(self) -> dict[str, Any]:
        return {
            "without_gradient": dict(self.without_gradient),
            "start": {name: list(values) for name, values in self.start.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.without_gradient, self.start = dict(state_dict["without_gradient"]), dict(state_dict["start"])


_ADVICE_ZERO = (
    "Check that it takes part in the forward pass, that nothing between it and the loss is detached or under no_grad, "
    "that its parameters require gradients and are in the optimizer, and that the loss's weight is not zero."
)
_ADVICE_INFINITE = (
    "Look for a division by zero, a log of zero or an overflow that is masked only after it was computed."
)


def component_norms(components: dict[str, nn.Module]) -> dict[str, float]:
    """Euclidean norm of each component's gradient, 0 where no parameter has one; with one transfer from the device."""
    norms = []
    for module in components.values():
        parameters = list(module.parameters())
        gradients = [p.grad.detach().float() for p in parameters if p.grad is not None]
        device = parameters[0].device if parameters else None
        norms.append(torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros((), device=device))
    return dict(zip(components, torch.stack(norms).tolist() if norms else [], strict=True))


@torch.no_grad()
def projections(module: nn.Module) -> list[float]:
    """Products of the trainable weights with fixed random directions (entries ±1); the last number is their norm."""
    sums, square = torch.zeros(PROJECTIONS, dtype=torch.float64), 0.0
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if parameter.requires_grad:
            flat = parameter.detach().flatten().to("cpu", torch.float64)
            for i in range(PROJECTIONS):
                signs = torch.randint(0, 2, flat.shape, generator=generator, dtype=torch.int8).mul_(2).sub_(1)
                sums[i] += signs.to(torch.float64) @ flat
            square += float(flat @ flat)
    return [*sums.tolist(), math.sqrt(square)]


def distance(before: list[float], after: list[float]) -> float:
    """Distance of two sets of weights, relative to the norm of the first, estimated from their projections.

    The squared estimate is unbiased. Equal weights have exactly 0; if the first weights are zero, the distance is
    absolute.
    """
    gaps = [a - b for a, b in zip(after[:-1], before[:-1], strict=True)]
    return math.sqrt(sum(gap * gap for gap in gaps) / len(gaps)) / (before[-1] or 1.0)


def _list(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"
