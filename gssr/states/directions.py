"""Directions to steer in: random ones, differences of mean states, and directions kept in a file. See `gssr.states.learned`, too.

A direction is a tensor (M, R, N) for each recurrent layer. Any states by layer are one: those of a captured state are
targets for `gssr.states.rules.Interpolation`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.states.cache import empty_cache, read, recurrent_layers
from gssr.states.rules import Schedule

Direction = dict[int, Tensor]
FORMAT = "gssr steering direction 1"


def recurrent_states(backbone: FrozenBackbone, texts: Sequence[str]) -> Direction:
    """States behind each text, (B, M, R, N) for each recurrent layer, in float32.

    Raises:
        ValueError: no text, a text without a token, or a model without recurrent states.
    """
    ids = backbone.tokenize(texts) if texts else []
    if not ids or not all(ids):
        raise ValueError("states are read from texts of at least one token each; an empty one, or none, was given")
    longest = max(map(len, ids))
    # Left padding in front of an empty cache is exact; right padding would be read into the state.
    padded = torch.tensor([[backbone.start_id] * (longest - len(i) + 1) + i for i in ids], device=backbone.device)
    mask = torch.tensor([[False] * (longest - len(i)) + [True] * (len(i) + 1) for i in ids], device=backbone.device)
    cache = empty_cache(backbone.model)
    read(backbone, cache, padded, mask)
    return {layer: cache.get_recurrent_state(layer).float() for layer in recurrent_layers(cache)}


def mean_difference(backbone: FrozenBackbone, towards: Sequence[str], away: Sequence[str]) -> Direction:
    """Mean state behind the texts of one set minus that of the other."""
    ahead, behind = recurrent_states(backbone, towards), recurrent_states(backbone, away)
    return {layer: ahead[layer].mean(0) - behind[layer].mean(0) for layer in ahead}


def random_like(direction: Mapping[int, Tensor], seed: int) -> Direction:
    """Gaussian directions of the same shape and norm in each layer: the control."""
    generator = torch.Generator().manual_seed(seed)
    noise = {layer: torch.randn(x.shape, generator=generator) for layer, x in sorted(direction.items())}
    return {layer: x * (direction[layer].norm().cpu() / x.norm()) for layer, x in noise.items()}


def save_direction(path: Path, direction: Mapping[int, Tensor], schedule: Schedule, backbone: FrozenBackbone) -> None:
    """Write a direction with the schedule it was learned for and the fingerprint of the model it belongs to."""
    about = {
        "format": FORMAT,
        "fingerprint": backbone.fingerprint,
        "schedule": " ".join(str(x) for x in (schedule.start, schedule.stop, schedule.every, schedule.half_life)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({str(layer): x.float().contiguous() for layer, x in direction.items()}, path, metadata=about)


def load_direction(path: Path, backbone: FrozenBackbone) -> tuple[Direction, Schedule]:
    """
    Raises:
        ValueError: no such file, no direction in it, or one that was made for another model.
    """
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            direction = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read as a steering direction: {error}") from error
    if about.get("format") != FORMAT:
        raise ValueError(f"{path} holds no steering direction; make one with gssr generate --learn FILE --save {path}")
    if about.get("fingerprint") != backbone.fingerprint:
        raise ValueError(
            f"{path} was made for the model {about.get('fingerprint')}, this is {backbone.fingerprint} ({backbone.name}); "
            "directions of one model mean nothing to another"
        )
    start, stop, every, half_life = about["schedule"].split()
    schedule = Schedule(
        int(start),
        None if stop == "None" else int(stop),
        int(every),
        None if half_life == "None" else float(half_life),
    )
    return {int(layer): x for layer, x in direction.items()}, schedule
