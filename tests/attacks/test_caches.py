"""Damaged and foreign caches of texts and tables: made again, aloud, and never used; training goes on without any."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from datamodules.table_sequences import TableSequences
from datamodules.text.corpus import train_tokenizer
from gssr.backbone import FrozenBackbone, text_file
from gssr.backbone.readings import Reading
from gssr.backbone.table import TextTable, cache_folder
from tests.conftest import SENTENCES

pytestmark = pytest.mark.attack
ROOT = Path(__file__).resolve().parents[2]


# ---------------------------------------------------------------------- texts


def flip(place: float) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        raw = bytearray(file.read_bytes())
        raw[int(place * (len(raw) - 1))] ^= 4
        file.write_bytes(raw)

    return damage


def cut(share: float) -> Callable[[Path], None]:
    return lambda file: os.truncate(file, int(share * file.stat().st_size))


def tensors(change: Callable[[dict[str, torch.Tensor]], Any], signed: bool = False) -> Callable[[Path], None]:
    """Other tensors under a header of the same form; ``signed``: with a checksum that fits them."""

    def damage(file: Path) -> None:
        parts = load_file(file)
        change(parts)
        parts = {name: part.contiguous() for name, part in parts.items()}
        identity = file.stem.removeprefix("texts-")
        save_file(
            parts, file, {"digest": text_file._digest(identity, parts["hashes"], parts["states"]) if signed else "0"}
        )

    return damage


def folder(file: Path) -> None:
    file.unlink()
    (file / "inside").mkdir(parents=True)


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def dangling(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


def of_another_layer(file: Path) -> None:
    """A whole file with the checksum of another reading."""
    parts = load_file(file)
    text_file.write(file, "0" * 32, parts["hashes"], parts["states"])


def header(file: Path) -> None:
    file.write_bytes((2**60).to_bytes(8, "little") + file.read_bytes()[8:])


def old_form(file: Path) -> None:
    save_file(load_file(file), file)


TEXT_DAMAGES: dict[str, Callable[[Path], None]] = {
    "a flipped bit in the header's length": flip(0.0),
    "a flipped bit in the header": flip(0.02),
    "a flipped bit in the first third": flip(0.34),
    "a flipped bit in the middle": flip(0.5),
    "a flipped bit at the end": flip(1.0),
    "cut in the header": cut(0.02),
    "cut in half": cut(0.5),
    "one byte missing": lambda file: os.truncate(file, file.stat().st_size - 1),
    "empty": cut(0.0),
    "one byte more": lambda file: file.write_bytes(file.read_bytes() + b"\0"),
    "a header that is too long": header,
    "NaN": tensors(lambda parts: parts["states"][0].fill_(float("nan"))),
    "NaN with a checksum that fits": tensors(lambda parts: parts["states"][0].fill_(float("nan")), signed=True),
    "infinity with a checksum that fits": tensors(lambda parts: parts["states"][1, 3].fill_(torch.inf), signed=True),
    "a state changed": tensors(lambda parts: parts["states"][1].add_(1e-6)),
    "two states swapped": tensors(lambda parts: parts["states"].copy_(parts["states"].flip(0))),
    "a hash changed": tensors(lambda parts: parts["hashes"][0].add_(1)),
    "states of another width": tensors(lambda p: p.update(states=p["states"][:, :5]), signed=True),
    "a state too few": tensors(lambda p: p.update(states=p["states"][:-1]), signed=True),
    "states in half precision": tensors(lambda p: p.update(states=p["states"].bfloat16()), signed=True),
    "hashes of another type": tensors(lambda p: p.update(hashes=p["hashes"].int()), signed=True),
    "a third tensor": tensors(lambda p: p.update(other=torch.zeros(1)), signed=True),
    "no checksum": old_form,
    "of another reading": of_another_layer,
    "JSON": lambda file: file.write_text("{}"),
    "a pickle": lambda file: torch.save({"hashes": torch.zeros(1)}, file),
    "a folder": folder,
    "a pipe": pipe,
    "a link to itself": dangling,
}


@pytest.mark.parametrize("damage", TEXT_DAMAGES)
def test_a_damaged_text_cache_is_made_again_aloud(damage: str, tiny: FrozenBackbone) -> None:
    first = TextTable(tiny, [1])
    first.add(SENTENCES)
    content = first.file.read_bytes()
    TEXT_DAMAGES[damage](first.file)
    table = TextTable(tiny, [1])
    with pytest.warns(match=r"the text cache .* cannot be read and is made again"):
        table.add(SENTENCES)
    assert torch.equal(table.states, first.states)
    if damage != "a folder":
        assert table.file.read_bytes() == content
    assert not list(cache_folder().glob("*.tmp"))


def test_a_damaged_text_cache_is_refused_without_asserts_too(tiny_folder: Path, tiny: FrozenBackbone) -> None:
    table = TextTable(tiny, [1])
    table.add(SENTENCES)
    cut(0.5)(table.file)
    program = (
        "import sys, torch\nfrom gssr.backbone import FrozenBackbone\nfrom gssr.backbone.table import TextTable\n"
        "torch.set_num_threads(1)\n"
        "table = TextTable(FrozenBackbone(sys.argv[1]), [1])\ntable.add(sys.argv[2:])\nprint(table.states.sum().item())"
    )
    run = subprocess.run(
        [sys.executable, "-O", "-c", program, str(tiny_folder), *SENTENCES], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0 and "is made again" in run.stderr, run.stderr
    assert float(run.stdout) == table.states.sum().item()


PLACES = {
    "the folder is a file": lambda cache: cache.write_text("a file"),
    "the folder lies in a file": lambda cache: cache.parent.joinpath("f").write_text(""),
    "a link to nowhere": lambda cache: cache.symlink_to(cache.parent / "nowhere" / "at all"),
}


@pytest.mark.parametrize("place", [*PLACES, "a full disk", "no permission to read", "no permission to write"])
def test_texts_are_read_without_a_cache(
    place: str, tiny: FrozenBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    if place in PLACES:
        PLACES[place](cache)
        if place == "the folder lies in a file":
            monkeypatch.setenv("GSSR_CACHE", str(tmp_path / "f" / "cache"))
    else:
        wrong = errno.ENOSPC if place == "a full disk" else errno.EACCES

        def fail(*args: object, **options: object) -> Any:
            raise OSError(wrong, os.strerror(wrong))

        if place == "no permission to read":
            monkeypatch.setattr(Path, "is_file", fail)
        monkeypatch.setattr(os, "fsync", fail)
    table = TextTable(tiny, [1])
    with pytest.warns(match="could not be written"):
        table.add(SENTENCES)
    assert torch.equal(table.look_up([SENTENCES])[0][0], tiny.mean_states(SENTENCES, [1]))


def test_all_that_changes_a_number_has_a_cache_of_its_own(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Precision, tokenizer, configuration, layers, reading, shapes of the calls and versions."""

    class Other(Reading):
        key = ("other",)

    plain = FrozenBackbone(str(tiny_folder))
    files = [TextTable(plain, [1]).file, TextTable(plain, [2]).file, TextTable(plain, [1], Other()).file]
    half = FrozenBackbone(str(tiny_folder), dtype="bfloat16")
    files.append(TextTable(half, [1]).file)

    shutil.copytree(tiny_folder, tmp_path / "words")
    train_tokenizer([*SENTENCES, "a quick brown fox " * 5], 400).save_pretrained(tmp_path / "words")
    words = FrozenBackbone(str(tmp_path / "words"))
    files.append(TextTable(words, [1]).file)
    assert words.fingerprint == plain.fingerprint and words.tokenize(SENTENCES) != plain.tokenize(SENTENCES)

    shutil.copytree(tiny_folder, tmp_path / "scaled")
    config = json.loads((tmp_path / "scaled" / "config.json").read_text())
    config["residual_multiplier"] = 0.5
    (tmp_path / "scaled" / "config.json").write_text(json.dumps(config))
    files.append(TextTable(FrozenBackbone(str(tmp_path / "scaled")), [1]).file)

    monkeypatch.setattr("gssr.backbone.identity.VERSION", 0)
    files.append(TextTable(plain, [1]).file)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0")
    files.append(TextTable(plain, [1]).file)
    assert len(set(files)) == len(files)
    monkeypatch.undo()
    shutil.copytree(tiny_folder, tmp_path / "copy")
    assert TextTable(FrozenBackbone(str(tmp_path / "copy")), [1]).identity == TextTable(plain, [1]).identity
    AutoTokenizer.from_pretrained(tiny_folder)  # a tokenizer that was used is still the same
    plain.tokenizer(SENTENCES, padding=True)
    assert FrozenBackbone(str(tiny_folder)).configured == plain.configured


