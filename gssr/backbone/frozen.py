"""The frozen language model as the goal network sees it. Shapes: N texts; P, L, E, V as in the legend."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from gssr.backbone.cross_entropy import token_nats
from gssr.backbone.fixed_shapes import EXPERTS, call_shape, read
from gssr.backbone.identity import configured
from gssr.backbone.loading import decoder_layers, fingerprint, load_model
from gssr.backbone.precision import AUTO, warn_if_slow
from gssr.backbone.probing import check_model, ending_at

# With gradients: a CPU is fastest while a layer's activations stay in its cache, a GPU wants few calls.
TOKENS_PER_GRADIENT, TOKENS_PER_GRADIENT_GPU = 2048, 65536
# 64 MiB in float32: rows enough for fast matrix products at any vocabulary in use.
LOGITS_PER_CALL = 2**24


class FrozenBackbone:
    """A causal language model in eval mode that requires no gradient; gradients pass through it to a prefix.

    Not an ``nn.Module``, so that it is in no optimizer and in no checkpoint of the network that holds it.

    Args:
        name: ``nano``, a local folder or a hub id; all arguments are those of ``load_model``.
    """

    def __init__(
        self,
        name: str = "nano",
        revision: str | None = None,
        dtype: str = AUTO,
        offline: bool = False,
        device: str | None = None,
    ) -> None:
        self.name, self.revision = name, revision
        self.model, self.tokenizer = load_model(name, revision, dtype, offline, device)
        self._warned = False
        self.model.eval().requires_grad_(False)
        end, start, pad = (getattr(self.tokenizer, f"{name}_token_id") for name in ("eos", "bos", "pad"))
        # The token before every text and the one at padding; a model that lacks one takes end-of-text.
        self.start_id: int = end if start is None else start
        self.pad_id: int = end if pad is None else pad
        self.fingerprint = fingerprint(self.model)
        self.configured = configured(self.model, self.tokenizer)
        self.layers = decoder_layers(self.model)
        self.decoder = self.model.get_decoder()
        self.head = self.model.get_output_embeddings()
        self.table: nn.Embedding = self.model.get_input_embeddings()
        self.hidden_size: int = self.table.weight.shape[1]  # E, the width of embeddings and hidden states
        if self.head is None or self.decoder is self.model:
            raise ValueError(
                f"{type(self.model).__name__} has no separate decoder and output head; give a causal language model"
            )
        self.config = self.model.config.get_text_config()
        self.embedding_factor = check_model(self)
        self._has_experts = any(getattr(self.config, name, None) for name in EXPERTS)
        ids = torch.arange(len(self.table.weight))
        squares = sum(self.embed(part).float().square().sum().item() for part in ids.split(8192))
        self.embedding_scale = (squares / self.table.weight.numel()) ** 0.5

    @property
    def device(self) -> torch.device:
        return self.table.weight.device

    def to(self, device: torch.device | str) -> "FrozenBackbone":
        """Move the model. Warns, once, where its precision is slow there."""
        self.model.to(device)
        if not self._warned:
            self._warned = True
            warn_if_slow(self.table.weight.dtype, torch.device(device).type)
        return self

    def identity(self) -> dict[str, str | int | None]:
        """The backbone's entry in a checkpoint; ``commit`` is the hub's for the revision."""
        return {
            "name": self.name,
            "revision": self.revision,
            "commit": getattr(self.model.config, "_commit_hash", None),
            "fingerprint": self.fingerprint,
            "hidden_size": self.hidden_size,
        }

    def require_layers(self, layers: Sequence[int]) -> None:
        """Raise ValueError unless every layer can be read: 0, the embeddings, to the number of layers."""
        wrong = [layer for layer in layers if not 0 <= layer <= len(self.layers)]
        if wrong:
            raise ValueError(
                f"layer {wrong[0]} does not exist; {self.name!r} has layers 0 to {len(self.layers)} (0: the embeddings)"
            )

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings (…, E) that the model treats like token ids (…)."""
        embedded = self.table(ids)
        # Falcon-H1 multiplies the embeddings of ids, and not embeddings that it is given.
        return embedded if self.embedding_factor == 1.0 else embedded * self.embedding_factor

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text without special tokens."""
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []

    def read(self, texts: Sequence[str], layer: int, keep: Callable[[Tensor], Tensor] = torch.clone) -> list[Tensor]:
        """What is kept of each text's token states (L, E) after ``layer`` layers (0: embeddings), in float32.

        It depends on the text alone, bit for bit, see `gssr.backbone.fixed_shapes`.

        Raises:
            ValueError: a text without a token, no such layer, or states that are not finite.
        """
        self.require_layers([layer])
        ids = [[self.start_id, *i] for i in self.tokenize(texts)]
        for text, i in zip(texts, ids, strict=True):
            if len(i) == 1:
                raise ValueError(f"the text {text!r} has no token; a missing text is None, not an empty string")
        shape = partial(call_shape, width=self.hidden_size, on_cpu=self.device.type == "cpu", alone=self._has_experts)
        with nullcontext(self.embed) if layer == 0 else ending_at(self.decoder, self.layers[layer - 1], True) as run:
            states = run if layer == 0 else lambda ids: run(input_ids=ids)
            kept = read(ids, states, keep, shape, self.tokenizer.eos_token_id, self.device)
        if kept and not torch.cat([states.flatten() for states in kept]).isfinite().all():
            text = next(text for text, states in zip(texts, kept, strict=True) if not states.isfinite().all())
            raise ValueError(
                f"the states of the text {text[:80]!r} are not finite in layer {layer} of {self.name!r} in "
                f"{self.table.weight.dtype}: damaged weights, or a precision in which they overflow; try "
                "backbone.dtype float32"
            )
        return kept

    def token_states(self, texts: Sequence[str], layer: int) -> tuple[Tensor, Tensor]:
        """States of the tokens of each text after ``layer`` layers, side by side; see ``read``.

        Returns:
            states (N, L, E) in float32, zero at padding, and mask (N, L), True at tokens.
        """
        return side_by_side(self.read(texts, layer))

    def mean_states(self, texts: Sequence[str], layers: Sequence[int]) -> Tensor:
        """Mean over a text's tokens at each layer, side by side: (N, len(layers) · E), float32; see ``read``."""
        if not texts:
            return torch.empty(0, len(layers) * self.hidden_size)
        means = [torch.stack(self.read(texts, layer, lambda states: states.mean(0))) for layer in layers]
        return torch.cat(means, -1).cpu()

    def text_nats(
        self,
        prefix: Tensor,
        texts: Sequence[str],
        last: Tensor | None = None,
        run: Callable[[list[int], Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood of each text, closed by end-of-text, behind its prefix: one batched call.

        Prompt, prefix and padding are no targets; logits are computed at targets only.

        Args:
            prefix: (N, P, E) at the scale of the embedding table (``embedding_scale``).
            last: (N, 1, E), what each text begins behind; by default the start token.
            run: reads embeddings (n, L, E) of some of the N texts and gives hidden states (n, L, E), as behind a prompt
                or with changed states.

        Returns:
            nats (N,), summed over the text's tokens, differentiable in ``prefix``; tokens (N,), targets of each text.
        """
        if len(prefix) != len(texts):
            raise ValueError(f"{len(prefix)} prefixes for {len(texts)} texts")
        ids = [torch.tensor([*i, self.tokenizer.eos_token_id]) for i in self.tokenize(texts)]
        lead, run = self._lead(prefix, last), run or self._run
        limit = TOKENS_PER_GRADIENT if self.device.type == "cpu" else TOKENS_PER_GRADIENT_GPU
        order, parts = [], []
        for group in _grouped([1 + len(i) for i in ids], limit):
            order += group
            parts.append(self._group_nats(lead[group], [ids[i] for i in group], partial(run, group)))
        tokens = torch.tensor([len(i) for i in ids], device=self.device)
        # The inverse of the permutation restores the order of the texts.
        back = torch.tensor(order, device=self.device).argsort()
        return (torch.cat(parts)[back] if parts else prefix.new_zeros(0)), tokens

    def _group_nats(self, lead: Tensor, ids: list[Tensor], run: Callable[[Tensor], Tensor]) -> Tensor:
        """Nats (N,) of token ids, up to end-of-text, behind lead (N, P + 1, E), in one model call."""
        padded = pad_sequence(ids, batch_first=True, padding_value=self.tokenizer.eos_token_id).to(self.device)
        tokens = torch.tensor([len(i) for i in ids], device=self.device)
        is_target = torch.arange(padded.shape[1], device=self.device) < tokens[:, None]
        hidden = run(torch.cat([lead, self.embed(padded[:, :-1])], 1))[:, lead.shape[1] - 1 :]
        nats = torch.zeros(is_target.shape, device=self.device)
        rows = max(1, LOGITS_PER_CALL // len(self.table.weight))
        nats[is_target] = token_nats(hidden[is_target], padded[is_target], self.logits, rows)
        return nats.sum(1)

    def _lead(self, prefix: Tensor, last: Tensor | None = None) -> Tensor:
        """What a text begins behind (N, P + 1, E): its prefix, and the start token by default."""
        if last is None:
            last = self.embed(torch.full((len(prefix), 1), self.start_id, device=self.device))
        return torch.cat([prefix.to(self.table.weight.dtype), last], 1)

    def _run(self, rows: list[int], embedded: Tensor) -> Tensor:
        return self.decoder(inputs_embeds=embedded, use_cache=False).last_hidden_state

    @torch.no_grad()
    def generate(
        self, prefix: Tensor, max_new_tokens: int = 64, write: Callable[..., Tensor] | None = None
    ) -> list[str]:
        """The most likely text, token by token, behind each prefix (N, P, E) and a start token.

        Args:
            write: gives new tokens (N, new) for the prefix and options of ``model.generate``, as behind a prompt.
        """
        end = self.tokenizer.eos_token_id
        options = {"max_new_tokens": max_new_tokens, "do_sample": False, "eos_token_id": end, "pad_token_id": end}
        if write is None:
            embedded = self._lead(prefix)
            mask = torch.ones(embedded.shape[:2], dtype=torch.long, device=self.device)
            ids = self.model.generate(inputs_embeds=embedded, attention_mask=mask, **options)
        else:
            ids = write(prefix, **options)
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (…, E) to logits (…, V).

        Granite divides logits by a constant, Falcon-H1 and Cohere multiply them, Gemma bounds them.
        """
        logits = self.head(hidden.to(self.head.weight.dtype))
        for name in ("lm_head_multiplier", "logit_scale"):
            if getattr(self.config, name, None) is not None:
                logits = logits * getattr(self.config, name)
        logits = logits / getattr(self.config, "logits_scaling", 1.0)
        bound = getattr(self.config, "final_logit_softcapping", None)
        return logits if bound is None else bound * torch.tanh(logits / bound)


def side_by_side(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows (L_i, E) padded with zeros to (N, L, E), and mask (N, L), True where a row is."""
    padded = pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=padded.device)
    return padded, torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]


def _grouped(lengths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Places in order of length, in groups whose padded tokens fit into one call.

    Args:
        limit: largest number of tokens in a call.
    """
    group: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and (len(group) + 1) * lengths[i] > limit:
            yield group
            group = []
        group.append(i)
    if group:
        yield group
