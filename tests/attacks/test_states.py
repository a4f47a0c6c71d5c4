"""State files that are damaged or made up are refused in one paragraph, before memory is spent; states made in Python,
too."""

import json
import os
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.commands.main import main
from gssr.states import state_file
from gssr.states.blend import blend
from gssr.states.cache import LayerState
from gssr.states.hybrid_state import FORMAT, HybridState, capture_tokens
from gssr.states.learned_state import FORMAT as LEARNED
from gssr.states.learned_state import LearnedState
from tests.states.test_hybrid_state import same

pytestmark = pytest.mark.attack

Contents = tuple[dict[str, Tensor], dict[str, str]]
Change = Callable[[dict[str, Tensor], dict[str, str]], Any]
MAMBA, ATTENTION = 0, 3


@pytest.fixture(scope="module")
def state(tiny: FrozenBackbone) -> HybridState:
    return HybridState.capture(tiny, ["Weaken to 35 knots", "Tropical storm Alex near 30.0 north"])


@pytest.fixture(scope="module")
def good(state: HybridState, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("states") / "good.safetensors"
    state.save(file)
    return file


@pytest.fixture
def copied(good: Path, tmp_path: Path) -> Path:
    """A good file to be damaged."""
    file = tmp_path / "state.safetensors"
    file.write_bytes(good.read_bytes())
    return file


def contents(file: Path) -> Contents:
    header = json.loads(file.read_bytes()[8 : 8 + struct.unpack("<Q", file.read_bytes()[:8])[0]])
    about = {key: value for key, value in header["__metadata__"].items() if key not in ("digest", "format")}
    return load_file(file), about


def refused(file: Path, backbone: FrozenBackbone | None = None, kind: Any = HybridState) -> str:
    with pytest.raises(ValueError) as error:
        kind.load(file, backbone)
    said = str(error.value)
    assert "\n\n" not in said and len(said) < 1500 and "Traceback" not in said and str(file) in said
    return said


def edit(name: str, change: Callable[[Tensor], Tensor]) -> Change:
    def changed(tensors: dict[str, Tensor], about: dict[str, str]) -> None:
        tensors[name] = change(tensors[name]).contiguous()

    return changed


def put(name: str, index: Any, value: float | bool) -> Change:
    def changed(tensors: dict[str, Tensor], about: dict[str, str]) -> None:
        tensors[name][index] = value

    return changed


def rename(old: str, new: str) -> Change:
    return lambda tensors, about: tensors.update({new: tensors.pop(old)})


def tell(**values: str) -> Change:
    return lambda tensors, about: about.update(values)


def drop(name: str) -> Change:
    return lambda tensors, about: (tensors if name in tensors else about).pop(name)


def rows_0(tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    for name in tensors:
        tensors[name] = tensors[name][:0].contiguous()


def nothing_read(tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    for name in tensors:
        if name in ("tokens", "mask"):
            tensors[name] = tensors[name][:, -1:].contiguous()
        elif name.endswith(("keys", "values")):
            tensors[name] = tensors[name][:, :, :0].contiguous()


def no_recurrent(tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    for name in [name for name in tensors if name.endswith("recurrent")]:
        del tensors[name]


RECURRENT, CONV, KEYS, VALUES = "layers.0.recurrent", "layers.0.conv", "layers.3.keys", "layers.3.values"
# Written as gssr writes, with a checksum that fits: what is wrong is what the file says.
MADE_UP: dict[str, tuple[Change, str]] = {
    "a billion layers": (tell(layers="1000000000"), "declares '1000000000' layers"),
    "ten thousand layers": (tell(layers="10000"), "declares '10000' layers"),
    "layers of 5,000 digits": (tell(layers="9" * 5000), "declares '99999999999999999999' layers"),
    "negative layers": (tell(layers="-4"), "declares '-4' layers"),
    "no layers": (tell(layers="0"), "declares '0' layers"),
    "fewer layers than held": (tell(layers="3"), "declares '3' layers"),
    "more layers than held": (tell(layers="5"), "it has 5 layers, the model 4"),
    "layers in words": (tell(layers="four"), "declares 'four' layers"),
    "layers in other digits": (tell(layers="٤"), "declares '٤' layers"),
    "layers with underscores": (tell(layers="0_4"), "declares '0_4' layers"),
    "no number of layers": (drop("layers"), "it lacks layers"),
    "no fingerprint": (drop("fingerprint"), "it lacks fingerprint"),
    "no name of a backbone": (drop("backbone"), "it lacks backbone"),
    "another fingerprint": (tell(fingerprint="0" * 16), "use the backbone that it was captured with"),
    "no tokens": (drop("tokens"), "it lacks tokens"),
    "no mask": (drop("mask"), "it lacks mask"),
    "a negative layer": (rename(RECURRENT, "layers.-1.recurrent"), "holds 'layers.-1.recurrent'"),
    "a layer twice": (lambda t, a: t.update({"layers.00.recurrent": t[RECURRENT].clone()}), "holds 'layers.00.rec"),
    "a layer far away": (rename(RECURRENT, "layers.99999999999.recurrent"), "expected names such as"),
    "a layer with underscores": (rename(RECURRENT, "layers.0_0.recurrent"), "expected names such as"),
    "an unknown part": (rename(CONV, "layers.0.__class__"), "holds 'layers.0.__class__'"),
    "a tensor of its own": (lambda t, a: t.update(extra=torch.zeros(1)), "holds 'extra'"),
    "a name of 10,000 letters": (rename(CONV, "x" * 10_000), "expected names such as"),
    "no conv state": (drop(CONV), "layer 0 holds"),
    "no recurrent state": (no_recurrent, "no layer has a recurrent state"),
    "keys alone": (drop(VALUES), "layer 3 has one of keys and values"),
    "values alone": (drop(KEYS), "layer 3 has one of keys and values"),
    "a kind that does not fit": (rename(CONV, "layers.3.conv"), "layer 0 holds"),
    "NaN recurrent": (put(RECURRENT, (0, 0, 0, 0), float("nan")), "recurrent of layer 0 holds numbers that"),
    "infinite conv": (put(CONV, (1, 0, 0), float("inf")), "conv of layer 0 holds numbers that are not finite"),
    "infinite keys": (put(KEYS, (0, 0, 0, 0), float("-inf")), "keys of layer 3 holds numbers that are not finite"),
    "NaN values": (edit(VALUES, lambda x: x * float("nan")), "values of layer 3 holds numbers that are not finite"),
    "mask all False": (edit("mask", torch.zeros_like), "no left padding"),
    "mask with a hole": (put("mask", (1, 3), False), "no left padding"),
    "mask of the right": (edit("mask", lambda m: m.flip(1)), "no left padding"),
    "one row unread": (put("mask", (0, slice(None, -1)), False), "no left padding"),
    "mask of numbers": (edit("mask", lambda m: m.long()), "expected torch.int64 and torch.bool"),
    "mask of another shape": (edit("mask", lambda m: m[:, 1:]), "expected torch.int64 and torch.bool"),
    "tokens of floats": (edit("tokens", lambda t: t.float()), "expected torch.int64 and torch.bool"),
    "tokens of one row": (edit("tokens", lambda t: t[0]), "expected torch.int64 and torch.bool"),
    "a negative token": (put("tokens", (0, -1), -1), "token id -1"),
    "a huge token": (put("tokens", (0, -1), 2**62), "token ids that are not among the 400"),
    "a token too many": (put("tokens", (0, -1), 400), "token ids that are not among the 400"),
    "no rows": (rows_0, r"tokens are \(0, "),
    "nothing read": (nothing_read, r"tokens are \(2, 1\)"),
    "fewer rows in a layer": (edit(RECURRENT, lambda x: x[:1]), "recurrent of layer 0 .* does not fit 2 rows"),
    "fewer tokens in keys": (edit(KEYS, lambda x: x[:, :, 1:]), "keys of layer 3 .* does not fit 2 rows"),
    "keys without an axis": (edit(KEYS, lambda x: x[..., 0]), "keys of layer 3 .* does not fit 2 rows"),
    "a scalar": (edit(RECURRENT, lambda x: x.sum()), r"recurrent of layer 0 is torch.float32 \(\)"),
    "whole numbers": (edit(RECURRENT, lambda x: x.long()), "recurrent of layer 0 is torch.int64"),
    "float64": (edit(RECURRENT, lambda x: x.double()), "numbers of type F64"),
    "float8": (edit(CONV, lambda x: x.to(torch.float8_e4m3fn)), "numbers of type F8"),
    "complex": (edit(CONV, lambda x: x.to(torch.complex64)), "numbers of type C64"),
    "wider heads": (edit(RECURRENT, lambda x: x.repeat(1, 1, 2, 1)), "layer 0 holds"),
    "an axis more": (edit(RECURRENT, lambda x: x[..., None]), "layer 0 holds"),
    "empty heads": (edit(RECURRENT, lambda x: x[:, :0]), "layer 0 holds"),
    "a learned state": (lambda t, a: a.update(form=LEARNED), "holds 'gssr learned state 2', expected"),
    "a later version": (lambda t, a: a.update(form="gssr hybrid state 99"), "holds 'gssr hybrid state 99', expected"),
}  # fmt: skip


@pytest.mark.parametrize("attack", MADE_UP)
def test_a_made_up_state_is_refused(attack: str, copied: Path, tiny: FrozenBackbone) -> None:
    change, message = MADE_UP[attack]
    tensors, about = contents(copied)
    change(tensors, about)
    state_file.write(copied, about.pop("form", FORMAT), tensors, about)
    with pytest.raises(ValueError, match=message):
        raise ValueError(refused(copied, tiny))


def header(file: Path, change: Callable[[dict[str, Any]], Any], length: int | None = None) -> None:
    """Write another header in front of the same numbers."""
    content = file.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    about = json.loads(content[8 : 8 + size])
    about = change(about) or about
    text = json.dumps(about).encode()
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + content[8 + size :])


def entry(**values: Any) -> Callable[[Path], None]:
    return lambda file: header(file, lambda about: about[RECURRENT].update(values))


def flip(place: int) -> Callable[[Path], None]:
    def flipped(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[place] ^= 1
        file.write_bytes(content)

    return flipped


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a file's contents were executed",))


def instead(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def made(file: Path) -> None:
        file.unlink()
        make(file)

    return made


def link_to_itself(file: Path) -> None:
    file.symlink_to(file)


def link_to_a_good_one(file: Path) -> None:
    moved = file.with_name("moved.safetensors")
    file.rename(moved)
    file.symlink_to(moved)


def sparse(size: int) -> Callable[[Path], None]:
    """A file that takes no room on the disk and declares a recurrent state of ``size`` bytes."""

    def made(file: Path) -> None:
        about = {
            "__metadata__": {"format": FORMAT},
            RECURRENT: {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]},
        }
        text = json.dumps(about).encode()
        with open(file, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            out.truncate(8 + len(text) + size)

    return made


DAMAGED = "damaged or no safetensors file"
BYTES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (Path.unlink, "there is no file"),
    "empty": (lambda f: f.write_bytes(b""), DAMAGED),
    "four bytes": (lambda f: f.write_bytes(b"abcd"), DAMAGED),
    "text": (lambda f: f.write_text("a state " * 100), DAMAGED),
    "cut in the header": (lambda f: f.write_bytes(f.read_bytes()[:50]), DAMAGED),
    "cut in the numbers": (lambda f: f.write_bytes(f.read_bytes()[:-100]), DAMAGED),
    "longer": (lambda f: f.write_bytes(f.read_bytes() + b"\0" * 8), DAMAGED),
    "twice": (lambda f: f.write_bytes(f.read_bytes() * 2), DAMAGED),
    "a header of gigabytes": (lambda f: header(f, lambda about: None, 2**33), "a header of 8,589,934,592 b"),
    "a header of 2^64 - 1": (lambda f: header(f, lambda about: None, 2**64 - 1), "declares a header of"),
    "a header of 5 megabytes": (
        lambda f: header(f, lambda about: about["__metadata__"].update(x="x" * 5_000_000)), "declares a header of"
    ),
    "a header of nothing": (lambda f: header(f, lambda about: None, 0), DAMAGED),
    "a header that is a list": (lambda f: header(f, lambda about: [1]), DAMAGED),
    "a nested header": (lambda f: f.write_bytes(struct.pack("<Q", 2000) + b"[" * 2000), DAMAGED),
    "metadata of numbers": (lambda f: header(f, lambda about: about["__metadata__"].update(layers=4)), DAMAGED),
    "no metadata": (lambda f: header(f, lambda about: about.pop("__metadata__") and about), "holds 'other tensors'"),
    "another's metadata": (lambda f: header(f, lambda a: a["__metadata__"].update(format="pt")), "holds 'pt', exp"),
    "no checksum": (lambda f: header(f, lambda a: a["__metadata__"].pop("digest") and a), "is damaged: its contents"),
    "a checksum of nothing": (lambda f: header(f, lambda a: a["__metadata__"].update(digest="")), "contents are not"),
    "other strings": (lambda f: header(f, lambda a: a["__metadata__"].update(backbone="x")), "its contents are not"),
    "offsets beyond the end": (entry(data_offsets=[0, 2**40]), DAMAGED),
    "offsets backwards": (entry(data_offsets=[400, 0]), DAMAGED),
    "offsets of 2^64": (entry(data_offsets=[2**64 - 8, 2**64 - 1]), DAMAGED),
    "negative offsets": (entry(data_offsets=[-8, 0]), DAMAGED),
    "a shape that overflows": (entry(shape=[2**62, 2**62]), DAMAGED),
    "a shape that overflows to nothing": (entry(shape=[2**32, 2**32]), DAMAGED),
    "a negative shape": (entry(shape=[-1, 4]), DAMAGED),
    "a shape of fractions": (entry(shape=[0.5, 4]), DAMAGED),
    "a shape of a million axes": (entry(shape=[1] * 100_000), DAMAGED),
    "an unknown type": (entry(dtype="Q7"), DAMAGED),
    "overlapping tensors": (
        lambda f: header(f, lambda a: a[CONV].update(data_offsets=a["layers.1.conv"]["data_offsets"])), DAMAGED
    ),
    "a flipped header": (flip(12), "damaged|lacks|holds"),
    "a flipped state": (flip(-1000), "is damaged: its contents are not what was written"),
    "a flipped last bit": (flip(-1), "is damaged: its contents are not what was written"),
    "a pickle": (lambda f: f.write_bytes(pickle.dumps(Bomb())), DAMAGED),
    "a checkpoint of torch": (lambda f: torch.save(Bomb(), f), DAMAGED),
    "foreign tensors": (lambda f: save_file({"x": torch.zeros(2)}, f), "holds 'other tensors'"),
    "no tensors": (lambda f: save_file({}, f, metadata={"format": FORMAT}), "it lacks mask, tokens"),
    "eight terabytes": (sparse(2**43), "more than the memory of this machine"),
    "as large as it fits": (sparse(2**33), "it lacks mask, tokens"),
    "a folder": (instead(Path.mkdir), "is no file"),
    "a pipe": (instead(os.mkfifo), "is no file"),
    "a device": (instead(lambda f: f.symlink_to("/dev/zero")), "is a link"),
    "a link to nothing": (instead(lambda f: f.symlink_to("nowhere")), "is a link"),
    "a link to itself": (instead(link_to_itself), "is a link"),
    "a link to a good state": (link_to_a_good_one, "is a link"),
}  # fmt: skip


@pytest.mark.parametrize("attack", BYTES)
def test_damaged_bytes_are_refused(attack: str, copied: Path, tiny: FrozenBackbone) -> None:
    damage, message = BYTES[attack]
    damage(copied)
    tracemalloc.start()
    try:
        said = refused(copied)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()
    with pytest.raises(ValueError, match=message):
        raise ValueError(said)


@pytest.mark.parametrize("file", ["/dev/zero", "/dev/null", "/dev/stdin", "/", "/proc/self/mem", "x" * 300, "a\0b"])
def test_what_is_no_state_at_all_is_refused(file: str) -> None:
    with pytest.raises(ValueError, match="is no file|is a link|no file|null|cannot be read"):
        HybridState.load(file)


PYTHON: dict[str, tuple[Callable[[HybridState, FrozenBackbone], Any], str]] = {
    "mask all False": (lambda s, b: replace(s, mask=torch.zeros_like(s.mask)), "no left padding"),
    "no rows": (lambda s, b: s.select([]), r"tokens are \(0, "),
    "tokens too few": (lambda s, b: replace(s, tokens=s.tokens[:, 1:]), "do not fit"),
    "no layers": (lambda s, b: replace(s, layers=()), "no layer has a recurrent state"),
    "keys alone": (
        lambda s, b: replace(s, layers=(*s.layers[:3], LayerState(keys=s.layers[3].keys))), "one of keys and values"
    ),
    "a layer of other shape": (
        lambda s, b: s.with_layers({0: s.layers[0].map(lambda x: x[:, :1])}), "layer 0 holds"
    ),
    "another kind of layer": (lambda s, b: s.with_layers({0: s.layers[3]}), "layer 0 holds"),
    "a layer that does not exist": (lambda s, b: s.with_layers({9: s.layers[0]}), "layer 9 does not exist"),
    "a negative layer": (lambda s, b: s.with_layers({-1: s.layers[3]}), "layer -1 does not exist"),
    "NaN, continued": (lambda s, b: broken(s).generate(b, max_new_tokens=2), "not finite"),
    "NaN, saved": (lambda s, b: broken(s).save("never.safetensors"), "not finite"),
    "negative tokens, continued": (lambda s, b: replace(s, tokens=s.tokens - 1000).generate(b), "token id -"),
    "weights that overflow": (lambda s, b: blend([s, s], (1e308, 1e308)), "finite sum"),
    "NaN weights": (lambda s, b: blend([s, s], (float("nan"), 1)), "finite sum"),
    "no token": (lambda s, b: capture_tokens(b, torch.zeros(0, 4, dtype=torch.long)), "at least two tokens"),
}  # fmt: skip


def broken(state: HybridState) -> HybridState:
    return state.with_layers({0: state.layers[0].map(lambda x: x * float("nan"))})


@pytest.mark.parametrize("attack", PYTHON)
def test_a_state_made_of_wrong_parts_is_refused(attack: str, state: HybridState, tiny: FrozenBackbone) -> None:
    make, message = PYTHON[attack]
    with pytest.raises(ValueError, match=message):
        make(state, tiny)


T, G = "recurrent.0.target", "recurrent.0.gate"
TAUGHT: dict[str, tuple[Change, str]] = {
    "no gate": (drop(G), "no target with a gate"),
    "no target": (drop(T), "no target with a gate"),
    "nothing": (lambda t, a: t.clear(), "no target with a gate"),
    "an unknown part": (rename(T, "keys.0.target"), "holds 'keys.0.target'"),
    "a name of two words": (rename(T, "recurrent.target"), "expected names such as"),
    "a negative layer": (rename(T, "recurrent.-1.target"), "expected names such as"),
    "a huge layer": (rename(T, "recurrent.99999999999999999999.target"), "expected names such as"),
    "NaN": (put(T, (0, 0, 0), float("nan")), "not finite"),
    "a gate above 1": (edit(G, lambda x: x + 2), "not between 0 and 1"),
    "a NaN gate": (edit(G, lambda x: x * float("nan")), "not between 0 and 1"),
    "a gate of many axes": (edit(G, lambda x: x.expand(2, 2)), "its gate"),
    "whole numbers": (edit(T, lambda x: x.long()), "expected floats"),
    "another fingerprint": (tell(fingerprint="0" * 16), "made for the model"),
    "no fingerprint": (drop("fingerprint"), "made for the model None"),
    "a hybrid state": (lambda t, a: a.update(form=FORMAT), "holds 'gssr hybrid state 1', expected"),
}


@pytest.mark.parametrize("attack", TAUGHT)
def test_a_made_up_learned_state_is_refused(attack: str, tmp_path: Path, tiny: FrozenBackbone) -> None:
    change, message = TAUGHT[attack]
    tensors = {T: torch.ones(6, 32, 64), G: torch.tensor(0.5)}
    about = {"fingerprint": tiny.fingerprint}
    file = tmp_path / "learned.safetensors"
    state_file.write(file, LEARNED, tensors, about)
    LearnedState.load(file, tiny)
    change(tensors, about)
    state_file.write(file, about.pop("form", LEARNED), tensors, about)
    with pytest.raises(ValueError, match=message):
        raise ValueError(refused(file, tiny, LearnedState))


OPTIONS = [
    *(f"state generate good --{name} {value}" for name, values in {
        "tokens": ("-1", "0", "1.5", "nan", "1e3", "9" * 5000, "1000000000", "٣"),
        "temperature": ("-1", "nan", "inf", "1e-300", "1e300", "x"),
        "top-p": ("0", "-0.5", "1.5", "nan", "inf"),
        "seed": ("-1", "1.5", "nan", "9" * 5000, "18446744073709551616"),
        "device": ("meta", "cuda:9999", "nowhere", "''"),
        "dtype": ("int8", "''"),
    }.items() for value in values),
    *(f"state blend good good --out new --{name} {value}" for name, values in {
        "ratio": ("-1", "2", "nan", "inf"),
        "weights": ("1", "-1,2", "nan,1", "1e308,1e308", "0,0", ","),
        "layer": ("0", "0=", "3=0.5", "0=nan", "9-1=0.5", "99999=1", "0=1,2,3"),
        "out": (".", "missing/new", "pipe", "/proc/new"),
    }.items() for value in values),
    *(f"generate --prompt x --random --{name} {value}" for name, values in {
        "strength": ("nan", "inf", "-inf", "1e300", "x"),
        "max-share": ("0", "-1", "nan", "inf"),
        "half-life": ("0", "-1", "nan", "inf"),
        "stop": ("-1", "nan", "1e9", "9999999999"),
        "layers": ("-1", "9" * 5000, "0-99999", "1-", "3"),
        "heads": ("99", "x"),
        "tokens": ("0", "inf"),
    }.items() for value in values),
    *(f"inspect --leverage --{name} {value}" for name, values in {
        "share": ("nan", "inf", "-1"),
        "directions": ("0", "1000000"),
        "tokens": ("0", "1e9"),
        "plot": (".", "missing/x.png", "x.exe", "x"),
        "seed": ("-1", "99999999999"),
    }.items() for value in values),
    "state capture --prompt x --out .", "state capture --prompt-file . --out new",
    "state capture --prompt-file empty --out new", "state capture --prompt-file binary --out new",
    "state capture --prompt-file /dev/zero --out new", "state capture --prompt \udcff --out new",
    "generate --prompt x --learn empty", "generate --prompt x --learn binary", "generate --prompt x --learn missing",
    "generate --prompt x --learn text --steps 0", "generate --prompt x --learn text --steps 99999999",
    "generate --prompt x --learn text --save .", "generate --prompt x --learn text --save text/below/new",
    "generate --prompt x --learn text --learn-from empty", "generate --prompt x --towards text --away empty",
    "generate --prompt x --learned good", "generate --prompt x --state text", "generate --prompt x --like ''",
    "generate --prompt x --like \udcff", "state generate good --read ''", "state show text", "state show .",
]  # fmt: skip


@pytest.mark.parametrize("command", OPTIONS, ids=lambda command: ascii(command)[:60])
def test_a_wrong_option_ends_in_a_paragraph_and_writes_nothing(
    command: str, good: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("empty").write_text("")
    Path("binary").write_bytes(b"\xff\xfe\x00")
    Path("text").write_text("Tropical storm")
    os.mkfifo("pipe")  # never a device of the machine: where the check is missing, root would replace it
    words = ["" if word == "''" else str(good) if word == "good" else word for word in command.split()]
    if words[:2] not in (["state", "blend"], ["state", "show"]):
        words += ["--backbone", str(tiny_folder)]
    before = sorted(os.listdir())
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code
    shown = capsys.readouterr()
    assert code == 2 and shown.out == "" and sorted(os.listdir()) == before
    said = shown.err.split(": error: ")[-1].split("gssr: ")[-1]
    assert said.strip() and "Traceback" not in said and "\n\n" not in said and len(said) < 1500


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_mutation_of_a_state_is_accepted(
    data: st.DataObject, good: Path, state: HybridState, tmp_path: Path
) -> None:
    """Cut, doubled, flipped and overwritten pieces: a ValueError, or the very same state."""
    content = bytearray(good.read_bytes())
    head = 8 + struct.unpack("<Q", content[:8])[0]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.one_of(st.integers(0, head), st.integers(0, len(content))))
        match data.draw(st.sampled_from(["flip", "write", "cut", "insert"])):
            case "flip" if place < len(content):
                content[place] ^= 1 << data.draw(st.integers(0, 7))
            case "write":
                piece = data.draw(st.binary(min_size=1, max_size=16))
                content[place : place + len(piece)] = piece
            case "cut":
                del content[place : place + data.draw(st.integers(1, 64))]
            case "insert":
                content[place:place] = data.draw(st.binary(min_size=1, max_size=64))
    file = tmp_path / "mutated.safetensors"
    file.write_bytes(content)
    try:
        found = HybridState.load(file)
    except ValueError as error:
        assert str(file) in str(error)
    else:
        assert same(found, state)
