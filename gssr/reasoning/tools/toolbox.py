r"""The allow-list: which commands may run, with which arguments. Read once from a YAML file; nothing changes it after.

    folder: work                 # where tools run, and where their paths must lie
    tools:
      add:
        does: adds two whole numbers
        command: [expr, "{left}", +, "{right}"]
        arguments: {left: number, right: number}

A command is a program and its words. A word such as ``{left}`` is an argument; no other text of a call reaches the
command. A call gives the arguments in the order of the words. Each is a ``number``, a ``word`` of letters, digits and
underscores, a ``path`` inside of the folder, ``{one_of: [a, b]}`` or ``{pattern: "[a-z]+"}``, which all of it must
match.
"""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

from gssr import yaml_files
from gssr.domains import Range, checked, require
from gssr.shown import listed, quoted

NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
KINDS = {"number": r"-?[0-9]{1,15}(\.[0-9]{1,15})?", "word": r"[A-Za-z0-9_]{1,100}", "path": None}
LONGEST = 256  # characters of an argument
PROGRAMS = "/usr/local/bin:/usr/bin:/bin"
# Each would take a text as a command, so that no list of arguments bounds what runs.
SHELLS = {
    *("sh", "bash", "dash", "zsh", "ksh", "fish", "csh", "tcsh", "rbash", "busybox", "env", "xargs", "sudo", "su"),
    *("doas", "eval", "nohup", "setsid", "timeout", "nice", "parallel", "watch", "script", "ssh"),
}


class Refused(ValueError):
    """A call that the allow-list does not hold; nothing ran."""


class Call(NamedTuple):
    """A tool's name and arguments, as a policy gives them."""

    tool: str
    arguments: tuple[str, ...]


@checked
@dataclass(frozen=True)
class Limits:
    """Of each call, and the number of a task's calls; refused ones count."""

    calls: Annotated[int, Range(1, 1000)] = 8
    seconds: Annotated[float, Range(0.1, 3600)] = 5.0
    memory_mb: Annotated[int, Range(16, 2**20)] = 512
    output_kb: Annotated[int, Range(1, 2**14)] = 16
    file_mb: Annotated[int, Range(0, 2**20)] = 16
    processes: Annotated[int, Range(1, 10_000)] = 32


@dataclass(frozen=True)
class Argument:
    """``pattern`` is None for a path; ``choices`` are the only texts, where there are some."""

    name: str
    pattern: re.Pattern[str] | None
    choices: tuple[str, ...] = ()

    def check(self, text: str, folder: Path) -> None:
        """Raises Refused."""
        if self.choices:
            if text not in self.choices:
                raise Refused(f"{self.name} is {quoted(text)}; expected one of {listed(self.choices)}")
            return
        is_number = self.pattern is not None and self.pattern.pattern == KINDS["number"]
        if text.startswith("-") and not is_number:
            raise Refused(f"{self.name} is {quoted(text)}; a dash would make it an option")
        if self.pattern is not None:
            if self.pattern.fullmatch(text) is None:
                raise Refused(f"{self.name} is {quoted(text)}, which does not match {self.pattern.pattern}")
            return
        path = Path(text)
        if not text or path.is_absolute() or ".." in path.parts or text.startswith("~"):
            raise Refused(f"{self.name} is {quoted(text)}; expected a path inside of the working folder")
        try:
            inside = (folder / path).resolve().is_relative_to(folder)
        except (OSError, RuntimeError) as error:
            raise Refused(f"{self.name} is {quoted(text)}, which leads nowhere") from error
        if not inside:
            raise Refused(f"{self.name} is {quoted(text)}, a link that leads out of the working folder")


