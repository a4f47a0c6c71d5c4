"""Steer a model while it writes: rules change its states between forward calls; afterwards the model is as before.

    with steer(model, Offset(direction, strength=0.5)) as report:
        model.generate(**inputs, do_sample=True)

One forward pre-hook on the model changes the states in the cache before the call that reads the next token. Greedy
decoding, sampling, beams, batches and streaming all pass through this place. The hook sees the token's number, the
rows, and whether the call reads a prompt. It needs no layer's name, and removing it restores the model.

A call that reads several tokens is a prompt. The hook reads all but its last token unsteered and then changes the
states, so that the first new token is steered, too; the call returns logits for the last position only. It splits the
caller's own call rather than use `gssr.states.advance`, since arguments and cache belong to the caller. Where no rule
acts, the call stays as it is. To train through a change, use ``inject`` and then ``advance``.
"""

import copy
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Cache, PreTrainedModel

from gssr.states.cache import get_part, put_part
from gssr.states.rules import Rule, norm

CACHE_NAMES = ("past_key_values", "cache_params")
# Arguments of a forward call with one entry a token, by the axis of the tokens.
PER_TOKEN = {"input_ids": 1, "inputs_embeds": 1, "position_ids": -1}
_STEERED: "weakref.WeakSet[PreTrainedModel]" = weakref.WeakSet()


@dataclass
class Step:
    """The steering before one token.

    ``share`` (B,) is the norm of the change over the norm of the state, by layer for recurrent states, and by a name
    such as ``0 conv`` for other parts. ``kl`` (B,), in nats, is KL(steered || unsteered) of the next token; the
    unsteered model has read the same text.
    """

    generation: int
    token: int
    share: dict[int | str, Tensor]
    kl: Tensor | None = None


@dataclass
class Report:
    steps: list[Step] = field(default_factory=list)

    def as_rows(self) -> list[dict[str, Any]]:
        """One dictionary a step, with means over the rows of the batch, for JSON or a table."""
        return [
            {
                "generation": step.generation,
                "token": step.token,
                "share": {layer: share.mean().item() for layer, share in step.share.items()},
                "kl": None if step.kl is None else step.kl.mean().item(),
            }
            for step in self.steps
        ]


def inject(cache: Cache, rules: Sequence[Rule], token: int = 0) -> dict[int | str, Tensor]:
    """Apply the rules for ``token`` to the states in a cache, in place; differentiable in changes and strengths.

    Returns:
        The norm of the change over the state's norm, (B,), see ``Step.share``.

    Raises:
        ValueError: a rule names a layer without the part that it changes, or one that has read nothing yet.
    """
    share: dict[int | str, Tensor] = {}
    weights = [(rule, rule.schedule.weight(token)) for rule in rules if not rule.is_zero]
    acting = [(rule, weight) for rule, weight in weights if weight]
    for layer, part in sorted({(layer, rule.part) for rule, _ in acting for layer in rule.acting_layers}):
        if (before := get_part(cache, part, layer)) is None:
            raise ValueError(f"layer {layer} has read nothing yet and has no state to change; read a prompt first")
        # The cache is overwritten, and the gradient of a gate needs the old state.
        before = after = before.clone() if torch.is_grad_enabled() else before
        changes = []
        for rule, weight in acting:
            if part == rule.part and layer in rule.acting_layers:
                after, changed = rule.apply(layer, after, weight)
                changes.append(changed)
        with torch.no_grad():
            # A rule computes the norm of its change on the way; another pass over the states would slow down decoding.
            changed = changes[0] if len(changes) == 1 else norm(after - before)
            share[layer if part == "recurrent" else f"{layer} {part}"] = (
                (changed / norm(before).clamp(min=torch.finfo(before.dtype).tiny)).flatten().detach()
            )
        put_part(cache, part, layer, after)
    return share


@contextmanager
def steer(model: PreTrainedModel, *rules: Rule, kl: bool = False) -> Iterator[Report]:
    """Steer ``model.generate``, or a loop of calls with a cache, inside the block; each new cache starts at token 0.

    Rules act one after the other. The block restores the model when it ends, with an exception or without.

    Args:
        kl: measure the KL divergence of the next token by a second, unsteered pass with a cache of its own.

    Raises:
        ValueError: no rule, a model that is being steered already, a call without a cache, or a rule that does not fit
            the model or the batch; at the end of the block, if no rule acted though one has a strength.
    """
    if not rules:
        raise ValueError("there is nothing to steer with; give at least one rule, such as Offset(direction)")
    if model in _STEERED:
        raise ValueError(
            "this model is being steered already; give all rules to one steer(), which applies them in order"
        )
    hook = _Hook(model, rules, kl)
    handles = [model.register_forward_pre_hook(hook.before, with_kwargs=True)]
    if kl:
        handles.append(model.register_forward_hook(hook.after, with_kwargs=True))
    _STEERED.add(model)
    try:
        yield hook.report
    finally:
        _STEERED.discard(model)
        for handle in handles:
            handle.remove()
        hook.forget()
    if not hook.report.steps and not all(rule.is_zero for rule in rules):
        raise ValueError(
            f"nothing was steered: {hook.calls} calls of the model with a cache, and no rule acted at any of them; "
            "call model.generate inside the block, for long enough that the schedule's first token is reached"
        )


