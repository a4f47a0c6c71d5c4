"""Traces of tools against the tools themselves."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from datamodules.lookups import ToolTraces
from datamodules.lookups.traces import BREAK, KINDS, TOOLS, is_held_out, make_tokenizer, task
from gssr.reasoning.tools import sandbox
from gssr.reasoning.tools.agent import Script, work
from gssr.reasoning.tools.toolbox import Toolbox


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_trace_reads_is_what_the_tools_print(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "isolation", lambda: "none")  # faster; isolation has tests of its own
    found = task(np.random.default_rng(3), kind, held_out=True)
    (tmp_path / "work").mkdir()
    found.write(tmp_path / "work")
    file = tmp_path / "tools.yaml"
    file.write_text(yaml.safe_dump({"tools": TOOLS, "limits": {"seconds": 60}}))
    policy = Script([line for line in found.lines if line.startswith(("call", "answer"))])
    outcome = work(found.lines[0], policy, Toolbox.read(file), tmp_path / "log")
    assert outcome.answer == found.answer and outcome.refused == 0
    assert policy.read == [line for line in found.lines if line.startswith(("?", ">"))]


def test_pairs_of_numbers_are_kept_out_of_training() -> None:
    generator = np.random.default_rng(0)
    for held_out in (False, True):
        for _ in range(100):
            lines = task(generator, "table calc", held_out).lines
            _, _, a, _, b = lines[3].split()
            assert is_held_out(int(a), int(b)) == held_out


def test_a_batch_weighs_what_the_model_writes() -> None:
    data, tokenizer = ToolTraces(batch_size=8, rows=32, heldout_rows=8), make_tokenizer()
    for batch in [*data.train_dataloader(), *data.val_dataloader()[0]]:
        for tokens, weights in zip(batch["tokens"], batch["weights"], strict=True):
            text = tokenizer.decode(tokens, skip_special_tokens=True)
            wanted = [line.split() for line in text.split(BREAK) if line.strip().startswith(("call", "answer"))]
            assert weights.sum() == sum(len(words) + 1 for words in wanted)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert ids == [i for i in tokens.tolist() if i not in (tokenizer.pad_token_id, tokenizer.bos_token_id)]
