"""The table of texts: its memory is bounded, and other readings take the place of the mean."""

from pathlib import Path
from typing import Any

import pytest
import torch

import gssr.backbone.table as module
from benchmarks.ablations.readings import ConstantReading, NoReading
from gssr.backbone import FrozenBackbone, text_file
from gssr.backbone.readings import Reading
from gssr.backbone.table import TextTable, cache_folder


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


def test_other_readings_show_a_text_without_its_content_or_no_text(tiny: FrozenBackbone) -> None:
    texts = [["a storm", None], ["calm", "a storm"]]
    TextTable(tiny, [1]).add(["a storm"])
    for reading, there in ((ConstantReading(), [[True, False], [True, True]]), (NoReading(), [[False, False]] * 2)):
        table = TextTable(tiny, [1], reading)
        # A file of this backbone and layer exists, with the features of another reading.
        table.add(["a storm"])
        states, mask = table.look_up(texts)
        assert mask.tolist() == there and states.shape == (2, 2, table.width)
        assert not states.any()


def test_a_reading_of_one_s_own_is_kept_in_its_own_file(tiny: FrozenBackbone) -> None:
    class Length(Reading):
        key = ("length",)

        def read(self, backbone: FrozenBackbone, texts: list[str], layers: list[int]) -> torch.Tensor:
            return torch.tensor([[float(len(text))] for text in texts]).expand(-1, backbone.hidden_size)

    TextTable(tiny, [1]).add(["a storm"])
    TextTable(tiny, [1], Length()).add(["a storm"])
    assert len(list(cache_folder().iterdir())) == 2
    states, _ = TextTable(tiny, [1], Length()).look_up([["a storm", "calm"]])
    assert states[0, :, 0].tolist() == [7.0, 4.0]
    mean, _ = TextTable(tiny, [1]).look_up([["a storm"]])
    torch.testing.assert_close(mean[0], tiny.mean_states(["a storm"], [1]))


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, keys, states = tmp_path / "texts.safetensors", torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 4)
    text_file.write(file, "one", keys, states)
    opened = text_file.safe_open

    def replaced(*given: Any, **more: Any) -> Any:
        """Another process writes between the header and the tensors; once."""
        monkeypatch.setattr(text_file, "safe_open", opened)
        text_file.write(file, "one", keys + 1, states + 1)
        raise RuntimeError("half of one file and half of another")

    monkeypatch.setattr(text_file, "safe_open", replaced)
    found = text_file.read(file, "one", 4)
    assert torch.equal(found[0], keys + 1) and torch.equal(found[1], states + 1)
    file.write_bytes(b"damaged")  # and stays as it is
    with pytest.raises(ValueError):
        text_file.read(file, "one", 4)
