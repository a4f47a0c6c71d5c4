"""`gssr force`, `gssr inject` and `gssr memory` from files and words to answers, and their errors."""

import json
from pathlib import Path

import pytest

from gssr.commands.main import main
from gssr.control.memory import Memory
from tests.control.conftest import facts, facts_folder, language  # noqa: F401, fixtures

OSLO, RIGA = "Mira lives in Oslo.", "Mira lives in Riga."
ASK = ["--ask", "Where does Mira live?"]


def test_facts_are_injected_and_asked_for(
    facts_folder: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    call = ["inject", "--fact", OSLO, "--fact", "Hugo keeps a cat.", *ASK, "--backbone", str(facts_folder), "--json"]
    answers = []
    for method in ("compose", "read"):
        assert main([*call, "--method", method]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert all(each[0]["ask"] == ASK[1] and isinstance(each[0]["answer"], str) for each in answers)
    assert main([*call, "--method", "projector"]) == 2
    assert "needs --projector" in capsys.readouterr().err


def test_a_memory_lives_in_a_file(
    facts,  # noqa: F811
    facts_folder: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, backbone = tmp_path / "m.safetensors", ["--backbone", str(facts_folder)]

    def call(does: str, *options: str) -> int:
        return main(["memory", does, str(file), *options, *backbone])

    assert call("ask", *ASK) == 2 and "no file" in capsys.readouterr().err
    assert call("write", "--fact", OSLO) == 0
    size = file.stat().st_size
    assert call("write", "--read", "the old road fell on the wall .") == 0
    expected = Memory.empty(facts).write(facts, OSLO).read(facts, "the old road fell on the wall .")
    capsys.readouterr()
    assert call("ask", *ASK) == 0
    assert capsys.readouterr().out.strip() == expected.ask(facts, ASK[1])
    assert call("replace", "--fact", OSLO, "--by", RIGA) == 0
    assert call("forget", "--fact", OSLO) == 2 and "was not written" in capsys.readouterr().err
    assert call("forget", "--fact", RIGA) == 0 and "forgotten: 0" in capsys.readouterr().out
    assert call("write") == 2 and "nothing was given" in capsys.readouterr().err
    assert file.stat().st_size == size


def test_a_text_is_forced_beside_controls(
    facts_folder: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    call = ["force", "--prompt", "Mira lives in", "--target", "riga .", "--backbone", str(facts_folder)]
    assert (
        main([*call, "--budget", "3", "--tokens", "4", "--steps", "30", "--control", "random,pca,mean", "--json"]) == 0
    )
    rows = json.loads(capsys.readouterr().out)
    assert [row["change"] for row in rows] == ["forced", "random", "pca", "mean"]
    assert rows[0]["forced"] and rows[0]["says"] == "riga ."
    assert main([*call, "--layers", "7"]) == 2 and "layers 7" in capsys.readouterr().err
    for wrong in (["--control", "luck"], ["--budget", "0"], ["--parts", "keys"]):
        with pytest.raises(SystemExit):
            main([*call, *wrong])
