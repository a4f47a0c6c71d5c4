"""Whether a checkpoint belongs to a network: compared before any of it is loaded, all differences in one message."""

from collections.abc import Mapping
from typing import Any

from gssr.network.config import fixed_names


class CheckpointMismatch(ValueError):
    """A checkpoint of another network; the message names each difference."""


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
        raise CheckpointMismatch("this checkpoint is of another network:\n" + "\n".join(f"  {d}" for d in differences))


def _described(backbone: Mapping[str, Any]) -> str:
    parts = [f"{key} {backbone[key]}" for key in ("revision", "commit") if backbone.get(key)]
    parts += [f"fingerprint {backbone['fingerprint']}"]
    parts += [f"width {backbone['hidden_size']}"] if backbone.get("hidden_size") else []
    return f"{backbone['name']!r} ({', '.join(parts)})"


def _shown(value: Any) -> Any:
    """A strategy by its class and options, any other value as it is."""
    if not isinstance(value, Mapping):
        return value
    options = ", ".join(f"{name}={option}" for name, option in value["init_args"].items())
    return f"{value['class_path']}({options})"
