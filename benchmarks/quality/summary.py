"""One row for each data set: the network beside the best other method, and the effect of texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import permutations

import numpy as np

from benchmarks.quality.ablation_report import against_base
from benchmarks.quality.report import NETWORK, Part, Rows, percent_interval, written
from benchmarks.quality.scores import estimate, relative
from gssr.evaluation.intervals import Estimate

WITHOUT_TEXT = "no_text"
WORSE = 0.02

# The rows and columns of the summary.
OURS = "CRPS of the network"
BEST = "best other method"
DIFFERENCE = "difference to it"
CHOSEN = "difference to the method that is best on validation"
SHOWN = "shown to be less than 2 % worse than that method"
LARGER = "methods with a larger CRPS"
SEEDS = "one seed of the network beside another"
TEXTS = "without texts (validation)"


def summary(test: Mapping[str, Part], val: Mapping[str, Part], texts: bool = True) -> Rows:
    """A row for each data set of `test`, with the parts by data set.

    Forecasts are scored on `test`. With `texts`, the ablation of texts is added, which is measured on `val`.
    """
    rows = []
    for name, part in test.items():
        if NETWORK not in part.forecasts or len(part.forecasts) == 1:
            continue
        scores = {method: estimate(cells, "crps", None, part.clusters) for method, cells in part.forecasts.items()}
        others = {method: score.value for method, score in scores.items() if method != NETWORK}
        best = min(others, key=others.__getitem__)
        chosen = _best_on(val[name], others) if name in val else None

        def beside(method: str, part: Part = part) -> str:
            return percent_interval(_relative(part, NETWORK, method))

        worse = sum(value > scores[NETWORK].value for value in others.values())
        rows.append(
            {
                "": name,
                OURS: written(scores[NETWORK]),
                BEST: f"{best}, {written(scores[best])}",
                DIFFERENCE: beside(best),
                CHOSEN: "" if chosen is None else f"{chosen}, {beside(chosen)}",
                SHOWN: "" if chosen is None else _who_excludes(part, chosen),
                LARGER: f"{worse} of {len(others)}",
                SEEDS: _seeds_apart(part),
            }
        )
        if texts:
            without = against_base(val[name], WITHOUT_TEXT) if name in val else None
            rows[-1][TEXTS] = "not run" if without is None else percent_interval(without)
    return rows


def _who_excludes(part: Part, chosen: str) -> str:
    """The methods whose interval beside the chosen one ends below `WORSE`."""
    others = [method for method in part.forecasts if method != chosen]
    found = [method for method in others if _relative(part, method, chosen).high < WORSE]
    return f"{', '.join(found) or 'none'} ({len(found)} of {len(others)})"


def _relative(part: Part, ours: str, other: str) -> Estimate:
    return relative(part.forecasts[ours], part.forecasts[other], "crps", None, part.clusters)


def _seeds_apart(part: Part) -> str:
    """The upper end of the interval of one seed beside another, the largest of all pairs."""
    ends = [relative([a], [b], "crps", None, part.clusters).high for a, b in permutations(part.forecasts[NETWORK], 2)]
    return f"up to {100 * max(ends):+.1f} %" if np.isfinite(ends).all() and ends else ""


def _best_on(part: Part, methods: Iterable[str]) -> str | None:
    """The method with the smallest CRPS on a part; None where none was measured there."""
    found = {
        method: estimate(part.forecasts[method], "crps", None, part.clusters).value
        for method in methods
        if method in part.forecasts
    }
    return min(found, key=found.__getitem__, default=None)
