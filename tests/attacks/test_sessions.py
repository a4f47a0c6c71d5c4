"""Sessions that are damaged, made up, foreign or in the way: one paragraph, and no file is changed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gssr.backbone import FrozenBackbone
from gssr.commands.main import main
from gssr.reasoning.session import Session
from gssr.states import state_file
from gssr.states.hybrid_state import FORMAT, HybridState
from tests.attacks.test_states import contents

pytestmark = pytest.mark.attack

GREEDY = {"max_new_tokens": 2, "do_sample": False}


@pytest.fixture(scope="module")
def good(tiny: FrozenBackbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sessions") / "talk.safetensors"
    Session.new(file, tiny, "Tropical storm Alex").say("near 30.0 north", **GREEDY)
    return file


@pytest.fixture
def file(good: Path, tmp_path: Path) -> Path:
    """A good session to be damaged."""
    copy = tmp_path / "talk.safetensors"
    copy.write_bytes(good.read_bytes())
    return copy


def ends(change: Callable[[list[int]], object]) -> Callable[[dict[str, str]], None]:
    def changed(about: dict[str, str]) -> None:
        about["turns"] = json.dumps(change(json.loads(about["turns"])))

    return changed


def tell(**values: str) -> Callable[[dict[str, str]], None]:
    return lambda about: about.update(values)


# Written as gssr writes, with a checksum that fits: what is wrong is what the file says.
MADE_UP: dict[str, tuple[Callable[[dict[str, str]], object], str]] = {
    "no turns": (lambda about: about.pop("turns"), "state without turns"),
    "no form": (lambda about: about.pop("form"), "state without turns"),
    "turns that are no JSON": (tell(turns="[1, 2"), "cannot be read"),
    "turns nested a thousand deep": (tell(turns="[" * 10_000 + "]" * 10_000), "turns"),
    "turns of floats": (ends(lambda e: [float(x) for x in e]), "do not follow"),
    "turns of booleans": (tell(turns="[true]"), "do not follow"),
    "turns as a mapping": (tell(turns='{"0": 1}'), "do not follow"),
    "no turn at all": (tell(turns="[]"), "do not follow"),
    "turns that fall": (ends(lambda e: [e[0], e[2], e[1]]), "do not follow"),
    "negative turns": (ends(lambda e: [-3, *e[1:]]), "do not follow"),
    "half a turn": (ends(lambda e: e[:2]), "do not follow"),
    "turns beyond the text": (ends(lambda e: [*e[:2], e[2] + 1]), "turns end at"),
    "turns before its end": (ends(lambda e: e[:1]), "turns end at"),
    "a turn of 10^5000 tokens": (tell(turns="[" + "9" * 5000 + "]"), "turns"),
    "a form without a place": (tell(form="nothing"), "expected a text with {}"),
    "a form with two places": (tell(form="{}{}"), "expected a text with {}"),
    "a form of a megabyte": (tell(form="x" * 10**6 + "{}"), "expected a text with {}"),
    "another fingerprint": (tell(fingerprint="0" * 16), "use the backbone that it was captured with"),
}


@pytest.mark.parametrize("name", MADE_UP)
def test_a_made_up_session_is_refused(name: str, file: Path, tiny: FrozenBackbone) -> None:
    change, message = MADE_UP[name]
    tensors, about = contents(file)
    change(about)
    state_file.write(file, FORMAT, tensors, about)
    with pytest.raises(ValueError, match=message.replace("{", r"\{")) as error:
        Session.load(file, tiny)
    assert str(file) in str(error.value) and len(str(error.value)) < 1500


@pytest.mark.parametrize("place", [0, 4, 9, 200, 2000, -1])
def test_a_damaged_session_is_refused(place: int, file: Path, tiny: FrozenBackbone) -> None:
    damaged = bytearray(file.read_bytes())
    damaged[place] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(ValueError, match=str(file)):
        Session.load(file, tiny)


@pytest.mark.parametrize("length", [0, 7, 100, 5000])
def test_a_session_cut_short_is_refused(length: int, file: Path, tiny: FrozenBackbone) -> None:
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ValueError, match=str(file)):
        Session.load(file, tiny)


def test_a_session_of_several_texts_is_refused(tiny: FrozenBackbone, tmp_path: Path) -> None:
    state = HybridState.capture(tiny, ["Tropical storm", "Weaken to 35"])
    state.save(tmp_path / "two", {"turns": json.dumps([state.tokens.shape[1]]), "form": "{}"})
    with pytest.raises(ValueError, match="of 2 texts"):
        Session.load(tmp_path / "two", tiny)


def test_an_older_file_of_another_session_is_no_undo(file: Path, tiny: FrozenBackbone, tmp_path: Path) -> None:
    other = Session.new(tmp_path / "other", tiny, "Hurricane Ian")
    before = file.with_name("talk.safetensors.before")
    before.write_bytes(other.path.read_bytes())
    kept = file.read_bytes()
    with pytest.raises(ValueError, match="is not this session before its last turn"):
        Session.load(file, tiny).undo()
    assert file.read_bytes() == kept and before.exists()


def test_a_link_in_the_place_of_the_older_file_is_replaced_and_not_followed(
    file: Path, tiny: FrozenBackbone, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    file.with_name("talk.safetensors.before").symlink_to(victim)
    Session.load(file, tiny).say("moving west", **GREEDY)
    assert victim.read_text() == "precious"


def test_text_of_others_commands_no_terminal(
    file: Path, tiny: FrozenBackbone, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Session.load(file, tiny).say("\x1b]0;owned\x07 and \u202e", **GREEDY)
    assert main(["session", "show", str(file), "--backbone", str(tiny_folder)]) == 0
    assert "\x1b" not in (shown := capsys.readouterr().out) and "\u202e" not in shown


OPTIONS = [
    "new talk.safetensors --prompt Alex",  # exists
    "new link --prompt Alex",
    "new fresh --prompt ''",
    "new fresh --prompt Alex --form nothing",
    "new absent/fresh --prompt Alex",
    "new . --prompt Alex",
    "say talk.safetensors ''",
    "say absent text",
    "say . text",
    "say link text",
    "say talk.safetensors text --tokens 0",
    "fork talk.safetensors talk.safetensors",
    "fork talk.safetensors absent/fresh",
    "undo talk.safetensors",
    "show text.txt",
]


@pytest.mark.parametrize("command", OPTIONS)
def test_a_wrong_command_ends_in_a_paragraph_and_changes_nothing(
    command: str, file: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(file.parent)
    Path("link").symlink_to(file)
    Path("text.txt").write_text("Tropical storm")
    words = ["" if word == "''" else word for word in command.split()]
    before = {path.name: path.read_bytes() for path in file.parent.iterdir()}
    try:
        code = main(["session", *words, "--backbone", str(tiny_folder)])
    except SystemExit as end:
        code = end.code
    assert code == 2 and {path.name: path.read_bytes() for path in file.parent.iterdir()} == before
    said = capsys.readouterr().err
    assert said.strip() and "Traceback" not in said and len(said) < 3000


def test_a_plain_transformer_has_no_session(llama_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plain transformer without recurrent states"):
        Session.new(tmp_path / "talk", FrozenBackbone(str(llama_folder)), "Tropical storm")
    assert not (tmp_path / "talk").exists()
