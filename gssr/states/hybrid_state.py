"""The states of a hybrid model behind texts, as a value: kept, saved, and handed to a model as a new cache.

Shapes: B rows; L positions read, left padding included; shapes of a layer's states as in `gssr.states.cache`.

The last token of each text is known but not read. Stock ``model.generate`` needs at least one token to read, and so
the first step of a continuation reads this one. A change of the state thus acts on the very next token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Cache, DynamicCache, PreTrainedModel

from gssr.backbone import FrozenBackbone
from gssr.states import state_file
from gssr.states.advance import advance, left_padded
from gssr.states.cache import ATTENTION, LayerState, empty_cache, fill_cache, inputs, layer_states
from gssr.states.checks import check_consistent, check_layout, check_mask, check_values, layers_of

FORMAT = "gssr hybrid state 1"
_LAYOUTS: "WeakKeyDictionary[FrozenBackbone, tuple[LayerState, ...]]" = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class HybridState:
    """States of all layers behind B texts. No method and no continuation changes it.

    ``tokens`` and ``mask`` are (B, L+1), left-padded. Each text begins with its begin-of-text token; the last column
    is not read yet. ``fingerprint`` and ``backbone`` (a name for messages) identify the model.

    Raises ValueError for parts whose shapes or types do not fit each other, or a mask that is no left padding.
    """

    layers: tuple[LayerState, ...]
    tokens: Tensor
    mask: Tensor
    fingerprint: str
    backbone: str

    def __post_init__(self) -> None:
        check_consistent(self.layers, self.tokens, self.mask)

    @classmethod
    def capture(cls, backbone: FrozenBackbone, prompts: Sequence[str]) -> "HybridState":
        """Read prompts, which may differ in length, in one batch.

        Raises ValueError for no prompt, a prompt without a token, or a model without recurrent states.
        """
        return capture_tokens(backbone, *left_padded(backbone, prompts, backbone.pad_id))

    @property
    def rows(self) -> int:
        """B."""
        return len(self.tokens)

    @property
    def position(self) -> Tensor:
        """Number of tokens read, (B,), padding not counted."""
        return self.mask[:, :-1].sum(1)

    @property
    def recurrent_layers(self) -> list[int]:
        return [i for i, layer in enumerate(self.layers) if layer.recurrent is not None]

    def to_cache(self, model: PreTrainedModel) -> DynamicCache:
        """A new cache on the model's device that shares no storage with this state."""
        return fill_cache(model, self.layers)

    def inputs(self, model: PreTrainedModel, copies: int = 1) -> dict[str, Any]:
        """Arguments with which stock ``model.generate(**state.inputs(model), ...)`` continues without a prefill.

        Args:
            copies: the larger of ``num_beams`` and ``num_return_sequences``; ``generate`` repeats the tokens, not the
                cache.
        """
        cache = repeat_rows(self, copies).to_cache(model)
        return inputs(model, cache, self.tokens, self.mask)

    @torch.no_grad()
    def generate(self, backbone: FrozenBackbone, **options: Any) -> Tensor:
        """New tokens (B · copies, new) from stock ``model.generate``, padded behind an end-of-text token.

        Args:
            options: of ``model.generate``, such as ``max_new_tokens``.

        Raises:
            ValueError: another model's state, or one that is not finite.
        """
        check_backbone(self, backbone)
        check_values(self.layers, self.tokens)
        copies = max(options.get("num_beams") or 1, options.get("num_return_sequences") or 1)
        inputs = self.inputs(backbone.model, copies)
        options.setdefault("pad_token_id", backbone.pad_id)
        return backbone.model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]

    @torch.no_grad()
    def read_on(self, backbone: FrozenBackbone, text: str) -> "HybridState":
        """The state after every row has read the same further text, again up to its last token.

        Raises ValueError for a text without a token, or another model's state.
        """
        check_backbone(self, backbone)
        (ids,) = backbone.tokenize([text])
        if not ids:
            raise ValueError(f"the text {text!r} has no token; give a text of at least one character")
        more = torch.tensor(ids, device=backbone.device).expand(self.rows, -1)
        tokens = torch.cat([self.tokens.to(backbone.device), more], 1)
        mask = F.pad(self.mask.to(backbone.device), (0, len(ids)), value=True)
        unread = backbone.embed(tokens[:, self.tokens.shape[1] - 1 : -1])
        _, cache = advance(backbone, self.to_cache(backbone.model), unread, mask[:, :-1])
        return from_cache(backbone, cache, tokens, mask)

    def with_layers(self, layers: Mapping[int, LayerState]) -> "HybridState":
        """A state with some layers replaced; it shares the other layers, which nothing changes.

        Raises ValueError for a layer that does not exist, or states of other shapes than its own.
        """
        check_layout(layers, dict(enumerate(self.layers)))
        return replace(self, layers=tuple(layers.get(i, layer) for i, layer in enumerate(self.layers)))

    def select(self, rows: Sequence[int]) -> "HybridState":
        """These rows in this order, without the columns that are padding in all of them.

        Raises ValueError for a row that does not exist.
        """
        for row in rows:
            if not 0 <= row < self.rows:
                raise ValueError(f"row {row} does not exist; the state has rows 0 to {self.rows - 1}")
        index = torch.as_tensor(rows, dtype=torch.long, device=self.tokens.device)
        start = int(self.mask[index].any(0).long().argmax())
        layers = [layer.map(lambda part: part[index]) for layer in self.layers]
        layers = [layer.map(lambda part: part[:, :, start:], ATTENTION) for layer in layers]
        return replace(self, layers=tuple(layers), tokens=self.tokens[index, start:], mask=self.mask[index, start:])

    def save(self, path: str | Path, notes: Mapping[str, str] | None = None) -> None:
        """Write a safetensors file in one step: an interruption leaves no partial file.

        Args:
            notes: further strings for the file's header, by names that the state itself does not use.

        Raises ValueError if the file cannot be written, or the states are not finite.
        """
        check_values(self.layers, self.tokens)
        tensors, about = to_file(self)
        state_file.write(path, FORMAT, tensors, {**(notes or {}), **about})

    @classmethod
    def load(cls, path: str | Path, backbone: FrozenBackbone | None = None) -> "HybridState":
        """Read a file that ``save`` wrote, on the CPU. With a backbone, check that the state belongs to it.

        Raises ValueError if the file is missing, damaged or of another model, or its shapes do not fit.
        """
        return state_file.read(path, FORMAT, lambda tensors, about: from_file(tensors, about, backbone))


