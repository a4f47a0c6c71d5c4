"""Controls of a forced change, at its norm: random, natural directions, a mean difference, another case's change.

Shapes: B cases, n natural states, k directions.
"""

import torch
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.control.force import Change, Key
from gssr.control.functional import Layers, read


def random_change(like: Change, seed: int) -> Change:
    """Gaussian, with the norm of each row and part."""
    generator = torch.Generator().manual_seed(seed)
    noise = {key: torch.randn(part.shape, generator=generator).to(part.device) for key, part in sorted(like.items())}
    return scaled(noise, like)


def other_change(like: Change) -> Change:
    """Each row gets the change of the row before, with its own norm."""
    return scaled({key: part.roll(1, 0) for key, part in like.items()}, like)


def scaled(change: Change, like: Change) -> Change:
    """A change with the norm that each row and part of another has."""

    def norm(part: Tensor) -> Tensor:
        return part.flatten(1).norm(dim=1).clamp(min=1e-20).view(-1, *[1] * (part.ndim - 1))

    return {key: part * (norm(like[key]) / norm(part)) for key, part in change.items()}


@torch.no_grad()
def samples(backbone: FrozenBackbone, count: int, length: int, seed: int) -> Tensor:
    """Texts that the model writes itself from their beginning, (count, 1 + length)."""
    generator = torch.Generator(backbone.device).manual_seed(seed)
    tokens, layers = [torch.full((count,), backbone.start_id, device=backbone.device)], None
    for _ in range(length):
        hidden, layers = read(backbone, layers, tokens[-1][:, None])
        chances = backbone.logits(hidden[:, -1]).float().softmax(-1)
        tokens.append(torch.multinomial(chances, 1, generator=generator)[:, 0])
    return torch.stack(tokens, 1)


def directions(states: Layers, keys: list[Key], count: int = 64) -> dict[Key, Tensor]:
    """The first principal directions of natural states with n rows, orthonormal (k, size), k at most n − 1."""
    found = {}
    for key in keys:
        rows = getattr(states[key[0]], key[1]).float().flatten(1)
        rows = rows - rows.mean(0)
        found[key] = torch.linalg.svd(rows, full_matrices=False)[2][: min(count, len(rows) - 1)]
    return found


@torch.no_grad()
def mean_difference(backbone: FrozenBackbone, texts: Tensor, target: Tensor, keys: list[Key]) -> Change:
    """Mean state behind texts (n, L) and a target, minus that behind the texts alone, for each target (B, T)."""
    before = read(backbone, None, texts).layers
    found: dict[Key, list[Tensor]] = {key: [] for key in keys}
    for own in target:
        after = read(backbone, before, own.expand(len(texts), -1)).layers
        for i, part in keys:
            found[i, part].append((getattr(after[i], part) - getattr(before[i], part)).float().mean(0))
    return {key: torch.stack(parts) for key, parts in found.items()}
