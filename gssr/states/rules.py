"""Rules: pure functions that change a state at one token. `gssr.states.intervention` applies them.

Shapes: B rows; L tokens read. A recurrent state is (B, M, R, N), M heads of dimension R with N state dimensions in
Mamba-2; other recurrent layers have axes of their own, the first after B being their heads. Conv states are (B,
channels, width), attention values (B, KV heads, L, head dimension).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LowRank:
    """A change of rank k, left · rightᵀ: left (…, M, R, k), right (…, M, N, k). A network can output it cheaply."""

    left: Tensor
    right: Tensor

    def dense(self) -> Tensor:
        """(…, M, R, N)."""
        return self.left @ self.right.transpose(-1, -2)


# The parts of a layer that a rule can change.
PARTS = ("recurrent", "conv", "values")
# By layer: (M, R, N) for all rows, or (B, M, R, N) with a change for each row. Other parts have their own shapes; for
# values the axis of tokens has length 1, and every token read gets the same change.
Change = Mapping[int, Tensor | LowRank]


@dataclass(frozen=True)
class Schedule:
    """The strength of a rule at each token. Token 0 is the step that writes the first new token.

    Args:
        start, stop: the rule acts at tokens start … stop − 1; without an end if ``stop`` is None.
        every: act at every token (1), every second token (2), …
        half_life: tokens, from ``start`` on, in which the strength halves; None keeps it constant.
    """

    start: int = 0
    stop: int | None = None
    every: int = 1
    half_life: float | None = None

    def __post_init__(self) -> None:
        if self.start < 0 or self.every < 1 or (self.stop is not None and self.stop <= self.start):
            raise ValueError(f"{self} never acts; expected 0 <= start < stop and every >= 1")
        if self.half_life is not None and not self.half_life > 0:
            raise ValueError(f"half_life {self.half_life} must be above 0 tokens, or None for a constant strength")

    @classmethod
    def once(cls) -> "Schedule":
        return cls(stop=1)

    def weight(self, token: int) -> float:
        """0 where the rule does not act, otherwise in (0, 1]."""
        past = token - self.start
        if past < 0 or (self.stop is not None and token >= self.stop) or past % self.every:
            return 0.0
        return 1.0 if self.half_life is None else 0.5 ** (past / self.half_life)

    def weights(self, tokens: int) -> Tensor:
        """(tokens,), float32."""
        return torch.tensor([self.weight(t) for t in range(tokens)])


@dataclass(frozen=True, eq=False)
class Rule:
    """A change of some layers' states.

    Args:
        change: by layer, see ``Change``.
        strength: one number, or (B,), one for each row. Where generation widens B texts to B·k rows (beams, several
            returned sequences), all rows of a text have its strength and its change.
        part: the part to change, one of ``PARTS``.
        layers: some of those in ``change``; None is all.
        heads: heads to change, in every layer or by layer; None is all.
        schedule: the strength at each token.
    """

    change: Change
    strength: float | Tensor = 1.0
    layers: Sequence[int] | None = None
    heads: Sequence[int] | Mapping[int, Sequence[int]] | None = None
    schedule: Schedule = field(default_factory=Schedule)
    part: str = "recurrent"

    def __post_init__(self) -> None:
        strength = torch.as_tensor(self.strength)
        if strength.ndim > 1 or not torch.isfinite(strength).all():
            raise ValueError(f"strength {self.strength} must be finite: one number, or one for each row of the batch")
        if self.part not in PARTS or (self.heads is not None and self.part != "recurrent"):
            raise ValueError(
                f"part {self.part!r}, heads {self.heads}; expected a part of {PARTS}, and heads with the first only"
            )
        if not self.change:
            raise ValueError("the change names no layer; give a tensor for each layer to steer")
        for wanted in (self.layers or (), self.heads if isinstance(self.heads, Mapping) else ()):
            if missing := sorted(set(wanted) - set(self.change)):
                raise ValueError(f"layers {missing} have no direction; it has the layers {sorted(self.change)}")

    @property
    def acting_layers(self) -> list[int]:
        return sorted(self.change if self.layers is None else set(self.layers))

    @property
    def is_zero(self) -> bool:
        """Whether the strength is 0 in every row; then no bit may change."""
        return not torch.as_tensor(self.strength).any()

    def tensor(self, layer: int, state: Tensor) -> Tensor:
        """The layer's change for a state (B, M, R, N): (1 or B, M, R, N), in its dtype and on its device; other parts
        likewise.

        Raises ValueError for another shape, or rows that do not divide the batch.
        """
        change = self.change[layer]
        change = change.dense() if isinstance(change, LowRank) else change
        if change.ndim == state.ndim - 1:
            change = change[None]
        tokens = state.ndim - 2 if self.part == "values" else None
        expected = tuple(1 if axis == tokens else size for axis, size in enumerate(state.shape) if axis)
        if tuple(change.shape[1:]) != expected:
            raise ValueError(
                f"the direction of layer {layer} is {tuple(change.shape[1:])}, its state {expected}; "
                "take a direction made for this model"
            )
        return rows(change.to(state), len(state)).expand(-1, *state.shape[1:])

    def selected(self, layer: int, state: Tensor) -> Tensor | None:
        """(1, M, 1, …), 1 at the heads that the rule changes; None is all."""
        heads = self.heads.get(layer) if isinstance(self.heads, Mapping) else self.heads
        if heads is None:
            return None
        count = state.shape[1]
        if not heads or min(heads) < 0 or max(heads) >= count:
            raise ValueError(f"heads {list(heads)} of layer {layer}; expected some of 0 to {count - 1}")
        mask = state.new_zeros((1, count, *[1] * (state.ndim - 2)))
        mask[:, list(heads)] = 1.0
        return mask

    def strengths(self, state: Tensor) -> Tensor:
        """(1 or B, 1, …)."""
        strength = torch.as_tensor(self.strength).to(state).reshape(-1)
        return rows(strength, len(state)).reshape(-1, *[1] * (state.ndim - 1))

    def apply(self, layer: int, state: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        """The changed state (B, M, R, N) and the norm of the change (1 or B, 1, 1, 1), by the schedule's ``weight``."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Offset(Rule):
    """h' = h + strength · weight · change.

    Args:
        max_share: largest norm of the change, as a share of the state's, by row and layer, over the changed heads.
    """

    max_share: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_share is not None and not 0 < self.max_share < math.inf:
            raise ValueError(f"max_share {self.max_share} must be above 0, such as 0.5, or None for no bound")

    def apply(self, layer: int, state: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        change, mask = self.tensor(layer, state), self.selected(layer, state)
        change = change if mask is None else change * mask
        size = weight * self.strengths(state)
        length = norm(change)
        if self.max_share is not None:
            own = norm(state if mask is None else state * mask)
            bound = self.max_share * own / (size.abs() * length).clamp(min=torch.finfo(state.dtype).tiny)
            size = size * bound.clamp(max=1.0)
        return torch.addcmul(state, change, size), size.abs() * length


@dataclass(frozen=True, eq=False)
class Interpolation(Rule):
    """h' = (1 − a)·h + a·change with a = gate · strength · weight; a gate of 1 is the target exactly.

    Args:
        gate: a_l in [0, 1], one for all layers or by layer; as a tensor it may be learned, one number or (B,).
    """

    gate: float | Mapping[int, float | Tensor] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        gates = self.gate if isinstance(self.gate, Mapping) else dict.fromkeys(self.acting_layers, self.gate)
        if missing := sorted(set(self.acting_layers) - set(gates)):
            raise ValueError(f"layers {missing} have no gate; give one for each of {self.acting_layers}")
        strength = torch.as_tensor(self.strength)
        for layer, gate in gates.items():
            with torch.no_grad():
                amount = torch.as_tensor(gate).reshape(-1, 1) * strength.to(torch.as_tensor(gate).device).reshape(1, -1)
            if not (amount.min() >= 0 and amount.max() <= 1):
                raise ValueError(f"gate times strength is outside [0, 1] in layer {layer}: {gate} · {self.strength}")

    def apply(self, layer: int, state: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        gate = self.gate[layer] if isinstance(self.gate, Mapping) else self.gate
        if isinstance(gate, Tensor):
            gate = rows(gate.to(state).reshape(-1), len(state)).reshape(-1, *[1] * (state.ndim - 1))
        amount, mask = gate * weight * self.strengths(state), self.selected(layer, state)
        # lerp is exact at both ends, which (1 − a)·h + a·t is not in floating point.
        after = torch.lerp(state, self.tensor(layer, state), amount if mask is None else amount * mask)
        return after, norm(after - state)


def norm(state: Tensor) -> Tensor:
    """Euclidean norm of each row of (B, M, R, N): (B, 1, 1, 1)."""
    return torch.linalg.vector_norm(state, dim=tuple(range(1, state.ndim)), keepdim=True)


def rows(per_row: Tensor, count: int) -> Tensor:
    """(1 or B, …) for ``count`` rows: repeats each row k times if generation has widened B texts to B·k rows."""
    have = len(per_row)
    if have in (1, count):
        return per_row
    if count % have:
        raise ValueError(f"the steering is for {have} rows, the batch has {count}; give one for all or one for each")
    return per_row.repeat_interleave(count // have, 0)
