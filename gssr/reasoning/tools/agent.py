"""The loop: a policy writes a line, a tool runs, the policy reads what came out. It ends with an answer, or at a bound.

A policy reads texts and writes lines: ``call NAME ARGUMENT…``, with quotes as in a shell around blanks, or ``answer
TEXT``. What a tool prints comes back with ``> `` in front of each line. Only lines that the policy writes are calls;
text of a tool is data, whatever it says, and the allow-list was read before the first call.
"""

import json
import os
import shlex
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gssr import shown
from gssr.reasoning.tools import sandbox
from gssr.reasoning.tools.toolbox import Call, Refused, Toolbox

LONGEST_LINE = 4096
Approve = Callable[[Call, tuple[str, ...]], bool]


class Policy(Protocol):
    """Reads a text, the task first, and writes the next line."""

    def __call__(self, text: str) -> str: ...


@dataclass
class Script:
    """A policy that writes given lines, whatever it reads; ``read`` keeps that."""

    lines: Iterable[str]
    read: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._left = iter(self.lines)

    def __call__(self, text: str) -> str:
        self.read.append(text)
        return next(self._left, "answer")


@dataclass(frozen=True)
class Outcome:
    """``answer`` is None where the bound was reached. ``calls`` ran; ``refused`` did not."""

    answer: str | None
    calls: int
    refused: int


def work(
    task: str, policy: Policy, box: Toolbox, log: Path, approve: Approve | None = None, dry_run: bool = False
) -> Outcome:
    """Let a policy use tools until it answers, or ``box.limits.calls`` lines were no answer.

    Args:
        log: each call is appended before it runs, and its result after; a JSON line each.
        approve: is asked before each call; one that it denies does not run.
        dry_run: run nothing; the policy reads that nothing ran.

    Raises ValueError for a log that cannot be written or that a tool could change, and where tools need isolation that
    this machine does not have.
    """
    kept = sandbox.isolation()
    if box.needs_isolation and kept == "none" and not dry_run:
        raise ValueError("the tools need isolation, and this machine has neither bubblewrap nor user namespaces")
    if log.resolve().is_relative_to(box.folder):
        raise ValueError(f"the log {log} lies in the tools' folder {box.folder}, where a tool could change it")
    write = _Log(log)
    write("task", task=task, folder=str(box.folder), isolation=kept, dry_run=dry_run)
    ran, refused, text = 0, 0, task
    for _ in range(box.limits.calls + 1):
        line = policy(text)
        is_over = ran + refused == box.limits.calls
        try:
            call = parse(line)
            if isinstance(call, str):
                write("answer", answer=call)
                return Outcome(call, ran, refused)
            command = box.command(call)
        except Refused as error:
            if is_over:
                break
            refused += 1
            write("refused", line=line[:LONGEST_LINE], reason=str(error))
            text = f"> refused: {shown.line(error, 200)}"
            continue
        if is_over:
            break
        if not (approve is None or approve(call, command)) or dry_run:
            refused += 1
            write("not run", command=command, reason="dry run" if dry_run else "denied")
            text = "> not run"
            continue
        write("call", command=command)
        ran += 1
        result = sandbox.run(command, box.folder, box.limits, kept)
        write("result", **result._asdict())
        text = observation(result)
    write("bound", calls=ran, refused=refused)
    return Outcome(None, ran, refused)


def parse(line: str) -> Call | str:
    """A call, or the text of an answer. Raises Refused for any other line."""
    if len(line) > LONGEST_LINE:
        raise Refused(f"the line has {len(line):,} characters; expected at most {LONGEST_LINE:,}")
    kind, _, rest = line.strip().partition(" ")
    if kind == "answer":
        return rest.strip()
    if kind != "call":
        raise Refused(f"the line {shown.quoted(line.strip())} is neither a call nor an answer")
    try:
        name, *arguments = shlex.split(rest)
    except ValueError as error:
        raise Refused(f"the call {shown.quoted(rest)} cannot be read: {error}") from error
    return Call(name, tuple(arguments))


def observation(result: sandbox.Result) -> str:
    """What a policy reads of a result: each line behind ``> ``, so that none looks like its own."""
    said = shown.lines(result.output.strip()).split("\n")
    if result.ended != "done":
        said.append(f"(ended: limit of {result.ended})")
    elif result.code and not result.output.strip():
        said = [f"(failed with code {result.code})"]
    return "\n".join(f"> {line}" for line in said)


class _Log:
    """Appends JSON lines; a link is not followed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, event: str, **about: Any) -> None:
        line = json.dumps({"time": time.time(), "event": event, **about}, ensure_ascii=True)
        try:
            place = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
            with os.fdopen(place, "w") as file:
                file.write(f"{line}\n")
        except OSError as error:
            raise ValueError(
                f"the log {self.path} cannot be written: {error.strerror}; no tool runs unlogged"
            ) from error
