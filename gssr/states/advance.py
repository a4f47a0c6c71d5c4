"""Continue from a cache: the one primitive with which everything in this package reads on.

Rows of a batch may have different numbers of new tokens. Padding inside a continuation would let the recurrent states
decay and shift the conv states, so rows with equally many tokens are read together, without padding. Attention keys
and values of all rows stand at the columns of ``mask``, with zeros at padding, which no later token attends to.

Shapes: B rows, K positions in the cache, L new positions, n tokens of a row among them, E backbone width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache, DynamicCache

from gssr.backbone import FrozenBackbone
from gssr.states.cache import ATTENTION, LayerState, cache_name, fill_cache, layer_states


def left_padded(backbone: FrozenBackbone, texts: Sequence[str], padding: int, last: int = 0) -> tuple[Tensor, Tensor]:
    """Token ids of texts behind a begin-of-text token, padded on the left.

    Args:
        padding: token id at padding.
        last: number of tokens of each text that are kept, counted from its end; 0 keeps all.

    Returns:
        Tokens (B, L) and mask (B, L), False at padding.

    Raises:
        ValueError: no text, or a text without a token.
    """
    if not texts:
        raise ValueError("there is no text to read; give at least one")
    ids = backbone.tokenize(texts)
    for text, own in zip(texts, ids, strict=True):
        if not own:
            raise ValueError(f"the text {text!r} has no token; give a text of at least one character")
    rows = [torch.tensor([backbone.start_id, *own][-last:]) for own in ids]
    masks = [torch.ones_like(row, dtype=torch.bool) for row in rows]
    tokens, mask = (
        pad_sequence(parts, batch_first=True, padding_value=value, padding_side="left").to(backbone.device)
        for parts, value in ((rows, padding), (masks, False))
    )
    return tokens, mask


def advance(
    backbone: FrozenBackbone, cache: Cache | tuple[LayerState, ...], embeddings: Tensor, mask: Tensor
) -> tuple[Tensor, DynamicCache]:
    """Read L positions behind the K positions of a cache. The given cache stays as it is.

    Gradients pass to the embeddings and to the states in the cache, for a single token, too.

    Args:
        cache: from ``empty_cache``, ``fill_cache`` or an earlier call; or the states of its layers.
        embeddings: (B, L, E), as ``backbone.embed`` gives them.
        mask: (B, K + L), False at padding: the positions in the cache, then the new ones.

    Returns:
        Hidden states (B, L, E) behind the last layer, zero at padding, for ``backbone.logits``, and a new cache of
        K + L positions.

    Raises:
        ValueError: shapes that do not fit each other, or a row without a token in front of an empty cache.
    """
    mask = mask.to(backbone.device, torch.bool)
    layers = cache if isinstance(cache, tuple) else layer_states(cache)
    _check(layers, embeddings, mask)
    embeddings = embeddings.to(backbone.table.weight.dtype)
    new = mask[:, -embeddings.shape[1] :]
    if new.all():
        return _read(backbone, layers, embeddings, mask)
    if not any(list(layer.parts()) for layer in layers):
        if not new.any(1).all():
            raise ValueError("a row has no token and the cache is empty; give each row at least one token")
        if not (new[:, 1:] < new[:, :-1]).any():
            # In front of an empty cache left padding is exact: there is no state yet that could decay.
            hidden, read = _read(backbone, layers, embeddings, mask)
            return hidden.masked_fill(~new[..., None], 0.0), read
    return _advance_by_length(backbone, layers, embeddings, mask)


def _read(
    backbone: FrozenBackbone, layers: tuple[LayerState, ...], embeddings: Tensor, mask: Tensor
) -> tuple[Tensor, DynamicCache]:
    """One call of the decoder with a cache that holds copies of ``layers``."""
    cache, name, length = fill_cache(backbone.model, layers), cache_name(backbone.model), embeddings.shape[1]
    padded = not mask.all()
    if name == "cache_params":
        about = {"attention_mask": mask[:, -length:].long()} if padded else {}
    elif padded:
        # As ``generate`` counts positions, so that rotary keys agree: padding has none.
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)[:, -length:]
        about = {"attention_mask": mask.long(), "position_ids": positions}
    else:
        about = {"position_ids": torch.arange(mask.shape[1] - length, mask.shape[1], device=mask.device)[None]}
    out = backbone.decoder(inputs_embeds=embeddings, use_cache=True, **about, **{name: cache})
    return out.last_hidden_state, cache


def _advance_by_length(
    backbone: FrozenBackbone, layers: tuple[LayerState, ...], embeddings: Tensor, mask: Tensor
) -> tuple[Tensor, DynamicCache]:
    """One call for all rows with equally many new tokens, then the rows in their order."""
    length = embeddings.shape[1]
    past, new = mask[:, :-length], mask[:, -length:]
    counts = new.sum(1)
    groups = [(counts == count).nonzero().flatten() for count in counts.unique()]
    hidden, states = [], []
    for rows in groups:
        own, count = new[rows], int(counts[rows[0]])
        group = tuple(layer.map(lambda part, rows=rows: part[rows]) for layer in layers)
        tokens = embeddings[rows][own].view(len(rows), count, embeddings.shape[-1])
        if count:
            seen = torch.cat([past[rows], own.new_ones(len(rows), count)], 1)
            tokens, read = _read(backbone, group, tokens, seen)
            group = layer_states(read)
        hidden.append(_spread(tokens, own))
        states.append([layer.map(lambda part, own=own: _spread_keys(part, own), ATTENTION) for layer in group])
    back = torch.cat(groups).argsort()
    joined = [LayerState.concatenate(groups).map(lambda part: part[back]) for groups in zip(*states, strict=True)]
    return torch.cat(hidden)[back], fill_cache(backbone.model, joined)


def _spread(tokens: Tensor, mask: Tensor) -> Tensor:
    """(b, n, …) as (b, L, …): each row's n tokens at the True places of mask (b, L), zeros elsewhere."""
    out = tokens.new_zeros(*mask.shape, *tokens.shape[2:])
    out[mask] = tokens.flatten(0, 1)
    return out


def _spread_keys(part: Tensor, mask: Tensor) -> Tensor:
    """Keys or values (b, heads, K + n, width) as (b, heads, K + L, width)."""
    past = part.shape[2] - int(mask[0].sum())
    new = _spread(part[:, :, past:].transpose(1, 2), mask).transpose(1, 2)
    return torch.cat([part[:, :, :past], new], 2)


def _check(layers: tuple[LayerState, ...], embeddings: Tensor, mask: Tensor) -> None:
    if embeddings.ndim != 3 or embeddings.shape[1] < 1 or len(mask) != len(embeddings) or mask.ndim != 2:
        raise ValueError(
            f"embeddings {tuple(embeddings.shape)} and mask {tuple(mask.shape)}; expected (B, L, E) with L of at least "
            "1 and (B, K + L), where K positions are in the cache"
        )
    for layer in layers:
        for name, part in layer.parts():
            length = mask.shape[1] - embeddings.shape[1]
            if len(part) != len(mask) or (name in ATTENTION and part.shape[2] != length):
                raise ValueError(
                    f"the cache holds {name} {tuple(part.shape)}; the mask {tuple(mask.shape)} and "
                    f"{embeddings.shape[1]} new positions expect {len(mask)} rows and {length} positions in the cache"
                )