@pytest.mark.parametrize("broken", ["weights", "a reading"])
def test_states_that_are_not_finite_end_aloud_and_are_not_kept(broken: str, tiny_folder: Path) -> None:
    class Torn(Reading):
        def read(self, backbone: FrozenBackbone, texts: Any, layers: Any) -> torch.Tensor:
            return torch.full((len(texts), backbone.hidden_size), torch.nan)

    backbone = FrozenBackbone(str(tiny_folder))
    table = TextTable(backbone, [1], Torn() if broken == "a reading" else None)
    if broken == "weights":
        with torch.no_grad():
            backbone.table.weight[backbone.tokenize([SENTENCES[2]])[0][3]] = torch.inf
    with pytest.raises(ValueError, match="of the text '.*' are not finite"):
        table.add(SENTENCES[2:3])
    assert not table.file.exists()


# ---------------------------------------------------------------------- tables


def table_file(folder: Path) -> Path:
    g = np.random.default_rng(0)
    rows = 60
    frame = pd.DataFrame({"date": pd.date_range("2024-01-01", periods=rows).strftime("%Y-%m-%d")})
    frame["price"] = np.round(30 + g.normal(0, 3, rows).cumsum() / 3, 2)
    frame["news"] = [f"day {i % 10}" for i in range(rows)]
    frame.to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def opened(file: Path) -> TableSequences:
    data = TableSequences(
        str(file), time_column="date", value_columns=["price"], text_column="news", context=4, horizon=3
    )
    data.setup()
    return data


