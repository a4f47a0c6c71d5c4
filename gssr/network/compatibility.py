"""Whether a checkpoint belongs to a network: compared before any of it is loaded, all differences in one message."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gssr.network.config import fixed_names

SHOWN, LINE = 5, 200  # differences of weights, and characters of a value, in a message
# Until the network has seen data.
MAY_BE_INFINITE = ("world.scaler.low", "world.scaler.high")


class CheckpointMismatch(ValueError):
    """A checkpoint of another network, or of none; the message names each difference."""


def require_finite(network: nn.Module) -> None:
    """Raise RuntimeError for a weight that is not finite, before a checkpoint is replaced by it."""
    wrong = [name for name, weight in network.named_parameters() if not weight.isfinite().all()]
    if wrong:
        raise RuntimeError(
            f"the weights of {wrong[0]} are not finite, and no checkpoint was written; go on from an earlier one "
            "with a smaller learning rate or with clipping"
        )


def require_network(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Check the types of what a goal network reads from a checkpoint, which may come from anyone.

    Returns:
        The goal network's own entry in it.

    Raises:
        CheckpointMismatch: something is missing or of another type, or a weight is not a finite number.
    """
    own = checkpoint.get("gssr")
    if not isinstance(own, Mapping):
        raise CheckpointMismatch("this is no checkpoint of a goal network; it names no backbone")
    steps, options, backbone = checkpoint.get("global_step", 0), checkpoint.get("hyper_parameters"), own.get("backbone")
    named = isinstance(backbone, Mapping) and all(isinstance(backbone.get(key), str) for key in ("name", "fingerprint"))
    noise = own.get("noise", [])
    state: Any = checkpoint.get("state_dict")
    kinds = {
        "state_dict": _is_plain_mapping(state, Tensor),
        "hyper_parameters": _is_plain_mapping(options) and _is_values(options.get("values")),
        "gssr.backbone": named and _is_plain_mapping(backbone),
        "gssr.fixed": _is_plain_mapping(own.get("fixed")),
        "gssr.noise": isinstance(noise, list) and all(isinstance(x, Tensor) and x.dtype == torch.uint8 for x in noise),
        "global_step": isinstance(steps, int) and 0 <= steps < 1 << 63,
    }
    if wrong := [name for name, right in kinds.items() if not right]:
        raise CheckpointMismatch(
            f"this is no checkpoint of a goal network that `python train.py fit` wrote: {', '.join(wrong)} "
            f"{'is' if len(wrong) == 1 else 'are'} missing or not of the kind expected"
        )
    odd = [name for name, tensor in state.items() if not _is_numbers(tensor)]
    if not odd:
        odd = [name for name, tensor in state.items() if name not in MAY_BE_INFINITE and not tensor.isfinite().all()]
        odd += [name for name in MAY_BE_INFINITE if name in state and state[name].isnan().any()]
    if odd:
        raise CheckpointMismatch(
            f"the checkpoint cannot be used: {_listed(odd)} hold values that are not finite numbers, as after a "
            "training that diverged; take an older checkpoint"
        )
    return own


