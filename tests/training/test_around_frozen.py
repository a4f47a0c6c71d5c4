"""Trainings of a part around a frozen model."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gssr.backbone.config import BackboneConfig
from gssr.control.training import ProjectorTraining
from gssr.reasoning.training import ThoughtTraining
from gssr.search.decoding.draft_training import DraftTraining
from gssr.training.around_frozen import AroundFrozen


@pytest.mark.parametrize("kind", [ProjectorTraining, ThoughtTraining, DraftTraining])
def test_a_checkpoint_around_another_model_is_refused(
    kind: Callable[[BackboneConfig], AroundFrozen], tiny_folder: Path
) -> None:
    saved: dict[str, object] = {}
    module = kind(BackboneConfig(str(tiny_folder)))
    module.on_save_checkpoint(saved)
    module.on_load_checkpoint(saved)
    with pytest.raises(ValueError, match="the checkpoint is around"):
        kind(BackboneConfig("nano-random")).on_load_checkpoint(saved)
