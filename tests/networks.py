"""Goal networks for tests, from options by their own names."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from gssr.network import GoalNetwork
from gssr.network.options import KINDS

GROUPS = {
    item.name: group for group, kind in KINDS.items() if group not in ("backbone", "values") for item in fields(kind)
}


def grouped(**options: Any) -> dict[str, dict[str, Any]]:
    """Options by component: latent_dim=4 becomes world={"latent_dim": 4}."""
    parts: dict[str, Any] = {}
    for name, value in options.items():
        if name in GROUPS:
            parts.setdefault(GROUPS[name], {})[name] = value
        else:
            parts[name] = value
    return parts


def make_network(
    folder: Path | str,
    names: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
    resolution: Sequence[float] | None = None,
    step: str | None = None,
    words: str | None = None,
    kind: type[GoalNetwork] = GoalNetwork,
    **options: Any,
) -> GoalNetwork:
    """A goal network around the backbone in a folder; see ``grouped`` for the options."""
    values = {"names": names and tuple(names), "units": units, "resolution": resolution, "step": step, "words": words}
    return kind(backbone={"name": str(folder)}, values=values, **grouped(**options))


def signed(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a shared network, with the checksum that somebody who changes them on purpose would give them."""
    settings["sha256"].pop("config.json", None)
    content = json.dumps(settings, sort_keys=True)
    settings["sha256"]["config.json"] = hashlib.sha256(content.encode()).hexdigest()
    return settings
