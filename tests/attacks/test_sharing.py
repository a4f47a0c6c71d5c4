"""Shared networks that are damaged or made up, and pushes and pulls that break off."""

import errno
import json
import os
import shutil
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors.torch import load_file, save

import gssr.files as files
import gssr.network.pretrained as pretrained
import gssr.runs.sharing as sharing
from gssr import checkpoint
from gssr.commands import main as command
from gssr.network import GoalNetwork
from gssr.runs.folders import find_checkpoint
from gssr.runs.sharing import pull, push
from tests.full_disk import FullDisk
from tests.networks import make_network, signed

pytestmark = pytest.mark.attack

OUT = Path("out")
WEIGHTS, SETTINGS, CARD, CONFIG = (OUT / name for name in pretrained.FILES)


@pytest.fixture(scope="module")
def trained(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its push, to be copied."""
    network = make_network(tiny_folder, latent_dim=4, hidden_dim=8, text_layers=(2,), goal_layer=2, names=["a", "b"])
    folder = tmp_path_factory.mktemp("shared")
    saved: dict[str, Any] = {"global_step": 3, "epoch": 1, "state_dict": network.state_dict()}
    saved["hyper_parameters"] = dict(network.hparams)
    network.on_save_checkpoint(saved)
    checkpoint.write(saved, folder / "runs/mine/checkpoints/best.ckpt")
    (folder / "runs/mine/config.yaml").write_text("threads: 1\n")
    push(str(folder / "runs/mine"), folder / "out")
    return folder


@pytest.fixture(autouse=True)
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(trained, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    Path("secret").write_text("a password")
    return tmp_path / "here"


def contents(folder: Path) -> dict[str, Any]:
    """Files, links and folders with what they hold."""
    found = sorted(path for path in folder.rglob("*")) if folder.exists() else []
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in found
    }


def bit(file: Path, at: int) -> Callable[[], None]:
    def flip() -> None:
        content = bytearray(file.read_bytes())
        content[at % len(content)] ^= 1
        file.write_bytes(content)

    return flip


def in_place_of(file: Path, put: Callable[[Path], Any]) -> Callable[[], None]:
    def change() -> None:
        file.unlink()
        put(file)

    return change


def link(to: str) -> Callable[[Path], None]:
    return lambda file: file.symlink_to(to)


def resigned(change: Callable[[dict[str, Any]], Any]) -> Callable[[], None]:
    """Other settings, with the checksum of somebody who means it."""

    def write() -> None:
        settings = json.loads(SETTINGS.read_text())
        change(settings)
        SETTINGS.write_text(json.dumps(signed(settings)))

    return write


def other_weights(content: Callable[[], bytes]) -> Callable[[], None]:
    def write() -> None:
        WEIGHTS.write_bytes(content())
        settings = json.loads(SETTINGS.read_text())
        settings["sha256"]["model.safetensors"] = pretrained.hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
        SETTINGS.write_text(json.dumps(signed(settings)))

    return write


def weights(**changed: torch.Tensor | None) -> Callable[[], bytes]:
    def content() -> bytes:
        state = load_file(WEIGHTS) | {name.replace("__", "."): tensor for name, tensor in changed.items()}
        return save({name: tensor for name, tensor in state.items() if tensor is not None})

    return content


def header(text: str, length: int | None = None, data: int = 8) -> Callable[[], bytes]:
    return lambda: struct.pack("<Q", len(text) if length is None else length) + text.encode() + bytes(data)


def tensor(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> str:
    return json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}})


FIRST = "world__rssm__first_h"
LINKED = "is a link to .* and was not followed"
CHANGED = "is damaged: .*(is|are) not what was pushed; fetch it again"
BOTH: dict[str, tuple[Callable[[], Any], str]] = {
    # links, and what is no file
    "the card a link": (in_place_of(CARD, link("/etc/passwd")), LINKED),
    "the card a link beside": (in_place_of(CARD, link("../secret")), LINKED),
    "the options a link": (in_place_of(CONFIG, link("/etc/passwd")), LINKED),
    "the settings a link": (in_place_of(SETTINGS, link("../secret")), LINKED),
    "the weights a link": (in_place_of(WEIGHTS, link("/dev/zero")), LINKED),
    "a link to nowhere": (in_place_of(CARD, link("nowhere")), LINKED),
    "a link to itself": (in_place_of(CARD, link("README.md")), LINKED),
    "the card a pipe": (in_place_of(CARD, os.mkfifo), "is no file"),
    "the weights a pipe": (in_place_of(WEIGHTS, os.mkfifo), "is no file"),
    "the settings a folder": (in_place_of(SETTINGS, os.mkdir), "is no file|Is a directory"),
    # damage
    "no settings": (SETTINGS.unlink, "there is no config.json"),
    "no weights": (WEIGHTS.unlink, "there is no model.safetensors"),
    "no options": (CONFIG.unlink, CHANGED),
    "nothing": (lambda: shutil.rmtree(OUT), "holds no shared goal network"),
    "empty weights": (lambda: WEIGHTS.write_bytes(b""), CHANGED),
    "weights cut": (lambda: os.truncate(WEIGHTS, 1000), CHANGED),
    "weights longer": (lambda: os.truncate(WEIGHTS, 100_000), CHANGED),
    "weights of zeros": (lambda: WEIGHTS.write_bytes(bytes(WEIGHTS.stat().st_size)), CHANGED),
    "a bit of the first byte": (bit(WEIGHTS, 0), CHANGED),
    "a bit of a weight's name": (bit(WEIGHTS, 30), CHANGED),
    "a bit of a weight": (bit(WEIGHTS, -4), CHANGED),
    "a bit of the options": (bit(CONFIG, 0), CHANGED),
    "other options": (lambda: CONFIG.write_text("threads: 2\n"), CHANGED),
    "other settings": (lambda: SETTINGS.write_text(SETTINGS.read_text().replace('"steps": 3', '"steps": 4')), CHANGED),
    "settings cut": (lambda: os.truncate(SETTINGS, 300), "is damaged"),
    "settings empty": (lambda: SETTINGS.write_text(""), "is damaged"),
    "settings not UTF-8": (lambda: SETTINGS.write_bytes(b'{"a": "\xff"}'), "is damaged"),
    "settings a list": (lambda: SETTINGS.write_text("[1]"), "does not describe a goal network"),
    "settings without checksums": (lambda: SETTINGS.write_text("{}"), "does not describe a goal network"),
    # made up
    "settings without end": (lambda: SETTINGS.write_text("[" * 100_000), "is damaged"),
    "settings of 5 MB": (lambda: SETTINGS.write_text(" " * 5_000_000), "expected at most 4,194,304"),
    "a number of 5,000 digits": (lambda: SETTINGS.write_text('{"a": %s}' % ("1" * 5000)), "is damaged"),
    "a card of 5 MB": (lambda: CARD.write_text(" " * 5_000_000), "expected at most 4,194,304"),
    "a checksum a number": (resigned(lambda s: s["sha256"].update({"model.safetensors": 1})), CHANGED),
    "a checksum of another file": (resigned(lambda s: s["sha256"].update({"../secret": "0"})), CHANGED),
    "steps in words": (resigned(lambda s: s.update(steps="many")), "global_step is missing or not"),
    "steps below 0": (resigned(lambda s: s.update(steps=-1)), "global_step is missing or not"),
    "a backbone a list": (resigned(lambda s: s.update(backbone=[])), "gssr.backbone is missing or not"),
    "a fingerprint a number": (resigned(lambda s: s["backbone"].update(fingerprint=1)), "gssr.backbone is missing"),
    "options missing": (resigned(lambda s: s.pop("hyper_parameters")), "hyper_parameters is missing"),
    "options of NaN": (resigned(lambda s: s["hyper_parameters"].update(seed=float("nan"))), "is missing or"),
    "values a text": (resigned(lambda s: s["hyper_parameters"].update(values="ab")), "hyper_parameters is missing"),
    "fixed a list": (resigned(lambda s: s.update(fixed=[])), "gssr.fixed is missing or not"),
    "weights of NaN": (other_weights(weights(**{FIRST: torch.full((8,), torch.nan)})), "first_h hold values"),
    "infinite weights": (other_weights(weights(**{FIRST: torch.full((8,), torch.inf)})), "first_h hold values"),
    "complex weights": (other_weights(weights(**{FIRST: torch.zeros(8, dtype=torch.complex64)})), "first_h hold|no f"),
    "weights without a header": (other_weights(lambda: b"\0" * 8), "is no file of weights"),
    "a header longer than the file": (other_weights(header("{}", length=1 << 40)), "is no file of weights"),
    "a header of 2^63 bytes": (other_weights(header("{}", length=(1 << 63) + 1)), "is no file of weights"),
    "a header of no JSON": (other_weights(header("{]")), "is no file of weights"),
    "a shape of 10^18": (other_weights(header(tensor(shape=[10**18]))), "is no file of weights"),
    "a shape that overflows": (other_weights(header(tensor(shape=[1 << 62, 8]))), "is no file of weights"),
    "a shape below 0": (other_weights(header(tensor(shape=[-2]))), "is no file of weights"),
    "offsets behind the end": (other_weights(header(tensor(offsets=[0, 8 << 40]))), "is no file of weights"),
    "offsets that turn back": (other_weights(header(tensor(offsets=[8, 0]))), "is no file of weights"),
    "a hole": (other_weights(header(tensor(), data=80)), "is no file of weights"),
    "an unknown kind of number": (other_weights(header(tensor(dtype="F99"))), "is no file of weights"),
}  # fmt: skip
# A pull does not load the backbone, which decides about these.
LOADING: dict[str, tuple[Callable[[], Any], str]] = {
    "a weight missing": (other_weights(weights(**{FIRST: None})), "first_h: missing in the checkpoint"),
    "a weight more": (other_weights(weights(evil=torch.zeros(1))), "evil: not known here"),
    "another shape": (other_weights(weights(**{FIRST: torch.zeros(9)})), r"first_h: shape \(9,\) in the checkpoint"),
    "a width of a billion": (
        resigned(lambda s: [s["hyper_parameters"]["world"].update(hidden_dim=10**9), s["fixed"].clear()]),
        "hidden_dim is 1000000000; expected",
    ),
    "another fingerprint": (resigned(lambda s: s["backbone"].update(fingerprint="0")), "the backbone: "),
    "a foreign class": (
        resigned(lambda s: s["hyper_parameters"]["world"]["posterior"].update(class_path="os.system")), "no Posterior",
    ),
    "an unknown group": (resigned(lambda s: s["hyper_parameters"].update(wings=1)), "wings is not known here"),
}  # fmt: skip
CONFIGS: dict[str, tuple[bytes, str]] = {
    "an object": (b"a: !!python/object/apply:os.mkdir [was-run]\n", "out/config.yaml was not used"),
    "no options": (b"[1]\n", "out/config.yaml holds no options"),
    "no YAML": (b"a: [\n", "out/config.yaml was not used"),
    "no text": (b"\xff\xfe\x00", "out/config.yaml was not used"),
}


@pytest.mark.parametrize("what", [*BOTH, *LOADING])
def test_what_is_damaged_or_made_up_is_not_loaded(what: str) -> None:
    change, message = {**BOTH, **LOADING}[what]
    change()
    with pytest.raises(ValueError, match=message):
        GoalNetwork.from_pretrained("out")


@pytest.mark.parametrize("what", BOTH)
def test_what_is_damaged_or_made_up_is_not_pulled(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    change, _ = BOTH[what]
    change()
    before = contents(Path("runs"))
    assert command.main(["pull", "./out", "runs/theirs"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("gssr: ") and len(said) < 1000 and "Traceback" not in said
    assert contents(Path("runs")) == before


@pytest.mark.parametrize("what", CONFIGS)
def test_options_that_no_run_may_have_are_not_pulled(what: str) -> None:
    content, message = CONFIGS[what]
    CONFIG.write_bytes(content)
    sums = {"config.yaml": pretrained.hashlib.sha256(content).hexdigest()}
    resigned(lambda settings: settings["sha256"].update(sums))()
    with pytest.raises(ValueError, match=message):
        pull("out", "runs/theirs")
    assert sorted(path.name for path in Path("runs").iterdir()) == ["mine"] and not Path("was-run").exists()


def test_options_that_nobody_pushed_are_refused() -> None:
    push("runs/mine/checkpoints/best.ckpt", "loose")
    shutil.copy("runs/mine/checkpoints/best.ckpt", "lone.ckpt")
    push("lone.ckpt", "loose")
    assert not Path("loose/config.yaml").exists()
    Path("loose/config.yaml").write_text("threads: 9\n")
    with pytest.raises(ValueError, match=CHANGED):
        pull("loose")


@pytest.mark.parametrize("at", range(0, 1200, 61))
def test_a_flipped_bit_of_the_settings_is_refused_or_changes_nothing(at: int) -> None:
    before = json.loads(SETTINGS.read_text())
    bit(SETTINGS, at)()
    try:
        pull("out", "runs/theirs")
    except ValueError:
        return
    assert json.loads(SETTINGS.read_text()) == before


# ---------------------------------------------------------------------- links of the hub's cache


def snapshot(cache: Path) -> Path:
    """The pushed folder as the hub's client keeps it."""
    blobs, folder = cache / "models--someone--mine/blobs", cache / "models--someone--mine/snapshots/abc"
    blobs.mkdir(parents=True)
    folder.mkdir(parents=True)
    for number, file in enumerate(OUT.iterdir()):
        shutil.copy(file, blobs / str(number))
        (folder / file.name).symlink_to(f"../../blobs/{number}")
    return folder


def test_the_hubs_own_links_are_followed_and_no_others(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(here / "cache"))
    folder = snapshot(here / "cache")
    monkeypatch.setattr(pretrained, "snapshot_download", lambda *args, **options: str(folder))
    pulled = pull("someone/mine", "runs/theirs")
    assert not any(path.is_symlink() for path in pulled.rglob("*"))
    assert (pulled / "README.md").read_text() == CARD.read_text()
    other = here / "cache/models--someone--private/blobs"
    other.mkdir(parents=True)
    (other / "0").write_text("private")
    for target in (here / "secret", other / "0", "/etc/passwd", "../../../models--someone--private/blobs/0"):
        (folder / "README.md").unlink()
        (folder / "README.md").symlink_to(target)
        with pytest.raises(ValueError, match=LINKED):
            pull("someone/mine", "runs/another")
    elsewhere = snapshot(here / "elsewhere")  # looks like the cache, and is none
    with pytest.raises(ValueError, match=LINKED):
        pull(elsewhere, "runs/another")


@pytest.mark.parametrize("name", ["config.yaml", "test-1/a_test.md"])
def test_a_push_follows_no_link_of_a_foreign_run(name: str) -> None:
    file = Path("runs/mine", name)
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    file.symlink_to(Path("secret").resolve())
    with pytest.raises(ValueError, match=LINKED):
        push("runs/mine", "again")
    assert not Path("again").exists()


# ---------------------------------------------------------------------- what breaks off


WAYS: dict[str, Callable[[str], Any]] = {
    "push": lambda folder: push("runs/mine", folder),
    "pull": lambda folder: pull("out", folder),
}
MOMENTS = ["model.safetensors", "config.json", "README.md", "config.yaml", "best.ckpt"]


def fill(folder: Path, state: str, way: str) -> None:
    """What lies at the destination before: nothing, an empty folder, an earlier network with results beside it."""
    if state == "empty":
        folder.mkdir()
    elif state == "earlier":
        WAYS[way](str(folder))
        (folder / "README.md").write_text("an older card")
        (folder / "test-1").mkdir()
        (folder / "test-1" / "results.md").write_text("93 %")
        (folder / "mine.txt").symlink_to("test-1/results.md")


@pytest.mark.parametrize("state", ["new", "empty", "earlier"])
@pytest.mark.parametrize("way", WAYS)
def test_what_breaks_off_leaves_what_was_there_and_the_next_one_works(
    way: str, state: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = here / "runs" / "theirs"
    fill(folder, state, way)
    before, beside = contents(folder), sorted(here.rglob("*"))
    for name in MOMENTS[: 5 if way == "pull" else 3]:
        with monkeypatch.context() as patch, pytest.raises(ValueError, match="theirs cannot be written: No space left"):
            FullDisk(patch, of=name)
            WAYS[way](str(folder))
        assert contents(folder) == before and sorted(here.rglob("*")) == beside
    for error in (OSError(errno.EBUSY, "Device or resource busy"), KeyboardInterrupt()):

        def fail(*paths: Any, error: BaseException = error) -> None:
            raise error

        with monkeypatch.context() as patch, pytest.raises((ValueError, KeyboardInterrupt)):
            patch.setattr(files, "_exchange", fail)
            patch.setattr(os, "replace", fail)
            WAYS[way](str(folder))
        assert contents(folder) == before and sorted(here.rglob("*")) == beside
    WAYS[way](str(folder))
    after = contents(folder)
    assert after["README.md"] != b"an older card" and b"GoalNetwork" in after["config.json"]
    if state == "earlier":  # what is not ours stays
        assert after["test-1/results.md"] == b"93 %" and after["mine.txt"] == "test-1/results.md"


@pytest.mark.parametrize("moment", ["_exchange", "_remove"])
@pytest.mark.parametrize("way", WAYS)
def test_a_kill_leaves_one_whole_network_and_the_next_one_works(way: str, moment: str, here: Path) -> None:
    folder = here / "runs" / "theirs"
    fill(folder, "earlier", way)
    before = contents(folder)
    child = os.fork()
    if child == 0:
        calls = iter(range(100))

        def killed(*paths: Any) -> None:
            if moment == "_exchange" or (next(calls) and paths[0].name.startswith("theirs.")):
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(files, moment, killed)
        WAYS[way](str(folder))
        os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    now = contents(folder)
    assert now == before if moment == "_exchange" else now["README.md"] != b"an older card"
    GoalNetwork.from_pretrained(folder)
    assert find_checkpoint("best").run.name in ("mine", "theirs")  # never the draft
    WAYS[way](str(folder))
    GoalNetwork.from_pretrained(folder)


@pytest.mark.parametrize("way", WAYS)
def test_where_folders_cannot_be_exchanged_they_are_renamed(
    way: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = here / "runs" / "theirs"
    fill(folder, "earlier", way)
    before, beside = contents(folder), sorted(here.rglob("*"))
    monkeypatch.setattr(files.ctypes, "CDLL", lambda name: object())
    rename = os.rename
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="cannot be written"):

        def second(a: Any, b: Any) -> None:
            if str(a).endswith(".tmp"):
                raise OSError(errno.EIO, "Input/output error")
            rename(a, b)

        patch.setattr(os, "rename", second)
        WAYS[way](str(folder))
    assert contents(folder) == before and sorted(here.rglob("*")) == beside
    WAYS[way](str(folder))
    assert contents(folder)["README.md"] != b"an older card" and sorted(here.rglob("*")) == beside


def a_file(folder: Path) -> None:
    folder.write_text("")


def something_else(folder: Path) -> None:
    folder.mkdir()
    (folder / "novel.txt").touch()


def a_run(folder: Path) -> None:
    pull("out", folder)
    (folder / "README.md").unlink()
    (folder / "config.json").unlink()


DESTINATIONS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a file": (a_file, "is a file; give a folder"),
    "a pipe": (os.mkfifo, "is a file; give a folder"),
    "something else": (something_else, "holds something else"),
    "a run": (a_run, "holds (a run|something else)"),
    "below a file": (lambda folder: folder.parent.write_text(""), "does not exist; make it first"),
    "a link to nowhere below a file": (lambda folder: folder.symlink_to("secret/a"), "does not exist; make it first"),
}


@pytest.mark.parametrize("what", DESTINATIONS)
@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_destination_is_refused_before_the_work(
    way: str, what: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, message = DESTINATIONS[what]
    folder = here / "new" / "theirs" if what == "below a file" else here / "theirs"
    make(folder)
    monkeypatch.setattr(checkpoint, "read", lambda file: pytest.fail("the work was begun"))
    monkeypatch.setattr(sharing, "fetch", lambda *args: pytest.fail("the work was begun"))
    with pytest.raises(ValueError, match=message):
        WAYS[way](str(folder))


@pytest.mark.parametrize("way", WAYS)
def test_a_disk_without_room_or_rights_is_refused_before_the_work(
    way: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "read", lambda file: pytest.fail("the work was begun"))
    monkeypatch.setattr(sharing, "read_files", lambda *args: pytest.fail("the work was begun"))
    with monkeypatch.context() as patch, pytest.raises(ValueError, match=r"cannot be written: it needs about .* free"):
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
        WAYS[way]("new/theirs")
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="is read-only for you; choose another place"):
        patch.setattr(os, "access", lambda *args: False)
        WAYS[way]("new/theirs")
    assert not Path("new").exists()


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o027, 0o077])
def test_files_have_the_modes_of_any_other_file(umask: int, here: Path) -> None:
    old = os.umask(umask)
    try:
        push("runs/mine", "again")
        pull("again", "runs/again")
    finally:
        os.umask(old)
    for path in (*Path("again").rglob("*"), *Path("runs/again").rglob("*"), Path("again"), Path("runs/again")):
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask, path


