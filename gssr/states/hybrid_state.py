"""What a hybrid model knows after reading a text, as a value: kept, saved, handed to a model as a fresh cache.

Shapes: B rows; L positions read, left padding included; M heads of dimension R and N state dimensions in a Mamba-2 layer
(GraniteMoeHybrid, Bamba, Falcon-H1, Nemotron-H, Mamba-2); other recurrent layers of transformers bring shapes of their own.

The last token of each text is known but not read. A cache that had read it could say nothing about the next one, and stock
``model.generate`` asks for at least one token to read; so the first step of a continuation reads it, from a state that may have been changed before.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Cache, DynamicCache, PreTrainedModel

from gssr.backbone import FrozenBackbone
from gssr.states import state_file
from gssr.states.cache import attention_layers, cache_name, empty_cache, read, recurrent_layers


@dataclass(frozen=True, eq=False)
class LayerState:
    """One layer's share of the state; what a kind of layer does not have is None."""

    recurrent: Tensor | None = None  # (B, M, R, N), float32
    conv: Tensor | None = None  # (B, channels, width), the last inputs of the causal convolution
    keys: Tensor | None = None  # (B, KV heads, L, head dimension)
    values: Tensor | None = None  # as keys

    @property
    def kind(self) -> str:
        """``mamba``, ``attention``, ``mamba+attention`` (Falcon-H1) or ``none`` (an MLP or experts alone)."""
        kinds = [name for name, part in (("mamba", self.conv), ("attention", self.keys)) if part is not None]
        return "+".join(kinds) or "none"

    def parts(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors of what the layer has."""
        for field in fields(self):
            if (tensor := getattr(self, field.name)) is not None:
                yield field.name, tensor

    def map(self, change: Callable[[Tensor], Tensor], only: tuple[str, ...] = ()) -> "LayerState":
        """``change`` on every part, or on those named."""
        return replace(self, **{name: change(part) for name, part in self.parts() if not only or name in only})


ATTENTION = ("keys", "values")


@dataclass(frozen=True, eq=False)
class HybridState:
    """States of all layers behind B texts. A value: no method changes it, no continuation does.

    ``tokens`` and ``mask`` are (B, L+1), left-padded: every text with its begin-of-text token; the last column is not read yet.
    ``fingerprint`` and ``backbone`` (a name for messages) say whose states these are.
    """

    layers: tuple[LayerState, ...]
    tokens: Tensor
    mask: Tensor
    fingerprint: str
    backbone: str

    @classmethod
    def capture(cls, backbone: FrozenBackbone, prompts: Sequence[str]) -> "HybridState":
        """Read the prompts, which may differ in length, in one batch.

        Raises:
            ValueError: no prompt, a prompt without a token, or a model without recurrent states.
        """
        if not prompts:
            raise ValueError("there is no prompt to read; give at least one text")
        rows = [[backbone.start_id, *ids] for ids in backbone.tokenize(prompts)]
        for prompt, row in zip(prompts, rows, strict=True):
            if len(row) == 1:
                raise ValueError(f"the prompt {prompt!r} has no token; give a text of at least one character")
        width = max(map(len, rows))
        pad = _pad_id(backbone)
        tokens = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
        return cls.capture_tokens(backbone, tokens, mask)

    @classmethod
    def capture_tokens(cls, backbone: FrozenBackbone, tokens: Tensor, mask: Tensor | None = None) -> "HybridState":
        """The same for token ids (B, L+1), L > 0, of which all but the last column are read; ``mask`` is False at left padding.

        Only left padding, and only from an empty cache, leaves a recurrent state as it would be without padding.
        """
        tokens = tokens.to(backbone.device)
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.to(backbone.device, torch.bool)
        if tokens.ndim != 2 or tokens.shape[1] < 2 or mask.shape != tokens.shape:
            raise ValueError(
                f"tokens {tuple(tokens.shape)} and mask {tuple(mask.shape)}; expected both (B, L+1) with at least two tokens"
            )
        if not mask[:, -2:].all() or (mask[:, 1:] < mask[:, :-1]).any():
            raise ValueError("only left padding before two or more tokens can be read into a state")
        cache = empty_cache(backbone.model)
        read(backbone, cache, tokens[:, :-1], mask[:, :-1])
        return cls.from_cache(backbone, cache, tokens, mask)

    @classmethod
    def from_cache(
        cls, backbone: FrozenBackbone, cache: Cache, tokens: Tensor, mask: Tensor | None = None
    ) -> "HybridState":
        """A copy of what a cache holds that has read ``tokens[:, :-1]``, see ``capture_tokens``."""
        parts: list[dict[str, Tensor | None]] = [{} for _ in cache.layers]
        for i in recurrent_layers(cache):
            parts[i] |= {"recurrent": cache.get_recurrent_state(i), "conv": cache.get_conv_state(i)}
        for i in attention_layers(cache):
            parts[i] |= {"keys": cache.layers[i].keys, "values": cache.layers[i].values}
        layers = [
            LayerState(**{name: part.detach().clone() for name, part in found.items() if part is not None})
            for found in parts
        ]
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        state = cls(tuple(layers), tokens.clone(), mask.clone(), backbone.fingerprint, backbone.name)
        _check_consistent(state)
        return state

    @property
    def rows(self) -> int:
        """B, the number of texts."""
        return len(self.tokens)

    @property
    def position(self) -> Tensor:
        """Tokens read, (B,), without padding."""
        return self.mask[:, :-1].sum(1)

    @property
    def recurrent_layers(self) -> list[int]:
        return [i for i, layer in enumerate(self.layers) if layer.recurrent is not None]

    @property
    def attention_layers(self) -> list[int]:
        return [i for i, layer in enumerate(self.layers) if layer.keys is not None]

    def nbytes(self) -> dict[str, int]:
        """Bytes of ``recurrent`` and ``conv``, which no text makes larger, of ``attention`` and ``tokens``, which grow with every token."""
        sizes = dict.fromkeys(("recurrent", "conv", "attention"), 0)
        for layer in self.layers:
            for name, part in layer.parts():
                sizes["attention" if name in ATTENTION else name] += part.nbytes
        return sizes | {"tokens": self.tokens.nbytes + self.mask.nbytes}

    def to_cache(self, model: PreTrainedModel) -> DynamicCache:
        """A fresh cache on the model's device that shares no storage with this state."""
        cache = empty_cache(model)
        if len(cache.layers) != len(self.layers):
            raise ValueError(f"a state of {len(self.layers)} layers for a model of {len(cache.layers)}")
        for i, layer in enumerate(self.layers):
            # The order is the model's own: the conv state marks the layer as begun, and copies as the recurrent state does.
            if layer.conv is not None:
                cache.update_conv_state(layer.conv.to(model.device, model.dtype), i)
            if layer.recurrent is not None:
                cache.update_recurrent_state(layer.recurrent.to(model.device), i)
            if layer.keys is not None and layer.values is not None:
                cache.update(*(part.to(model.device, model.dtype, copy=True) for part in (layer.keys, layer.values)), i)
        return cache

    def inputs(self, model: PreTrainedModel, copies: int = 1) -> dict[str, Any]:
        """What ``model.generate(**state.inputs(model), max_new_tokens=...)`` needs to go on from here without a prefill.

        Args:
            copies: ``num_beams`` or ``num_return_sequences`` of that call, the larger one: generate repeats the tokens, not the cache.
        """
        cache = self.expand(copies).to_cache(model)
        tokens, mask = self.tokens.to(model.device), self.mask.long().to(model.device)
        if cache_name(model) == "cache_params":
            return {"input_ids": tokens[:, -1:], "attention_mask": mask[:, -1:], "cache_params": cache}
        return {"input_ids": tokens, "attention_mask": mask, "past_key_values": cache}

    @torch.no_grad()
    def generate(self, backbone: FrozenBackbone, **options: Any) -> Tensor:
        """New tokens (B · copies, new) from stock ``model.generate`` with these options; padded behind an end-of-text token."""
        self.check_backbone(backbone)
        copies = max(options.get("num_beams") or 1, options.get("num_return_sequences") or 1)
        inputs = self.inputs(backbone.model, copies)
        options.setdefault("pad_token_id", _pad_id(backbone))
        return backbone.model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]

    def read_on(self, backbone: FrozenBackbone, text: str) -> "HybridState":
        """The state after every row has read the same further text, again up to its last token."""
        self.check_backbone(backbone)
        (ids,) = backbone.tokenize([text])
        if not ids:
            raise ValueError(f"the text {text!r} has no token; give a text of at least one character")
        more = torch.tensor(ids, device=backbone.device).expand(self.rows, -1)
        tokens = torch.cat([self.tokens.to(backbone.device), more], 1)
        mask = F.pad(self.mask.to(backbone.device), (0, len(ids)), value=True)
        cache = self.to_cache(backbone.model)
        # One segment for all rows: padding inside a continuation would let the states decay.
        read(backbone, cache, tokens[:, self.tokens.shape[1] - 1 : -1], mask[:, :-1])
        return HybridState.from_cache(backbone, cache, tokens, mask)

    def with_layers(self, layers: Mapping[int, LayerState]) -> "HybridState":
        """A state in which some layers are others; the rest is shared, which is safe since nothing changes a state."""
        return replace(self, layers=tuple(layers.get(i, layer) for i, layer in enumerate(self.layers)))

    def select(self, rows: Sequence[int]) -> "HybridState":
        """These rows, in this order, without the padding that none of them needs."""
        for row in rows:
            if not 0 <= row < self.rows:
                raise ValueError(f"row {row} does not exist; the state has rows 0 to {self.rows - 1}")
        index = torch.as_tensor(rows, dtype=torch.long, device=self.tokens.device)
        start = int(self.mask[index].any(0).long().argmax())
        layers = [layer.map(lambda part: part[index]) for layer in self.layers]
        layers = [layer.map(lambda part: part[:, :, start:], ATTENTION) for layer in layers]
        return replace(self, layers=tuple(layers), tokens=self.tokens[index, start:], mask=self.mask[index, start:])

    def expand(self, copies: int) -> "HybridState":
        """Every row ``copies`` times, one behind the other as ``generate`` repeats its inputs: (B · copies, …)."""
        if copies == 1:
            return self
        return self.select([row for row in range(self.rows) for _ in range(copies)])

    @staticmethod
    def stack(states: Sequence["HybridState"]) -> "HybridState":
        """All rows of several states of one backbone, padded on the left to the longest."""
        first = states[0]
        check_same_backbone(states)
        width = max(state.tokens.shape[1] for state in states)
        padded = [state._padded(width - state.tokens.shape[1]) for state in states]
        layers = []
        for i, layer in enumerate(first.layers):
            parts = {name: torch.cat([getattr(state.layers[i], name) for state in padded]) for name, _ in layer.parts()}
            layers.append(LayerState(**parts))
        tokens, mask = (torch.cat([getattr(state, name) for state in padded]) for name in ("tokens", "mask"))
        return replace(first, layers=tuple(layers), tokens=tokens, mask=mask)

    def _padded(self, more: int) -> "HybridState":
        layers = [layer.map(lambda part: F.pad(part, (0, 0, more, 0)), ATTENTION) for layer in self.layers]
        tokens = torch.cat([self.tokens[:, :1].expand(-1, more), self.tokens], 1)
        return replace(self, layers=tuple(layers), tokens=tokens, mask=F.pad(self.mask, (more, 0), value=False))

    def check_backbone(self, backbone: FrozenBackbone) -> None:
        """
        Raises:
            ValueError: the state comes from another model.
        """
        if self.fingerprint != backbone.fingerprint:
            raise ValueError(
                f"this state comes from the backbone {self.backbone!r} (fingerprint {self.fingerprint}), not from "
                f"{backbone.name!r} (fingerprint {backbone.fingerprint}); use the backbone that it was captured with"
            )

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, whole or not at all.

        Raises:
            ValueError: the file cannot be written.
        """
        tensors = {"tokens": self.tokens, "mask": self.mask}
        for i, layer in enumerate(self.layers):
            tensors |= {f"layers.{i}.{name}": part for name, part in layer.parts()}
        about = {"fingerprint": self.fingerprint, "backbone": self.backbone, "layers": str(len(self.layers))}
        state_file.write(path, tensors, about)

    @classmethod
    def load(cls, path: str | Path, backbone: FrozenBackbone | None = None) -> "HybridState":
        """Read a file that ``save`` wrote, on the CPU; with a backbone, also check that the state is one of its own.

        Raises:
            ValueError: no such file, a damaged one, another model's, or one whose shapes do not fit.
        """
        tensors, about = state_file.read(path)
        try:
            tokens, mask, count = tensors.pop("tokens"), tensors.pop("mask"), int(about["layers"])
            layers: list[dict[str, Tensor]] = [{} for _ in range(count)]
            for name, tensor in tensors.items():
                _, i, part = name.split(".")
                layers[int(i)][part] = tensor
            parts = tuple(LayerState(**layer) for layer in layers)
            state = cls(parts, tokens, mask, about["fingerprint"], about["backbone"])
            _check_consistent(state)
            if backbone is not None:
                state.check_backbone(backbone)
                _check_layout(state, backbone)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ValueError(f"{path} is not a state that can be used: {error}") from error
        return state


def check_same_backbone(states: Sequence[HybridState]) -> None:
    """
    Raises:
        ValueError: states of different backbones.
    """
    for state in states[1:]:
        if state.fingerprint != states[0].fingerprint:
            raise ValueError(
                f"states of different backbones do not go together: {states[0].backbone!r} (fingerprint "
                f"{states[0].fingerprint}) and {state.backbone!r} (fingerprint {state.fingerprint})"
            )


def _check_consistent(state: HybridState) -> None:
    """Shapes and types agree with each other; a file may claim anything."""
    tokens, mask = state.tokens, state.mask
    if tokens.ndim != 2 or tokens.dtype != torch.int64 or mask.shape != tokens.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"tokens {tokens.dtype} {tuple(tokens.shape)} and mask {mask.dtype} {tuple(mask.shape)} do not fit"
        )
    rows, length = len(tokens), tokens.shape[1] - 1
    if not state.recurrent_layers:
        raise ValueError("no layer has a recurrent state")
    for i, layer in enumerate(state.layers):
        for name, part in layer.parts():
            expected = (rows, length) if name in ATTENTION else (rows,)
            found = tuple(part.shape[d] for d in ((0, 2) if name in ATTENTION else (0,)) if d < part.ndim)
            if found != expected or not part.is_floating_point():
                raise ValueError(
                    f"{name} of layer {i} is {part.dtype} {tuple(part.shape)}, which does not fit {rows} rows of {length} tokens read"
                )


def _check_layout(state: HybridState, backbone: FrozenBackbone) -> None:
    """Every layer has the parts that the backbone's layer has after one token, in their shapes."""
    start = torch.full((1, 2), backbone.start_id)
    layout = HybridState.capture_tokens(backbone, start).layers
    if len(layout) != len(state.layers):
        raise ValueError(f"it has {len(state.layers)} layers, the model {len(layout)}")
    for i, (layer, expected) in enumerate(zip(state.layers, layout, strict=True)):
        shapes, wanted = ({name: _inner(name, part) for name, part in x.parts()} for x in (layer, expected))
        if shapes != wanted:
            raise ValueError(f"layer {i} holds {shapes}, the model's holds {wanted}, rows and tokens left out")
    if not 0 <= int(state.tokens.min()) <= int(state.tokens.max()) < backbone.table.num_embeddings:
        raise ValueError(f"it holds token ids that are not among the {backbone.table.num_embeddings} of the model")


def _inner(name: str, part: Tensor) -> tuple[int, ...]:
    return (part.shape[1], part.shape[3]) if name in ATTENTION and part.ndim == 4 else tuple(part.shape[1:])


def _pad_id(backbone: FrozenBackbone) -> int:
    pad = backbone.tokenizer.pad_token_id
    return backbone.tokenizer.eos_token_id if pad is None else pad