def first_record(data: TableSequences) -> tuple[list[float], list[str | None]]:
    record = data.train_records[3]
    return record.value[:, 0].tolist(), list(record.text)


def part(name: str, damage: Callable[[Path], Any]) -> Callable[[Path], None]:
    return lambda store: damage(store / name) and None


def about(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(store: Path) -> None:
        content = json.loads((store / "about.json").read_text())
        change(content)
        (store / "about.json").write_text(json.dumps(content))

    return damage


def other_store(store: Path) -> None:
    shutil.rmtree(store)
    store.write_text("a file")


TABLE_DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a flipped bit in the values": part("value", flip(0.3)),
    "a flipped bit in the times": part("time", flip(0.5)),
    "a flipped bit in the texts": part("strings.bin", flip(0.5)),
    "a flipped bit in the places of texts": part("text", flip(0.5)),
    "NaN in the values": part("value", lambda f: f.write_bytes(np.full(60, np.nan, "<f4").tobytes())),
    "values cut": part("value", cut(0.5)),
    "texts cut": part("strings.bin", cut(0.9)),
    "values empty": part("value", cut(0.0)),
    "values missing": part("value", Path.unlink),
    "goals missing": part("goal", Path.unlink),
    "values are a folder": part("value", lambda f: (f.unlink(), f.mkdir())),
    "facts cut": part("about.json", cut(0.5)),
    "facts empty": part("about.json", cut(0.0)),
    "facts missing": part("about.json", Path.unlink),
    "facts are a list": part("about.json", lambda f: f.write_text("[]")),
    "facts are deep": part("about.json", lambda f: f.write_text("[" * 100_000)),
    "facts are no UTF-8": part("about.json", lambda f: f.write_bytes(b"\xff\xfe")),
    "more rows in the facts": about(lambda a: a["facts"].update(counts=[600])),
    "fewer rows in the facts": about(lambda a: a["facts"].update(counts=[-1])),
    "another column in the facts": about(lambda a: a["facts"]["columns"][0].update(name="other")),
    "facts without a checksum": about(lambda a: a.pop("sha256")),
    "facts without files": about(lambda a: a.pop("files")),
    "a path among the files": about(lambda a: a["files"].update({"../../../etc/passwd": "0"})),
    "a file in place of the folder": other_store,
    "an empty folder": lambda store: (shutil.rmtree(store), store.mkdir()),
    "a link to nowhere": lambda store: (shutil.rmtree(store), store.symlink_to(store.parent / "nowhere")),
}


