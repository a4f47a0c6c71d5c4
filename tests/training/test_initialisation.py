"""Initial decays of Mamba-2: what a new model remembers, and that every training begins so."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F

from gssr.backbone.loading import load_model
from gssr.backbone.scan import chunk_scan
from gssr.training import architectures
from gssr.training.architectures import Nano, Saved
from gssr.training.initialisation import half_lives, initialise_mamba, mamba_layers
from gssr.training.language_model import LanguageModelTraining
from gssr.training.optimizers import MuonAdamWConfig

ROOT = Path(__file__).parents[2]
SHORTEST, LONGEST = math.log(2) / (0.1 * 16), math.log(2) / 1e-3


def built(hidden_size: int = 384, layers: int = 16) -> nn.Module:
    torch.manual_seed(0)
    return Nano(vocab_size=300, hidden_size=hidden_size, layers=layers).build()


def test_steps_and_rates_are_those_of_mamba() -> None:
    layers = mamba_layers(built())
    assert len(layers) == 12
    dt = torch.cat([F.softplus(layer.dt_bias.detach().double()) for layer in layers])
    rates = torch.cat([layer.A_log.detach().double().exp() for layer in layers])
    assert len(dt) == 12 * 24
    assert 0.999e-3 <= dt.min() < 1.3e-3 and 0.077 < dt.max() <= 0.1001
    assert 0.999 <= rates.min() < 1.3 and 15.5 < rates.max() <= 16.001
    # log-uniform and uniform: a Kolmogorov-Smirnov distance that chance exceeds once in a thousand
    places = (torch.arange(len(dt)) + 0.5) / len(dt)
    for uniform in ((dt.log() - math.log(1e-3)) / math.log(100), (rates - 1) / 15):
        assert (uniform.sort().values - places).abs().max() < 1.95 / len(dt) ** 0.5
    assert all((layer.D == 1).all() for layer in layers)


def test_half_lives_are_spread_over_hundreds_of_tokens() -> None:
    lives = torch.cat(list(half_lives(built()).values()))
    assert lives.min() >= SHORTEST * 0.99 and lives.max() <= LONGEST * 1.01
    g = np.random.default_rng(0)
    wanted = math.log(2) / (np.exp(g.uniform(math.log(1e-3), math.log(0.1), 10**5)) * g.uniform(1, 16, 10**5))
    for share in (0.25, 0.5, 0.75):
        assert lives.quantile(share).log().item() == pytest.approx(math.log(np.quantile(wanted, share)), abs=0.35)
    assert (lives > 100).float().mean().item() == pytest.approx((wanted > 100).mean(), abs=0.04)


def test_after_a_half_life_the_scan_keeps_half_of_a_state() -> None:
    """Against the scan itself, which reads nothing but decays."""
    model = built(96, 4)
    name, lives = next(iter(half_lives(model).items()))
    layer, heads = model.get_submodule(name), len(lives)
    g = torch.Generator().manual_seed(0)
    first = torch.randn(1, heads, 32, 64, generator=g)
    length = 2 * int(lives.max()) + 2
    maps = torch.randn(2, 1, length, 1, 64, generator=g)
    x, dt = torch.zeros(1, length, heads, 32), torch.zeros(1, length, heads)
    rates, bias = -layer.A_log.detach().exp(), layer.dt_bias.detach()
    for head in (int(lives.argmin()), int(lives.argmax())):
        steps = max(1, round(float(lives[head])))
        _, last = chunk_scan(
            x[:, :steps], dt[:, :steps], rates, *maps[:, :, :steps], chunk_size=64, dt_bias=bias,
            initial_states=first, dt_softplus=True, return_final_states=True,
        )  # fmt: skip
        kept = (last[0, head] / first[0, head]).mean().item()
        assert kept == pytest.approx(0.5 ** (steps / lives[head].item()), rel=1e-3)


def test_every_training_begins_with_these_decays() -> None:
    """The default, the shipped config, and no other place that builds a model with new weights to train it."""
    config = yaml.safe_load((ROOT / "configs" / "pretrain_nano.yaml").read_text(encoding="utf-8"))["model"]["init_args"]
    chosen = config["architecture"]
    assert chosen["class_path"].rpartition(".")[0] == architectures.__name__
    kind = getattr(architectures, chosen["class_path"].rpartition(".")[2])
    for module in (
        LanguageModelTraining(compile_layers=False),
        LanguageModelTraining(lambda: kind(**chosen["init_args"]), compile_layers=False),
    ):
        lives = torch.cat(list(half_lives(module.model).values()))
        assert lives.min() >= SHORTEST * 0.99 and lives.max() <= LONGEST * 1.01 and lives.median() > 5
    builders = set()
    for file in [*(ROOT / "gssr").rglob("*.py"), *(ROOT / "datamodules").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
            if name.endswith("ForCausalLM") or name == "from_config":
                builders.add(str(file.relative_to(ROOT)))
    # The second builds nano-random, a frozen model for comparison.
    assert builders == {"gssr/training/architectures.py", "gssr/backbone/loading.py"}


@pytest.mark.parametrize("new_decays", [False, True])
def test_saved_decays_are_drawn_anew_where_asked(new_decays: bool) -> None:
    found = LanguageModelTraining(lambda: Saved("nano", new_decays), compile_layers=False).model.state_dict()
    changed = {name for name, w in load_model("nano")[0].state_dict().items() if not torch.equal(w, found[name])}
    assert {name.rpartition(".")[2] for name in changed} == ({"dt_bias", "A_log", "D"} if new_decays else set())


def test_only_decays_are_drawn_anew() -> None:
    model = built(96, 4)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    initialise_mamba(model)
    changed = {name.rpartition(".")[2] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"dt_bias", "A_log"}


@pytest.mark.parametrize("function", [half_lives, initialise_mamba, mamba_layers])
def test_a_model_without_mamba_is_refused(function) -> None:
    with pytest.raises(ValueError, match="Linear has no Mamba-2 layer"):
        function(nn.Linear(2, 2))


def test_what_decides_memory_does_not_decay() -> None:
    module = LanguageModelTraining(lambda: Nano(300, 96, 4), compile_layers=False)
    optimizer = MuonAdamWConfig(lr=0.5, weight_decay=0.5, warmup_steps=1).build(module.named_parameters())
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    changed = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
    assert changed and not [name for name in changed if before[name].ndim == 1 or "embed" in name]
