"""What `auto` means as precision of the frozen model on each device, what is said, and the warning about a slow one."""

import warnings
from pathlib import Path

import pytest
import torch

from gssr.backbone import FrozenBackbone, loading, precision

BRAIN, HALF, FULL = torch.bfloat16, torch.float16, torch.float32


@pytest.mark.parametrize(
    ("stored", "device", "arithmetic", "chosen"),
    [
        (BRAIN, "cpu", False, FULL),
        (BRAIN, "cpu", True, BRAIN),
        (BRAIN, "cuda", True, BRAIN),
        (HALF, "cpu", True, FULL),
        (HALF, "cuda", True, HALF),
        (FULL, "cuda", True, FULL),
        (FULL, "cpu", False, FULL),
        (None, "cpu", True, FULL),
        (BRAIN, "mps", False, FULL),
    ],
)
def test_auto_is_what_is_stored_where_the_device_has_arithmetic_for_it(
    stored: torch.dtype, device: str, arithmetic: bool, chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: arithmetic)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: arithmetic)
    found, why = precision.choose("auto", stored, device)
    assert found == chosen and why
    assert precision.choose("float16", stored, device) == (HALF, "")


def test_the_choice_is_said_once_and_changes_no_weight(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "SAID", set())
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: False)
    full = FrozenBackbone("nano", device="cpu")
    assert full.table.weight.dtype == FULL
    assert "nano computes in float32: its weights are stored in bfloat16, for which" in capsys.readouterr().err
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: True)
    brain = FrozenBackbone("nano", device="cpu")
    assert brain.table.weight.dtype == BRAIN and brain.fingerprint == full.fingerprint
    assert "nano computes in bfloat16: as its weights are stored" in capsys.readouterr().err
    FrozenBackbone("nano", device="cpu")
    assert "computes in" not in capsys.readouterr().err


def test_a_precision_that_is_slow_on_this_cpu_warns_once_with_the_measured_ratio(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: False)
    monkeypatch.setattr(precision, "slowdown", lambda dtype: 6.9)
    backbone = FrozenBackbone(str(tiny_folder), dtype="bfloat16")
    with pytest.warns(UserWarning, match=r"bfloat16 on this CPU, .* 6\.9 times as long as in float32"):
        backbone.to("cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backbone.to("cpu")
        FrozenBackbone(str(tiny_folder), dtype="float32").to("cpu")
        monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: True)
        FrozenBackbone(str(tiny_folder), dtype="bfloat16").to("cpu")


def test_the_ratio_is_one_for_the_same_precision() -> None:
    assert 0.2 < precision.slowdown(torch.float32) < 5 and precision.slowdown(torch.bfloat16) > 0
