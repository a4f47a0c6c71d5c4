"""Whether the belief helps the language model, its latent is used, and texts of plans fit the numbers."""

from __future__ import annotations

from typing import Any

from benchmarks.quality.origins import Origins
from benchmarks.quality.steered import Goals
from datamodules.storms.plan_texts import plan_agreement, write_plans
from gssr.evaluation.belief import latent_health, text_evidence
from gssr.evaluation.forecast_report import stretches
from gssr.evaluation.imagining import pick_evenly
from gssr.sequences.record import Batch


def texts(network: Any, origins: Origins, steps: int, seed: int) -> dict[str, Any]:
    """Nats a token of texts behind their own belief, that of another series (or stretch of time), and none."""
    batch = Batch(**{**vars(origins.batch), "series": stretches(origins.batch)})
    told = text_evidence(network, batch, steps=steps, seed=seed)
    if told is None:
        return {}
    parts = {"own": told.own, "other": told.other, "none": told.none, "other_minus_own": told.gain}
    return {name: part.to_dict() for name, part in parts.items()}


def latent(network: Any, origins: Origins, windows: int, seed: int) -> dict[str, Any]:
    """Share of latent dimensions in use, raw KL in nats, and the value error of another's latent over one's own."""
    health = latent_health(network, origins.validation, windows, seed)
    return {"used": health.used, "raw_kl": sum(health.kl_per_dim), "permuted": health.permuted_ratio}


def plans(network: Any, origins: Origins, goals: Goals, windows: int, seed: int) -> dict[str, Any]:
    """Agreement of plan texts with the plan's own values, and with those of other plans.

    It is for storms only, whose advisories the parser reads.
    """
    if goals.own is None:
        return {}
    own = goals.own.select(pick_evenly(len(goals.own), windows))
    written = write_plans(network, own, origins.dimension, True, seed=seed)
    return {
        name: {
            "same": told.same.to_dict(),
            "near": told.near.to_dict(),
            "direction": told.direction.to_dict(),
            "judged": told.judged,
        }
        for name, told in zip(("own", "shuffled"), plan_agreement(written), strict=True)
    }