@dataclass(frozen=True)
class Tool:
    """``words``: the program's absolute path and what follows; {name} stands for an argument."""

    name: str
    does: str
    words: tuple[str, ...]
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Toolbox:
    """Tools by name, the folder in which they run, and their limits."""

    folder: Path
    tools: Mapping[str, Tool]
    limits: Limits = field(default_factory=Limits)
    needs_isolation: bool = False

    @classmethod
    def read(cls, path: Path) -> "Toolbox":
        """Raises ValueError for a file that is missing, wrong, or inside of the folder of the tools."""
        try:
            given = yaml_files.read(path)
            return cls._build(given, path.resolve())
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}; give a file of tools") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def _build(cls, given: Any, path: Path) -> "Toolbox":
        _require_keys("the file", given, {"tools"}, {"folder", "limits", "needs_isolation"})
        folder = (path.parent / _text("folder", given.get("folder", "work"))).resolve()
        if not folder.is_dir():
            raise ValueError(f"the folder {folder} of the tools does not exist; make it, or name another as folder")
        if path.is_relative_to(folder):
            raise ValueError(f"the file lies inside of the tools' folder {folder}, where a tool could change it")
        limits = given.get("limits", {})
        _require_keys("limits", limits, set(), {part.name for part in fields(Limits)})
        require("needs_isolation", needs := given.get("needs_isolation", False), bool)
        if not isinstance(given["tools"], dict) or not given["tools"]:
            raise ValueError("tools are not a mapping of names to tools; give at least one")
        tools = {name: _tool(name, about, folder) for name, about in given["tools"].items()}
        return cls(folder, MappingProxyType(tools), Limits(**limits), needs)

    def command(self, call: Call) -> tuple[str, ...]:
        """The words of the command that a call asks for. Raises Refused."""
        tool = self.tools.get(call.tool)
        if tool is None:
            raise Refused(f"there is no tool {quoted(call.tool)}; there are {listed(sorted(self.tools), 20)}")
        if len(call.arguments) != len(tool.arguments):
            raise Refused(f"{tool.name} takes {len(tool.arguments)} arguments, {len(call.arguments)} were given")
        for argument, text in zip(tool.arguments, call.arguments, strict=True):
            if len(text) > LONGEST or not text.isprintable() or not _is_utf8(text):
                raise Refused(f"{argument.name} is {quoted(text)}; expected up to {LONGEST} printable characters")
            argument.check(text, self.folder)
        values = {f"{{{each.name}}}": text for each, text in zip(tool.arguments, call.arguments, strict=True)}
        return tuple(values.get(word, word) for word in tool.words)


def _tool(name: Any, about: Any, folder: Path) -> Tool:
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        raise ValueError(f"a tool is named {quoted(name)}; expected small letters, digits, - and _")
    _require_keys(f"the tool {name}", about, {"command"}, {"does", "arguments"})
    words, given = about["command"], about.get("arguments", {})
    if not isinstance(words, list) or not words or not all(isinstance(w, (str, int)) and w is not True for w in words):
        raise ValueError(f"the command of {name} is no list of words, such as [expr, '{{left}}', +, '{{right}}']")
    if not isinstance(given, dict):
        raise ValueError(f"the arguments of {name} are no mapping of names to kinds, such as {{left: number}}")
    arguments = tuple(_argument(name, key, kind) for key, kind in given.items())
    program, *rest = map(str, words)
    places = {f"{{{each.name}}}": each for each in arguments}
    found = [word for word in rest if word in places]
    if set(found) != set(places) or any(re.search(r"\{\w*\}", word) for word in rest if word not in places):
        raise ValueError(f"the words of {name} in braces are no arguments; expected each, as a whole word: {rest}")
    arguments = tuple(places[word] for word in dict.fromkeys(found))
    return Tool(name, _text("does", about.get("does", "")), (_program(name, program, folder), *rest), arguments)


def _program(tool: str, program: str, folder: Path) -> str:
    """The absolute path of a program, looked up once."""
    path = Path(shutil.which(program, path=PROGRAMS) or program)
    if not path.is_absolute() or not path.is_file():
        raise ValueError(f"the program {program!r} of {tool} is not in {PROGRAMS}; give its path from the root on")
    if {path.name, path.resolve().name} & SHELLS:
        raise ValueError(f"the program {program!r} of {tool} runs other commands; name the program that does the work")
    if path.resolve().is_relative_to(folder):
        raise ValueError(f"the program {program!r} of {tool} lies in the tools' folder, where a tool could change it")
    return str(path)


def _argument(tool: str, name: Any, kind: Any) -> Argument:
    where = f"the argument {quoted(name)} of {tool}"
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        raise ValueError(f"{where} has no name of small letters, digits, - and _")
    if isinstance(kind, str) and kind in KINDS:
        pattern = KINDS[kind]
        return Argument(name, None if pattern is None else re.compile(pattern, re.ASCII))
    if isinstance(kind, dict) and set(kind) == {"one_of"} and isinstance(kind["one_of"], list) and kind["one_of"]:
        return Argument(name, None, tuple(_text(where, each) for each in kind["one_of"]))
    if isinstance(kind, dict) and set(kind) == {"pattern"}:
        try:
            return Argument(name, re.compile(_text(where, kind["pattern"]), re.ASCII))
        except re.error as error:
            raise ValueError(f"{where} has a pattern that is none: {error}") from error
    raise ValueError(f"{where} is {quoted(kind)}; expected {', '.join(KINDS)}, {{one_of: […]}} or {{pattern: …}}")


def _require_keys(what: str, given: Any, needed: set[str], more: set[str]) -> None:
    if not isinstance(given, dict):
        raise ValueError(f"{what} is no mapping; expected {', '.join(sorted(needed | more))}")
    if missing := sorted(needed - given.keys()):
        raise ValueError(f"{what} lacks {', '.join(missing)}")
    if unknown := [key for key in given if key not in needed | more]:
        raise ValueError(f"{what} has {quoted(unknown[0])}; expected {', '.join(sorted(needed | more))}")


def _text(what: str, value: Any) -> str:
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise ValueError(f"{what} is {quoted(value)}; expected a text")
    return str(value)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