def refuse_other_weights(saved: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Compare the weights of a checkpoint with those of the network that is to load them; neither is read.

    Raises:
        CheckpointMismatch: weights are missing, unknown or of another shape.
    """
    differences = [f"{name}: missing in the checkpoint" for name in own if name not in saved]
    differences += [f"{name}: not known here" for name in saved if name not in own]
    differences += [
        f"{name}: shape {tuple(saved[name].shape)} in the checkpoint, {tuple(tensor.shape)} here"
        for name, tensor in own.items()
        if name in saved and saved[name].shape != tensor.shape
    ]
    if differences:
        more = [f"and {len(differences) - SHOWN} more"] if len(differences) > SHOWN else []
        raise _mismatch([*differences[:SHOWN], *more])


def fixed_options(options: Mapping[str, Any], kinds: Mapping[str, type]) -> dict[str, Any]:
    """The options that a checkpoint fixes, as "group.name": value.

    Args:
        options: plain options by group. kinds: the dataclass of each group; its fields know whether they are fixed.
    """
    return {
        f"{group}.{name}": options[group][name]
        for group, kind in kinds.items()
        for name in fixed_names(kind)
        if name in (options.get(group) or {})
    }


def refuse_other(
    saved_backbone: Mapping[str, Any],
    backbone: Mapping[str, Any],
    saved: Mapping[str, Any],
    own: Mapping[str, Any],
) -> None:
    """Compare a checkpoint with the network that is to load it.

    Args:
        saved_backbone, backbone: `FrozenBackbone.identity` of the checkpoint and of the network.
        saved, own: fixed options of the checkpoint and of the network; those that either lacks are not compared.

    Raises:
        CheckpointMismatch: they are not the same.
    """
    differences = []
    if saved_backbone["fingerprint"] != backbone["fingerprint"]:
        differences.append(
            f"the backbone: {_described(saved_backbone)} in the checkpoint, {_described(backbone)} here; give the same "
            "weights (--model.backbone.name, --model.backbone.revision) in the same precision (--model.backbone.dtype)"
        )
    for name, value in own.items():
        if name in saved and saved[name] != value:
            differences.append(f"{name}: {_shown(saved[name])} in the checkpoint, {_shown(value)} here")
    if differences:
        raise _mismatch(differences)


def _mismatch(differences: list[str]) -> CheckpointMismatch:
    return CheckpointMismatch("this checkpoint is of another network:\n" + "\n".join(f"  {d}" for d in differences))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _is_plain_mapping(value: Any, of: type | None = None, depth: int = 8) -> bool:
    """Whether a value is a dictionary of names to `of`, or to plain values."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return False
    return all(_is_plain(part, depth) if of is None else isinstance(part, of) for part in value.values())


def _is_plain(value: Any, depth: int) -> bool:
    if isinstance(value, Mapping):
        return depth > 0 and _is_plain_mapping(value, depth=depth - 1)
    if isinstance(value, (list, tuple)):
        return depth > 0 and all(_is_plain(part, depth - 1) for part in value)
    return isinstance(value, (str, bool, int, type(None))) or (isinstance(value, float) and not math.isnan(value))


def _is_values(values: Any) -> bool:
    """Whether these are value dimensions: names, with as many units and resolutions, or none yet."""
    lists_of = {"names", "units", "resolution"}
    if not isinstance(values, Mapping) or set(values) - lists_of - {"step", "words"}:
        return False
    names = values.get("names")
    lists = [values[part] for part in lists_of if values.get(part) is not None]
    if any(values.get(part) is not None and not isinstance(values[part], str) for part in ("step", "words")):
        return False
    if names is None or not all(isinstance(part, (list, tuple)) and len(part) == len(names) for part in lists):
        return names is None and not lists
    texts = [*names, *(values.get("units") or ())]
    numbers = list(values.get("resolution") or ())
    return (
        bool(names)
        and all(isinstance(text, str) for text in texts)
        and all(isinstance(x, (int, float)) and 0 <= x < math.inf for x in numbers)
    )


def _is_numbers(tensor: Tensor) -> bool:
    """Whether a tensor holds plain numbers that lie in the file, not one number that is declared as a billion."""
    return (
        tensor.layout == torch.strided
        and tensor.device.type != "meta"
        and not (tensor.is_complex() or tensor.is_quantized)
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )


def _described(backbone: Mapping[str, Any]) -> str:
    parts = [f"{key} {backbone[key]}" for key in ("revision", "commit") if backbone.get(key)]
    parts += [f"fingerprint {backbone['fingerprint']}"]
    parts += [f"width {backbone['hidden_size']}"] if backbone.get("hidden_size") else []
    return f"{backbone['name']!r} ({', '.join(parts)})"


def _shown(value: Any) -> str:
    """A strategy by its class and options, any other value as it is, and no more than a line."""
    if not isinstance(value, Mapping):
        return text if len(text := str(value)) <= LINE else f"{text[:LINE]} …"
    options = ", ".join(f"{name}={option}" for name, option in (value.get("init_args") or {}).items())
    return f"{value.get('class_path')}({options})"