# ---------------------------------------------------------------------- what goes out

PRIVATE: dict[str, Any] = {
    "a table": {"data": {"init_args": {"path": "/home/anna/customers/acme.csv"}}},
    "a table below home": {"data": {"init_args": {"path": "~/customers/acme.csv"}}},
    "a table beside": {"data": {"init_args": {"path": "../anna/customers/acme.csv"}}},
    "a relative table": {"data": {"init_args": {"path": "anna/customers/acme.csv"}}},
    "a table that is here": {"data": {"init_args": {"path": "customers/of anna/acme"}}},
    "a list of tables": {"data": {"init_args": {"paths": ["/home/anna/customers/acme.csv", "anna/customers/b.csv"]}}},
    "a pattern": {"data": {"init_args": {"path": "/home/anna/customers/acme*.csv"}}},
    "two in a text": {"data": {"init_args": {"path": "/home/anna/customers/acme.csv,/home/anna/customers/b"}}},
    "an address of a file": {"data": {"init_args": {"path": "file:///home/anna/customers/acme.csv"}}},
    "another system": {"data": {"init_args": {"path": "C:\\Users\\anna\\customers\\acme.csv"}}},
    "a share of another system": {"data": {"init_args": {"path": "\\\\anna\\customers\\acme.csv"}}},
    "a backbone": {"model": {"init_args": {"backbone": {"name": "/home/anna/customers/acme", "revision": None}}}},
    "a folder of results": {"trainer": {"default_root_dir": "/home/anna/customers/acme"}},
    "a logger": {"trainer": {"logger": [{"class_path": "CsvLog", "init_args": {"f": "/srv/anna/customers/acme"}}]}},
    "in a sentence": {"data": {"init_args": {"goals": {"a": "as in /home/anna/customers/acme.csv, but higher"}}}},
    "of an option": {"data": {"init_args": {"extra": "--path=/home/anna/customers/acme.csv"}}},
}  # fmt: skip


