"""The benchmarks' own arithmetic: the plain loop computes the network's losses, fits and tables are right."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers.models.granitemoehybrid import modeling_granitemoehybrid as library

from benchmarks import reference_loop
from benchmarks.speed import measure, report
from gssr.backbone import FrozenBackbone
from gssr.network import GoalNetwork
from gssr.sequences.collate import collate
from gssr.sequences.record import Batch, Record
from tests.conftest import SENTENCES
from tests.networks import make_network


def network_and_batch(folder: Path, text_steps: int) -> tuple[GoalNetwork, Batch]:
    import numpy as np

    g = np.random.default_rng(0)
    records = []
    for i in range(2):
        value = g.normal(size=(4, 2)).astype(np.float32)
        value[1, 0] = np.nan
        value[2] = np.nan  # a step at which nothing is observed: its text is missing, too
        text = [SENTENCES[(i + t) % 4] if t != 2 else None for t in range(4)]
        low = np.array([0.1, np.nan], np.float32)
        records.append(Record(f"s{i}", np.arange(4.0), value, text, "Weaken to 35 knots", low, low, 1, 3))
    network = make_network(
        folder,
        latent_dim=4,
        hidden_dim=16,
        text_steps=text_steps,
        text_layers=(2,),
        goal_layer=1,
        names=["a", "b"],
    )
    return network, collate(records)


def test_the_plain_loop_computes_the_losses_of_the_network(tiny_folder: Path) -> None:
    network, batch = network_and_batch(tiny_folder, text_steps=100)
    noise = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(3))
    with measure.library_path():
        plain = reference_loop.losses(network, batch, noise)
    ours = network.objective(batch, torch.Generator().manual_seed(3), training=False).terms
    for name in reference_loop.LOSSES:
        assert torch.allclose(ours[name], plain[name], rtol=1e-4), name
    gradients = [
        torch.autograd.grad(found["text"], list(network.speaker.prefix.parameters())) for found in (ours, plain)
    ]
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5)


def test_fewer_texts_give_the_same_loss_on_average(tiny_folder: Path) -> None:
    """Nats and tokens of random subsets have the mean of all texts, so their quotient is near that of all."""
    network, batch = network_and_batch(tiny_folder, text_steps=100)
    x = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        whole = network.objective.text_loss(batch, x, generator).mean
        network.objective.config = replace(network.objective.config, text_steps=3)
        draws = torch.stack([network.objective.text_loss(batch, x, generator).mean for _ in range(60)])
    assert draws.std() > 0
    assert (draws.mean() - whole).abs() < 4 * draws.std() / 60**0.5 + 1e-3 * whole


def test_the_librarys_path_is_the_librarys_and_ours_comes_back(tiny: FrozenBackbone) -> None:
    ours = library.mamba2_chunk_scan
    with measure.library_path():
        assert library.mamba2_chunk_scan is ours.__wrapped__
    assert library.mamba2_chunk_scan is ours


def test_slopes_and_ratios() -> None:
    assert measure.slope([1, 2, 4, 8], [3 * n**1.5 for n in (1, 2, 4, 8)]) == pytest.approx(1.5)
    assert measure.ratio({"a": [2.0, 40.0, 6.0], "b": [1.0, 10.0, 3.0]}, "a", "b") == 2.0


def test_the_floor_counts_every_projection_once(tiny: FrozenBackbone) -> None:
    seconds, work = measure.floor_seconds(tiny.model, rows=10, targets=3, repeats=1)
    head = tiny.model.get_output_embeddings()
    inner = sum(m.weight.numel() for m in tiny.model.modules() if isinstance(m, torch.nn.Linear) and m is not head)
    assert work == 4 * (10 * inner + 3 * head.weight.numel())
    assert seconds > 0


def test_a_report_says_what_was_not_run(tmp_path: Path) -> None:
    machine = {
        "cpu": "c",
        "cores": 2,
        "avx512_bf16": True,
        "gflops_1024": {"float32": 1.0},
        "python": "3",
        "torch": "2",
    }
    machine |= {"transformers": "5", "gpu": None, "date": "today"}
    results = {
        "machine": machine,
        "gpu": {"rows": [], "note": "no GPU at hand"},
        "scan": {"rows": [{"L": 64, "ratio": 30.123}]},
    }
    report.write(results, tmp_path / "speed.md")
    text = (tmp_path / "speed.md").read_text(encoding="utf-8")
    assert "| 64 | 30.1 |" in text
    assert "**Not run.** no GPU at hand" in text
