"""From the belief to text through the frozen model: a soft prefix, a change of its recurrent states, or both.

    prefix   the text stands behind P embeddings projected from x
    state    before every token of the text, the states of chosen layers are changed by a low-rank map of x

Where a text has a prompt, the last texts said or the values of its step in words, the frozen model reads the prompt
first, and the prompt's last token takes the place of the start token. Training and generation make the same change at
the same tokens: in training it has a closed form (`gssr.states.offset_scan.scan_offsets`), in generation it is written
into the cache (`gssr.states.intervention.steer`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from gssr.backbone import FrozenBackbone
from gssr.domains import Few, Layers, Range, checked
from gssr.network.config import fixed
from gssr.network.heads import PrefixProjector
from gssr.network.layers import exact
from gssr.network.numbers import NUMBERS
from gssr.network.prompt import Prompts
from gssr.network.state_projector import StateProjector
from gssr.sequences.row_in_words import RowInWords
from gssr.states.hybrid_state import HybridState
from gssr.states.intervention import steer
from gssr.states.offset_scan import scan_offsets
from gssr.states.prompts import ReadPrompts
from gssr.states.rules import LowRank, Offset, Schedule, norm

AUTO = "auto"  # a row that the data bring
# The norm of a state hardly depends on the text.
SAMPLE = "Time goes on, and what has been said before is kept in the state."


@checked
@dataclass(frozen=True)
class SpeechConfig:
    """How the belief speaks through the frozen model.

    Args:
        injection: prefix, state (its recurrent states) or both.
        prefix_tokens: P, prefix tokens.
        state_rank: Rank of a change of states.
        state_layers: Layers whose states are changed; null: all that have a recurrent state.
        history: Last texts of a sequence that the frozen model reads before it writes the next one; 0: none.
        between: What follows each of these texts.
        row: The values of the text's own step, in words behind them, such as "{values}:", see RowInWords; auto: as the
            data module writes them, or that one; null: none.
        rows: Each of the history's texts has the values of its own step in front of it, too.
        own: What a plan has written itself counts among its last texts; false: only texts that were observed.
        values: Prefix and change of states come from the values of the text's own step and their last change, too.
    """

    injection: Literal["prefix", "state", "both"] = fixed("prefix")
    prefix_tokens: Few = fixed(4)
    state_rank: Few = fixed(8)
    state_layers: Layers | None = fixed(None)
    history: Annotated[int, Range(0, 16)] = fixed(0)
    between: str = fixed("\n")
    row: str | None = fixed(None)
    rows: bool = fixed(False)
    own: bool = fixed(True)
    values: bool = fixed(False)

    def __post_init__(self) -> None:
        # On the command line, quotes keep a colon, a brace or a line break, and the parser writes null as a text.
        for name in ("between", "row"):
            object.__setattr__(self, name, _unquoted(getattr(self, name)))
        if self.row in ("None", "null", ""):
            object.__setattr__(self, "row", None)


class Speaker(nn.Module):
    """Texts behind beliefs.

    Args:
        config: how the belief speaks. backbone: the frozen model; it is no submodule.
        latent_dim: D. hidden_dim: width of the projectors.
        row: writes values in words, where the config has a row.
        value_dim: Y, where the config has values.

    Raises:
        ValueError: a layer without a recurrent state is to be changed.
    """

    prefix: PrefixProjector | None
    state: StateProjector | None

    def __init__(
        self,
        config: SpeechConfig,
        backbone: FrozenBackbone,
        latent_dim: int,
        hidden_dim: int,
        row: RowInWords | None = None,
        value_dim: int = 0,
    ) -> None:
        super().__init__()
        self.backbone, self.prefix, self.state = backbone, None, None
        self.numbers = NUMBERS * value_dim if config.values else 0
        inputs = latent_dim + self.numbers
        self.prompts = Prompts(config.history, config.between, row, config.rows, config.own)
        if config.injection != "state":
            width, scale = backbone.hidden_size, backbone.embedding_scale
            self.prefix = PrefixProjector(inputs, hidden_dim, config.prefix_tokens, width, scale)
        if config.injection != "prefix":
            states = _states(backbone)
            chosen = sorted(states if config.state_layers is None else config.state_layers)
            if wrong := sorted(set(chosen) - set(states)):
                raise ValueError(f"state_layers {wrong} have no recurrent state; expected some of {sorted(states)}")
            shapes = {layer: states[layer].shape[1:] for layer in chosen}
            scales = {layer: norm(states[layer]).item() for layer in chosen}
            self.state = StateProjector(inputs, hidden_dim, config.state_rank, shapes, scales)

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    def forward(
        self, x: Tensor, prompted: bool = False, numbers: Tensor | None = None
    ) -> tuple[Tensor, dict[int, LowRank]]:
        """The prefix (N, P, E) and the change of states by layer (none without a projector) of beliefs x (N, D).

        Without a prefix and a prompt, a text stands behind one more start token: only states of something read can
        change.

        Args:
            numbers: (N, 13 Y), see `gssr.network.numbers.numbers_of`; None where no value is known.
        """
        if self.numbers:
            x = torch.cat([x, x.new_zeros(len(x), self.numbers) if numbers is None else numbers], -1)
        change = {} if self.state is None else self.state(x)
        if self.prefix is not None:
            return self.prefix(x), change
        start = torch.full((len(x), 0 if prompted else 1), self.backbone.start_id, device=x.device)
        return self.backbone.embed(start), change

    def text_nats(
        self,
        x: Tensor,
        texts: Sequence[str],
        prompts: Sequence[str | None] | None = None,
        numbers: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Nats (N,) and tokens (N,) of texts behind their prompts (None: nothing), beliefs x (N, D) and numbers."""
        return self._nats(lambda rows, prompted: self(x[rows], prompted, _of(numbers, rows)), texts, prompts)

    def silent_nats(self, texts: Sequence[str], prompts: Sequence[str | None] | None = None) -> tuple[Tensor, Tensor]:
        """Nats (N,) and tokens (N,) of texts behind their prompts alone: their cost without a belief."""
        nothing = self.backbone.table.weight.new_zeros(len(texts), 0, self.backbone.hidden_size)
        return self._nats(lambda rows, prompted: (nothing[rows], {}), texts, prompts)

    def zero(self, x: Tensor) -> Tensor:
        """0 with a zero gradient into every parameter: one without a gradient would stop DDP. x (N, D)."""
        prefix, change = self(x[:1])
        return 0 * (prefix.sum() + sum(part.left.sum() + part.right.sum() for part in change.values()))

    @exact
    @torch.no_grad()
    def write(
        self,
        x: Tensor,
        max_new_tokens: int = 64,
        prompts: Sequence[str | None] | None = None,
        numbers: Tensor | None = None,
    ) -> list[str]:
        """The most likely text, token by token, behind each prompt (None: nothing), belief x (N, D) and its numbers."""
        written = [""] * len(x)
        for rows, read in self._read(len(x), prompts):
            prefix, change = self(x[rows], read is not None, _of(numbers, rows))
            with steer(self.backbone.model, Offset(change)) if change else nullcontext():
                texts = self.backbone.generate(prefix, max_new_tokens, None if read is None else read.write)
            for row, text in zip(rows, texts, strict=True):
                written[row] = text
        return written

    def _nats(
        self,
        speak: Callable[[list[int], bool], tuple[Tensor, Mapping[int, LowRank]]],
        texts: Sequence[str],
        prompts: Sequence[str | None] | None,
    ) -> tuple[Tensor, Tensor]:
        """Nats and tokens of texts, where ``speak`` gives prefixes and changes of states of some rows."""
        order, found = [], []
        for rows, read in self._read(len(texts), prompts):
            part = [texts[row] for row in rows]
            if read is not None:
                part = [f"{_gap(prompts[row])}{text}" for row, text in zip(rows, part, strict=True)]
            found.append(self._nats_behind(*speak(rows, read is not None), part, read))
            order += rows
        back = torch.tensor(order).argsort().to(self.device)
        nats, tokens = (torch.cat(column)[back] for column in zip(*found, strict=True))
        return nats, tokens

    def _nats_behind(
        self, prefix: Tensor, change: Mapping[int, LowRank], texts: Sequence[str], read: ReadPrompts | None
    ) -> tuple[Tensor, Tensor]:
        if read is None and not change:
            return self.backbone.text_nats(prefix, texts)
        # Behind the prefix, before the last token in front of the text: a generation is steered from there, too.
        schedule = Schedule(start=prefix.shape[1] + (0 if read is None else read.skipped))

        def run(rows: list[int], embedded: Tensor) -> Tensor:
            with scan_offsets(self.backbone, _rows(change, rows), schedule) if change else nullcontext():
                if read is not None:
                    return read.read_on(rows, embedded)
                return self.backbone.decoder(inputs_embeds=embedded, use_cache=False).last_hidden_state

        return self.backbone.text_nats(prefix, texts, None if read is None else read.last, run)

    def _read(self, count: int, prompts: Sequence[str | None] | None) -> Iterator[tuple[list[int], ReadPrompts | None]]:
        """Rows without a prompt, and rows with prompts that were read; of each kind those that there are."""
        has = [False] * count if prompts is None else [prompt is not None for prompt in prompts]
        if prompted := [row for row in range(count) if has[row]]:
            yield prompted, ReadPrompts(self.backbone, [prompts[row].rstrip(" ") for row in prompted])
        if (bare := [row for row in range(count) if not has[row]]) or not prompted:
            yield bare, None


def _unquoted(text: str | None) -> str | None:
    """What a JSON text stands for; any other text as it is."""
    try:
        found = json.loads(text or "")
    except ValueError:
        return text
    return found if isinstance(found, str) else text


def _of(numbers: Tensor | None, rows: list[int]) -> Tensor | None:
    return None if numbers is None else numbers[rows]


def _gap(prompt: str) -> str:
    """The spaces at the end of a prompt: in most vocabularies a word begins with the space before it."""
    return prompt[len(prompt.rstrip(" ")) :]


def _states(backbone: FrozenBackbone) -> dict[int, Tensor]:
    """The state (1, M, R, N) of each recurrent layer behind a sample text."""
    with torch.device(backbone.device):  # also where the speaker itself is only sketched, on the device "meta"
        captured = HybridState.capture(backbone, [SAMPLE])
    return {i: layer.recurrent for i, layer in enumerate(captured.layers) if layer.recurrent is not None}


def _rows(change: Mapping[int, LowRank], rows: list[int]) -> dict[int, LowRank]:
    return {layer: LowRank(part.left[rows], part.right[rows]) for layer, part in change.items()}