class _Hook:
    def __init__(self, model: PreTrainedModel, rules: Sequence[Rule], kl: bool) -> None:
        self.model, self.rules, self.kl = model, rules, kl
        self.report = Report()
        self.calls, self.generation, self.token = 0, -1, 0
        self.inside = False
        self.cache: weakref.ref[Cache] | None = None
        # An unsteered cache that reads the same text, and the next token's logits (B, V) after it.
        self.shadow: Cache | None = None
        self.unsteered: Tensor | None = None

    def before(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.inside:
            return None
        if args:
            args, kwargs = args[1:], kwargs | {"input_ids": args[0]}
        name, cache = _cache(kwargs)
        self.calls += 1
        if self.cache is None or self.cache() is not cache:
            self.forget()
            self.cache, self.token, self.generation = weakref.ref(cache), 0, self.generation + 1
        token, self.token = self.token, self.token + 1
        acts = any(rule.schedule.weight(token) and not rule.is_zero for rule in self.rules)
        if not acts and self.shadow is None:
            return None
        prompt, last = _split(kwargs, name)
        if prompt is not None:
            self._run(prompt)
        elif acts and any(get_part(cache, rule.part, i) is None for rule in self.rules for i in rule.acting_layers):
            # A single token in front of an empty cache: there is no state yet, so the rules begin with the next token.
            self.token = token
            return None
        if self.kl:
            if self.shadow is None:
                self._follow(cache)
            self.unsteered = self._run(last | {name: self.shadow}).logits[:, -1]
        share = inject(cache, self.rules, token) if acts else {}
        self.report.steps.append(Step(self.generation, token, share))
        return args, last

    def after(self, module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if self.inside or self.unsteered is None:
            return
        steered, unsteered = (F.log_softmax(x.float(), -1) for x in (output.logits[:, -1], self.unsteered))
        self.unsteered = None
        self.report.steps[-1].kl = (steered.exp() * (steered - unsteered)).sum(-1)

    def forget(self) -> None:
        """Drop the cache of the last generation."""
        if self.cache is not None and (cache := self.cache()) is not None:
            cache.__dict__.pop("reorder_cache", None)
        self.cache = self.shadow = self.unsteered = None

    def _follow(self, cache: Cache) -> None:
        """Copy the cache; the copy's rows follow the beams of the original."""
        self.shadow = shadow = copy.deepcopy(cache)
        reorder = cache.reorder_cache

        def both(beams: Tensor) -> None:
            reorder(beams)
            shadow.reorder_cache(beams)

        cache.reorder_cache = both  # type: ignore[method-assign]

    @torch.no_grad()
    def _run(self, kwargs: dict[str, Any]) -> Any:
        self.inside = True
        try:
            return self.model(**kwargs)
        finally:
            self.inside = False


def _cache(kwargs: dict[str, Any]) -> tuple[str, Cache]:
    for name in CACHE_NAMES:
        if isinstance(kwargs.get(name), Cache):
            return name, kwargs[name]
    raise ValueError(
        "the model was called without a cache, and recurrent states live there; use model.generate with "
        "use_cache=True, or pass past_key_values=DynamicCache(config=model.config)"
    )


def _split(kwargs: dict[str, Any], name: str) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Arguments for all tokens except for the last, None if there is only one, and arguments for the last token."""
    given = {key: kwargs[key] for key in PER_TOKEN if kwargs.get(key) is not None}
    length = next(given[key].shape[1] for key in ("input_ids", "inputs_embeds") if key in given)
    if length == 1:
        return None, kwargs
    first = {key: x.narrow(PER_TOKEN[key], 0, length - 1) for key, x in given.items()}
    last = {key: x.narrow(PER_TOKEN[key], length - 1, 1) for key, x in given.items()}
    mask = kwargs.get("attention_mask")
    if mask is not None:
        first["attention_mask"] = mask[:, :-1]
        # Models without attention take a mask of the tokens that they read now.
        last["attention_mask"] = mask[:, -1:] if name == "cache_params" else mask
    return kwargs | first | {"use_cache": True}, kwargs | last
