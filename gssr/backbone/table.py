"""Read every distinct text once and keep its features: the frozen model never reads a text differently.

Shapes: N texts, F features of a text; B, T, E as in the legend.
"""

import hashlib
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from gssr.backbone import text_file
from gssr.backbone.frozen import FrozenBackbone
from gssr.backbone.identity import reads_as
from gssr.backbone.readings import MeanReading, Reading
from gssr.files import cache_folder

TEXTS_PER_STEP = 512
SECONDS_BETWEEN_SAVES = 300.0
# Texts in a table that reads them as they come.
MOST_TEXTS = 65_536


class TextTable:
    """Features (N, F) of texts, F = len(layers) · E, looked up by the text itself.

    ``add`` keeps features in a safetensors file, under a hash of each text, for other splits and other runs. All that
    changes a feature's bits names the file: what ``reads_as`` lists, the layers and the reading. It is
    written every few minutes, and after an interruption, too. A warning reports a file that is not exactly what was
    written, and replaces it, or one that cannot be written.

    Args:
        layers: layers of the backbone to read.
        reading: how a text becomes features; the mean of its token states by default.
    """

    def __init__(self, backbone: FrozenBackbone, layers: Sequence[int], reading: Reading | None = None) -> None:
        self.backbone, self.layers = backbone, list(layers)
        self.reading = MeanReading() if reading is None else reading
        self.width = len(self.layers) * backbone.hidden_size
        self.rows: dict[str, int] = {}
        self.states = torch.zeros(1, self.width)

    @property
    def identity(self) -> str:
        """32 hex digits; they change with the backbone's device."""
        return hashlib.sha256(repr((reads_as(self.backbone), self.layers, self.reading.key)).encode()).hexdigest()[:32]

    @property
    def file(self) -> Path:
        return cache_folder() / f"texts-{self.identity}.safetensors"

    def add(self, texts: Iterable[str], keep: bool = True) -> None:
        """Read the texts that are not in the table yet. With ``keep``, use the file's features and add to it.

        Raises ValueError for a text without a token, or features that are not finite.
        """
        if not self.reading.observes:
            return
        new = [text for text in dict.fromkeys(texts) if text not in self.rows]
        if not new:
            return
        keys, kept = self._load() if keep else (torch.empty(0, 2, dtype=torch.int64), torch.empty(0, self.width))
        place = {tuple(key): i for i, key in enumerate(keys.tolist())}
        hashes = [_hash(text) for text in new]
        known = torch.tensor([place.get(h, -1) for h in hashes])
        states = torch.empty(len(new), self.width)
        states[known >= 0] = kept[known[known >= 0]]
        missing = (known < 0).nonzero().flatten().tolist()
        # Sorted by length, so that a group needs hardly any padding.
        missing.sort(key=lambda i: len(new[i]))
        groups = [missing[i : i + TEXTS_PER_STEP] for i in range(0, len(missing), TEXTS_PER_STEP)]
        done: list[int] = []

        def save() -> None:
            fresh = torch.tensor([hashes[i] for i in done], dtype=torch.int64)
            self._save(torch.cat([keys, fresh]), torch.cat([kept, states[torch.tensor(done)]]))

        saved = time.monotonic()
        try:
            with tqdm(
                total=len(missing), desc="reading texts once", unit=" texts", disable=len(groups) < 4, leave=False
            ) as bar:
                for group in groups:
                    read = self.reading.read(self.backbone, [new[i] for i in group], self.layers)
                    for i in group if not read.isfinite().all() else ():
                        if not read[group.index(i)].isfinite().all():
                            raise ValueError(f"the features of the text {new[i][:80]!r} are not finite")
                    states[torch.tensor(group)] = read
                    done += group
                    bar.update(len(group))
                    if keep and time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                        save()
                        saved = time.monotonic()
        finally:
            if keep and done:
                save()
        first = len(self.states)
        self.rows |= {text: first + i for i, text in enumerate(new)}
        self.states = torch.cat([self.states, states.to(self.states.device)])

    def to(self, device: torch.device | str) -> "TextTable":
        self.states = self.states.to(device)
        return self

    def look_up(self, texts: Sequence[Sequence[str | None]]) -> tuple[Tensor, Tensor]:
        """Features (B, T, F), zero where there is no text, and mask (B, T); new texts are read first.

        A table that would become too large begins empty again, so that its memory is bounded.
        """
        if not self.reading.observes:
            texts = [[None] * len(row) for row in texts]
        wanted = dict.fromkeys(text for row in texts for text in row if text is not None)
        new = wanted.keys() - self.rows.keys()
        if new and len(self.rows) + len(new) > MOST_TEXTS:
            self.rows, self.states = {}, self.states[:1].clone()
        self.add(wanted, keep=False)
        index = torch.tensor([[0 if text is None else self.rows[text] for text in row] for row in texts])
        index = index.to(self.states.device)
        return self.states[index], index > 0

    def _load(self) -> tuple[Tensor, Tensor]:
        """Hashes (N, 2) and features (N, F) in the file; empty ones if it cannot be used."""
        try:
            return text_file.read(self.file, self.identity, self.width)
        except FileNotFoundError:
            pass
        except ValueError as error:
            warnings.warn(f"the text cache {self.file} cannot be read and is made again ({error})", stacklevel=3)
        return torch.empty(0, 2, dtype=torch.int64), torch.empty(0, self.width)

    def _save(self, keys: Tensor, states: Tensor) -> None:
        """Replace the file in one step. Of two processes that write at once the later wins; the other reads again."""
        try:
            text_file.write(self.file, self.identity, keys, states)
        except OSError as error:
            warnings.warn(
                f"the text cache {self.file} could not be written ({error}); the texts will be read again next time",
                stacklevel=3,
            )


def _hash(text: str) -> tuple[int, int]:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big", signed=True), int.from_bytes(digest[8:16], "big", signed=True)
