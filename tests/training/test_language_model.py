"""Training of language models: optimizer, objectives, resumption and export."""

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from jsonargparse import ArgumentParser, set_parsing_settings
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from benchmarks.compression import model_bits_per_byte, opening, xz_bits_per_byte
from callbacks import OPTIONAL
from datamodules.text.corpus import TextCorpus
from gssr.backbone import FrozenBackbone
from gssr.runs.trainer_options import missing_of
from gssr.training.architectures import Architecture, Nano, Saved, nano_config
from gssr.training.language_model import LanguageModelTraining
from gssr.training.objectives import NextToken, Objective, WeightedTokens
from gssr.training.optimizers import MuonAdamW, MuonAdamWConfig

PAD = 1


def nano() -> Architecture:
    return Nano(vocab_size=300, hidden_size=96, layers=4)


def tiny(seed: int = 0, **options: object) -> LanguageModelTraining:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LanguageModelTraining(**({"architecture": nano, "compile_layers": False} | options))


def nats(module: LanguageModelTraining, rows: Tensor) -> tuple[Tensor, Tensor]:
    return module.objective(module.model, {"tokens": rows})


# ---------------------------------------------------------------------- the optimizer


def trained_parts() -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    g = torch.Generator().manual_seed(0)
    shapes = [(6, 4), (4, 8)], [(4,), (10, 4)]
    return tuple([nn.Parameter(torch.randn(shape, generator=g)) for shape in part] for part in shapes)


def give_gradients(parameters: list[nn.Parameter], step: int) -> None:
    g = torch.Generator().manual_seed(step)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=g)


def test_a_reloaded_optimizer_makes_the_same_next_steps(tmp_path: Path) -> None:
    matrices, others = trained_parts()
    optimizer = MuonAdamW(matrices, others, lr=0.02, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    for step in range(4):
        give_gradients(matrices + others, step)
        optimizer.step()
        schedule.step()
    torch.save({"weights": [*matrices, *others], "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")

    def go_on(load: bool) -> list[Tensor]:
        saved = torch.load(tmp_path / "state.pt", weights_only=True)
        fresh = trained_parts()
        with torch.no_grad():
            for parameter, value in zip(fresh[0] + fresh[1], saved["weights"], strict=True):
                parameter.copy_(value)
        again = MuonAdamW(*fresh, lr=0.02, weight_decay=0.1)
        if load:
            again.load_state_dict(saved["optimizer"])
        for group in again.param_groups:
            group["lr"] = optimizer.param_groups[0]["lr"]
        for step in (4, 5):
            give_gradients(fresh[0] + fresh[1], step)
            again.step()
        return fresh[0] + fresh[1]

    for step in (4, 5):
        give_gradients(matrices + others, step)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(matrices + others, go_on(load=True), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(matrices + others, go_on(load=False), strict=True))


def test_both_optimizers_follow_the_schedule_after_a_reload() -> None:
    matrices, others = trained_parts()
    optimizer = MuonAdamW(matrices, others, lr=0.02, weight_decay=0.0)
    optimizer.load_state_dict(optimizer.state_dict())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [p.detach().clone() for p in matrices + others]
    give_gradients(matrices + others, 0)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, matrices + others, strict=True))
    for group in optimizer.param_groups:
        group["lr"] = 0.02
    optimizer.step()
    assert not any(torch.equal(a, b) for a, b in zip(before, matrices + others, strict=True))


def test_every_parameter_is_trained_once_and_embeddings_by_adamw() -> None:
    module = tiny()
    module._trainer = SimpleNamespace(estimated_stepping_batches=100)
    optimizer = module.configure_optimizers()["optimizer"]
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == len({id(p) for p in held}) == len(list(module.model.parameters()))
    by_muon = {id(p) for group in optimizer.muon.param_groups for p in group["params"]}
    assert all(p.ndim == 2 for group in optimizer.muon.param_groups for p in group["params"])
    assert id(module.model.get_input_embeddings().weight) not in by_muon
    assert (
        len(by_muon) == 3 * 4 + 1 * 6
    )  # in, out and the MLP's two of a Mamba layer; q, k, v, o and the two of an attention layer


