"""`gssr force`, `gssr inject` and `gssr memory`: control through the states of a frozen model."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gssr import shown
from gssr.commands import options as shared
from gssr.commands.options import Subparsers

if TYPE_CHECKING:
    from gssr.backbone import FrozenBackbone
    from gssr.control.projector import FactProjector

CONTROLS = ("random", "pca", "mean")
METHODS = ("compose", "projector", "read")
NATURAL = 65  # texts whose states are natural ones, for controls
FACTS = "nano-facts"


def add_commands(subparsers: Subparsers) -> None:
    parser = shared.add_command(
        subparsers, "force", "change the states so that a text follows a prompt",
        ['gssr force --prompt "Mira lives in" --target "oslo" --backbone nano-facts',
         'gssr force --prompt "The storm turned" --target " north at once" --budget 0.5 --control random,pca,mean'],
        "One change of the states, within a budget, is optimised\nfor the target, and for the same tokens behind it as "
        "if it had simply stood there.",
    )  # fmt: skip
    parser.add_argument("--prompt", type=shared.utf8, required=True, metavar="TEXT", help="what is read")
    parser.add_argument("--target", type=shared.utf8, required=True, metavar="TEXT", help="what is to follow")
    parser.add_argument(
        "--budget", type=shared.positive, default=0.5, metavar="X", help="change over the state's norm; default 0.5"
    )
    parser.add_argument(
        "--tokens", type=shared.count, default=20, metavar="N", help="tokens behind the target that stay; default 20"
    )
    parser.add_argument(
        "--control", type=listed(CONTROLS), default=[], metavar="LIST", help="also random,pca,mean at the same norm"
    )
    parser.add_argument(
        "--parts",
        type=listed(("recurrent", "conv")),
        default=["recurrent", "conv"],
        metavar="LIST",
        help="what changes; default recurrent,conv",
    )
    parser.add_argument("--layers", type=shared.layer_list, metavar="LIST", help="such as 0,2,4-6, from 0; default all")
    parser.add_argument("--shared", action="store_true", help="one budget for all layers, in place of one for each")
    parser.add_argument(
        "--steps", type=shared.whole(1, 10_000), default=40, metavar="N", help="of optimisation; default 40"
    )
    shared.seed_option(parser, "the controls")
    shared.backbone_options(parser)
    shared.json_option(parser)
    parser.set_defaults(run=force)

    parser = shared.add_command(
        subparsers, "inject", "write facts into a state and ask",
        ['gssr inject --fact "Mira lives in Oslo." --ask "Where does Mira live?"',
         'gssr inject --fact "Mira lives in Oslo." --fact "Hugo keeps a cat." --ask "Which animal does Hugo keep?"'],
        "A fact is read alone and composed into the state; with --method read it is read there.",
    )  # fmt: skip
    parser.add_argument(
        "--fact", type=shared.utf8, action="append", required=True, metavar="TEXT", help="may be repeated"
    )
    parser.add_argument(
        "--ask", type=shared.utf8, action="append", required=True, metavar="TEXT", help="may be repeated"
    )
    parser.add_argument("--context", type=shared.utf8, metavar="TEXT", help="what was read before")
    parser.add_argument("--method", choices=METHODS, default="compose", help="default compose")
    _memory_options(parser)
    shared.json_option(parser)
    parser.set_defaults(run=inject)

    memory = shared.add_command(
        subparsers, "memory", "a memory of constant size, as a file", ["gssr memory write --help"],
        "The file keeps its size whatever is written or read.",
    ).add_subparsers(title="commands", metavar="COMMAND", required=True)  # fmt: skip
    for name, does, example in (
        ("write", "write a fact, or read a text, into a memory; a new file begins empty",
         'gssr memory write m.safetensors --fact "Mira lives in Oslo."'),
        ("forget", "take a fact out again, in the words in which it was written",
         'gssr memory forget m.safetensors --fact "Mira lives in Oslo."'),
        ("replace", "take a fact out and write another",
         'gssr memory replace m.safetensors --fact "Mira lives in Oslo." --by "Mira lives in Riga."'),
        ("ask", "answer from a memory, which stays as it is",
         'gssr memory ask m.safetensors --ask "Where does Mira live?"'),
    ):  # fmt: skip
        parser = shared.add_command(memory, name, does, [example])
        parser.add_argument("file", type=Path)
        if name == "ask":
            parser.add_argument(
                "--ask", type=shared.utf8, action="append", required=True, metavar="TEXT", help="may be repeated"
            )
            shared.json_option(parser)
        else:
            parser.add_argument(
                "--fact", type=shared.utf8, required=name != "write", metavar="TEXT", help="one sentence"
            )
        if name == "write":
            parser.add_argument("--read", type=shared.utf8, metavar="TEXT", help="a text to read on")
            parser.add_argument("--read-file", type=Path, metavar="FILE", help="a UTF-8 file to read on")
        if name == "replace":
            parser.add_argument("--by", type=shared.utf8, required=True, metavar="TEXT", help="the new fact")
        _memory_options(parser)
        parser.set_defaults(run=remember, does=name)


def listed(known: tuple[str, ...]) -> Any:
    """An argparse type: some of the known words, with commas between them."""

    def parse(text: str) -> list[str]:
        words = list(dict.fromkeys(word.strip() for word in text.split(",")))
        if wrong := [word for word in words if word not in known]:
            raise argparse.ArgumentTypeError(
                f"{shown.quoted(wrong[0])} is not known; expected some of {','.join(known)}"
            )
        return words

    return parse


def _memory_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--projector", type=Path, metavar="FILE", help="written by a training of configs/facts.yaml")
    shared.backbone_options(parser, FACTS)


def _projector(options: argparse.Namespace, backbone: "FrozenBackbone") -> "FactProjector | None":
    from gssr.control.projector import FactProjector
    from gssr.control.saved import load_projector

    return None if options.projector is None else load_projector(options.projector, backbone, FactProjector)


def force(options: argparse.Namespace) -> None:
    import torch

    from gssr.control import controls
    from gssr.control.force import Force, tried
    from gssr.control.force import force as optimise
    from gssr.control.functional import read
    from gssr.control.words import ids_of

    backbone = shared.load_backbone(options)
    prompt, target = ids_of(backbone, options.prompt, "prompt"), ids_of(backbone, options.target, "target")
    how = Force(
        options.budget,
        tuple(options.parts),
        None if options.layers is None else tuple(options.layers),
        options.shared,
        options.tokens,
        steps=options.steps,
    )
    start = torch.full((1, 1), backbone.start_id, device=backbone.device)
    text = torch.cat([start, prompt], 1)
    layers, last = read(backbone, None, text[:, :-1]).layers, text[:, -1]
    keys = how.keys(layers)
    found = {"forced": optimise(backbone, layers, last, target, how)}
    change = found["forced"].change
    if "random" in options.control:
        found["random"] = tried(backbone, layers, last, target, how, controls.random_change(change, options.seed))
    if {"pca", "mean"} & set(options.control):
        texts = controls.samples(backbone, NATURAL, 24, options.seed)
        if "pca" in options.control:
            basis = controls.directions(read(backbone, None, texts).layers, keys)
            found["pca"] = optimise(backbone, layers, last, target, how, basis)
        if "mean" in options.control:
            mean = controls.mean_difference(backbone, texts, target, keys)
            found["mean"] = tried(backbone, layers, last, target, how, controls.scaled(mean, change))
    rows = [
        {
            "change": name,
            "says": backbone.tokenizer.decode(one.said[0]),
            "forced": bool(one.hit(target)[0]),
            "nats": round(float(one.nats[0]), 4),
            "kl": round(float(one.kl[0]), 5),
            "perplexity_ratio": round(float(one.perplexity[0]), 4),
        }
        for name, one in found.items()
    ]
    if options.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        print(
            f"{row['change']:<8} {'forced' if row['forced'] else 'missed':<7} {row['nats']:>9.3f} nats   KL of the "
            f"next {options.tokens} tokens {row['kl']:.4f}, their perplexity x {row['perplexity_ratio']:.3f}   says "
            f"{shown.line(str(row['says']))!r}"
        )


def inject(options: argparse.Namespace) -> None:
    if (options.method == "projector") != (options.projector is not None):
        raise ValueError("--method projector needs --projector FILE, and no other method takes one")
    from gssr.control.memory import Memory

    backbone = shared.load_backbone(options)
    projector, memory = _projector(options, backbone), Memory.empty(backbone)
    if options.context:
        memory = memory.read(backbone, options.context)
    for fact in options.fact:
        memory = memory.read(backbone, fact) if options.method == "read" else memory.write(backbone, fact, projector)
    _answer(options, memory, backbone)


def remember(options: argparse.Namespace) -> None:
    from gssr.control.memory import Memory

    texts: list[str] = []
    if options.does == "write":
        texts = [] if options.read is None else [options.read]
        texts += [] if options.read_file is None else [shared.read_text(options.read_file)]
        if options.fact is None and not texts:
            raise ValueError('nothing was given to write; give --fact "one sentence", --read TEXT or --read-file FILE')
    backbone = shared.load_backbone(options)
    begins = options.does == "write" and not options.file.exists() and not options.file.is_symlink()
    memory = Memory.empty(backbone) if begins else Memory.load(options.file, backbone)
    if options.does == "ask":
        _answer(options, memory, backbone)
        return
    projector = _projector(options, backbone)
    for text in texts:
        memory = memory.read(backbone, text)
    if options.does == "replace":
        memory = memory.replace_fact(backbone, options.fact, options.by, projector)
    elif options.fact is not None:
        memory = (memory.write if options.does == "write" else memory.forget)(backbone, options.fact, projector)
    memory.save(options.file)
    print(f"written: {shown.line(options.file)}; facts that can be forgotten: {memory.facts}, {memory.bytes:,} bytes")


def _answer(options: argparse.Namespace, memory: Any, backbone: "FrozenBackbone") -> None:
    answers = [memory.ask(backbone, question) for question in options.ask]
    if options.json:
        print(json.dumps([{"ask": q, "answer": a} for q, a in zip(options.ask, answers, strict=True)], indent=2))
        return
    for answer in answers:
        print(shown.line(answer))
