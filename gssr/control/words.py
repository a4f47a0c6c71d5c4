"""Texts as token ids of a model, refused where the model lacks a word."""

import torch
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.shown import quoted


def ids_of(backbone: FrozenBackbone, text: str, what: str = "text") -> Tensor:
    """Token ids (1, L). Raises ValueError for a text without a token, or with a word that the model does not know."""
    (ids,) = backbone.tokenize([text])
    if not ids:
        raise ValueError(f"the {what} {quoted(text)} has no token; give at least one word")
    unknown = backbone.tokenizer.unk_token_id
    if unknown is not None and unknown in ids:
        missing = [word for word in text.split() if unknown in backbone.tokenize([word])[0]]
        raise ValueError(
            f"{backbone.name!r} does not know {quoted(' '.join(missing[:5]))}, in the {what} {quoted(text)}; it has "
            "words, such as " + ", ".join(sorted(w for w in backbone.tokenizer.get_vocab() if w.isalpha())[::97][:9])
        )
    return torch.tensor([ids], device=backbone.device)
