"""A checkpoint of another network is refused before any of it is loaded, and told by what differs."""

import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from transformers import GraniteMoeHybridForCausalLM

from benchmarks.ablations.readings import NoReading
from datamodules.text.corpus import train_tokenizer
from gssr.network import GoalNetwork
from gssr.network.compatibility import CheckpointMismatch
from gssr.network.config import fixed_names
from gssr.network.options import KINDS
from gssr.network.posterior import MlpPosterior
from gssr.network.schedules import Decay
from gssr.network.steering import LearnedSteeredPrior
from gssr.sequences.vocabulary import Vocabulary
from gssr.training.architectures import nano_config
from tests.conftest import SENTENCES
from tests.networks import grouped, make_network

SIZES: dict[str, Any] = {
    "latent_dim": 4,
    "hidden_dim": 16,
    "prefix_tokens": 2,
    "text_layers": (2,),
    "goal_layer": 2,
    "names": ["a", "b"],
    "units": ["u", "v"],
    "resolution": [1.0, 1.0],
    "step": "1D",
}
# Another value of every option of the components that have weights.
OTHERS: dict[str, Any] = {
    "latent_dim": 8,
    "hidden_dim": 24,
    "text_layers": (1,),
    "text_reading": NoReading,
    "goal_layer": 1,
    "goal_queries": 2,
    "posterior": MlpPosterior,
    "reads_changes": True,
    "error_order": 3,
    "normalisation": "window",
    "calendar": True,
    "linear_lags": 2,
    "series_prior": True,
    "prior": LearnedSteeredPrior,
    "schedule": Decay,
    "max_norm": 1.0,
    "strength": 2.0,
    "injection": "both",
    "prefix_tokens": 3,
    "state_rank": 2,
    "state_layers": (0,),
    "history": 2,
    "between": " ",
    "row": "{a}:",
    "rows": True,
    "own": False,
    "values": True,
    "names": ["a", "c"],
    "units": ["u", "w"],
    "resolution": [2.0, 2.0],
    "step": "6h",
    "words": Vocabulary.of(["a", "b"], ["u", "v"]).json(),
}
COMPONENTS = ("world", "steering", "speech", "values")
FIXED = [name for group in COMPONENTS for name in fixed_names(KINDS[group])]


@pytest.fixture(scope="module")
def saved(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = make_network(tiny_folder, **SIZES)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.strategy.connect(network)
    file = tmp_path_factory.mktemp("saved") / "best.ckpt"
    trainer.save_checkpoint(file)
    return file


def refusal(saved: Path, network: GoalNetwork) -> str:
    """What Lightning's own way of loading runs into, which must leave the network as it was."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    generator = network.noise.get_state()
    with pytest.raises(CheckpointMismatch) as refused:
        network.on_load_checkpoint(torch.load(saved, weights_only=True))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(network.noise.get_state(), generator)
    return str(refused.value)


@pytest.mark.parametrize("name", FIXED)
def test_another_value_of_a_fixed_option_is_refused_by_its_name(tiny_folder: Path, saved: Path, name: str) -> None:
    message = refusal(saved, make_network(tiny_folder, **SIZES | {name: OTHERS[name]}))
    (group,) = [group for group in COMPONENTS if name in fixed_names(KINDS[group])]
    assert message.startswith(f"this checkpoint is of another network:\n  {group}.{name}: ")
    assert message.count("in the checkpoint") == 1


@pytest.mark.parametrize("name", OTHERS)
def test_an_option_that_changes_what_is_saved_is_fixed(tiny_folder: Path, name: str) -> None:
    """Otherwise its change would end in an error of ``load_state_dict``, or in weights that mean something else."""
    both = {"injection": "both"}
    plain, other = (
        make_network(tiny_folder, **SIZES | both | change).state_dict() for change in ({}, {name: OTHERS[name]})
    )
    shapes = [{key: tensor.shape for key, tensor in state.items()} for state in (plain, other)]
    assert shapes[0] == shapes[1] or name in FIXED


def test_every_option_of_a_component_with_weights_is_tried_here() -> None:
    assert set(OTHERS) == {item.name for group in COMPONENTS for item in fields(KINDS[group])}


def test_every_difference_is_named_at_once(tiny_folder: Path, saved: Path) -> None:
    said = refusal(saved, make_network(tiny_folder, **SIZES | {"latent_dim": 8, "goal_layer": 1}))
    assert (
        "world.latent_dim: 4 in the checkpoint, 8 here" in said
        and "world.goal_layer: 2 in the checkpoint, 1 here" in said
    )


def test_lightnings_own_call_is_refused_too(saved: Path) -> None:
    with pytest.raises(CheckpointMismatch, match="hidden_dim: 16 in the checkpoint, 24 here"):
        GoalNetwork.load_from_checkpoint(saved, world=grouped(**SIZES | {"hidden_dim": 24})["world"])


def test_another_backbone_is_named_with_its_width(saved: Path, tiny_folder: Path, tmp_path: Path) -> None:
    GraniteMoeHybridForCausalLM(nano_config(vocab_size=400, hidden_size=192, layers=4)).save_pretrained(tmp_path)
    train_tokenizer(SENTENCES * 4, 400).save_pretrained(tmp_path)
    said = refusal(saved, make_network(tmp_path, **SIZES))
    assert f"the backbone: {str(tiny_folder)!r} (fingerprint " in said and "width 96) in the checkpoint" in said
    assert f"{str(tmp_path)!r} (fingerprint " in said and "width 192) here" in said


def test_the_same_weights_at_another_place_are_the_same_backbone(
    saved: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(tiny_folder, tmp_path / "moved")
    network = GoalNetwork.load_from_checkpoint(saved, backbone={"name": str(moved)})
    state = torch.load(saved, weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_what_does_not_shape_the_network_may_change(tiny_folder: Path, saved: Path) -> None:
    network = make_network(tiny_folder, **SIZES, alpha_text=0.5, lr=0.1, text_steps=3)
    network.on_load_checkpoint(torch.load(saved, weights_only=True))


def test_a_checkpoint_of_something_else_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(CheckpointMismatch, match="no checkpoint of a goal network"):
        make_network(tiny_folder, **SIZES).on_load_checkpoint({"state_dict": {}})


def test_layers_that_the_backbone_lacks_are_refused_at_once(tiny_folder: Path) -> None:
    with pytest.raises(ValueError, match="layer 9 does not exist; .* has layers 0 to 4"):
        make_network(tiny_folder, **SIZES | {"goal_layer": 9})
    with pytest.raises(ValueError, match="layer 5 does not exist"):
        make_network(tiny_folder, **SIZES | {"text_layers": (1, 5)})
    with pytest.raises(ValueError, match="text_layers is .*expected a list"):
        make_network(tiny_folder, **SIZES | {"text_layers": ()})
