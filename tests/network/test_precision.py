"""Mixed precision and gradient accumulation: what stays float32, and resuming bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback

from datamodules import Sines
from gssr.network import GoalNetwork
from tests.callbacks.training import same, train, trainer_for, weights
from tests.networks import make_network

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")
SMALL = {"latent_dim": 4, "hidden_dim": 8, "text_layers": (1,), "goal_layer": 1, "prefix_tokens": 1, "text_steps": 2}
SMALL |= {"history": 1, "row": "{values}:"}


def network(folder: Path) -> GoalNetwork:
    return make_network(folder, **SMALL)


def data() -> Sines:
    return Sines(series=20, batch_size=4, context=8, horizon=4)


def trained(folder: Path, tiny: Path, **options: Any) -> Any:
    return train(folder, network=network(tiny), data=data(), max_epochs=2, limit_val_batches=1, **options)


class KilledAtBatch(Callback):
    """Ends the process's training before a batch, with nothing saved."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        if trainer.fit_loop.total_batch_idx + 1 == self.batch:
            raise MemoryError("killed")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_killed_within_an_accumulation_window_and_resumed_is_as_never_killed(
    precision: str, tmp_path: Path, tiny_folder: Path
) -> None:
    options = {"precision": precision, "accumulate_grad_batches": 2, "checkpoint": {"every_n_steps": 1, "keep": 0}}
    whole = trained(tmp_path / "whole", tiny_folder, **options)
    assert whole.global_step == 6  # 5 batches an epoch make 3 steps
    for batch in (3, 8):  # the second batches of windows
        folder = tmp_path / f"killed-{batch}"
        with pytest.raises(MemoryError):
            trained(folder, tiny_folder, callbacks=[KilledAtBatch(batch)], **options)
        resumed = trained(folder, tiny_folder, resume=True, **options)
        assert resumed.global_step == 6 and same(weights(resumed), weights(whole))
        assert (folder / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()


def test_mixed_precision_keeps_the_belief_and_what_is_read_exact(tmp_path: Path, tiny_folder: Path) -> None:
    """Filtering, rollouts and all losses but that of texts are those of float32, bit for bit."""
    made, source = network(tiny_folder), data()
    trainer = trainer_for(tmp_path, max_epochs=1, limit_val_batches=1, logger=False)
    trainer.fit(made, source)
    batch = next(iter(source.val_dataloader()))
    found = {}
    for mixed in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            made.world.table.rows, made.world.table.states = {}, made.world.table.states[:1].clone()
            made.world.read_goals._states.clear()
            losses = made.objective(batch, torch.Generator().manual_seed(0), training=False)
            found[mixed] = losses, made.rollout(batch, batch.goal, samples=2), made.plan(batch, batch.goal, 2)
    exact, mixed = found[False], found[True]
    assert all(term.dtype == torch.float32 for term in (*mixed[0].terms.values(), mixed[0].total))
    for name in ("kl", "value", "open", "goal"):
        assert torch.equal(mixed[0].terms[name], exact[0].terms[name])
    assert torch.equal(mixed[1].sample, exact[1].sample)
    assert mixed[2].text == exact[2].text
    text = [losses.terms["text"] for losses in (mixed[0], exact[0])]
    assert not torch.equal(*text)  # the frozen model's likelihood is what becomes faster
    torch.testing.assert_close(*text, rtol=0.02, atol=0.02)


def test_half_precision_of_a_gpu_becomes_that_of_a_cpu(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="AMP with fp16 is not supported on CPU"):
        assert trainer_for(tmp_path, precision="16-mixed", logger=False).precision == "bf16-mixed"


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_a_precision_of_all_weights_is_refused(precision: str, tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(ValueError, match=f"precision is {precision}.*expected one of 32-true, bf16-mixed, 16-mixed"):
        trainer_for(tmp_path, precision=precision, logger=False).fit(network(tiny_folder), data())
