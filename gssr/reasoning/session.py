"""A conversation whose memory is one file: a `HybridState` with the places where its turns end.

No turn is read twice: each is read on top of the saved state. The file is a state like any other, for `gssr state`.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from gssr.backbone import FrozenBackbone
from gssr.files import atomic_path, require_file
from gssr.reasoning.conversation import Conversation
from gssr.states import state_file
from gssr.states.cache import empty_cache
from gssr.states.hybrid_state import FORMAT, HybridState, from_file

FORM = "\n{}\n"  # what stands around a turn of the user, by default
PLACE = "{}"
MOST_FORM, MOST_TURNS = 10_000, 10**7  # characters
Seen = tuple[int, int, int]


class Session:
    """A conversation in a file. ``ends`` are tokens behind the opening, then behind each text said and each answer.

    ``say`` writes the file anew; the one before stays beside it as ``NAME.before``, for one ``undo``.
    """

    def __init__(self, path: Path, talk: Conversation, ends: tuple[int, ...], form: str, seen: Seen | None) -> None:
        self.path, self.talk, self.ends, self.form, self._seen = path, talk, ends, form, seen

    @classmethod
    def new(cls, path: Path, backbone: FrozenBackbone, opening: str, form: str = FORM) -> "Session":
        """Write a session that has read an opening.

        Args:
            form: what stands around each text of the user, with {} at its place.

        Raises ValueError for a file that exists, an opening without a token, a form without its place, or a model
        without recurrent states.
        """
        if path.exists() or path.is_symlink():
            raise ValueError(f"{path} exists; choose another name, or go on with it: gssr session say {path} …")
        require_file(path)
        _check_form(form)
        empty_cache(backbone.model)
        talk = Conversation(backbone)
        talk.read(opening)
        session = cls(path, talk, (talk.tokens.shape[1],), form, None)
        session._save()
        return session

    @classmethod
    def load(cls, path: Path, backbone: FrozenBackbone) -> "Session":
        """Raises ValueError for a file that is missing, damaged, no session, or of another model."""

        def build(tensors: dict[str, Tensor], about: Mapping[str, str]) -> tuple[HybridState, tuple[int, ...], str]:
            if "turns" not in about or "form" not in about:
                raise ValueError("it is a state without turns; begin a session: gssr session new FILE --prompt TEXT")
            state = from_file(tensors, about, backbone)
            _check_form(about["form"])
            return state, _ends(about["turns"], state), about["form"]

        seen = _seen(path)
        state, ends, form = state_file.read(path, FORMAT, build)
        return cls(path, Conversation.resume(backbone, state), ends, form, seen)

    @property
    def turns(self) -> int:
        """How often something was said and answered."""
        return len(self.ends) // 2

    def texts(self) -> Iterator[tuple[str, str]]:
        """Who, opening, user or model, and the text, in turn."""
        decode = self.talk.backbone.tokenizer.decode
        for i, (begin, end) in enumerate(zip((0, *self.ends), self.ends, strict=False)):
            who = ("model" if i % 2 == 0 else "user") if i else "opening"
            yield who, decode(self.talk.tokens[0, begin:end], skip_special_tokens=True)

    def say(self, text: str, **options: object) -> str:
        """The answer to a text; the file then holds both. ``options`` are those of ``model.generate``.

        Raises ValueError for a text without a token, and for a file that changed since it was read; nothing is written
        then.
        """
        if not text:
            raise ValueError("nothing was said; give a text of at least one character")
        begin = self.talk.read(self.form.replace(PLACE, text))
        said = self.talk.tokens.shape[1]
        answer = self.talk.write(**options)
        self.ends = (*self.ends[:-1], begin, said, self.talk.tokens.shape[1])
        if _seen(self.path) != self._seen:
            raise ValueError(f"{self.path} was changed by another program while this turn ran; say it again")
        with atomic_path(_before(self.path)) as draft:
            shutil.copyfile(self.path, draft)
        self._save()
        return answer

    def undo(self) -> "Session":
        """The session before its last turn, which takes this one's place.

        Raises ValueError where nothing was said since the last undo, or the older file is not that of this session.
        """
        before = _before(self.path)
        if not before.exists():
            raise ValueError(f"there is nothing to undo: {before} does not exist; one turn can be undone, once")
        older = Session.load(before, self.talk.backbone)
        # An end-of-text behind the last answer gave way to what was said next.
        known = self.ends[-3] if self.turns else 0
        is_older = older.ends[:-1] == self.ends[:-3] and older.ends[-1] - known in (0, 1)
        if not is_older or not older.talk.tokens[0, :known].equal(self.talk.tokens[0, :known]):
            raise ValueError(f"{before} is not this session before its last turn; nothing was changed")
        before.replace(self.path)
        older.path, older._seen = self.path, _seen(self.path)
        return older

    def fork(self, path: Path) -> "Session":
        """A second session that goes on from here by itself. Raises ValueError for a file that exists."""
        if path.exists() or path.is_symlink():
            raise ValueError(f"{path} exists; choose another name for the fork")
        require_file(path)
        other = Session(path, Conversation.resume(self.talk.backbone, self.talk.state()), self.ends, self.form, None)
        other._save()
        return other

    def _save(self) -> None:
        self.talk.state().save(self.path, {"turns": json.dumps(self.ends), "form": self.form})
        self._seen = _seen(self.path)


def _before(path: Path) -> Path:
    return path.with_name(f"{path.name}.before")


def _seen(path: Path) -> Seen | None:
    """What changes when another program writes the file."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns, about.st_size


def _check_form(form: str) -> None:
    if form.count(PLACE) != 1 or len(form) > MOST_FORM:
        raise ValueError(f"the form {form[:60]!r} is none; expected a text with {PLACE} once, where a turn's text goes")


def _ends(text: str, state: HybridState) -> tuple[int, ...]:
    """Raises ValueError unless the places rise, come in pairs behind the opening and lie in the text."""
    try:
        ends = json.loads(text[:MOST_TURNS])
    except (ValueError, RecursionError) as error:
        raise ValueError("the places of its turns cannot be read") from error
    whole = isinstance(ends, list) and all(isinstance(end, int) and not isinstance(end, bool) for end in ends)
    if not whole or len(ends) % 2 == 0 or any(a > b for a, b in zip((2, *ends), ends, strict=False)):
        raise ValueError("its turns do not follow each other; expected an opening, and pairs of what was said")
    if ends[-1] != state.tokens.shape[1] or state.rows != 1:
        raise ValueError(f"its turns end at {ends[-1]} of {state.tokens.shape[1]} tokens of {state.rows} texts")
    return tuple(ends)
