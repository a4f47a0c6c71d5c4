"""Checkpoints and pushed folders: the same weights, or a refusal."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from callbacks.atomic_io import AtomicCheckpointIO
from gssr.checkpoint import read
from gssr.network import GoalNetwork
from gssr.network.pretrained import SETTINGS, WEIGHTS
from gssr.runs.checkpoint_file import readable
from gssr.runs.folders import Found
from gssr.runs.sharing import pull
from gssr.runs.trained import load_trained
from tests.fuzz.damage import TREES, changed, damaged, fuzz, read_or_refuse, strange_safetensors, strange_zip


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@fuzz(40)
@given(data=st.data())
def test_damaged_bytes_of_a_checkpoint(run: Path, place: Path, data: st.DataObject) -> None:
    good = run / "checkpoints" / "best.ckpt"
    file = place / "damaged.ckpt"
    file.write_bytes(data.draw(damaged(good.read_bytes())))
    read_or_refuse(lambda: readable(Found(file, None), to_train=False))
    found = read_or_refuse(lambda: load_trained(str(file)))
    if found is not None:
        assert _same(found[0].state_dict(), load_trained(str(good))[0].state_dict()), "changed weights were used"


@fuzz(30)
@given(data=st.data())
def test_a_checkpoint_with_other_parts_and_right_checksums(run: Path, place: Path, data: st.DataObject) -> None:
    file = place / "strange.ckpt"
    file.write_bytes(data.draw(strange_zip((run / "checkpoints" / "best.ckpt").read_bytes())))
    read_or_refuse(lambda: load_trained(str(file)))


@fuzz(30)
@given(data=st.data())
def test_a_checkpoint_of_strange_values(run: Path, place: Path, data: st.DataObject) -> None:
    good = read(run / "checkpoints" / "best.ckpt")
    about = {name: part for name, part in good["gssr"].items() if name != "noise"}
    plain = {"hyper_parameters": good["hyper_parameters"], "gssr": about, "global_step": 3}

    def whole(tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        if isinstance(tree.get("gssr"), dict):
            tree["gssr"]["noise"] = good["gssr"]["noise"]
        return tree | {"state_dict": good["state_dict"]}

    content = data.draw(st.one_of(TREES, changed(plain).map(whole)))
    AtomicCheckpointIO().save_checkpoint(content, place / "values.ckpt")
    read_or_refuse(lambda: load_trained(str(place / "values.ckpt")))


@pytest.mark.parametrize("name", [WEIGHTS, SETTINGS, "config.yaml", "README.md"])
@fuzz(15)
@given(data=st.data())
def test_a_damaged_pushed_folder(name: str, pushed: Path, place: Path, data: st.DataObject) -> None:
    how = [damaged(content := (pushed / name).read_bytes())]
    how += [strange_safetensors(content)] if name == WEIGHTS else []
    how += [changed(json.loads(content)).map(lambda tree: json.dumps(tree).encode())] if name == SETTINGS else []
    folder, target = place / "strange", place / "pulled"
    for old in (folder, target):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(pushed, folder)
    (folder / name).write_bytes(data.draw(st.one_of(how)))
    read_or_refuse(lambda: GoalNetwork.from_pretrained(folder))
    pulled = read_or_refuse(lambda: pull(folder, target))
    assert pulled is not None or not target.exists(), "a refused pull left files"
    if pulled is not None:
        network = read_or_refuse(lambda: load_trained(str(target / "checkpoints" / "best.ckpt")))
        if network is not None and name == WEIGHTS:
            good = GoalNetwork.from_pretrained(pushed).state_dict()
            assert _same(network[0].state_dict(), good), "changed weights were used"