class Hub:
    """Keeps what goes out."""

    def create_repo(self, *args: Any, **options: Any) -> None:
        pass

    def upload_folder(self, folder_path: Path, **options: Any) -> None:
        shutil.copytree(folder_path, "sent")


@pytest.mark.parametrize("what", PRIVATE)
def test_no_path_of_this_machine_goes_to_the_hub(
    what: str, here: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("customers/of anna").mkdir(parents=True)
    Path("customers/of anna/acme").touch()
    monkeypatch.setattr(sharing, "HfApi", Hub)
    monkeypatch.setattr(sharing, "read_run_config", lambda run: PRIVATE[what])
    report = Path("runs/mine/test-1/a_test.md")
    report.parent.mkdir()
    report.write_text("## Of /home/anna/customers/acme.csv\n\n| m/s | and/or | [page](https://a.org/b/c) |\n")
    push("runs/mine", "someone/mine", hub=True)
    sent = {path.name: path.read_bytes() for path in Path("sent").iterdir()}
    assert set(sent) == set(pretrained.FILES)
    for name, content in sent.items():
        for private in (b"anna", b"customers/", b"customers\\", str(here).encode(), str(tiny_folder.parent).encode()):
            assert private not in content, f"{private!r} in {name}"
    assert b"acme" in sent["config.yaml"] and b"| m/s | and/or | [page](https://a.org/b/c) |" in sent["README.md"]


def test_what_only_looks_like_a_path_goes_to_the_hub_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {
        "model": {"class_path": "gssr.network.GoalNetwork", "init_args": {"backbone": {
            "name": "ibm-granite/granite-4.0-h.v1a", "revision": "main"}, "values": {"units": ["m/s", "1/h", "/m"]}}},
        "data": {"goals": {"a": "Rise to 3.5 m/s and/or 4 kg/m2", "b": "https://a.org/b/c.csv"}, "format": "%d/%m/%Y"},
        "trainer": {"precision": "32-true", "max_epochs": 3, "logger": None},
    }  # fmt: skip
    monkeypatch.setattr(sharing, "HfApi", Hub)
    monkeypatch.setattr(sharing, "read_run_config", lambda run: options)
    push("runs/mine", "someone/mine", hub=True)
    assert yaml.safe_load(Path("sent/config.yaml").read_text()) == options
