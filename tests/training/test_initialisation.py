"""Initial weights of Mamba-2 layers: what a new model remembers, and that every training begins so."""

import ast
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from gssr.backbone.loading import load_model
from gssr.backbone.scan import chunk_scan
from gssr.training import architectures
from gssr.training.architectures import Nano, Saved
from gssr.training.initialisation import half_lives, initialise_mamba, mamba_layers
from gssr.training.language_model import LanguageModelTraining
from gssr.training.optimizers import MuonAdamWConfig

ROOT = Path(__file__).parents[2]


def built(hidden_size: int = 384, layers: int = 16) -> nn.Module:
    torch.manual_seed(0)
    return Nano(vocab_size=300, hidden_size=hidden_size, layers=layers).build()


def test_half_lives_are_spread_from_one_token_to_two_thousand_in_every_layer() -> None:
    for lives in half_lives(built()).values():
        wanted = 2000 ** ((torch.arange(24) + 0.5) / 24)
        torch.testing.assert_close(lives.sort().values, wanted, rtol=1e-4, atol=0)
        assert (lives > 100).float().mean() >= 0.25


def test_a_new_layer_answers_a_token_with_what_followed_it() -> None:
    """The state alone, as a recurrence of float64 in this test: no gate, no D, no norm, heads that forget nothing."""
    torch.manual_seed(0)
    layer = mamba_layers(Nano(vocab_size=300, hidden_size=192, layers=4, state_size=128).build())[0]
    inner, n = layer.intermediate_size, layer.ssm_state_size
    right = 0
    for _ in range(20):
        tokens = torch.randn(12, 192)
        order = [*range(12), int(torch.randint(11, ()))]
        x, b, c = layer.act(
            layer.conv1d((tokens[order] @ layer.in_proj.weight[inner : 2 * inner + 2 * n].T).T)[:, :13].T
        ).split([inner, n, n], -1)
        state = sum(torch.outer(x[t], b[t]) for t in range(12)).double()
        answer = state @ c[12].double()
        right += int((x[:12].double() @ answer).argmax()) == order[12] + 1
    assert right >= 16  # chance: 1.7


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
        assert (lives > 100).float().mean() >= 0.25 and lives.median() > 20
    builders = set()
    for file in [*(ROOT / "gssr").rglob("*.py"), *(ROOT / "datamodules").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
            if name.endswith("ForCausalLM") or name == "from_config":
                builders.add(str(file.relative_to(ROOT)))
    # The second builds nano-random, a frozen model for comparison.
    assert builders == {"gssr/training/architectures.py", "gssr/backbone/loading.py"}


@pytest.mark.parametrize("chosen", [None, (1,), (0, -1)])
def test_chosen_layers_of_a_saved_model_begin_anew_but_for_gate_and_x(chosen: tuple[int, ...] | None) -> None:
    before = load_model("nano")[0]
    count = len(mamba_layers(before))
    anew = tuple(place % count for place in chosen or ())
    found = LanguageModelTraining(lambda: Saved("nano", chosen and anew), compile_layers=False).model
    for place, (new, old) in enumerate(zip(mamba_layers(found), mamba_layers(before), strict=True)):
        same = {name for name, w in old.state_dict().items() if torch.equal(w.float(), new.state_dict()[name].float())}
        inner = 2 * old.intermediate_size
        torch.testing.assert_close(new.in_proj.weight[:inner], old.in_proj.weight[:inner].float(), rtol=0, atol=0)
        assert (same >= {"norm.weight", "out_proj.weight"}) and ("A_log" in same) == (place not in anew)
        if place not in anew:
            assert same == set(old.state_dict())
    lives = list(half_lives(found).values())
    assert all((lives[place] > 100).float().mean() >= 0.25 for place in anew)


def test_a_layer_that_does_not_exist_is_refused() -> None:
    count = len(mamba_layers(load_model("nano")[0]))
    with pytest.raises(ValueError, match=rf"layers \[{count}\] do not exist; the model has {count} Mamba-2 layers"):
        Saved("nano", (count,)).build()


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
