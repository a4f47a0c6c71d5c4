"""Encode every distinct text once: the frozen model's reading of a text never changes."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from gssr.backbone.frozen import FrozenBackbone

TEXTS_PER_STEP = 512


def cache_folder() -> Path:
    """Where encodings are kept: ``$GSSR_CACHE``, else ``~/.cache/gssr``."""
    return Path(os.environ.get("GSSR_CACHE", Path.home() / ".cache" / "gssr"))


class TextTable:
    """Mean token states of texts, (texts, F) with F = len(layers) · E, looked up by the text itself.

    ``add`` keeps what it encoded in a safetensors file named by the backbone's fingerprint, the layers and the texts; an
    unreadable file is encoded again.
    """

    def __init__(self, backbone: FrozenBackbone, layers: Sequence[int]) -> None:
        self.backbone, self.layers = backbone, list(layers)
        self.width = len(self.layers) * backbone.hidden_size
        self.rows: dict[str, int] = {}
        self.states = torch.zeros(1, self.width)

    def add(self, texts: Iterable[str], keep: bool = True) -> None:
        """Encode the texts that are not in the table yet; with ``keep``, from or into the cache on disk."""
        new = [text for text in dict.fromkeys(texts) if text not in self.rows]
        if not new:
            return
        states = self._load(new) if keep else None
        if states is None:
            # Sorted by length, so that a group holds texts of one length and hardly any padding.
            order = sorted(range(len(new)), key=lambda i: len(new[i]))
            states = torch.empty(len(new), self.width)
            groups = [order[i : i + TEXTS_PER_STEP] for i in range(0, len(order), TEXTS_PER_STEP)]
            for group in tqdm(groups, desc="reading texts once", unit=" x512", disable=len(groups) < 4, leave=False):
                states[torch.tensor(group)] = self.backbone.mean_states([new[i] for i in group], self.layers)
            if keep:
                self._save(new, states)
        first = len(self.states)
        self.rows |= {text: first + i for i, text in enumerate(new)}
        self.states = torch.cat([self.states, states.to(self.states.device)])

    def to(self, device: torch.device | str) -> "TextTable":
        self.states = self.states.to(device)
        return self

    def look_up(self, texts: Sequence[Sequence[str | None]]) -> tuple[Tensor, Tensor]:
        """States (B, T, F), zero where no text is, and mask (B, T); texts not seen before are encoded first."""
        self.add((text for row in texts for text in row if text is not None and text not in self.rows), keep=False)
        index = torch.tensor([[0 if text is None else self.rows[text] for text in row] for row in texts])
        index = index.to(self.states.device)
        return self.states[index], index > 0

    def _file(self, texts: list[str]) -> Path:
        digest = hashlib.sha256(repr((self.backbone.fingerprint, self.layers)).encode())
        for text in texts:
            digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
        return cache_folder() / f"texts-{digest.hexdigest()[:24]}.safetensors"

    def _load(self, texts: list[str]) -> Tensor | None:
        try:
            states = load_file(self._file(texts))["states"]
        except (OSError, SafetensorError, KeyError):
            return None
        return states if states.shape == (len(texts), self.width) else None

    def _save(self, texts: list[str], states: Tensor) -> None:
        file = self._file(texts)
        partial = file.with_suffix(f".{os.getpid()}.part")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file({"states": states}, partial)
            os.replace(partial, file)
        except OSError:
            partial.unlink(missing_ok=True)
