"""The `gssr` command: what it prints and writes, and one line for what a user got wrong."""

import argparse
import json
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import torch

from gssr.backbone import FrozenBackbone
from gssr.commands.main import build_parser, main
from gssr.states.hybrid_state import HybridState
from gssr.states.inspect import nbytes
from tests.states.test_hybrid_state import same

LONG, SHORT = "Hurricane Ian near 20.1 north 83.5 west, moving north at 9 knots.", "Weaken to 35 knots"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: FrozenBackbone) -> Path:
    """A folder with two captured states; we are in it."""
    monkeypatch.chdir(tmp_path)
    HybridState.capture(tiny, [LONG]).save("a.safetensors")
    HybridState.capture(tiny, [SHORT]).save("b.safetensors")
    return tmp_path


def parsers(parser: argparse.ArgumentParser, name: str = "gssr") -> dict[str, argparse.ArgumentParser]:
    """Every command with its parser."""
    found = {name: parser}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command, below in action.choices.items():
                found |= parsers(below, f"{name} {command}")
    return found


def test_every_command_has_help_with_examples_that_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    every = parsers(build_parser())
    assert {"gssr inspect", "gssr state capture", "gssr state show", "gssr state blend", "gssr state generate"} <= set(
        every
    )
    for name, parser in every.items():
        if name == "gssr":
            continue
        lines = re.findall(r"^  (gssr .*)$", parser.format_help(), flags=re.MULTILINE)
        assert lines and all(line.startswith(name) for line in lines), name
        for line in lines:
            words = shlex.split(line)[1:]
            if words[-1] == "--help":
                with pytest.raises(SystemExit) as end:
                    build_parser().parse_args(words)
                assert end.value.code == 0
            else:
                assert callable(build_parser().parse_args(words).run), line


@pytest.mark.parametrize("command", ["--help", "--version", "melt", "plan --help", "push", "state capture --tokens 0"])
def test_help_and_wrong_options_import_no_large_library(command: str) -> None:
    code = (
        "import sys\nfrom gssr.commands.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert end.code in (0, 2)\n"
        "else:\n    raise AssertionError('it ran')\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'pandas', 'pyarrow', 'lightning', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *command.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_console_script_is_this_main() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["scripts"]["gssr"].partition(":")
    assert getattr(import_module(module), function) is main


def test_capture_and_generate_continue_the_text(
    place: Path, tiny: FrozenBackbone, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = ["--backbone", str(tiny_folder)]
    Path("more.txt").write_text(SHORT, encoding="utf-8")
    command = ["state", "capture", "--prompt", LONG, "--prompt-file", "more.txt", "--out", "c.safetensors", *backbone]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "written: c.safetensors" in out and "attention keys and values" in out
    assert same(HybridState.load("c.safetensors"), HybridState.capture(tiny, [LONG, SHORT]))

    command = ["state", "generate", "c.safetensors", "--tokens", "6", "--temperature", "0", "--json", *backbone]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    for row, prompt in zip(found, (LONG, SHORT), strict=True):
        ids = torch.tensor([[tiny.start_id, *tiny.tokenize([prompt])[0]]])
        new = tiny.model.generate(input_ids=ids, max_new_tokens=6, do_sample=False, pad_token_id=1)[0, ids.shape[1] :]
        assert row == {"text": prompt, "continuation": tiny.tokenizer.decode(new, skip_special_tokens=True)}


def test_sampling_obeys_its_seed_and_further_text_is_read(
    place: Path, tiny: FrozenBackbone, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*options: str) -> dict[str, str]:
        command = ["state", "generate", "a.safetensors", "--tokens", "8", "--json", "--backbone", str(tiny_folder)]
        assert main([*command, *options]) == 0
        return json.loads(capsys.readouterr().out)[0]

    assert run("--seed", "3") == run("--seed", "3") != run("--seed", "4")
    assert run("--read", " Central pressure")["text"] == f"{LONG} Central pressure"
    assert main(["state", "generate", "a.safetensors", "--tokens", "4", "--backbone", str(tiny_folder)]) == 0
    assert LONG in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "weights", "layers", "anchor"),
    [
        ([], (0.5, 0.5), None, None),
        (["--ratio", "0.25"], (0.75, 0.25), None, None),
        (
            ["--ratio", "0", "--layer", "1-2=0.8", "--layer", "0=1,3"],
            (1, 0),
            {1: (0.2, 0.8), 2: (0.2, 0.8), 0: (1, 3)},
            None,
        ),
        (["--weights", "1,3", "--anchor", "a.safetensors"], (1, 3), None, 0),
    ],
)
def test_blend_writes_the_blend(place: Path, options: list[str], weights, layers, anchor) -> None:
    from gssr.states.blend import blend

    assert main(["state", "blend", "a.safetensors", "b.safetensors", *options, "--out", "c.safetensors"]) == 0
    states = [HybridState.load(name) for name in ("a.safetensors", "b.safetensors")]
    expected, got = blend(states, weights, layers, anchor), HybridState.load("c.safetensors")
    assert torch.equal(got.tokens, expected.tokens)
    for a, b in zip(expected.layers, got.layers, strict=True):
        for (_, x), (_, y) in zip(a.parts(), b.parts(), strict=True):
            torch.testing.assert_close(x, y)


