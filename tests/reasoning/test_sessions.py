"""Conversations in a file: the same tokens as one that was never saved, and as one that reads everything again."""

import io
import json
from pathlib import Path

import pytest
import torch

from gssr.backbone import FrozenBackbone
from gssr.commands.main import main
from gssr.reasoning.conversation import Conversation
from gssr.reasoning.session import Session
from gssr.states.hybrid_state import HybridState
from tests.conftest import enliven

GREEDY = {"max_new_tokens": 4, "do_sample": False}


@pytest.fixture(scope="module")
def lively(tiny_folder: Path) -> FrozenBackbone:
    return enliven(FrozenBackbone(str(tiny_folder)))


def again(backbone: FrozenBackbone, tokens: torch.Tensor, most: int = 4) -> list[int]:
    """What follows tokens (1, L), which are read from the start without any cache kept."""
    tokens = tokens.clone()
    for _ in range(most):
        with torch.no_grad():
            hidden = backbone.decoder(inputs_embeds=backbone.embed(tokens), use_cache=False).last_hidden_state
        tokens = torch.cat([tokens, backbone.logits(hidden[:, -1]).argmax(-1)[:, None]], 1)
        if tokens[0, -1] == backbone.tokenizer.eos_token_id:
            break
    return tokens[0].tolist()


def test_fifty_turns_that_were_saved_are_those_that_were_not(lively: FrozenBackbone, tmp_path: Path) -> None:
    file = tmp_path / "talk.safetensors"
    Session.new(file, lively, "Be a category 3 hurricane")
    talk = Conversation(lively)
    talk.read("Be a category 3 hurricane")
    sizes = []
    for turn in range(50):
        text = f"Tropical storm {turn} near {turn % 7}.0 north"
        answer = Session.load(file, lively).say(text, **GREEDY)
        talk.read(f"\n{text}\n")
        before = talk.tokens
        assert talk.write(**GREEDY) == answer
        if turn % 10 == 0:
            assert again(lively, before) == talk.tokens[0].tolist()
        sizes.append(file.stat().st_size)
    found = Session.load(file, lively)
    assert found.turns == 50 and torch.equal(found.talk.tokens, talk.tokens)
    grown = {b - a for a, b in zip(sizes, sizes[1:], strict=False)}
    assert max(grown) < 16_000  # keys and values of one attention layer; recurrent states are as large as before
    texts = list(found.texts())
    assert [who for who, _ in texts] == ["opening", *["user", "model"] * 50]
    assert texts[0][1] == "Be a category 3 hurricane" and texts[-2][1] == "\nTropical storm 49 near 0.0 north\n"


def test_an_end_of_text_gives_way_to_what_is_said_next(tiny: FrozenBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Conversation(tiny)
    talk.read("Weaken to 35")
    begun = talk.tokens.shape[1]
    end = tiny.tokenizer.eos_token_id
    monkeypatch.setattr(
        tiny.model, "generate", lambda input_ids, **more: torch.cat([input_ids, torch.tensor([[end]])], 1)
    )
    assert talk.write() == "" and talk.tokens.shape[1] == begun + 1
    assert talk.read(" knots") == begun
    monkeypatch.undo()
    plain = Conversation(tiny)
    plain.read("Weaken to 35")
    plain.read(" knots")
    assert torch.equal(plain.tokens, talk.tokens)
    assert plain.write(**GREEDY) == talk.write(**GREEDY)


def test_writing_ends_behind_a_text(lively: FrozenBackbone) -> None:
    talk = Conversation(lively)
    talk.read("Tropical storm")
    free = Conversation(lively)
    free.read("Tropical storm")
    long = free.write(max_new_tokens=12, do_sample=False)
    assert long[3] in (short := talk.write(stop=long[3], max_new_tokens=12, do_sample=False))
    assert long.startswith(short) and len(short) < len(long)
    assert torch.equal(talk.tokens, free.tokens[:, : talk.tokens.shape[1]])


def test_a_fork_and_its_origin_go_their_own_ways_and_an_undo_goes_back(lively: FrozenBackbone, tmp_path: Path) -> None:
    file = tmp_path / "talk.safetensors"
    session = Session.new(file, lively, "Tropical storm Alex", form="{} north")
    session.say("near 30.0", **GREEDY)
    after_one = file.read_bytes()
    fork = session.fork(tmp_path / "fork.safetensors")
    session.say("moving 9", **GREEDY)
    second = session.talk.tokens.clone()
    assert fork.turns == 1 and Session.load(fork.path, lively).turns == 1
    back = Session.load(file, lively).undo()
    assert back.turns == 1 and file.read_bytes() == after_one
    with pytest.raises(ValueError, match="nothing to undo"):
        back.undo()
    for one in (back, fork):
        one.say("moving 9", **GREEDY)
        assert torch.equal(one.talk.tokens, second)


def test_a_session_is_a_state(lively: FrozenBackbone, tmp_path: Path) -> None:
    file = tmp_path / "talk.safetensors"
    session = Session.new(file, lively, "Tropical storm Alex")
    session.say("near 30.0", **GREEDY)
    state = HybridState.load(file, lively)
    assert state.generate(lively, **GREEDY)[0].tolist() == again(lively, session.talk.tokens)[-4:]


def test_a_file_that_changed_meanwhile_is_not_overwritten(lively: FrozenBackbone, tmp_path: Path) -> None:
    file = tmp_path / "talk.safetensors"
    Session.new(file, lively, "Tropical storm Alex")
    first, second = Session.load(file, lively), Session.load(file, lively)
    first.say("near 30.0", **GREEDY)
    kept = file.read_bytes()
    with pytest.raises(ValueError, match="changed by another program"):
        second.say("near 60.0", **GREEDY)
    assert file.read_bytes() == kept


def test_commands(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        assert main(["session", *words, "--backbone", str(tiny_folder)]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    assert "tokens" in run("new", "t", "--prompt", "Alex", "--form", "\\n{} north\\n")
    said = json.loads(run("say", "t", "near 30.0", "--tokens", "3", "--temperature", "0", "--json"))
    assert said["turns"] == 1
    monkeypatch.setattr("sys.stdin", io.StringIO("moving\n\nwest\n"))
    assert len(run("resume", "t", "--tokens", "3", "--temperature", "0").splitlines()) >= 2
    turns = json.loads(run("show", "t", "--json"))["turns"]
    assert [turn["text"] for turn in turns if turn["who"] == "user"] == [
        "\nnear 30.0 north\n", "\nmoving north\n", "\nwest north\n"
    ]  # fmt: skip
    assert "turns left: 2" in run("undo", "t")
    assert "2 turns" in run("fork", "t", "u")
    assert "recurrent states" in run("show", "u")
