"""A way back and its halting head as a safetensors file with a checksum, bound to its backbone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from gssr.backbone import FrozenBackbone
from gssr.reasoning.halting import HaltingHead
from gssr.reasoning.thinker import Memory, Thinker
from gssr.reasoning.thoughts import LinearThought, SoftToken, Spacer, Thought, WrittenToken
from gssr.states import state_file

FORMAT = "gssr thoughts 1"
BUNDLED = Path(__file__).with_name("lookups.safetensors")  # around the bundled nano-lookups
KINDS: dict[str, type[Thought]] = {kind.__name__: kind for kind in (SoftToken, LinearThought, Spacer, WrittenToken)}
OPTIONS = ("rank", "temperature")


def save_thinker(path: Path, thinker: Thinker) -> None:
    """Raises ValueError for a thought of another class than those of `gssr.reasoning.thoughts`."""
    kind = type(thinker.thought).__name__
    if KINDS.get(kind) is not type(thinker.thought) or thinker.halting is None:
        raise ValueError(f"{kind} is no thought that can be saved; expected one of {', '.join(KINDS)}, with a head")
    options = {name: getattr(thinker.thought, name) for name in OPTIONS if hasattr(thinker.thought, name)}
    about = {
        "fingerprint": thinker.backbone.fingerprint,
        "thought": kind,
        "options": json.dumps(options),
        "memory": thinker.memory,
    }
    state_file.write(path, FORMAT, _tensors(thinker.thought, thinker.halting), about)


def load_thinker(path: Path, backbone: FrozenBackbone) -> Thinker:
    """Raises ValueError for a file that is damaged, of another kind, or made around another model."""

    def build(tensors: dict[str, Tensor], about: Mapping[str, str]) -> Thinker:
        if (made_for := about.get("fingerprint")) != backbone.fingerprint:
            raise ValueError(
                f"it was made for the model {made_for}, this is {backbone.fingerprint} ({backbone.name}); use the "
                "backbone that the thoughts were trained around"
            )
        kind, memory = about.get("thought", ""), about.get("memory")
        if kind not in KINDS or memory not in get_args(Memory):
            raise ValueError(f"it names the thought {kind[:40]!r} with the memory {str(memory)[:40]!r}")
        thought, halting = KINDS[kind](**_options(about.get("options", ""))), HaltingHead(backbone.hidden_size)
        thought.prepare(backbone)
        expected = _tensors(thought, halting)
        if {name: part.shape for name, part in tensors.items()} != {
            name: part.shape for name, part in expected.items()
        }:
            raise ValueError(f"its tensors are not those of {kind} around a model of width {backbone.hidden_size}")
        if any(not part.is_meta and not part.isfinite().all() for part in tensors.values()):
            raise ValueError("it holds a number that is not finite")
        if not any(part.is_meta for part in tensors.values()):
            nn.ModuleDict({"thought": thought, "halting": halting}).load_state_dict(tensors)
        return Thinker(backbone, thought.eval().requires_grad_(False), memory, halting.eval().requires_grad_(False))

    return state_file.read(path, FORMAT, build)


def _options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text[:1000])
    except ValueError as error:
        raise ValueError("its options cannot be read") from error
    if not isinstance(options, dict) or set(options) - set(OPTIONS):
        raise ValueError(f"its options are not some of {', '.join(OPTIONS)}")
    return options


def _tensors(thought: Thought, halting: HaltingHead) -> dict[str, Tensor]:
    parts = nn.ModuleDict({"thought": thought, "halting": halting})
    return {name: part.detach().to(torch.float32) for name, part in parts.state_dict().items()}
