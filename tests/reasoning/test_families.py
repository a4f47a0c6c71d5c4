"""Thoughts around models of other families, with random weights: training, answers and scores by the same commands."""

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    BambaConfig,
    BambaForCausalLM,
    FalconH1Config,
    FalconH1ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from datamodules.lookups.data import make_tokenizer
from datamodules.lookups.tasks import WORDS
from gssr.backbone import FrozenBackbone
from gssr.commands.main import main
from tests.reasoning.test_training import fit

COMMON = {
    "vocab_size": len(WORDS), "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96,
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3,
}  # fmt: skip
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_chunk_size": 16}
PROMPT = "a = b ; b = 7 ; ? a"


def model(family: str) -> PreTrainedModel:
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**COMMON))
    if family == "bamba":
        return BambaForCausalLM(BambaConfig(**COMMON, **MAMBA, attn_layer_indices=[1]))
    return FalconH1ForCausalLM(FalconH1Config(**COMMON, **MAMBA, head_dim=16, mamba_d_ssm=128))


@pytest.mark.parametrize("family", ["llama", "bamba", "falcon_h1"])
def test_thoughts_are_trained_around_another_family_and_answer_by_command(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file, problems = tmp_path / "model", tmp_path / "thoughts.safetensors", tmp_path / "problems.jsonl"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model(family).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    module = fit(folder, file)
    assert module.found["val/accuracy_halted_chains"] >= 0  # type: ignore[index]

    around = ["--backbone", str(folder), "--thoughts", str(file), "--steps", "3", "--json"]
    assert main(["think", "--prompt", PROMPT, *around]) == 0
    thoughts = json.loads(capsys.readouterr().out)["thoughts"]
    backbone = FrozenBackbone(str(folder))
    ids = torch.tensor([[backbone.start_id, *backbone.tokenize([PROMPT])[0]]])
    with torch.no_grad():
        said = backbone.model(input_ids=ids).logits[0, -1].argmax()
    assert len(thoughts) == 3 and thoughts[0]["says"] == backbone.tokenizer.decode([said])

    problems.write_text(json.dumps({"prompt": PROMPT, "answer": " 7", "choices": [" 7", " 3"]}) + "\n")
    assert main(["score", str(problems), "--way", "choices", *around]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 3