@pytest.mark.parametrize("damage", TABLE_DAMAGES)
def test_a_damaged_table_cache_is_made_again_aloud(damage: str, tmp_path: Path) -> None:
    file = table_file(tmp_path)
    expected = first_record(opened(file))
    (store,) = (cache_folder() / "tables").iterdir()
    TABLE_DAMAGES[damage](store)
    with pytest.warns(match=r"the table cache .* cannot be read and is made again"):
        data = opened(file)
    assert first_record(data) == expected
    assert [path.name for path in (cache_folder() / "tables").iterdir()] == [store.name]


def test_another_content_of_the_same_size_and_time_is_read(tmp_path: Path) -> None:
    file = table_file(tmp_path)
    before, status = first_record(opened(file)), file.stat()
    row = file.read_text().splitlines()[5]
    other = row[:-1] + ("1" if row[-1] != "1" else "2")
    file.write_text(file.read_text().replace(row, other))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    after = first_record(opened(file))
    assert after != before and other.split(",")[-1] in after[1]


@pytest.mark.parametrize("place", [*PLACES, "a full disk"])
def test_tables_are_read_without_a_cache(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = table_file(tmp_path)
    expected = first_record(opened(file))
    cache = tmp_path / "other"
    monkeypatch.setenv("GSSR_CACHE", str(tmp_path / "f" / "c" if place == "the folder lies in a file" else cache))
    if place in PLACES:
        PLACES[place](cache)
    else:
        real = os.replace

        def full(source: Any, target: Any) -> None:
            if str(cache) in str(target):
                raise OSError(errno.ENOSPC, "No space left on device")
            real(source, target)

        monkeypatch.setattr(os, "replace", full)
    with pytest.warns(match="the table cannot be kept in .* for this run only"):
        assert first_record(opened(file)) == expected


def test_a_table_that_changes_while_it_is_in_use_ends_aloud(tmp_path: Path) -> None:
    data = opened(table_file(tmp_path))
    (store,) = (cache_folder() / "tables").iterdir()
    cut(0.1)(store / "value")
    with pytest.raises(RuntimeError, match="was changed while it was in use; run again"):
        first_record(data)


def test_two_processes_that_make_one_table_at_once_leave_a_whole_one(tmp_path: Path) -> None:
    file = table_file(tmp_path)
    program = (
        "import sys\nfrom datamodules.table_sequences import TableSequences\n"
        "d = TableSequences(sys.argv[1], time_column='date', value_columns=['price'], text_column='news', context=4, "
        "horizon=3)\nd.setup()\nprint(d.train_records[3].value.sum())"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(file)], cwd=ROOT, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [run.communicate() for run in runs]
    assert all(run.returncode == 0 for run in runs), said
    assert said[0][0] == said[1][0] and "cannot be read" not in said[0][1] + said[1][1]
    assert len(list((cache_folder() / "tables").iterdir())) == 1
    first_record(opened(file))
