"""`gssr generate`, through its own parser."""

import argparse
import json
from pathlib import Path

import pytest

from gssr.backbone import FrozenBackbone
from gssr.commands import generate as generate_command
from gssr.search.decoding.critic import Critic


def _run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    generate_command.add_commands(parser.add_subparsers(required=True))
    options = parser.parse_args(["generate", *arguments])
    return options.run(options) or 0


@pytest.fixture
def prompt(tiny_folder: Path) -> list[str]:
    return ["--backbone", str(tiny_folder), "--prompt", "Hurricane Ian near", "--tokens", "5"]


def test_both_texts_stand_side_by_side(prompt: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(*prompt, "--random", "--strength", "50") == 0
    shown = capsys.readouterr().out
    assert "unsteered" in shown and "steered" in shown and "KL to the unsteered model" in shown


def test_strength_0_gives_the_same_text(prompt: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(*prompt, "--random", "--strength", "0", "--json") == 0
    written = json.loads(capsys.readouterr().out)
    assert written["steered"] == written["unsteered"] and written["steps"] == []


def test_a_learned_state_is_kept_and_used_again(
    prompt: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, kept = tmp_path / "texts.txt", tmp_path / "kept.safetensors"
    texts.write_text("Tropical storm Alex\n---\nBe a category 3 hurricane\n")
    learn = ["--learn", str(texts), "--steps", "3", "--save", str(kept)]
    assert _run(*prompt, *learn, "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert _run(*prompt, "--learned", str(kept), "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert first["steered"] == again["steered"] and [bool(step["share"]) for step in again["steps"]][:2] == [
        True,
        False,
    ]
    assert _run(*prompt, "--towards", str(texts), "--away", str(texts), "--temperature", "0", "--json") == 0
    assert _run(*prompt, "--like", "Tropical storm", "--strength", "0.5", "--layers", "0-1", "--json") == 0


def test_errors_say_what_to_do(prompt: list[str], tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    texts = tmp_path / "texts.txt"
    texts.write_text("Tropical storm Alex")
    wrong = {
        "layers \\[3\\] have no direction": ["--random", "--layers", "3"],
        "heads \\[99\\]": ["--random", "--heads", "99"],
        "outside \\[0, 1\\]": ["--like", "Tropical", "--strength", "2"],
        "cannot be read": ["--learn", str(tmp_path / "none.txt")],
        "holds no text": ["--learn", str(empty)],
        "there is no file \\S*none": ["--learned", str(tmp_path / "none.safetensors")],
        "belong together": ["--towards", str(empty)],
        "belongs to --learn": ["--random", "--save", str(tmp_path / "x")],
        "--strength is its bound": ["--like", "Tropical", "--max-share", "1"],
        "other parts": ["--learn", str(texts), "--heads", "0"],
        "prompt is empty": ["--random", "--prompt", ""],
        "nothing to do": [],
        "--scorer belongs to": ["--random", "--scorer", "builtins:len"],
        "--critic belongs to": ["--random", "--critic", "critic.safetensors"],
        "there is no file none.safetensors": ["--best-of", "2", "--critic", "none.safetensors"],
        "--ahead belongs to --plan": ["--random", "--ahead", "4"],
        "--plan works on the CPU": ["--plan", "--device", "cuda"],
        "all candidates of a plan are the same": ["--plan", "--temperature", "0"],
        "no module:function": ["--plan", "--scorer", "length"],
        "--every belongs to": ["--random", "--every", "2"],
        "--sharpness belongs to": ["--best-of", "2", "--sharpness", "2"],
        "leave the steering out": ["--random", "--draft", "ngram"],
        "no file none": ["--draft", "none.safetensors"],
        "are the same": ["--best-of", "2", "--temperature", "0"],
        "PYTHONPATH": ["--best-of", "2", "--scorer", "nowhere:score"],
        "the scorer failed": ["--best-of", "2", "--scorer", "math:sqrt"],
    }
    for message, arguments in wrong.items():
        with pytest.raises(ValueError, match=message):
            _run(*prompt, *arguments)


def test_the_best_of_several_texts_by_a_function(prompt: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> dict:
        assert _run(*prompt, *arguments, "--json") == 0
        return json.loads(capsys.readouterr().out)

    one = run("--best-of", "1")
    assert one["selected"] == one["unsteered"] and one["selection"]["calls"] == 5
    best = run("--best-of", "4", "--scorer", "builtins:len")
    assert len(best["selected"]) == max(best["selection"]["scores"]) == max(map(len, best["selection"]["texts"]))
    assert run("--random", "--strength", "0", "--best-of", "1")["selected"] == one["unsteered"]
    weighed = run("--random", "--particles", "4", "--scorer", "builtins:len", "--every", "2", "--sharpness", "0.5")
    assert sum(weighed["selection"]["weights"]) == pytest.approx(1) and len(weighed["selection"]["effective"]) == 2
    assert _run(*prompt, "--best-of", "2", "--every", "2", "--scorer", "builtins:len") == 0
    assert "calls of the model" in capsys.readouterr().out


def test_a_draft_writes_the_plain_text(prompt: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(*prompt, "--draft", "ngram", "--temperature", "0", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["drafted"] == found["plain"] and found["draft"]["tokens"] == 5
    assert _run(*prompt, "--draft", "ngram") == 0
    assert "with the draft" in capsys.readouterr().out


def test_a_critic_values_texts(
    prompt: list[str], tiny: FrozenBackbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "critic.safetensors"
    Critic(tiny, width=4).save(file, tiny)
    for arguments in (["--best-of", "3", "--every", "2"], ["--particles", "3"]):
        assert _run(*prompt, *arguments, "--critic", str(file), "--json") == 0
        found = json.loads(capsys.readouterr().out)["selection"]
        assert found["scores"][found["chosen"]] == max(found["scores"])
    assert _run(*prompt, "--plan", "--lag", "1", "--ahead", "1", "--block", "2", "--critic", str(file)) == 0
    assert "plans:" in capsys.readouterr().out


def test_plans_with_a_lag_are_the_same_each_time(prompt: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    plan = [*prompt, "--plan", "--scorer", "builtins:len", "--tokens", "12", "--block", "3", "--json", "--ahead", "3"]
    found = []
    for lag in ("2", "2", "4"):
        assert _run(*plan, "--lag", lag) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["planned"] == found[1]["planned"] and found[0]["plans"]["applied"] > 0
    assert found[2]["planned"] == found[2]["plain"] and found[2]["plans"]["late"] == found[2]["plans"]["received"] > 0


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _run("--help")
    assert "gssr generate --prompt" in capsys.readouterr().out
