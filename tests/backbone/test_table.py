"""The table of encoded texts does not grow without end."""

import pytest
import torch

import gssr.backbone.table as module
from gssr.backbone import FrozenBackbone
from gssr.backbone.table import TextTable


def test_texts_without_end_need_no_memory_without_end(tiny: FrozenBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_TEXTS", 12)
    table = TextTable(tiny, [1])
    for start in range(0, 60, 3):
        texts = [[f"report {start + i} of many", None, f"report {start + i + 1} of many"] for i in range(3)]
        states, mask = table.look_up(texts)
        assert len(table.rows) <= 12 and len(table.states) == len(table.rows) + 1
        assert mask.tolist() == [[True, False, True]] * 3
        said = [text for row in texts for text in row if text is not None]
        torch.testing.assert_close(states[mask], tiny.mean_states(said, [1]), rtol=1e-4, atol=1e-5)


def test_without_reading_a_text_says_nothing_or_only_that_it_is_there(tiny: FrozenBackbone) -> None:
    texts = [["a storm", None], ["calm", "a storm"]]
    for reading, there in (("constant", [[True, False], [True, True]]), ("none", [[False, False], [False, False]])):
        table = TextTable(tiny, [1], reading)
        table.add(["a storm"])
        states, mask = table.look_up(texts)
        assert mask.tolist() == there and states.shape == (2, 2, table.width)
        assert not states.any() and not table.rows
    with pytest.raises(ValueError, match="text reading 'last' is not known"):
        TextTable(tiny, [1], "last")
