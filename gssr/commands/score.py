"""`gssr score`: how often a model answers the problems of a file, with or without thoughts."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from gssr.commands import options as shared
from gssr.commands.options import Subparsers


def add_commands(subparsers: Subparsers) -> None:
    parser = shared.add_command(
        subparsers, "score", "score a model's answers to the problems of a file",
        ["gssr score problems.jsonl --way choices",
         "gssr score problems.jsonl --way content --backbone corpus/lookups --thoughts corpus/thoughts.safetensors"],
        'A line is {"prompt": "…", "answer": "…", "choices": ["…", "…"]}. Three ways: choices takes the likeliest\n'
        "choice, extract what --pattern finds in the text written, content looks for the answer anywhere in it.\n"
        "Without --thoughts the model answers at once.",
    )  # fmt: skip
    parser.add_argument("file", type=Path, help="JSON lines")
    parser.add_argument("--way", choices=("choices", "extract", "content"), default="choices", help="default choices")
    parser.add_argument("--pattern", type=shared.utf8, default=r"\S+", help=r"what extract takes; default \S+")
    parser.add_argument("--tokens", type=shared.count, default=32, help="of a written answer at most; default 32")
    parser.add_argument("--thoughts", type=Path, metavar="FILE", help="written by a training of thoughts")
    shared.steps_options(parser)
    shared.backbone_options(parser)
    shared.json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    import re

    from gssr.reasoning.evaluation import Answering, evaluate, read_items
    from gssr.reasoning.saved import load_thinker
    from gssr.reasoning.thinker import Thinker
    from gssr.reasoning.thoughts import WrittenToken

    try:
        re.compile(options.pattern)
    except re.error as error:
        raise ValueError(f"--pattern {options.pattern!r} is no pattern: {error}") from error
    items = read_items(options.file)
    backbone = shared.load_backbone(options)
    if options.thoughts is None:
        answering = Answering(Thinker(backbone, WrittenToken()))
    else:
        thinker, steps = load_thinker(options.thoughts, backbone), options.steps
        answering = Answering(thinker, steps or options.most, None if steps else options.halt)
    found = evaluate(answering, items, options.way, options.tokens, options.pattern)
    if options.json:
        print(json.dumps(asdict(found)))
        return
    share = found.right / found.cases
    print(
        f"{found.way}: {found.right} of {found.cases} right, {share:.3f} ({found.low:.3f} to {found.high:.3f}), "
        f"{found.steps:.1f} steps on average"
    )