def test_show_and_inspect_report_layers_and_bytes(
    place: Path, tiny: FrozenBackbone, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = HybridState.load("a.safetensors")
    assert main(["state", "show", "a.safetensors", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["bytes"] == nbytes(state) and shown["tokens_read"] == state.position.tolist()
    longer = nbytes(state.read_on(tiny, "x"))
    assert shown["bytes_per_token"] == sum(longer.values()) - sum(nbytes(state).values())
    assert main(["state", "show", "a.safetensors"]) == 0
    assert "6 × 32 × 64" in capsys.readouterr().out

    command = [
        "inspect",
        "--prompt",
        LONG,
        "--leverage",
        "--tokens",
        "2",
        "--directions",
        "2",
        "--backbone",
        str(tiny_folder),
    ]
    assert main([*command, "--layers", "0,2-3", "--plot", "x.png", "--json"]) == 0
    inspected = json.loads(capsys.readouterr().out)
    assert inspected["layers"] == shown["layers"]
    assert [effect["layer"] for effect in inspected["leverage"]["layers"]] == [0, 2, 3]
    assert Path("x.png").stat().st_size > 1000
    assert main(command) == 0
    assert "KL next token" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("state show none.safetensors", "there is no file none.safetensors"),
        ("state generate none.safetensors", "there is no file none.safetensors"),
        ("state generate a.safetensors", "not a state that can be used: this state comes from the backbone"),
        ("state generate a.safetensors --top-p 0", "argument --top-p: '0' is not a number above 0"),
        ("state generate a.safetensors --tokens 0", "'0' is not a whole number from 1"),
        ("state generate a.safetensors --temperature warm", "'warm' is not a number from 0"),
        ("state generate a.safetensors --backbone no-such-model", "no backbone at 'no-such-model'"),
        ("state blend a.safetensors --out c.safetensors", "at least two states"),
        ("state blend a.safetensors b.safetensors a.safetensors --out c.safetensors", "give --weights"),
        ("state blend a.safetensors b.safetensors --ratio 1.2 --out c.safetensors", "ratio 1.2 is not between 0"),
        ("state blend a.safetensors b.safetensors --weights 1 --out c.safetensors", "1 weights for 2 states"),
        ("state blend a.safetensors b.safetensors --weights 1,2,3 --out c.safetensors", "3 weights for 2 states"),
        ("state blend a.safetensors b.safetensors --ratio 0.5 --weights 1,2 --out c.safetensors", "not allowed with"),
        ("state blend a.safetensors b.safetensors --layer 3=0.5 --out c.safetensors", "layer 3 has no recurrent state"),
        ("state blend a.safetensors b.safetensors --layer 0 --out c.safetensors", "is no share for layers"),
        ("state blend a.safetensors b.safetensors --anchor x --out c.safetensors", "the anchor x is not one of"),
        ("state blend a.safetensors b.safetensors --out no/c.safetensors", "does not exist; make it first"),
        ("state capture --out c.safetensors", "no prompt was given"),
        ("state capture --prompt '' --out c.safetensors", "a prompt is empty"),
        ("state capture --prompt-file none.txt --out c.safetensors", "none.txt cannot be read"),
        ("inspect --leverage --layers 9", "layer 9 has no state"),
        ("inspect --leverage --layers 6-4", "is no list of layers"),
        ("inspect --layers 1", "add --leverage"),
        ("inspect --leverage --share -1", "'-1' is not a number from 0"),
        ("inspect --device warp", "the device 'warp' cannot be used"),
        ("inspect --dtype int4", "dtype 'int4' is not known"),
        ("melt", "invalid choice: 'melt'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_a_line(
    place: Path, command: str, message: str, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command)
    if words[0] == "inspect" and "--backbone" not in words:
        words += ["--backbone", str(tiny_folder)]
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code
    shown = capsys.readouterr()
    assert code == 2 and shown.out == ""
    assert message in shown.err and "Traceback" not in shown.err
    assert not Path("c.safetensors").exists()
