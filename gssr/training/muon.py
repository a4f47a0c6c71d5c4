"""Muon in the precision of the weights. PyTorch's works in bfloat16, which most CPUs have no arithmetic for."""

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor


class Muon(torch.optim.Muon):
    """PyTorch's Muon with the scale ``match_rms_adamw``: same options and state, matrices of one shape at once."""

    def __init__(self, matrices: list[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        with torch.enable_grad():
            loss = closure() if closure is not None else None
        for group in self.param_groups:
            same = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    same[matrix.shape].append(matrix)
            for (rows, columns), matrices in same.items():
                updates = torch.stack([self._momentum(matrix, group["momentum"]) for matrix in matrices])
                updates = orthogonal(updates, group["ns_coefficients"], group["ns_steps"], group["eps"])
                rate = group["lr"] * 0.2 * max(rows, columns) ** 0.5
                for matrix, update in zip(matrices, updates, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=rate)
        return loss

    def _momentum(self, matrix: Tensor, momentum: float) -> Tensor:
        """Nesterov's momentum."""
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        buffer = state["momentum_buffer"].lerp_(matrix.grad, 1 - momentum)
        return matrix.grad.lerp(buffer, momentum)


def orthogonal(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Matrices (n, rows, columns) with all singular values near 1, by a quintic Newton-Schulz iteration.

    A step maps X to P X, where P = a I + b G + c G² and G = X Xᵀ. So all steps are taken on G, which is as large as
    the shorter side, and their product meets X once.
    """
    a, b, c = coefficients
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.transpose(1, 2)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    gram = x @ x.transpose(1, 2)
    product = torch.eye(x.shape[1], dtype=x.dtype, device=x.device).expand_as(gram)
    for step in range(steps):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor @ product if step else factor
        if step < steps - 1:
            gram = factor @ gram @ factor
    x = product @ x
    return x if wide else x.transpose(1, 2)
