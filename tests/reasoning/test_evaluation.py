"""Three ways to score answers, against likelihoods and texts that are computed anew; any family of models."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from gssr.backbone import FrozenBackbone
from gssr.commands.main import main
from gssr.reasoning.evaluation import Answering, Item, evaluate, extracted, holds, interval, read_items
from gssr.reasoning.halting import HaltingHead
from gssr.reasoning.harness import harness_model
from gssr.reasoning.saved import save_thinker
from gssr.reasoning.thinker import Thinker
from gssr.reasoning.thoughts import SoftToken, WrittenToken
from tests.conftest import enliven

PROMPT, CHOICES = "Tropical storm Alex", (" near 30.0", " west", " moving north at 9 knots")


@pytest.fixture(scope="module", params=["tiny_folder", "llama_folder"])
def backbone(request: pytest.FixtureRequest) -> FrozenBackbone:
    return enliven(FrozenBackbone(str(request.getfixturevalue(request.param))))


def naive(backbone: FrozenBackbone, prompt: str, text: str) -> torch.Tensor:
    """Log-probability of each token of a text behind a prompt, by the plain model."""
    first, then = backbone.tokenize([prompt, text])
    ids = torch.tensor([[backbone.start_id, *first, *then]])
    with torch.no_grad():
        said = backbone.model(input_ids=ids).logits[0].float().log_softmax(-1)
    return torch.stack([said[i - 1, ids[0, i]] for i in range(1 + len(first), ids.shape[1])])


def test_without_thoughts_likelihoods_and_texts_are_the_models_own(backbone: FrozenBackbone) -> None:
    plain = Answering(Thinker(backbone, WrittenToken()))
    state, steps = plain.behind(PROMPT)
    assert steps == 1
    for text in CHOICES:
        (ids,) = backbone.tokenize([text])
        said = plain.log_probabilities(state, ids)[torch.arange(len(ids)), torch.tensor(ids)]
        assert torch.allclose(said, naive(backbone, PROMPT, text), atol=1e-3)
    ids = torch.tensor([[backbone.start_id, *backbone.tokenize([PROMPT])[0]]])
    out = backbone.model.generate(input_ids=ids, max_new_tokens=6, do_sample=False, pad_token_id=1)
    written = backbone.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    assert plain.write(state, 6) == written
    assert plain.write(state, 6, [written[2:4]]) == written[:2]
    best = max(CHOICES, key=lambda text: naive(backbone, PROMPT, text).mean())
    for answer in CHOICES:
        assert evaluate(plain, [Item(PROMPT, answer, CHOICES)], "choices").right == (answer == best)


def test_written_tokens_as_thoughts_are_the_text_continued(backbone: FrozenBackbone) -> None:
    thinking = Answering(Thinker(backbone, WrittenToken(), "write"), steps=3)
    plain = Answering(Thinker(backbone, WrittenToken()))
    whole = plain.write(plain.behind(PROMPT)[0], 6)
    assert whole.endswith(thinking.write(thinking.behind(PROMPT)[0], 4))


@pytest.mark.parametrize("memory", ["read_only", "write", "write_without_keys"])
def test_an_answer_is_written_behind_the_last_thought(backbone: FrozenBackbone, memory: str) -> None:
    thinker = Thinker(backbone, WrittenToken(), memory)
    first, last = Answering(thinker, 1), Answering(thinker, 2)
    said = int(first.behind(PROMPT)[0].step.logits.argmax())
    state, _ = last.behind(PROMPT)
    (ids,) = backbone.tokenize([" west"])
    found = last.log_probabilities(state, ids)[torch.arange(len(ids)), torch.tensor(ids)]
    tokens = torch.tensor([[backbone.start_id, *backbone.tokenize([PROMPT])[0]]])
    is_transformer = backbone.model.config.model_type == "llama"
    if memory == "read_only" or (memory == "write_without_keys" and is_transformer):
        tokens = tokens[:, :-1]  # the prompt but its last token, which was the first thought; then the thought alone
    whole = torch.cat([tokens, torch.tensor([[said, *ids]])], 1)
    with torch.no_grad():
        logits = backbone.model(input_ids=whole).logits[0].float().log_softmax(-1)
    expected = torch.stack([logits[-len(ids) - 1 + i, token] for i, token in enumerate(ids)])
    if memory == "write_without_keys" and not is_transformer:  # recurrent states have read what keys lack
        assert found.isfinite().all() and not torch.equal(found, expected)
    else:
        assert torch.allclose(found, expected, atol=1e-3)


def test_extract_takes_the_group_and_content_finds_words(backbone: FrozenBackbone) -> None:
    assert extracted("so the answer is (B) then", r"\((\w)\)") == "B"
    assert extracted("none", r"\d+") is None and extracted(" 42 x") == "42"
    assert holds("It is New  York!", "new york") and not holds("Newport", "new") and not holds("x", "")
    plain = Answering(Thinker(backbone, WrittenToken()))
    text = plain.write(plain.behind(PROMPT)[0], 8)
    (first,) = text.split()[:1]
    items = [Item(PROMPT, first), Item(PROMPT, "no such word")]
    assert evaluate(plain, items, "extract", tokens=8).right == 1
    found = evaluate(plain, items, "content", tokens=8)
    assert (found.cases, found.steps) == (2, 1.0) and (found.low, found.high) == interval(found.right / 2, 2)


def test_thinking_ends_at_the_threshold(backbone: FrozenBackbone) -> None:
    thought = SoftToken()
    thought.prepare(backbone)
    thinker = Thinker(backbone, thought, halting=HaltingHead(backbone.hidden_size))
    assert Answering(thinker, 5, 0.0).behind(PROMPT)[1] == 1
    assert Answering(thinker, 5, 1.0).behind(PROMPT)[1] == 5
    with pytest.raises(ValueError, match="needs a halting head"):
        Answering(Thinker(backbone, thought), 5, 0.5).behind(PROMPT)


@pytest.mark.parametrize(
    "line, message",
    [("{", "no problem"), ("[]", "no problem"), ('{"prompt": "a"}', "no problem"), ('{"prompt": 1, "answer": "a"}',
     "not texts"), ('{"prompt": "a", "answer": "b", "choices": 3}', "no problem"), ("[" * 100_000, "no problem")],
)  # fmt: skip
def test_a_wrong_file_of_problems_is_refused(line: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "items"
    file.write_text(f'{{"prompt": "a", "answer": "b"}}\n{line}\n')
    with pytest.raises(ValueError, match=f"line 2.*{message}"):
        read_items(file)


@pytest.mark.parametrize("way", ["choices", "extract", "content"])
def test_the_command_scores_a_file(
    way: str, backbone: FrozenBackbone, tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_folder: Path
) -> None:
    file, thoughts = tmp_path / "items", tmp_path / "t.safetensors"
    file.write_text(json.dumps({"prompt": PROMPT, "answer": " west", "choices": CHOICES}) + "\n")
    call = ["score", str(file), "--way", way, "--backbone", str(tiny_folder), "--tokens", "3", "--json"]
    assert main(call) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 1
    tiny = FrozenBackbone(str(tiny_folder))
    thought = SoftToken()
    thought.prepare(tiny)
    save_thinker(thoughts, Thinker(tiny, thought, halting=HaltingHead(tiny.hidden_size)))
    assert main([*call, "--thoughts", str(thoughts), "--steps", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 3


def harness(answering: Answering, monkeypatch: pytest.MonkeyPatch):  # noqa: ANN201
    """The adapter with the library, or with the part of it that it names."""
    try:
        import lm_eval.api.model  # noqa: F401
    except ImportError:
        module = ModuleType("lm_eval.api.model")
        module.LM = object
        for name in ("lm_eval", "lm_eval.api"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setitem(sys.modules, "lm_eval.api.model", module)
    return harness_model(answering)


def test_the_harness_gets_likelihoods_and_texts(backbone: FrozenBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Answering(Thinker(backbone, WrittenToken()))
    model = harness(plain, monkeypatch)
    requests = [SimpleNamespace(args=(PROMPT, text)) for text in CHOICES]
    for text, (found, is_greedy) in zip(CHOICES, model.loglikelihood(requests), strict=True):
        assert found == pytest.approx(naive(backbone, PROMPT, text).sum().item(), abs=1e-2)
        assert isinstance(is_greedy, bool)
    written = plain.write(plain.behind(PROMPT)[0], 5)
    how = {"until": ["no such text"], "max_gen_toks": 5}
    assert model.generate_until([SimpleNamespace(args=(PROMPT, how))]) == [written]
    (first,) = backbone.tokenize([PROMPT])
    for text in (*CHOICES, written):
        (then,) = backbone.tokenize([text])
        ids = torch.tensor([[backbone.start_id, *first, *then]])
        with torch.no_grad():
            best = backbone.model(input_ids=ids).logits[0, len(first) : -1].argmax(-1)
        found = model.loglikelihood([SimpleNamespace(args=(PROMPT, text))])[0][1]
        assert found == best.equal(ids[0, 1 + len(first) :])
    (rolling,) = model.loglikelihood_rolling([SimpleNamespace(args=(PROMPT,))])
    ids = torch.tensor([[backbone.start_id, *backbone.tokenize([PROMPT])[0]]])
    with torch.no_grad():
        said = backbone.model(input_ids=ids).logits[0].float().log_softmax(-1)
    assert rolling == pytest.approx(sum(said[i - 1, ids[0, i]].item() for i in range(1, ids.shape[1])), abs=1e-2)


def test_without_the_library_the_adapter_says_how_to_install_it(
    backbone: FrozenBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(ValueError, match=r"gssr\[eval\]"):
        harness_model(Answering(Thinker(backbone, WrittenToken())))
