"""`gssr session new | say | show | undo | fork | resume`: conversations whose memory is a file."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gssr import shown
from gssr.commands import options as shared
from gssr.commands.options import Subparsers

if TYPE_CHECKING:
    from gssr.reasoning.session import Session


def add_commands(subparsers: Subparsers) -> None:
    session = shared.add_command(
        subparsers, "session", "hold a conversation whose memory is a file", ["gssr session new --help"],
        "The file holds the model's states. No turn is read twice, and the file is a state for `gssr state`.",
    ).add_subparsers(title="commands", metavar="COMMAND", required=True)  # fmt: skip

    parser = _add(
        session, "new", "begin a session", ['gssr session new talk.safetensors --prompt "Questions and answers."']
    )
    parser.add_argument("--prompt", type=shared.utf8, required=True, metavar="TEXT", help="what is read first")
    parser.add_argument(
        "--form", type=_escaped, default="\n{}\n", metavar="TEXT",
        help=r"what stands around each text said, {} at its place; default \n{}\n",
    )  # fmt: skip
    parser.set_defaults(run=new)

    parser = _add(
        session, "say", "say something, print the answer, keep both", ['gssr session say talk.safetensors "Who?"']
    )
    parser.add_argument("text", type=shared.utf8)
    _answer_options(parser)
    shared.json_option(parser)
    parser.set_defaults(run=say)

    parser = _add(session, "show", "show the turns of a session, and its size", ["gssr session show talk.safetensors"])
    shared.json_option(parser)
    parser.set_defaults(run=show)

    parser = _add(session, "undo", "go back to before the last turn, once", ["gssr session undo talk.safetensors"])
    parser.set_defaults(run=undo)

    parser = _add(session, "fork", "copy a session", ["gssr session fork talk.safetensors other.safetensors"])
    parser.add_argument("to", type=Path, help="new file")
    parser.set_defaults(run=fork)

    parser = _add(
        session, "resume", "say each line of the input, and keep every turn",
        ["gssr session resume talk.safetensors"],
    )  # fmt: skip
    _answer_options(parser)
    parser.set_defaults(run=resume)


def _add(session: Subparsers, name: str, does: str, examples: list[str]) -> argparse.ArgumentParser:
    parser = shared.add_command(session, name, does, examples)
    parser.add_argument("file", type=Path, help="file of the session")
    shared.backbone_options(parser)
    return parser


def _answer_options(parser: argparse.ArgumentParser) -> None:
    shared.decoding_options(parser)
    parser.add_argument("--stop", type=_escaped, metavar="TEXT", help=r"end an answer behind this, such as \n")


def _escaped(text: str) -> str:
    r"""A text in which \n stands for a line break. An argparse type."""
    return shared.utf8(text).replace("\\n", "\n")


def new(options: argparse.Namespace) -> None:
    from gssr.reasoning.session import Session

    session = Session.new(options.file, shared.load_backbone(options), options.prompt, options.form)
    print(f"written: {shown.line(options.file)}, {session.talk.tokens.shape[1]} tokens")


def say(options: argparse.Namespace) -> None:
    how, session = shared.read_decoding(options), _load(options)
    answer = _answered(session, options.text, how, options)
    print(
        json.dumps({"answer": answer, "turns": session.turns}, ensure_ascii=False)
        if options.json
        else shown.lines(answer)
    )


def show(options: argparse.Namespace) -> None:
    from gssr.states import tables

    session = _load(options)
    state = session.talk.state()
    if options.json:
        turns = [{"who": who, "text": text} for who, text in session.texts()]
        print(json.dumps({"turns": turns, "state": tables.summary(state)}, ensure_ascii=False, indent=2))
        return
    for who, text in session.texts():
        print(f"{who}: {shown.lines(text.strip(chr(10)))}")
    tables.print_summary(state)


def undo(options: argparse.Namespace) -> None:
    print(f"turns left: {_load(options).undo().turns}")


def fork(options: argparse.Namespace) -> None:
    other = _load(options).fork(options.to)
    print(f"written: {shown.line(other.path)}, {other.turns} turns")


def resume(options: argparse.Namespace) -> None:
    how, session = shared.read_decoding(options), _load(options)
    if is_typed := sys.stdin.isatty():
        print(f"{session.turns} turns; a line is a turn; Ctrl-D ends", file=sys.stderr)
    while True:
        if is_typed:
            print("> ", end="", file=sys.stderr, flush=True)
        if not (line := sys.stdin.readline()):
            return
        if line.strip():
            print(shown.lines(_answered(session, line.rstrip("\n"), how, options)), flush=True)


def _load(options: argparse.Namespace) -> "Session":
    from gssr.reasoning.session import Session

    return Session.load(options.file, shared.load_backbone(options))


def _answered(session: "Session", text: str, how: dict[str, object], options: argparse.Namespace) -> str:
    import torch

    torch.manual_seed(options.seed + session.turns)
    return session.say(text, stop=options.stop, **how).strip("\n")
