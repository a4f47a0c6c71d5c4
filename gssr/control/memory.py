"""A memory of constant size: it reads a stream without end, takes facts in and gives them up, and is asked at any time.

The memory is the recurrent and conv states of a model without attention, and a ledger. For each of the last facts that
were written, the ledger has the digest of its tokens and how much the state has decayed since. So a fact is taken out
as exactly as it was put in, without being kept.

Shapes: S places of the ledger, M heads.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.control.compose import Piece, beginning, compose, piece, remove
from gssr.control.functional import Layers, LogDecay, decays, mixers, read, say
from gssr.control.projector import FactProjector
from gssr.control.words import ids_of
from gssr.shown import quoted
from gssr.states import state_file
from gssr.states.checks import check_layout, check_values, layers_of

FORMAT = "gssr memory 1"
PLACES = 64
# Tokens that are read in one call; it bounds the memory of a call, whatever the length of a text.
CALL = 512


@dataclass(frozen=True, eq=False)
class Memory:
    """States of all layers with one row, and the ledger. No method changes it.

    ``digests`` (S), 0 at free places, the newest last; ``aged`` {layer: (S, M)}, log of what is left of each fact.
    """

    layers: Layers
    digests: Tensor
    aged: LogDecay
    fingerprint: str
    backbone: str

    @classmethod
    def empty(cls, backbone: FrozenBackbone) -> "Memory":
        """A memory that has read the beginning of a text.

        Raises ValueError for a model with attention, whose keys and values grow with what is read.
        """
        layers = beginning(backbone)
        if any(layer.recurrent is None or layer.keys is not None for layer in layers):
            raise ValueError(
                f"{backbone.name!r} has layers with attention, whose keys and values grow with what they read; a "
                "memory of constant size needs Mamba-2 layers alone, such as nano-facts"
            )
        aged = {i: torch.zeros(PLACES, len(mixer.dt_bias)) for i, mixer in mixers(backbone).items()}
        digests = torch.zeros(PLACES, dtype=torch.int64)
        return cls(layers, digests, aged, backbone.fingerprint, backbone.name)

    @property
    def bytes(self) -> int:
        """Of all tensors."""
        parts = [part for layer in self.layers for _, part in layer.parts()]
        return sum(part.numel() * part.element_size() for part in (*parts, self.digests, *self.aged.values()))

    @property
    def facts(self) -> int:
        """Facts that the ledger knows."""
        return int((self.digests != 0).sum())

    @torch.no_grad()
    def read(self, backbone: FrozenBackbone, text: str) -> "Memory":
        """Read on, as a model reads. What was only read cannot be taken out again."""
        return self._read(backbone, ids_of(backbone, text))

    @torch.no_grad()
    def write(self, backbone: FrozenBackbone, fact: str, projector: FactProjector | None = None) -> "Memory":
        """Write a fact by composition, with a projector's change of it."""
        self._check(backbone)
        tokens = ids_of(backbone, fact, "fact")
        found = _piece(backbone, tokens, projector)
        aged = {i: torch.cat([old + found.log_decay[i], torch.zeros_like(old[:1])])[1:] for i, old in self.aged.items()}
        digests = torch.cat([self.digests, self.digests.new_tensor([_digest(tokens)])])[1:]
        return replace(self, layers=compose(self.layers, found), digests=digests, aged=aged)

    @torch.no_grad()
    def forget(self, backbone: FrozenBackbone, fact: str, projector: FactProjector | None = None) -> "Memory":
        """Take out a fact that was written, in the same words and with the same projector.

        Raises ValueError for a fact that the ledger does not know.
        """
        self._check(backbone)
        tokens = ids_of(backbone, fact, "fact")
        places = (self.digests == _digest(tokens)).nonzero().flatten().tolist()
        if not places:
            raise ValueError(
                f"{quoted(fact)} was not written into this memory in these words, or {PLACES} facts have been written "
                "since; only what was written can be forgotten"
            )
        at = places[-1]
        log_decay = {i: old[at : at + 1] for i, old in self.aged.items()}
        layers = remove(self.layers, _piece(backbone, tokens, projector), log_decay)
        kept = [*range(at), *range(at + 1, PLACES)]
        digests = torch.cat([torch.zeros_like(self.digests[:1]), self.digests[kept]])
        aged = {i: torch.cat([torch.zeros_like(old[:1]), old[kept]]) for i, old in self.aged.items()}
        return replace(self, layers=layers, digests=digests, aged=aged)

    def replace_fact(
        self, backbone: FrozenBackbone, old: str, new: str, projector: FactProjector | None = None
    ) -> "Memory":
        """Forget a fact and write another. Raises ValueError as ``forget`` and ``write``."""
        return self.forget(backbone, old, projector).write(backbone, new, projector)

    @torch.no_grad()
    def ask(self, backbone: FrozenBackbone, question: str, tokens: int = 8) -> str:
        """The likeliest answer behind a question, up to a full stop; the memory stays as it is."""
        self._check(backbone)
        ids = ids_of(backbone, question, "question")
        layers = self.layers if ids.shape[1] == 1 else read(backbone, self.layers, ids[:, :-1]).layers
        said = backbone.tokenizer.decode(say(backbone, layers, ids[:, -1], tokens)[0], skip_special_tokens=True)
        return said.split(".")[0].strip()

    def save(self, path: str | Path) -> None:
        """Write a safetensors file in one step. Raises ValueError if it cannot be written."""
        tensors = {"digests": self.digests} | {f"aged.{i}": part for i, part in self.aged.items()}
        for i, layer in enumerate(self.layers):
            tensors |= {f"layers.{i}.{name}": part for name, part in layer.parts()}
        about = {"fingerprint": self.fingerprint, "backbone": self.backbone, "layers": str(len(self.layers))}
        state_file.write(path, FORMAT, tensors, about)

    @classmethod
    def load(cls, path: str | Path, backbone: FrozenBackbone) -> "Memory":
        """Raises ValueError for a file that is missing, damaged, or of another model or kind."""
        like = cls.empty(backbone)

        def build(tensors: dict[str, Tensor], about: Mapping[str, str]) -> Memory:
            ledger = {"digests": like.digests, **{f"aged.{i}": part for i, part in like.aged.items()}}
            for name, wanted in ledger.items():
                found = tensors.get(name)
                if found is None or (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
                    raise ValueError(f"its {name} is not {wanted.dtype} {tuple(wanted.shape)}")
            layers = layers_of({name: x for name, x in tensors.items() if name not in ledger}, about.get("layers", ""))
            memory = cls(
                layers,
                tensors["digests"],
                {i: tensors[f"aged.{i}"] for i in like.aged},
                about.get("fingerprint", ""),
                about.get("backbone", ""),
            )
            memory._check(backbone)
            if len(layers) != len(like.layers):
                raise ValueError(f"it has {len(layers)} layers, the model {len(like.layers)}")
            check_layout(dict(enumerate(layers)), dict(enumerate(like.layers)))
            if any(len(part) != 1 for layer in layers for _, part in layer.parts()):
                raise ValueError("its states have more than one row")
            if not memory.digests.is_meta:
                check_values(layers, torch.zeros(1, dtype=torch.int64))
                if not all((part <= 0).all() for part in memory.aged.values()):
                    raise ValueError("its ledger says that a fact has grown since it was written")
            return memory

        return state_file.read(path, FORMAT, build)

    def _read(self, backbone: FrozenBackbone, tokens: Tensor) -> "Memory":
        self._check(backbone)
        layers, aged = self.layers, self.aged
        for part in tokens.split(CALL, 1):
            with decays(backbone) as passed:
                layers = read(backbone, layers, part).layers
            aged = {i: old + passed[i] for i, old in aged.items()}
        return replace(self, layers=layers, aged=aged)

    def _check(self, backbone: FrozenBackbone) -> None:
        if self.fingerprint != backbone.fingerprint:
            raise ValueError(
                f"this memory belongs to the backbone {self.backbone!r} (fingerprint {self.fingerprint}), not to "
                f"{backbone.name!r} (fingerprint {backbone.fingerprint}); use the backbone that it was made with"
            )


def _piece(backbone: FrozenBackbone, tokens: Tensor, projector: FactProjector | None) -> Piece:
    found = piece(backbone, tokens)
    return found if projector is None else projector(found)


def _digest(tokens: Tensor) -> int:
    """Of token ids, never 0."""
    digest = hashlib.sha256(repr(tokens.tolist()).encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True) or 1
