"""A checkpoint is whole, or refused with what is wrong with it."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from gssr.checkpoint import DamagedCheckpoint, read
from gssr.runs.checkpoint_file import newest_readable, steps_done


class Evil:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


def save(file: Path, step: int = 7) -> Path:
    file.parent.mkdir(exist_ok=True)
    torch.save({"global_step": step, "weight": torch.arange(4000.0)}, file)
    return file


def test_what_was_saved_is_read(tmp_path: Path) -> None:
    file = save(tmp_path / "a.ckpt")
    assert torch.equal(read(file)["weight"], torch.arange(4000.0))
    assert steps_done(file) == 7


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_short_is_told(share: float, tmp_path: Path) -> None:
    file = save(tmp_path / "a.ckpt")
    os.truncate(file, int(share * file.stat().st_size))
    with pytest.raises(DamagedCheckpoint, match=r"a\.ckpt cannot be read as a checkpoint: it is (cut short|damaged)"):
        read(file)


def test_a_changed_byte_is_told(tmp_path: Path) -> None:
    file = save(tmp_path / "a.ckpt")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedCheckpoint, match="it is damaged"):
        read(file)


def test_what_is_no_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(DamagedCheckpoint, match="as a checkpoint: No such file"):
        read(tmp_path / "nowhere.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(DamagedCheckpoint, match="it holds a list"):
        read(tmp_path / "list.ckpt")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.ckpt")
    with pytest.raises(DamagedCheckpoint, match="it has no training in it"):
        steps_done(tmp_path / "weights.ckpt")


def test_code_is_refused_in_every_wrapping(tmp_path: Path) -> None:
    marker, file = tmp_path / "marker", tmp_path / "evil.ckpt"
    torch.save({"global_step": 1, "extra": Evil(marker)}, file)
    with pytest.raises(ValueError, match=r"evil\.ckpt was not loaded: it asks for \w+\.mkdir, which is no tensor"):
        read(file)
    torch.save({"global_step": 1, "extra": Evil(marker)}, file, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError):
        read(file)
    file.write_bytes(pickle.dumps({"global_step": 1, "extra": Evil(marker)}))
    with pytest.raises(ValueError):
        read(file)
    assert not marker.exists()
    pickle.loads(file.read_bytes())
    assert marker.exists(), "the file would have done no harm to anyone"


def test_the_newest_readable_state_of_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    assert newest_readable(tmp_path) is None
    for name, step in (("best", 5), ("step-000010", 10), ("step-000020", 20), ("last", 30)):
        save(folder / f"{name}.ckpt", step)
    assert newest_readable(tmp_path) == (folder / "last.ckpt", 30)
    os.truncate(folder / "last.ckpt", 100)
    (folder / "step-000020.ckpt").write_bytes(b"")
    assert newest_readable(tmp_path) == (folder / "step-000010.ckpt", 10)
