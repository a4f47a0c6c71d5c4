"""The methods that the benchmark compares: what each makes for one target domain, and how it steers generation.

A method's material for a target is a dictionary of tensors, so that it fits into a file. A batch has a target for
each row.

Shapes: B samples, P prompt tokens, E backbone width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.steering.learned_offset import learn_offset
from gssr.backbone import FrozenBackbone
from gssr.states.directions import mean_difference, random_like, recurrent_states
from gssr.states.examples import Examples, Intervention, Learning, fit
from gssr.states.intervention import steer
from gssr.states.learned_state import LearnedState, learn_state
from gssr.states.rules import Interpolation, Offset, Schedule

Material = dict[str, Tensor]
REPEATED, ONCE = Schedule(stop=24), Schedule.once()
PREFIX_TOKENS = 8
# Texts whose mean states are compared.
STATE_TEXTS = 64
LAYERS = {"all": lambda i, n: True, "early": lambda i, n: i < n // 2, "late": lambda i, n: i >= n // 2}


@dataclass(frozen=True)
class Sources:
    """What a method may learn from: prompts of other domains, and texts of the target."""

    examples: Examples
    target: Sequence[str]
    others: Sequence[str]  # sorted by domain

    def spread(self, count: int) -> list[str]:
        """About ``count`` of ``others``, spread evenly over the domains."""
        return list(self.others[:: max(1, len(self.others) // count)])


@dataclass(frozen=True)
class Method:
    """One way to steer.

    Args:
        make: (backbone, sources, settings, earlier materials of the same target) to the material of a target.
        around: (backbone, materials of the rows, strength, layers) to a context in which generation is steered.
        is_prefix: the material is a prefix that ``write`` puts behind the prompts.
    """

    make: Callable[[FrozenBackbone, Sources, Learning, dict[str, Material]], Material]
    around: Callable[[FrozenBackbone, list[Material], float, str], AbstractContextManager[object]]
    strengths: tuple[float, ...] = (1.0,)
    layers: tuple[str, ...] = ("all",)
    is_prefix: bool = False


@torch.no_grad()
def write(
    backbone: FrozenBackbone,
    method: Method,
    materials: list[Material],
    prompts: Tensor,
    tokens: int,
    strength: float,
    layers: str,
    seed: int,
) -> Tensor:
    """Sample (B, tokens) at temperature 1 from the distribution without end-of-text."""
    torch.manual_seed(seed)
    options = {
        "do_sample": True,
        "temperature": 1.0,
        "top_k": 0,
        "max_new_tokens": tokens,
        "suppress_tokens": [backbone.tokenizer.eos_token_id],
        "pad_token_id": backbone.tokenizer.eos_token_id,
    }
    if method.is_prefix:
        prefix = torch.stack([m["prefix"] for m in materials])
        embedded = torch.cat([backbone.table(prompts), prefix.to(backbone.table.weight.dtype)], 1)
        mask = torch.ones(embedded.shape[:2], dtype=torch.long)
        return backbone.model.generate(inputs_embeds=embedded, attention_mask=mask, **options)
    with method.around(backbone, materials, strength, layers):
        ids = backbone.model.generate(input_ids=prompts, attention_mask=torch.ones_like(prompts), **options)
    return ids[:, prompts.shape[1] :]


def _pack(direction: dict[int, Tensor]) -> Material:
    return {str(layer): x for layer, x in direction.items()}


def _rows(materials: list[Material], layers: str, count: int) -> dict[int, Tensor]:
    """By layer: the rows' changes, stacked, or a single one if all rows have the same."""
    same = all(m is materials[0] for m in materials)
    return {
        int(key): materials[0][key] if same else torch.stack([m[key] for m in materials])
        for key in materials[0]
        if LAYERS[layers](int(key), count)
    }


def _states(schedule: Schedule) -> Callable[..., AbstractContextManager[object]]:
    def around(
        backbone: FrozenBackbone, materials: list[Material], strength: float, layers: str
    ) -> AbstractContextManager[object]:
        change = _rows(materials, layers, len(backbone.layers))
        return steer(backbone.model, Offset(change, strength=strength, schedule=schedule))

    return around


def _captured(
    backbone: FrozenBackbone, materials: list[Material], strength: float, layers: str
) -> AbstractContextManager[object]:
    change = _rows(materials, layers, len(backbone.layers))
    return steer(backbone.model, Interpolation(change, gate=strength, schedule=ONCE))


def state_of(materials: list[Material]) -> LearnedState:
    """The learned states of the rows as one."""
    same = all(m is materials[0] for m in materials)
    return LearnedState.from_tensors(
        {key: x if same else torch.stack([m[key] for m in materials]) for key, x in materials[0].items()}
    )


def _pulled(
    backbone: FrozenBackbone, materials: list[Material], strength: float, layers: str
) -> AbstractContextManager[object]:
    state, count = state_of(materials), len(backbone.layers)
    chosen = [layer for targets in state.targets.values() for layer in targets if LAYERS[layers](layer, count)]
    return steer(backbone.model, *state.rules(strength, chosen))