def test_the_rate_warms_up_stays_and_falls_to_zero() -> None:
    config = MuonAdamWConfig(warmup_steps=10, decay_share=0.4)
    rates = [config.rate(step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[4] == pytest.approx(0.5)
    assert all(rate == 1.0 for rate in rates[9:61])
    assert rates[80] == pytest.approx(0.5) and rates[100] == 0.0
    assert all(a > b for a, b in zip(rates[60:], rates[61:], strict=False))


# ---------------------------------------------------------------------- the loss


def test_the_loss_is_the_naive_cross_entropy_and_padding_counts_nothing() -> None:
    module = tiny()
    g = torch.Generator().manual_seed(1)
    rows = torch.randint(2, 300, (3, 13), generator=g)
    rows[1, 9:] = PAD
    rows[2, 1:] = PAD  # nothing but a first token
    total, count = nats(module, rows)
    expected, targets = 0.0, 0
    for row in rows:
        logits = module.model(input_ids=row[None, :-1]).logits[0].double()  # the model's own head, one row at a time
        for position, token in enumerate(row[1:].tolist()):
            if token != PAD:
                expected -= (logits[position].softmax(-1)[token]).log().item()
                targets += 1
    assert count.item() == targets == 12 + 8
    assert total.item() == pytest.approx(expected, rel=1e-5)
    gradient = torch.autograd.grad(total, module.model.get_input_embeddings().weight)[0]
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0


def test_weights_decide_what_a_token_counts() -> None:
    module, objective = tiny(), WeightedTokens()
    rows = torch.randint(2, 300, (2, 9), generator=torch.Generator().manual_seed(1))
    rows[1, 7:] = PAD
    weights = torch.rand(2, 9, generator=torch.Generator().manual_seed(2))
    total, weight = objective(module.model, {"tokens": rows, "weights": weights})
    log_probs = module.model(input_ids=rows[:, :-1]).logits.double().log_softmax(-1)
    expected = [
        (weights[row, place + 1].item(), log_probs[row, place, rows[row, place + 1]].item())
        for row in range(2)
        for place in range(8)
        if rows[row, place + 1] != PAD
    ]
    assert total.item() == pytest.approx(-sum(w * nats for w, nats in expected), rel=1e-5)
    assert weight.item() == pytest.approx(sum(w for w, _ in expected), rel=1e-6)
    equal = objective(module.model, {"tokens": rows, "weights": torch.ones(2, 9)})
    plain = NextToken()(module.model, {"tokens": rows})
    assert [x.item() for x in equal] == pytest.approx([x.item() for x in plain], rel=1e-6)
    with pytest.raises(ValueError, match=r"holds \['tokens'\]; WeightedTokens needs weights"):
        objective(module.model, {"tokens": rows})


def test_a_loss_that_is_not_finite_stops_before_the_update() -> None:
    module = tiny()
    with torch.no_grad():
        module.model.get_input_embeddings().weight[5] = torch.nan
    with pytest.raises(RuntimeError, match="the loss is nan at step 0; resume"):
        module.training_step({"tokens": torch.full((1, 8), 5)}, 0)


# ---------------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of two sources and its tokenizer."""
    folder = tmp_path_factory.mktemp("corpus")
    g = np.random.default_rng(0)
    words = ["storm", "moving", "north", "at", "9", "knots", "senate", "the", "of", "peace", "and"]
    rows = [
        {"source": source, "split": split, "text": " ".join(g.choice(words[first : first + 8], 30))}
        for source, first in (("storms", 0), ("speeches", 3))
        for split, count in (("train", 20), ("heldout", 3))
        for _ in range(count)
    ]
    pd.DataFrame(rows).to_parquet(folder / "corpus.parquet")
    corpus(folder).prepare_data()
    return folder


def corpus(folder: Path, stage: str | None = None) -> TextCorpus:
    made = TextCorpus(
        str(folder / "corpus.parquet"), str(folder / "tokenizer"), None, 300, row_length=24, batch_size=4, rows=4 * 8
    )
    if stage is not None:
        made.setup(stage)
    return made


class Losses(Callback):
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.seen: dict[int, float] = {}

    def on_train_batch_end(
        self, trainer: Trainer, module: LanguageModelTraining, outputs: dict[str, Tensor], *_: object
    ) -> None:
        self.seen[trainer.global_step] = outputs["loss"].item()


def run(
    folder: Path, out: Path, seed: int, resume: Path | None = None, max_steps: int = 8
) -> tuple[LanguageModelTraining, dict[int, float]]:
    losses = Losses()
    module = tiny(seed, optimizer=MuonAdamWConfig(0.01, warmup_steps=3), export=str(out / "nano"))
    trainer = Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        gradient_clip_val=1.0,
        logger=False,
        callbacks=[losses, ModelCheckpoint(out, "{step}", every_n_train_steps=5, save_top_k=-1)],
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, corpus(folder), ckpt_path=resume, weights_only=resume is not None)
    return module, losses.seen


@pytest.fixture(scope="module")
def trained(folder: Path) -> tuple[LanguageModelTraining, dict[int, float]]:
    return run(folder, folder / "uninterrupted", seed=0)


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_is_the_run_that_was_not_stopped(
    folder: Path, trained: tuple[LanguageModelTraining, dict[int, float]]
) -> None:
    module, losses = trained
    # A crash after step 5 leaves only this file. The new process begins with other weights.
    resumed, later = run(folder, folder / "again", seed=99, resume=folder / "uninterrupted" / "step=5.ckpt")
    assert sorted(losses) == list(range(1, 9)) and sorted(later) == [6, 7, 8]
    assert later == {step: losses[step] for step in (6, 7, 8)}
    assert losses[8] < losses[1]
    total, count = nats(tiny(), next(iter(corpus(folder, "fit").train_dataloader()))["tokens"])
    assert losses[1] == pytest.approx((total / count).item(), rel=1e-5)
    state = module.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in resumed.state_dict().items())


