"""Thought steps against reading everything again, and what each memory policy keeps."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.reasoning.halting import HaltingHead
from gssr.reasoning.saved import load_thinker, save_thinker
from gssr.reasoning.thinker import Memory, Step, Thinker
from gssr.reasoning.thoughts import LinearThought, SoftToken, Spacer, Thought, WrittenToken

KINDS: Sequence[type[Thought]] = (SoftToken, LinearThought, Spacer, WrittenToken)
MEMORIES: Sequence[Memory] = ("read_only", "write", "write_without_keys")
PROMPT = torch.tensor([[0, 40, 50, 60, 70, 80], [0, 90, 41, 42, 43, 44]])


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def thinker(backbone: FrozenBackbone, kind: type[Thought], memory: Memory) -> Thinker:
    thought = kind()
    thought.prepare(backbone)
    for parameter in thought.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return Thinker(backbone, thought, memory, HaltingHead(backbone.hidden_size))


@torch.no_grad()
def think(thinker: Thinker, count: int, prompt: Tensor = PROMPT, mask: Tensor | None = None) -> list[Step]:
    return list(islice(thinker.steps(prompt, mask), count))


@torch.no_grad()
def read_again(backbone: FrozenBackbone, *parts: Tensor) -> Tensor:
    """Logits (B, V) behind embeddings that are read from the start."""
    hidden = backbone.decoder(inputs_embeds=torch.cat(parts, 1), use_cache=False).last_hidden_state
    return backbone.logits(hidden[:, -1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory", MEMORIES)
def test_the_first_step_says_what_the_model_says_without_thinking(
    tiny: FrozenBackbone, kind: type[Thought], memory: Memory
) -> None:
    (step,) = think(thinker(tiny, kind, memory), 1)
    assert torch.allclose(step.logits, read_again(tiny, tiny.embed(PROMPT)), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_thoughts_that_are_written_are_as_if_they_stood_in_the_prompt(
    tiny: FrozenBackbone, kind: type[Thought]
) -> None:
    steps = think(thinker(tiny, kind, "write"), 4)
    thoughts = torch.stack([step.thought for step in steps[1:]], 1)
    for k in range(4):
        expected = read_again(tiny, tiny.embed(PROMPT), thoughts[:, :k])
        assert torch.allclose(steps[k].logits, expected, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_thoughts_that_only_read_stand_directly_behind_the_prompt(tiny: FrozenBackbone, kind: type[Thought]) -> None:
    for step in think(thinker(tiny, kind, "read_only"), 4):
        expected = read_again(tiny, tiny.embed(PROMPT[:, :-1]), step.thought[:, None])
        assert torch.allclose(step.logits, expected, atol=1e-4)


def test_without_keys_attention_sees_the_prompt_alone_and_states_go_on(tiny: FrozenBackbone) -> None:
    written, without = (think(thinker(tiny, WrittenToken, memory), 4) for memory in ("write", "write_without_keys"))
    assert torch.allclose(written[0].logits, without[0].logits, atol=1e-5)
    assert not torch.allclose(written[3].logits, without[3].logits, atol=1e-4)
    only = think(thinker(tiny, WrittenToken, "read_only"), 4)
    assert not torch.allclose(only[3].logits, without[3].logits, atol=1e-4)


def test_a_constant_that_writes_nothing_never_changes_what_is_said(tiny: FrozenBackbone) -> None:
    steps = think(thinker(tiny, Spacer, "read_only"), 4)
    assert torch.allclose(steps[1].logits, steps[3].logits, atol=1e-5)
    moving = think(thinker(tiny, LinearThought, "read_only"), 4)
    assert not torch.allclose(moving[1].logits, moving[3].logits, atol=1e-4)


@pytest.mark.parametrize("memory", MEMORIES)
def test_padding_changes_no_thought(tiny: FrozenBackbone, memory: Memory) -> None:
    mind = thinker(tiny, SoftToken, memory)
    alone = think(mind, 3, PROMPT[:1])
    padded = torch.cat([torch.full((1, 3), tiny.pad_id), PROMPT[:1]], 1)
    mask = torch.tensor([[False] * 3 + [True] * 6])
    for a, b in zip(alone, think(mind, 3, padded, mask), strict=True):
        assert torch.allclose(a.logits, b.logits, atol=1e-4)


@pytest.mark.parametrize("memory", MEMORIES)
def test_gradients_pass_through_the_steps(tiny: FrozenBackbone, memory: Memory) -> None:
    mind = thinker(tiny, LinearThought, memory)
    weight = next(mind.thought.parameters())

    def loss() -> Tensor:
        return list(islice(mind.steps(PROMPT), 3))[-1].logits[:, 7].sum()

    loss().backward()
    direction = torch.randn_like(weight)
    expected = (weight.grad * direction).sum()
    with torch.no_grad():
        weight += 1e-2 * direction
        above = loss()
        weight -= 2e-2 * direction
        below = loss()
    assert expected.item() == pytest.approx((above - below).item() / 2e-2, rel=0.05, abs=1e-3)


def test_halting_takes_the_first_sure_step_or_the_last(tiny: FrozenBackbone) -> None:
    mind = thinker(tiny, SoftToken, "read_only")
    found = mind.readouts(PROMPT, 5, threshold=0.0)
    assert found.halted.tolist() == [0, 0]
    never = mind.readouts(PROMPT, 5, threshold=1.1)
    assert never.halted.tolist() == [4, 4]
    between = mind.readouts(PROMPT, 5, threshold=float(found.chance[0].median()))
    assert between.halted[0] == (found.chance[0] >= found.chance[0].median()).nonzero()[0]
    threshold = float(found.chance.max(1).values.min())  # what each row reaches
    early, late = (mind.readouts(PROMPT, 5, threshold, until_sure=ends) for ends in (True, False))
    assert torch.equal(early.halted, late.halted) and early.said.shape[1] == int(late.halted.max()) + 1
    with pytest.raises(ValueError, match="0 steps"):
        mind.readouts(PROMPT, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_thoughts_are_the_same_and_belong_to_their_model(
    tiny: FrozenBackbone, tiny_folder: Path, tmp_path: Path, kind: type[Thought]
) -> None:
    mind, file = thinker(tiny, kind, "write"), tmp_path / "thoughts.safetensors"
    save_thinker(file, mind)
    again = load_thinker(file, tiny)
    assert again.memory == "write"
    for a, b in zip(think(mind, 3), think(again, 3), strict=True):
        assert torch.equal(a.logits, b.logits)
    assert torch.equal(mind.readouts(PROMPT, 3).chance, again.readouts(PROMPT, 3).chance)
    with pytest.raises(ValueError, match="made for the model"):
        load_thinker(file, FrozenBackbone("nano-random"))
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        load_thinker(file, tiny)


def test_a_prompt_of_one_token_is_refused(tiny: FrozenBackbone) -> None:
    with pytest.raises(ValueError, match="at least two tokens"):
        think(thinker(tiny, SoftToken, "read_only"), 1, PROMPT[:, :1])


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_plain_transformer_thinks(llama_folder: Path, memory: Memory) -> None:
    backbone = FrozenBackbone(str(llama_folder))
    steps = think(thinker(backbone, LinearThought, memory), 4)
    assert torch.allclose(steps[0].logits, read_again(backbone, backbone.embed(PROMPT)), atol=1e-4)
    if memory == "write":
        thoughts = torch.stack([step.thought for step in steps[1:]], 1)
        again = read_again(backbone, backbone.embed(PROMPT), thoughts)
        assert torch.allclose(steps[-1].logits, again, atol=1e-4)


def test_a_step_knows_whether_it_repeats_the_one_before(tiny: FrozenBackbone) -> None:
    steps = think(thinker(tiny, WrittenToken, "read_only"), 3)
    assert steps[0].again.tolist() == [0.0, 0.0]
    expected = (steps[1].logits.softmax(-1) * steps[2].logits.softmax(-1)).sum(-1)
    assert torch.allclose(steps[2].again, expected)