def to_file(state: HybridState) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and strings that ``from_file`` makes the state of again; they share its storage."""
    tensors = {"tokens": state.tokens, "mask": state.mask}
    for i, layer in enumerate(state.layers):
        tensors |= {f"layers.{i}.{name}": part for name, part in layer.parts()}
    return tensors, {"fingerprint": state.fingerprint, "backbone": state.backbone, "layers": str(len(state.layers))}


def from_file(tensors: dict[str, Tensor], about: Mapping[str, str], backbone: FrozenBackbone | None) -> HybridState:
    """The state that a file of ``HybridState.save`` holds, for ``state_file.read``; errors as in ``load``."""
    names = {"tokens", "mask"}
    if missing := sorted(names - tensors.keys()) + sorted({"layers", "fingerprint", "backbone"} - about.keys()):
        raise ValueError(f"it lacks {', '.join(missing)}")
    layers = layers_of({name: x for name, x in tensors.items() if name not in names}, about["layers"])
    state = HybridState(layers, tensors["tokens"], tensors["mask"], about["fingerprint"], about["backbone"])
    if not state.tokens.is_meta:
        check_values(state.layers, state.tokens)
    if backbone is not None:
        check_backbone(state, backbone)
        _check_fits(state, backbone)
    return state


def capture_tokens(backbone: FrozenBackbone, tokens: Tensor, mask: Tensor | None = None) -> HybridState:
    """Read all but the last column of token ids (B, L+1), L > 0; ``mask`` is False at left padding.

    Raises ValueError for other shapes, or padding that is not on the left.
    """
    tokens = tokens.to(backbone.device)
    mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.to(backbone.device, torch.bool)
    if tokens.ndim != 2 or not len(tokens) or tokens.shape[1] < 2 or mask.shape != tokens.shape:
        shapes = f"tokens {tuple(tokens.shape)} and mask {tuple(mask.shape)}"
        raise ValueError(f"{shapes}; expected both (B, L+1) with at least two tokens")
    check_mask(mask)
    with torch.no_grad():
        _, cache = advance(backbone, empty_cache(backbone.model), backbone.embed(tokens[:, :-1]), mask[:, :-1])
    return from_cache(backbone, cache, tokens, mask)


def from_cache(backbone: FrozenBackbone, cache: Cache, tokens: Tensor, mask: Tensor) -> HybridState:
    """A copy of the states in a cache that has read ``tokens[:, :-1]``; arguments as in ``capture_tokens``."""
    layers = tuple(layer.map(lambda part: part.detach().clone()) for layer in layer_states(cache))
    return HybridState(layers, tokens.clone(), mask.clone(), backbone.fingerprint, backbone.name)


def repeat_rows(state: HybridState, copies: int) -> HybridState:
    """(B · copies, …): every row ``copies`` times in a row, as ``generate`` repeats its inputs."""
    if copies == 1:
        return state
    return state.select([row for row in range(state.rows) for _ in range(copies)])


def check_backbone(state: HybridState, backbone: FrozenBackbone) -> None:
    """Raises ValueError for a state of another model."""
    if state.fingerprint != backbone.fingerprint:
        raise ValueError(
            f"this state comes from the backbone {state.backbone!r} (fingerprint {state.fingerprint}), not from "
            f"{backbone.name!r} (fingerprint {backbone.fingerprint}); use the backbone that it was captured with"
        )


def _check_fits(state: HybridState, backbone: FrozenBackbone) -> None:
    """Raises ValueError for other layers than the model's, or unknown token ids; a state on meta shows its layers."""
    if not state.tokens.is_meta:
        if int(state.tokens.max()) >= (known := backbone.table.num_embeddings):
            raise ValueError(f"it holds token ids that are not among the {known}")
        return
    model = _layout(backbone)
    if len(state.layers) != len(model):
        raise ValueError(f"it has {len(state.layers)} layers, the model {len(model)}")
    check_layout(dict(enumerate(state.layers)), dict(enumerate(model)))


def _layout(backbone: FrozenBackbone) -> tuple[LayerState, ...]:
    """What the model keeps behind one token, on meta; the model reads it once."""
    if (found := _LAYOUTS.get(backbone)) is None:
        layers = capture_tokens(backbone, torch.full((1, 2), backbone.start_id)).layers
        found = _LAYOUTS[backbone] = tuple(layer.map(lambda part: part.to("meta")) for layer in layers)
    return found