def test_the_export_loads_as_a_frozen_backbone(
    folder: Path, trained: tuple[LanguageModelTraining, dict[int, float]]
) -> None:
    module, _ = trained
    stored = load_file(folder / "uninterrupted" / "nano" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    backbone = FrozenBackbone(str(folder / "uninterrupted" / "nano"))
    weights = backbone.model.state_dict()
    for name, value in module.model.state_dict().items():
        assert torch.equal(weights[name], value.to(torch.bfloat16).float()), name
    assert backbone.tokenizer.eos_token_id != backbone.tokenizer.pad_token_id

    # Behind an empty prefix a text has the nats of pretraining.
    text = "storm moving north at 9 knots"
    cost, tokens = backbone.text_nats(torch.zeros(1, 0, backbone.hidden_size), [text])
    end = backbone.tokenizer.eos_token_id
    module = tiny()
    module.model.load_state_dict(weights)
    total, count = nats(module, torch.tensor([[end, *backbone.tokenize([text])[0], end]]))
    assert count.item() == tokens.item()
    assert cost.item() == pytest.approx(total.item(), rel=1e-4)


class Sums(LightningDataModule):
    """Rows of two digits and their sum; only the sum has a weight. Nothing is measured in bytes."""

    sources, heldout_bytes = ("sums",), {}

    def __init__(self, tokenizer: object = None) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        a, b = torch.arange(64) // 8, torch.arange(64) % 8
        self.tokens = torch.stack([10 + a, 30 + b, torch.full_like(a, 5), 50 + a + b], 1)

    def _loader(self) -> DataLoader:
        weights = torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(64, -1)
        rows = [{"tokens": row, "weights": w} for row, w in zip(self.tokens, weights, strict=True)]
        return DataLoader(rows, batch_size=16)

    train_dataloader = val_dataloader = _loader


class Thinking(Objective, nn.Module):
    """The model reads a learned embedding before it answers: an objective with a parameter of its own."""

    def __init__(self, width: int = 96) -> None:
        nn.Module.__init__(self)
        self.thought = nn.Parameter(torch.zeros(1, 1, width))

    def __call__(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        question = model.get_input_embeddings()(batch["tokens"][:, :-1])
        embedded = torch.cat([question, self.thought.expand(len(question), -1, -1)], 1)
        logits = model(inputs_embeds=embedded, use_cache=False).logits[:, -1].float()
        return F.cross_entropy(logits, batch["tokens"][:, -1], reduction="sum"), batch["weights"].sum()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("objective", [WeightedTokens, Thinking])
def test_data_and_objective_may_come_from_outside(objective: type[Objective], folder: Path, tmp_path: Path) -> None:
    module, losses = (
        tiny(objective=objective, optimizer=MuonAdamWConfig(0.01, warmup_steps=1), export=str(tmp_path)),
        Losses(),
    )
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        callbacks=[losses],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, Sums(corpus(folder, "fit").tokenizer))
    assert len(losses.seen) == 8 and losses.seen[8] < losses.seen[1] - 0.2
    total, weight = module.objective(module.model, next(iter(Sums().val_dataloader())))
    measured = trainer.callback_metrics
    assert "val/bits_per_byte" not in measured
    assert measured["val/nats_per_token"] == measured["val/nats_per_token_sums"]
    assert measured["val/nats_per_token"].item() == pytest.approx((total / weight).item(), rel=0.5)
    assert (tmp_path / "model.safetensors").exists()
    if objective is Thinking:
        assert module.objective.thought.abs().sum() > 0


def test_a_saved_model_is_trained_further(
    folder: Path, trained: tuple[LanguageModelTraining, dict[int, float]]
) -> None:
    module = tiny(architecture=lambda: Saved(str(folder / "uninterrupted" / "nano")))
    weights = trained[0].model.state_dict()
    for name, value in module.model.state_dict().items():
        assert torch.equal(value, weights[name].bfloat16().float()), name
    assert module.model.training and all(p.requires_grad for p in module.model.parameters())


def test_a_config_chooses_architecture_and_objective_by_class_path() -> None:
    set_parsing_settings(import_path_allowlist=["gssr", "tests.training"])  # as `--trust` does
    parser = ArgumentParser()
    parser.add_subclass_arguments(LightningModule, "model")
    chosen = {
        "class_path": "gssr.training.language_model.LanguageModelTraining",
        "init_args": {
            "architecture": {
                "class_path": "gssr.training.architectures.Nano",
                "init_args": {"vocab_size": 300, "hidden_size": 96, "layers": 4},
            },
            "objective": "tests.training.test_language_model.Thinking",
            "optimizer": {"lr": 0.25},
        },
    }  # fmt: skip
    module = parser.instantiate(parser.parse_object({"model": chosen})).model
    assert module.model.config.vocab_size == 300 and isinstance(module.objective, Thinking)
    assert module.optimizer == MuonAdamWConfig(lr=0.25)


def test_nothing_is_exported_before_the_end(folder: Path, tmp_path: Path) -> None:
    module = tiny(export=str(tmp_path / "nano"))
    module._trainer = SimpleNamespace(is_global_zero=True, global_step=5, estimated_stepping_batches=8)
    module.on_train_end()
    assert not (tmp_path / "nano").exists()


def test_several_processes_are_refused() -> None:
    module = tiny()
    module._trainer = SimpleNamespace(world_size=2)
    with pytest.raises(ValueError, match="set --trainer.devices 1"):
        module.on_fit_start()


@pytest.mark.filterwarnings("ignore")
def test_bits_per_byte_equal_those_of_the_benchmark(
    folder: Path, trained: tuple[LanguageModelTraining, dict[int, float]]
) -> None:
    module, _ = trained
    data = corpus(folder)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    (first, *_) = trainer.validate(module, data, verbose=False)
    expected = model_bits_per_byte(module.model.eval(), data)
    assert set(expected) == {"storms", "speeches"}
    logged = {name: trainer.callback_metrics[f"val/bits_per_byte_{name}"].item() for name in expected}
    assert logged == pytest.approx(expected, rel=1e-5)
    assert trainer.callback_metrics["val/bits_per_byte"].item() == pytest.approx(sum(expected.values()) / 2, rel=1e-5)
    # By hand, for one source: all of its rows, one token at a time, over the bytes of its documents.
    by_hand = 0.0
    for row in data.heldout["storms"].long():
        log_probs = F.log_softmax(module.model(input_ids=row[None, :-1]).logits[0].double(), -1)
        by_hand -= sum(log_probs[i, token].item() for i, token in enumerate(row[1:].tolist()) if token != PAD)
    frame = pd.read_parquet(folder / "corpus.parquet")
    size = frame[(frame["source"] == "storms") & (frame["split"] == "heldout")]["text"].str.len().sum()
    assert expected["storms"] == pytest.approx(by_hand / math.log(2) / size, rel=1e-5)


def test_xz_is_told_the_training_text() -> None:
    g = np.random.default_rng(0)
    noise = ["".join(map(chr, g.integers(97, 123, 4000)))]
    assert xz_bits_per_byte(noise, noise) < 0.2
    assert xz_bits_per_byte(["nothing alike"], noise) == pytest.approx(math.log2(26), abs=0.4)


def test_a_prompt_is_the_opening_as_it_stands() -> None:
    assert opening("Title\n\nThe first  paragraph", 3) == "Title\n\nThe first"
    assert opening("short text", 6) == "short text"


# ---------------------------------------------------------------------- the architecture


def test_the_nano_keeps_its_size_and_its_layers() -> None:
    from transformers import GraniteMoeHybridForCausalLM

    config = nano_config()
    with torch.device("meta"):
        model = GraniteMoeHybridForCausalLM(config)
    size = sum(p.numel() for p in model.parameters())
    assert size == 4_876_440 and 2 * size < 16e6
    assert config.layer_types.count("linear_attention") == 6 and config.layer_types.count("full_attention") == 2
    assert config.eos_token_id != config.pad_token_id


def test_the_callbacks_of_goal_networks_are_off_for_language_models() -> None:
    model = LanguageModelTraining(partial(Nano, vocab_size=300, hidden_size=96, layers=4))
    assert [name for name in OPTIONAL if not missing_of(name, model)] == ["weight_average", "scalar_layout"]
