"""Scores of texts by a function of the user's, which is imported by its name and called with the new text alone."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable

import torch
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.search.decoding.rows import Rows

Scorer = Callable[[str], float]
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def load_scorer(name: str) -> Scorer:
    """The function that ``module:function`` names.

    Raises ValueError for another form, a module that cannot be imported, or a name that is no function in it.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"the scorer {name!r} is no module:function, such as mine:score for score(text) in mine.py")
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function, None)
    except Exception as error:  # whatever the user's own module raises
        raise ValueError(
            f"the scorer's module {module!r} cannot be imported ({type(error).__name__}: {error}); the folder of a "
            f"module of your own must be on PYTHONPATH, such as PYTHONPATH=. in front of the command"
        ) from error
    if not callable(found):
        raise ValueError(f"{module!r} has no function {function!r}; a scorer takes a text and returns a number")
    return found


def scored(scorer: Scorer, texts: list[str]) -> Tensor:
    """Scores (B,) in float64; each different text is scored once. -inf forbids a text.

    Raises ValueError for a scorer that fails, or returns no number.
    """
    known: dict[str, float] = {}
    for text in texts:
        if text in known:
            continue
        try:
            value = float(scorer(text))
        except Exception as error:  # whatever the user's own function raises
            raise ValueError(
                f"the scorer failed on the text {text[:80]!r} ({type(error).__name__}: {error}); it is called with "
                "unfinished and empty texts, too"
            ) from error
        if math.isnan(value) or value == math.inf:
            raise ValueError(f"the scorer returned {value} for {text[:80]!r}; expected a finite number, or -inf")
        known[text] = value
    return torch.tensor([known[text] for text in texts], dtype=torch.float64)


def of_texts(scorer: Scorer) -> Callable[[Rows], Tensor]:
    """The value of rows by the text that they have so far."""
    return lambda rows: scored(scorer, rows.texts())


def named(name: str, backbone: FrozenBackbone) -> Callable[[Rows], Tensor]:
    """``of_texts`` of the function that ``module:function`` names, for a process that loads it itself."""
    return of_texts(load_scorer(name))


def plain(backbone: FrozenBackbone) -> Callable[[Rows], Tensor]:
    """``likelihood``, for such a process."""
    return likelihood


def likelihood(rows: Rows) -> Tensor:
    """Mean log-likelihood of a row's tokens under the model without steering."""
    return rows.plain_log_likelihood().double().cpu() / rows.lengths.clamp(min=1).cpu()
