"""Tools that do what they should: the loop, its log and its command line."""

import json
from pathlib import Path

import pytest
import yaml

from gssr.backbone import FrozenBackbone
from gssr.commands.main import main
from gssr.reasoning.tools.agent import Outcome, Script, work
from gssr.reasoning.tools.model import Model
from gssr.reasoning.tools.toolbox import Call, Toolbox


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    (tmp_path / "work" / "disk").mkdir(parents=True)
    (tmp_path / "work" / "table.txt").write_text("pear 12\nfig 7\n")
    (tmp_path / "work" / "disk" / "free").write_text("73\n")
    file = tmp_path / "tools.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "limits": {"seconds": 30},
                "tools": {
                    "calc": {
                        "command": ["expr", "{a}", "{op}", "{b}"],
                        "arguments": {"a": "number", "op": {"one_of": ["+", "-", "*"]}, "b": "number"},
                    },
                    "table": {"command": ["grep", "-w", "-e", "{key}", "table.txt"], "arguments": {"key": "word"}},
                    "file": {"command": ["cat", "{path}"], "arguments": {"path": "path"}},
                    "say": {"command": ["echo", "{text}"], "arguments": {"text": {"pattern": "[a-z ]+"}}},
                },
            }
        )
    )
    return file


def test_a_policy_reads_what_tools_print_and_answers(tools: Path) -> None:
    policy = Script(
        ["call table pear", "call calc 12 - -3", "call file disk/free", "call table plum", "call say 'two words'",
         "answer 15"]
    )  # fmt: skip
    log = tools.parent / "log"
    assert work("12 - -3 ?", policy, Toolbox.read(tools), log) == Outcome("15", 5, 0)
    assert policy.read == ["12 - -3 ?", "> pear 12", "> 15", "> 73", "> (failed with code 1)", "> two words"]
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["event"] for entry in entries] == ["task", *["call", "result"] * 5, "answer"]
    assert entries[2]["output"] == "pear 12\n" and entries[2]["code"] == 0


def test_the_words_of_a_command_are_those_of_the_list_and_the_call(tools: Path) -> None:
    box = Toolbox.read(tools)
    program, *words = box.command(Call("calc", ("1.5", "*", "-2")))
    assert Path(program).is_absolute() and Path(program).name == "expr" and words == ["1.5", "*", "-2"]


@pytest.mark.parametrize("family", ["tiny_folder", "llama_folder"])
def test_any_language_model_is_a_policy_and_reads_nothing_twice(family: str, request: pytest.FixtureRequest) -> None:
    backbone = FrozenBackbone(str(request.getfixturevalue(family)))
    policy = Model(backbone, tokens=5)
    read = []
    forward = backbone.decoder.forward

    def counting(*args: object, **given: object) -> object:
        inputs = given.get("inputs_embeds") if given.get("inputs_embeds") is not None else given.get("input_ids")
        read.append(inputs.shape[1])
        return forward(*args, **given)

    backbone.decoder.forward = counting
    for text in ("Tropical storm Alex", "> 12", "> near 30.0 north"):
        assert isinstance(policy(text), str)
    assert sum(read) == policy.talk.tokens.shape[1] - 1


def test_the_command_runs_a_script_and_a_model(
    tools: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tools.with_name("calls")
    calls.write_text("call calc 3 + 4\nanswer seven\n")
    assert main(["agent", "3 + 4", "--tools", str(tools), "--script", str(calls), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"answer": "seven", "calls": 1, "refused": 0}
    log = tools.with_name("tools.log.jsonl")
    assert len(log.read_text().splitlines()) == 4

    assert main(["agent", "3 + 4", "--tools", str(tools), "--script", str(calls), "--dry-run"]) == 0
    assert "expr 3 + 4" in capsys.readouterr().err and "not run" in log.read_text()

    monkeypatch.setattr("sys.stdin", __import__("io").StringIO("n\n"))
    assert main(["agent", "3 + 4", "--tools", str(tools), "--script", str(calls), "--ask", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["refused"] == 1

    code = main(["agent", "3 + 4", "--tools", str(tools), "--backbone", str(tiny_folder), "--tokens", "3"])
    assert code == 2 and "no answer after 8 calls" in capsys.readouterr().err  # random weights call no tool