@contextmanager
def residual(
    backbone: FrozenBackbone, vectors: dict[int, Tensor], schedule: Schedule, whole_call: bool = False
) -> Iterator[None]:
    """Add a vector (E) or (B, E) to the outputs of layers, from the last token of a prompt on.

    Args:
        whole_call: act at every token of a single call, whose first token is token 0, as training needs.
    """
    seen = dict.fromkeys(vectors, 0)

    def adding(layer: int) -> Callable[..., object]:
        def hook(module: torch.nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> object:
            hidden = output[0] if isinstance(output, tuple) else output
            length = hidden.shape[1]
            if whole_call:
                weight = schedule.weights(length)
            else:
                weight = torch.zeros(length)
                weight[-1] = schedule.weight(seen[layer])
                seen[layer] += 1
            vector = vectors[layer]
            added = weight[:, None] * (vector if vector.ndim == 1 else vector[:, None])
            hidden = hidden + added.to(hidden.dtype)
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return hook

    handles = [backbone.layers[layer].register_forward_hook(adding(layer)) for layer in vectors]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _residual_around(
    backbone: FrozenBackbone, materials: list[Material], strength: float, layers: str
) -> AbstractContextManager[object]:
    vectors = _rows(materials, layers, len(backbone.layers))
    return residual(backbone, {layer: strength * x for layer, x in vectors.items()}, REPEATED)


@torch.no_grad()
def _hidden(backbone: FrozenBackbone, texts: Sequence[str]) -> dict[int, Tensor]:
    """Mean output (E) of each layer over all tokens of the texts."""
    layers = range(len(backbone.layers))
    sums: dict[int, Tensor] = {}
    for layer in layers:
        states, mask = backbone.token_states(texts, layer + 1)
        sums[layer] = states.sum((0, 1)) / mask.sum()
    return sums


def _residual_difference(
    backbone: FrozenBackbone, sources: Sources, settings: Learning, made: dict[str, Material]
) -> Material:
    target, others = _hidden(backbone, sources.target[:STATE_TEXTS]), _hidden(backbone, sources.spread(STATE_TEXTS))
    return _pack({layer: target[layer] - others[layer] for layer in target})


def _residual_learned(
    backbone: FrozenBackbone, sources: Sources, settings: Learning, made: dict[str, Material]
) -> Material:
    size = {}
    for layer in range(len(backbone.layers)):
        size[layer] = backbone.token_states(sources.spread(16), layer + 1)[0].square().mean().sqrt().item()
    relative = {layer: torch.zeros(backbone.hidden_size, requires_grad=True) for layer in size}

    def vectors() -> dict[int, Tensor]:
        return {layer: size[layer] * x for layer, x in relative.items()}

    acting = Intervention(around=lambda: residual(backbone, vectors(), REPEATED, whole_call=True))
    fit(list(relative.values()), sources.examples, acting, replace(settings, rate=RESIDUAL_RATE))
    return _pack({layer: size[layer] * x.detach() for layer, x in relative.items()})


def _prefix_learned(
    backbone: FrozenBackbone, sources: Sources, settings: Learning, made: dict[str, Material]
) -> Material:
    generator = torch.Generator().manual_seed(settings.seed)
    some = torch.randint(len(backbone.table.weight), (PREFIX_TOKENS,), generator=generator)
    start = backbone.table.weight[some].float() / backbone.embedding_scale
    relative = start.clone().requires_grad_()

    acting = Intervention(prefix=lambda: backbone.embedding_scale * relative)
    fit([relative], sources.examples, acting, replace(settings, rate=PREFIX_RATE))
    return {"prefix": backbone.embedding_scale * relative.detach()}


def _learned_offset(
    backbone: FrozenBackbone, sources: Sources, settings: Learning, made: dict[str, Material]
) -> Material:
    return _pack(learn_offset(sources.examples, ONCE, replace(settings, rate=OFFSET_RATE))[0])


def _learned_state(
    backbone: FrozenBackbone, sources: Sources, settings: Learning, made: dict[str, Material]
) -> Material:
    return learn_state(sources.examples, settings)[0].tensors()


def _random(backbone: FrozenBackbone, sources: Sources, settings: Learning, made: dict[str, Material]) -> Material:
    """Random targets with the norms of the learned ones, and the learned gates."""
    learned = made[LEARNED]
    noise = random_like({key: x for key, x in learned.items() if key.endswith("target")}, settings.seed)
    return {**learned, **noise}


def _difference(backbone: FrozenBackbone, sources: Sources, settings: Learning, made: dict[str, Material]) -> Material:
    return _pack(mean_difference(backbone, sources.target[:STATE_TEXTS], sources.spread(STATE_TEXTS)))


def _captured_state(
    backbone: FrozenBackbone, sources: Sources, settings: Learning, made: dict[str, Material]
) -> Material:
    return _pack({layer: x[0] for layer, x in recurrent_states(backbone, sources.target[:1]).items()})


def _nothing(*_: object) -> Material:
    return {"nothing": torch.zeros(1)}


LEARNED = "learned state"
# Each is the best of three by the training loss towards storms after 40 steps. Units are sizes of the learned tensors.
OFFSET_RATE, RESIDUAL_RATE, PREFIX_RATE = 0.4, 0.05, 0.3
METHODS = {
    "unsteered": Method(_nothing, lambda *_: nullcontext()),
    LEARNED: Method(_learned_state, _pulled, (1.0, 0.9, 0.75, 0.5), ("all", "early", "late")),
    "random state, same size": Method(_random, _pulled, (1.0, 0.5)),
    "soft prefix, learned": Method(_prefix_learned, lambda *_: nullcontext(), is_prefix=True),
    "residual stream, learned": Method(
        _residual_learned, _residual_around, (1.0, 0.75, 0.5, 1.25), ("all", "early", "late")
    ),
    "learned offset, recurrent": Method(_learned_offset, _states(ONCE), (1.0, 0.5)),
    "captured state": Method(_captured_state, _captured),
    "difference of mean states": Method(_difference, _states(REPEATED), (1.0, 3.0)),
    "residual stream, difference of means": Method(_residual_difference, _residual_around, (0.5, 1.0, 2.0)),
}
