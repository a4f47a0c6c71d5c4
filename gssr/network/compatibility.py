"""Whether a checkpoint belongs to a network: asked before any of it is loaded, and answered with all differences at once."""

from collections.abc import Mapping
from typing import Any

# What shapes the trained parts or says what they read; another value makes them mean something else.
FIXED = (
    "latent_dim",
    "hidden_dim",
    "injection",
    "prefix_tokens",
    "state_rank",
    "state_layers",
    "text_layers",
    "goal_layer",
    "goal_queries",
    "goal_reading",
    "schedule",
    "gate",
    "posterior",
    "reads_changes",
    "error_order",
    "normalisation",
    "text_reading",
    "value_names",
    "value_units",
)


def fixed_part(hyper_parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``FIXED``, for the checkpoint: Lightning puts a caller's options over the hyper-parameters in it, silently."""
    return {name: _plain(hyper_parameters[name]) for name in FIXED if name in hyper_parameters}


class CheckpointMismatch(ValueError):
    """A checkpoint of another network; the message names each difference."""


def refuse_other(
    saved_backbone: Mapping[str, Any],
    backbone: Mapping[str, Any],
    saved: Mapping[str, Any],
    own: Mapping[str, Any],
) -> None:
    """Compare a checkpoint with the network that is to load it.

    Args:
        saved_backbone, backbone: what `FrozenBackbone.identity` says of the checkpoint's and of the network's.
        saved, own: hyper-parameters of the checkpoint and of the network; what either lacks is not compared.

    Raises:
        CheckpointMismatch: they are not the same.
    """
    differences = []
    if saved_backbone["fingerprint"] != backbone["fingerprint"]:
        differences.append(
            f"the backbone: {_described(saved_backbone)} in the checkpoint, {_described(backbone)} here; give the same weights "
            "(--model.backbone, --model.backbone_revision) in the same precision (--model.backbone_dtype)"
        )
    for name in FIXED:
        if name in saved and name in own and _plain(saved[name]) != _plain(own[name]):
            differences.append(f"{name}: {_plain(saved[name])} in the checkpoint, {_plain(own[name])} here")
    if differences:
        raise CheckpointMismatch("this checkpoint is of another network:\n" + "\n".join(f"  {d}" for d in differences))


def _described(backbone: Mapping[str, Any]) -> str:
    parts = [f"{key} {backbone[key]}" for key in ("revision", "commit") if backbone.get(key)]
    parts += [f"fingerprint {backbone['fingerprint']}"]
    parts += [f"width {backbone['hidden_size']}"] if backbone.get("hidden_size") else []
    return f"{backbone['name']!r} ({', '.join(parts)})"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
