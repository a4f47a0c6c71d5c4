"""Whether the belief is used, and whether it informs the language model.

The network computes what needs its inside (`gssr.evaluation.network.SpeakingNetwork`). Here it is called on the right
windows, and the results are summed up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device

from gssr.evaluation.imagining import evaluating, pick_evenly, seed_of
from gssr.evaluation.intervals import Estimate, cluster_ratio
from gssr.evaluation.network import SpeakingNetwork
from gssr.sequences.record import Batch

USED_NATS = 0.02


@dataclass(frozen=True)
class LatentHealth:
    """`kl_per_dim`: D mean KLs in nats; `used`: share of them above 0.02 nats; `permuted_ratio`: error of the decoded
    value with x permuted between sequences, divided by its error with the own x.
    """

    kl_per_dim: list[float]
    used: float
    permuted_ratio: float


def latent_health(network: SpeakingNetwork, batch: Batch, windows: int = 384, seed: int = 0) -> LatentHealth:
    """The network's own account of its latent, on evenly picked windows."""
    picked = move_data_to_device(batch.select(pick_evenly(len(batch), windows)), network.device)
    with evaluating(network, seed_of(seed, "latent health")):
        found = network.forecaster.latent_health(picked)
    kl = torch.as_tensor(found["kl_per_dim"]).float().cpu()
    ratio = float(found["value_error_permuted"]) / float(found["value_error"])
    return LatentHealth(kl.tolist(), float((kl > USED_NATS).float().mean()), ratio)


@dataclass(frozen=True)
class TextEvidence:
    """Nats per token of a text behind the belief of its own series (`own`), of another series (`other`) and behind no
    belief (`none`), each behind the text's own prompt and values; `gain` is other - own. `gain_of_all` is that of the
    belief with the values and the row that its step tells: a row may say all that a belief knows.
    """

    gain: Estimate
    gain_of_all: Estimate
    own: Estimate
    other: Estimate
    none: Estimate


def text_evidence(
    network: SpeakingNetwork,
    batch: Batch,
    steps: int = 600,
    seed: int = 0,
    batch_size: int = 256,
) -> TextEvidence | None:
    """Whether text t is likelier behind its own x_t ~ p(x_t | h_t) than behind that of another series.

    The other x comes from a step with the same step_label. `steps` steps are picked evenly over series and time, each
    step of a series once although windows overlap, and none before C: so it has as much history as a forecast
    has. Nats per token are sums over sums, with errors by series. None where no two steps of different series
    share a label.
    """
    generator = np.random.default_rng([seed, 1])
    rows, times = _pick_steps(batch, steps, generator)
    partners = _partners(batch, rows, times, generator)
    if not partners:
        return None
    device = network.device
    with evaluating(network, seed_of(seed, "text evidence")):
        x, numbers, noise = [], [], torch.Generator().manual_seed(seed_of(seed, "prior samples"))
        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            picked = move_data_to_device(batch.select(rows[part]), device)
            samples = network.forecaster.prior_samples(picked, generator=noise)
            at = torch.arange(len(samples)), torch.as_tensor(times[part])
            x.append(samples[at])
            numbers.append(network.forecaster.numbers(picked)[at])
        x, numbers = torch.cat(x), torch.cat(numbers)
        own_at, other_at = (torch.as_tensor(side) for side in zip(*partners, strict=True))
        texts = [batch.text[rows[i]][times[i]] for i in own_at.tolist()]
        own_steps, other_steps = ([(rows[i], times[i]) for i in side.tolist()] for side in (own_at, other_at))
        prompts = network.speaker.prompts.of(batch, own_steps)
        behind = (
            (own_at, prompts, own_at),
            (other_at, prompts, own_at),
            (other_at, network.speaker.prompts.of(batch, own_steps, told=other_steps), other_at),
        )
        (own, tokens), (other, _), (changed, _) = (
            _nats(network, x[side], texts, asked, numbers[told], batch_size // 4) for side, asked, told in behind
        )
        none = network.speaker.silent_nats(texts, prompts)[0].double().cpu().numpy()
    series = [batch.series[rows[i]] for i in own_at.tolist()]
    found = (other - own, changed - own, own, other, none)
    return TextEvidence(*(cluster_ratio(nats, tokens, series) for nats in found))


def _pick_steps(batch: Batch, steps: int, generator: np.random.Generator) -> tuple[list[int], list[int]]:
    """Window and step indices of evenly picked steps that have a text; which window shows a step is drawn."""
    seen: dict[tuple[str, float], tuple[int, int]] = {}
    context, there = batch.context.tolist(), batch.step_mask.tolist()
    for row in generator.permutation(len(batch)).tolist():
        for t in range(context[row], batch.value.shape[1]):
            if there[row][t] and batch.text[row][t] is not None:
                seen.setdefault((batch.series[row], float(batch.time[row, t])), (row, t))
    found = [seen[key] for key in sorted(seen)]
    picked = [found[i] for i in pick_evenly(len(found), steps)]
    return [row for row, _ in picked], [t for _, t in picked]


def _partners(batch: Batch, rows: list[int], times: list[int], generator: np.random.Generator) -> list[tuple[int, int]]:
    """(picked step, picked step of another series with the same label), for the steps that have such a partner."""
    series = np.array([batch.series[row] for row in rows])
    labels = np.array(
        ["" if batch.step_label is None else batch.step_label[r][t] for r, t in zip(rows, times, strict=True)]
    )
    pairs = []
    for i in range(len(rows)):
        fits = np.flatnonzero((labels == labels[i]) & (series != series[i]))
        if len(fits):
            pairs.append((i, int(fits[generator.integers(len(fits))])))
    return pairs


def _nats(
    network: SpeakingNetwork,
    x: torch.Tensor,
    texts: list[str],
    prompts: list[str | None],
    numbers: torch.Tensor,
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    nats, tokens = [], []
    for start in range(0, len(texts), size):
        part = network.speaker.text_nats(*(each[start : start + size] for each in (x, texts, prompts, numbers)))
        nats.append(part[0].double().cpu().numpy())
        tokens.append(part[1].double().cpu().numpy())
    return np.concatenate(nats), np.concatenate(tokens)
