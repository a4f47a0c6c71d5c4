"""A trial of a language model on eight tokens: does it do what `FrozenBackbone` relies on?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from gssr.backbone.frozen import FrozenBackbone

TOKENS = 8


class _Reached(Exception):
    """Ends a forward pass with what was reached."""

    def __init__(self, hidden: Tensor) -> None:
        self.hidden = hidden


@torch.no_grad()
def check_model(backbone: FrozenBackbone) -> float:
    """Refuse a model that cannot carry a prefix.

    Returns:
        The factor by which the model multiplies the embeddings of token ids, but not ``inputs_embeds``.

    Raises:
        ValueError: the model takes no embeddings, has two widths, is not causal, computes states that are not finite,
            or treats ids or logits in an unknown way.
    """
    model, decoder, table = backbone.model, backbone.decoder, backbone.table
    kind, ids, half = f"{type(model).__name__} of {backbone.name!r}", torch.arange(TOKENS)[None], TOKENS // 2
    try:
        plain = run_to(decoder, backbone.layers[0], False, inputs_embeds=table(ids))
        expected = model(inputs_embeds=table(ids), use_cache=False).logits
        hidden = decoder(inputs_embeds=table(ids), use_cache=False).last_hidden_state
        other = torch.cat([ids[:, :half], ids[:, :half]], 1)
        changed = decoder(inputs_embeds=table(other), use_cache=False).last_hidden_state
        from_ids = run_to(decoder, backbone.layers[0], False, input_ids=ids)
        logits = backbone.logits(hidden)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{kind} does not take inputs_embeds, which a prefix needs; choose another backbone ({error})"
        ) from error
    except (RuntimeError, IndexError, ArithmeticError, AttributeError) as error:
        raise ValueError(
            f"{kind} cannot read {TOKENS} tokens, so config.json does not fit its weights ({str(error)[:200]})"
        ) from error
    if hidden.shape[-1] != backbone.hidden_size:
        raise ValueError(
            f"{kind} has embeddings of width {backbone.hidden_size} and states of width {hidden.shape[-1]}; a prefix "
            "needs a backbone that has one width"
        )
    if not (hidden.isfinite().all() and expected.isfinite().all()):
        raise ValueError(
            f"the states of {kind} are not finite in {table.weight.dtype}: a wrong number in config.json, or a "
            "precision in which they overflow; try backbone.dtype float32"
        )
    if not (hidden.any() and expected.any()):
        raise ValueError(f"the states or logits of {kind} are all zero: weights or factors in config.json are zero")
    if not _close(hidden[:, :half], changed[:, :half], 1e-3):
        raise ValueError(f"{kind} is no causal language model: its states of a token depend on later tokens")
    factors = (1.0, getattr(backbone.config, "embedding_multiplier", 1.0))
    fitting = [factor for factor in factors if _close(factor * plain, from_ids)]
    if not fitting:
        raise ValueError(
            f"{kind} treats embeddings and token ids differently, in a way that gssr does not know; choose another one"
        )
    if not _close(logits, expected):
        raise ValueError(f"the output head of {kind} does more than gssr knows; choose another backbone")
    return fitting[0]


def run_to(decoder: nn.Module, layer: nn.Module, after: bool, **inputs: Tensor) -> Tensor:
    """The input of a layer, or with ``after`` its output; later layers do not run."""
    with ending_at(decoder, layer, after) as run:
        return run(**inputs)


@contextmanager
def ending_at(decoder: nn.Module, layer: nn.Module, after: bool) -> Iterator[Callable[..., Tensor]]:
    """A function that does what ``run_to`` does, in several threads at once if need be."""

    def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any = None) -> None:
        hidden = output if after else args[0] if args else kwargs["hidden_states"]
        raise _Reached(hidden[0] if isinstance(hidden, tuple) else hidden)

    def run(**inputs: Tensor) -> Tensor:
        try:
            decoder(**inputs, use_cache=False)
        except _Reached as reached:
            return reached.hidden
        raise AssertionError("the decoder did not run this layer")

    handle = (layer.register_forward_hook if after else layer.register_forward_pre_hook)(stop, with_kwargs=True)
    try:
        yield run
    finally:
        handle.remove()


def _close(a: Tensor, b: Tensor, tolerance: float | None = None) -> bool:
    """Whether two tensors agree in norm up to rounding; single elements may be near zero and differ more."""
    if tolerance is None:
        tolerance = 1e-3 if a.dtype == b.dtype == torch.float32 else 3e-2
    return bool((a.float() - b.float()).norm() <= tolerance * b.float().norm())
