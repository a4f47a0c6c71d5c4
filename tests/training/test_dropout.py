"""Dropout by rows: some rows lose activations, all others and validation keep every bit."""

from types import SimpleNamespace

import pytest
import torch
from transformers import PreTrainedModel

from gssr.training.architectures import Architecture, Nano, PureMamba2
from gssr.training.dropout import row_dropout
from gssr.training.induction import InductionHeads
from gssr.training.language_model import LanguageModelTraining

TOKENS = torch.randint(2, 250, (3, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=[Nano(300, 96, 4), PureMamba2(300, 48, 2)], ids=["hybrid", "mamba2"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    return request.param.build()


def logits(model: PreTrainedModel, rates: list[float] | None) -> torch.Tensor:
    torch.manual_seed(2)
    with torch.no_grad(), row_dropout(model, None if rates is None else torch.tensor(rates)):
        return model(input_ids=TOKENS, use_cache=False).logits


def test_only_rows_with_a_rate_change_and_nothing_stays_behind(model: PreTrainedModel) -> None:
    plain = logits(model, None)
    dropped = logits(model, [0.0, 0.3, 0.0])
    assert torch.equal(dropped[[0, 2]], plain[[0, 2]])
    assert not torch.allclose(dropped[1], plain[1], atol=1e-3)
    assert torch.equal(logits(model, [0.0, 0.0, 0.0]), plain)
    assert torch.equal(logits(model, None), plain)


def test_the_share_of_the_activations_is_zeroed_and_their_mean_stays(model: PreTrainedModel) -> None:
    seen = []
    table = model.get_input_embeddings()
    with torch.no_grad():
        table.weight.fill_(1.0)
    with row_dropout(model, torch.tensor([0.0, 0.2, 0.5])):
        handle = table.register_forward_hook(lambda *given: seen.append(given[-1]))
        for _ in range(40):
            model(input_ids=TOKENS, use_cache=False)
        handle.remove()
    x = torch.stack(seen)
    assert (x == 0).float().mean((0, 2, 3)).tolist() == pytest.approx([0, 0.2, 0.5], abs=0.01)
    assert x.mean((0, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=0.02)


def test_a_training_step_drops_and_validation_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = LanguageModelTraining(lambda: Nano(300, 96, 4), compile_layers=False)
    monkeypatch.setattr(module, "log", lambda *args, **kwargs: None)
    monkeypatch.setattr(module, "optimizers", lambda: SimpleNamespace(param_groups=[{"lr": 0.0}]))
    data = SimpleNamespace(sources=["a"])
    module._trainer = SimpleNamespace(datamodule=data)
    batch = {"tokens": TOKENS, "dropout": torch.full((3,), 0.5)}
    losses = {module.training_step(batch, 0).item() for _ in range(2)}
    assert len(losses) == 2
    measured = set()
    for _ in range(2):
        module.on_validation_epoch_start()
        module.validation_step(batch, 0)
        measured.add(module._nats["a"])
    assert len(measured) == 1


@pytest.mark.parametrize(("objective", "dropout"), [(InductionHeads, {}), (None, {"a": 0.1})])
def test_hooks_in_compiled_layers_are_refused(objective: type | None, dropout: dict[str, float]) -> None:
    def small() -> Architecture:
        return Nano(300, 96, 4)

    module = LanguageModelTraining(small, **({"objective": objective} if objective else {}))
    module._trainer = SimpleNamespace(world_size=1, datamodule=SimpleNamespace(dropout=dropout))
    with pytest.raises(ValueError, match="compile_layers false"):
        module.on_fit_start()
