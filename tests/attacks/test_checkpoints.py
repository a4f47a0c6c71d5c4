"""Checkpoints and logs that are damaged or made up: each door refuses them in one paragraph, before memory is spent."""

import argparse
import contextlib
import gzip
import io
import os
import pickle
import re
import resource
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import nn

from callbacks import AtomicCheckpointIO, CsvLog
from gssr import checkpoint
from gssr.commands import plan as plan_command
from gssr.network import GoalNetwork
from gssr.runs.checkpoint_file import readable
from gssr.runs.folders import find_checkpoint
from gssr.runs.sharing import push
from gssr.runs.trained import load_trained
from tests.networks import make_network

pytestmark = pytest.mark.attack


@pytest.fixture(scope="module")
def good(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as training writes it."""
    network = make_network(tiny_folder, latent_dim=4, hidden_dim=8, text_layers=(2,), goal_layer=2, names=["a", "b"])
    trainer = Trainer(
        plugins=[AtomicCheckpointIO()], logger=False, enable_checkpointing=False, accelerator="cpu",
        enable_model_summary=False,
    )  # fmt: skip
    trainer.strategy.connect(network)
    file = tmp_path_factory.mktemp("run") / "good.ckpt"
    trainer.save_checkpoint(file)
    return file


@pytest.fixture(scope="module")
def content(good: Path) -> bytes:
    return good.read_bytes()


def plan(file: Path) -> None:
    parser = argparse.ArgumentParser()
    plan_command.add_commands(parser.add_subparsers())
    options = parser.parse_args(["plan", "--input", "history.csv", "--ckpt_path", str(file)])
    options.run(options)


DOORS: dict[str, Callable[[Path], Any]] = {
    "plan": plan,
    "push": lambda file: push(str(file), file.parent / "out"),
    "python": GoalNetwork.load_from_checkpoint,
    "trained": lambda file: load_trained(str(file)),
    "resume": lambda file: readable(find_checkpoint(str(file)), to_train=True),
    "trainer": lambda file: AtomicCheckpointIO().load_checkpoint(file),
}


def refusal(door: str, file: Path) -> str:
    with pytest.raises(ValueError) as refused:
        DOORS[door](file)
    message = str(refused.value)
    assert file.name in message and "weights_only" not in message and len(message) < 2000
    assert [path for path in file.parent.iterdir() if path != file] == []
    return message


def bit(place: Callable[[bytes], int]) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        at = place(content) % len(content)
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    return flip


def packed(content: bytes, **more: Any) -> bytes:
    """The same parts, compressed: a few bytes may become gigabytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", **more) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
    return out.getvalue()


def overlapping(content: bytes) -> bytes:
    """Each part stands in the directory a thousand times."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        new.writestr("archive/data.pkl", old.read(old.infolist()[0]))
        new.filelist *= 1000
    return out.getvalue()


def tarred(content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        file.addfile(tarfile.TarInfo("storages"))
    return out.getvalue()


def central(content: bytes) -> int:
    return content.rfind(b"PK\x01\x02")


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "half": lambda content: content[: len(content) // 2],
    "without its end": lambda content: content[:-100],
    "one byte short": lambda content: content[:-1],
    "one byte more": lambda content: content + b"\0",
    "twice": lambda content: content + content,
    "its end alone": lambda content: content[-93:],
    "zeros": lambda content: bytes(len(content)),
    "zeros in the middle": lambda content: content[:5000] + bytes(4096) + content[9096:],
    "text": lambda content: b"a letter about a checkpoint\n" * 50,
    "a pickle": lambda content: pickle.dumps({"state_dict": {}}),
    "a tar file": tarred,
    "gzip": gzip.compress,
    "packed": partial(packed, compression=zipfile.ZIP_DEFLATED),
    "packed by lzma": partial(packed, compression=zipfile.ZIP_LZMA),
    "overlapping parts": overlapping,
    "line ends of another system": lambda content: content.replace(b"\n", b"\r\n"),
    "read as text": lambda content: content.decode("utf-8", "replace").encode(),
    "bit of a weight": bit(lambda content: len(content) // 2),
    "bit of the first byte": bit(lambda content: 0),
    "bit of a local header": bit(lambda content: 6),
    "bit of padding": bit(lambda content: content.index(b"FB") + 6),
    "bit of a local name": bit(lambda content: content.index(b"data.pkl")),
    "bit of the pickle": bit(lambda content: content.index(b"global_step")),
    "bit of a checksum of a part": bit(lambda content: central(content) + 16),
    "bit of a size": bit(lambda content: central(content) + 20),
    "bit of a name in the directory": bit(lambda content: central(content) + 46),
    "bit of the number of parts": bit(lambda content: content.rfind(b"PK\x05\x06") + 8),
    "bit of the comment's length": bit(lambda content: content.rfind(b"PK\x05\x06") + 20),
    "bit of the mark": bit(lambda content: content.rfind(b"gssr-sha256:")),
    "bit of the checksum": bit(lambda content: -1),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_file_is_refused(what: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "bad.ckpt"
    file.write_bytes(DAMAGES[what](content))
    for door in DOORS:
        assert "cannot be read as a checkpoint: it " in refusal(door, file)


@pytest.mark.parametrize("door", DOORS)
def test_what_is_no_file_is_refused(door: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match="it is no file|no such file"):
        DOORS[door](tmp_path / "bad.ckpt")


def test_every_flipped_bit_of_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    checkpoint.write({"w": torch.arange(3.0)}, file)
    content = bytearray(file.read_bytes())
    for at in range(len(content)):
        content[at] ^= 1 << at % 8
        file.write_bytes(content)
        with pytest.raises(checkpoint.DamagedCheckpoint):
            checkpoint.read(file)
        content[at] ^= 1 << at % 8
    file.write_bytes(content)
    assert torch.equal(checkpoint.read(file)["w"], torch.arange(3.0))


def test_no_flipped_bit_of_a_file_of_torch_changes_what_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    torch.save({"w": torch.arange(3.0)}, file)
    content, refused = bytearray(file.read_bytes()), 0
    for at in range(len(content)):
        content[at] ^= 1 << at % 8
        file.write_bytes(content)
        try:
            assert torch.equal(checkpoint.read(file)["w"], torch.arange(3.0))
        except ValueError:
            refused += 1
        content[at] ^= 1 << at % 8
    assert refused > 500


class Calls:
    """Asks the reader to call a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def in_a_set() -> Any:
    return {Calls(os.system, "touch was-run")}


CODE: dict[str, Callable[[], Any]] = {
    "a command": lambda: Calls(os.system, "touch was-run"),
    "eval": lambda: Calls(eval, "__import__('os').mkdir('was-run')"),
    "an attribute": lambda: Calls(getattr, 1, "real"),
    "a path": lambda: Calls(Path.touch, Path("was-run")),
    "a module": lambda: nn.Linear(1, 1),
    "a partial": lambda: partial(os.mkdir, "was-run"),
    "a class": lambda: argparse.ArgumentParser,
    "an object": lambda: argparse.Namespace(a=1),
    "torch.load": lambda: Calls(torch.load, "other.ckpt"),
    "in a set": in_a_set,
    "a key": lambda: {Calls(os.mkdir, "was-run"): 1},
}


@pytest.mark.parametrize("what", CODE)
def test_code_is_refused_by_its_name_and_not_run(
    what: str, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "bad.ckpt"
    checkpoint.write(torch.load(good, weights_only=True) | {"extra": CODE[what]()}, file)
    for door in DOORS:
        assert "bad.ckpt was not loaded: it asks for" in refusal(door, file)


# ---------------------------------------------------------------------- whole files with other contents


def at(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Put a value into nested dictionaries, by names with / between them."""

    def change(saved: dict[str, Any]) -> None:
        *names, last = path.split("/")
        for name in names:
            saved = saved[name]
        saved[last] = value

    return change


def without(path: str) -> Callable[[dict[str, Any]], None]:
    def change(saved: dict[str, Any]) -> None:
        *names, last = path.split("/")
        for name in names:
            saved = saved[name]
        del saved[last]

    return change


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


OPTIONS, WORLD, STATE = "hyper_parameters", "hyper_parameters/world", "state_dict"
WEIGHT = "state_dict/world.rssm.first_h"
STRATEGY = "hyper_parameters/world/posterior"
OTHER_SHAPE = r"of another network:\s+world.rssm.first_h: shape"

CONTENTS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "nothing of ours": (without("gssr"), "it names no backbone|no checkpoint of a goal network"),
    "ours a list": (at("gssr", [1]), "it names no backbone"),
    "no backbone": (without("gssr/backbone"), "gssr.backbone is missing"),
    "a backbone without a name": (at("gssr/backbone", {"fingerprint": "a"}), "gssr.backbone is missing"),
    "another backbone": (at("gssr/backbone/fingerprint", "0" * 16), "the backbone: "),
    "no fixed options": (without("gssr/fixed"), "gssr.fixed is missing"),
    "fixed options a text": (at("gssr/fixed", "all"), "gssr.fixed is missing or not"),
    "a fixed option of another kind": (at("gssr/fixed/world.latent_dim", {"a": 1}), "world.latent_dim: "),
    "another fixed option": (at("gssr/fixed/world.hidden_dim", 10**9), "world.hidden_dim: 1000000000 in"),
    "noise of numbers": (at("gssr/noise", [1, 2]), "gssr.noise is missing or not"),
    "noise of floats": (at("gssr/noise", [torch.zeros(3)]), "gssr.noise is missing or not"),
    "no weights": (without(STATE), "state_dict is missing"),
    "weights a list": (at(STATE, [torch.zeros(2)]), "state_dict is missing or not"),
    "weights numbers": (at(STATE, {"a": 1.0}), "state_dict is missing or not"),
    "weights of nothing": (at(STATE, {}), "missing in the checkpoint"),
    "a weight missing": (without(WEIGHT), "first_h: missing in the checkpoint"),
    "a weight more": (at("state_dict/evil", torch.zeros(2)), "evil: not known here"),
    "a weight of another shape": (at(WEIGHT, torch.zeros(9)), OTHER_SHAPE),
    "a weight of no shape": (at(WEIGHT, torch.tensor(0.0)), OTHER_SHAPE),
    "a weight declared huge": (at(WEIGHT, torch.zeros(1).expand(10**12)), "world.rssm.first_h hold"),
    "a sparse weight": (at(WEIGHT, torch.zeros(8).to_sparse()), "world.rssm.first_h hold"),
    "a weight without values": (at(WEIGHT, torch.zeros(8, device="meta")), "world.rssm.first_h hold"),
    "a complex weight": (at(WEIGHT, torch.zeros(8, dtype=torch.complex64)), "world.rssm.first_h hold"),
    "a weight of NaN": (at(WEIGHT, torch.full((8,), torch.nan)), "first_h hold values that are not finite"),
    "an infinite weight": (at(WEIGHT, torch.full((8,), torch.inf)), "first_h hold values that are not finite"),
    "a scale of NaN": (at("state_dict/world.scaler.low", torch.full((2,), torch.nan)), "scaler.low hold"),
    "no options": (without(OPTIONS), "hyper_parameters is missing"),
    "options a list": (at(OPTIONS, ["a"]), "hyper_parameters is missing or not"),
    "an option without a name": (at(OPTIONS, {1: 2, "values": {}}), "hyper_parameters is missing or not"),
    "an unknown group": (at("hyper_parameters/wings", 2), "wings is not known here|expected|no option"),
    "an unknown option": (at("hyper_parameters/world/wings", 2), "no option 'wings'|unknown|not known"),
    "a group a number": (at(WORLD, 3), "expected"),
    "a width in words": (at("hyper_parameters/world/latent_dim", "wide"), "good|bad.ckpt"),
    "a width of 0.5": (at("hyper_parameters/world/latent_dim", 0.5), "bad.ckpt"),
    "a negative width": (at("hyper_parameters/world/hidden_dim", -4), "bad.ckpt"),
    "a width of NaN": (at("hyper_parameters/world/hidden_dim", float("nan")), "hyper_parameters is missing or not"),
    "a width of a billion": (at("hyper_parameters/world/hidden_dim", 10**9), "bad.ckpt"),
    "a latent width of a billion": (at("hyper_parameters/world/latent_dim", 10**9), "bad.ckpt"),
    "a prefix of a billion": (at("hyper_parameters/speech/prefix_tokens", 10**9), "bad.ckpt"),
    "queries without end": (at("hyper_parameters/world/goal_queries", 10**12), "bad.ckpt"),
    "a width of 400 digits": (at("hyper_parameters/world/hidden_dim", 10**400), "bad.ckpt"),
    "a layer that is not there": (at("hyper_parameters/world/goal_layer", 99), "layer 99 does not exist"),
    "layers a text": (at("hyper_parameters/world/text_layers", "2"), "bad.ckpt"),
    "options without end": (at("hyper_parameters/world/latent_dim", nested(100)), "hyper_parameters is missing or not"),
    "a foreign class": (at(f"{STRATEGY}/class_path", "os.system"), "no Posterior of gssr"),
    "a class of another kind": (at(f"{STRATEGY}/class_path", "gssr.network.schedules.Decay"), "no Posterior of gssr"),
    "a class without a module": (at(f"{STRATEGY}/class_path", "Posterior"), "no Posterior of gssr"),
    "a class that is not there": (at(f"{STRATEGY}/class_path", "gssr.nowhere.Posterior"), "bad.ckpt"),
    "options of a class that it lacks": (at(f"{STRATEGY}/init_args", {"evil": 1}), "bad.ckpt"),
    "no names": (at("hyper_parameters/values/names", []), "hyper_parameters is missing or not"),
    "names a text": (at("hyper_parameters/values/names", "ab"), "hyper_parameters is missing or not"),
    "names of numbers": (at("hyper_parameters/values/names", [1, 2]), "hyper_parameters is missing or not"),
    "a hundred thousand names": (at("hyper_parameters/values", {"names": ["a"] * 10**5}), "bad.ckpt"),
    "too few units": (at("hyper_parameters/values/units", ["kt"]), "hyper_parameters is missing or not"),
    "a resolution of NaN": (at("hyper_parameters/values/resolution", [float("nan")] * 2), "is missing or not"),
    "a seed in words": (at("hyper_parameters/seed", "lucky"), "bad.ckpt"),
    "a step below 0": (at("global_step", -1), "global_step is missing or not|it has no training in it"),
    "steps in words": (at("global_step", "many"), "global_step is missing or not|it has no training in it"),
}  # fmt: skip


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    """At most 2 GB more than now, so that what is absurdly large fails at once."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (2 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("what", CONTENTS)
def test_a_whole_file_with_wrong_contents_is_refused(
    what: str, good: Path, tmp_path: Path, bounded_memory: None
) -> None:
    change, message = CONTENTS[what]
    saved = torch.load(good, weights_only=True)
    change(saved)
    file = tmp_path / "bad.ckpt"
    checkpoint.write(saved, file)
    for door in ("python", "trained"):
        assert re.search(message, refusal(door, file))
    with contextlib.suppress(ValueError):  # it may push what is a network that only its backbone could refuse
        DOORS["push"](file)
    assert not (tmp_path / "out").exists() or (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize("what", [name for name in CONTENTS if "weight" in name or "scale" in name])
def test_a_trainer_refuses_wrong_weights_too(what: str, good: Path, tiny_folder: Path, bounded_memory: None) -> None:
    change, message = CONTENTS[what]
    saved = torch.load(good, weights_only=True)
    network = GoalNetwork.load_from_checkpoint(good)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    change(saved)
    with pytest.raises(ValueError, match=message):
        network.on_load_checkpoint(saved)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("options", [{"strict": False}, {"weights_only": False}, {"hparams_file": "a.yaml"}])
def test_no_option_opens_the_door_wider(options: dict[str, Any], good: Path) -> None:
    with pytest.raises(ValueError, match="a goal network is loaded whole and without running code"):
        GoalNetwork.load_from_checkpoint(good, **options)


def test_what_is_whole_is_loaded_by_each_door(good: Path, tmp_path: Path) -> None:
    network, trained = load_trained(str(good))
    other = GoalNetwork.load_from_checkpoint(good)
    assert trained == {} and all(torch.equal(a, other.state_dict()[name]) for name, a in network.state_dict().items())
    assert not network.training and other.training
    assert torch.load(good, weights_only=True).keys() == checkpoint.read(good).keys()


# ---------------------------------------------------------------------- the log of a run

LOG = b"step,epoch,a\r\n" + b"".join(b"%d,0,%d\r\n" % (step, 10 * step) for step in range(4))
ALL = ["0", "10", "20", "30"]
LOGS: dict[str, tuple[bytes, list[str]]] = {
    "header of another name": (LOG.replace(b"step", b"stap"), []),
    "header with a bit flipped": (LOG.replace(b"step", b"rtep"), []),
    "header of zeros": (bytes(12) + LOG[12:], []),
    "no header": (LOG[14:], []),
    "header with a name twice": (LOG.replace(b"epoch", b"a"), []),
    "header that is not UTF-8": (LOG.replace(b"epoch", b"ep\xffch"), []),
    "header over the limit": (LOG.replace(b"epoch", b"e" * 140_000), []),
    "a field over the limit": (LOG.replace(b"1,0,10", b"1,0," + b"1" * 140_000), ["0", "20", "30"]),
    "a quotation mark": (LOG.replace(b"1,0,10", b'1,0,"10'), ["0", "20", "30"]),
    "a step that is no number": (LOG.replace(b"1,0,10", b"one,0,10"), ["0", "20", "30"]),
    "a step of NaN": (LOG.replace(b"1,0,10", b"nan,0,10"), ["0", "20", "30"]),
    "NUL bytes": (LOG.replace(b"1,0,10", bytes(6)), ["0", "20", "30"]),
    "NUL bytes at the end": (LOG + bytes(500), ALL),
    "no UTF-8": (LOG.replace(b"1,0,10", b"1,0,\xff"), ["0", "20", "30"]),
    "a cell too few": (LOG.replace(b"1,0,10", b"1,0"), ["0", "20", "30"]),
    "a cell too many": (LOG.replace(b"1,0,10", b"1,0,1,0"), ["0", "20", "30"]),
    "two rows in one": (LOG.replace(b"10\r\n2", b"102"), ["0", "30"]),
    "a torn row of a step that is done": (LOG + b"4,0", ALL),
    "garbage": (b"\x00\xff" * 400, []),
    "a byte order mark": (b"\xef\xbb\xbf" + LOG, []),
}


@pytest.mark.parametrize("what", LOGS)
def test_a_damaged_log_is_kept_beside_and_gone_on_with(what: str, tmp_path: Path) -> None:
    content, kept = LOGS[what]
    (tmp_path / "metrics.csv").write_bytes(content)
    for number in (1, 2):
        log = CsvLog(tmp_path, resume_step=6)
        with pytest.warns(match=rf"rows could not be read.*{tmp_path}/metrics.damaged-{number}.csv"):
            log.log_metrics({"a": 60, "epoch": 0}, step=6)
        assert (tmp_path / f"metrics.damaged-{number}.csv").read_bytes() == content
        rows = [line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines()]
        assert [row[rows[0].index("a")] for row in rows[1:]] == [*kept, "60"]
        (tmp_path / "metrics.csv").write_bytes(content)


PLACES: dict[str, Callable[[Path], None]] = {
    "a link": lambda file: file.symlink_to("/etc/passwd"),
    "a link to nowhere": lambda file: file.symlink_to("nowhere"),
    "a link to an endless file": lambda file: file.symlink_to("/dev/zero"),
    "a pipe": os.mkfifo,
    "a folder": os.mkdir,
}


@pytest.mark.parametrize("what", PLACES)
def test_a_log_that_is_no_file_is_moved_aside(what: str, tmp_path: Path) -> None:
    PLACES[what](tmp_path / "metrics.csv")
    with pytest.warns(match=r"metrics.csv could not be read and begins anew .*metrics.damaged-1.csv"):
        CsvLog(tmp_path, resume_step=6).log_metrics({"a": 60}, step=6)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,a", "6,60"]
    assert os.path.lexists(tmp_path / "metrics.damaged-1.csv") and not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("ends", [b"\n", b"\r", b"\r\r\n", b"\n\n"])
def test_other_line_ends_are_read(ends: bytes, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    (tmp_path / "metrics.csv").write_bytes(LOG.replace(b"\r\n", ends))
    CsvLog(tmp_path, resume_step=6).log_metrics({"a": 60}, step=6)
    assert [line.rpartition(",")[2] for line in (tmp_path / "metrics.csv").read_text().splitlines()[1:]] == [*ALL, "60"]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
