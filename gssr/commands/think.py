"""`gssr think`: an answer after thought steps, and what each thought would have said."""

import argparse
import json
import sys
from pathlib import Path

from gssr import shown
from gssr.commands import options as shared
from gssr.commands.options import Subparsers


def add_commands(subparsers: Subparsers) -> None:
    parser = shared.add_command(
        subparsers,
        "think",
        "answer after thought steps in the recurrence",
        [
            'gssr think --prompt "b = 7 ; c = d ; a = b ; d = 2 ; ? a" --show',
            'gssr think --backbone corpus/lookups --thoughts corpus/thoughts.safetensors --prompt "…" --steps 8',
        ],
        "The prompt is read once. Its last token is the first thought: step 1 says what the model says without "
        "thinking.\nThinking ends after --steps, or where the head is as sure as --halt that the answer is right.\n"
        "The bundled model knows the words of generated problems alone: chains (a = b ;), rounds (r0.1 .3).\n"
        "Train thoughts with: python train.py fit --config configs/thoughts.yaml",
    )
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="what is read")
    parser.add_argument(
        "--thoughts", type=Path, metavar="FILE", help="written by a training of thoughts; default the bundled model's"
    )
    shared.steps_options(parser)
    parser.add_argument("--show", action="store_true", help="show what each thought would have said")
    shared.backbone_options(parser, "nano-lookups")
    shared.json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    import torch

    from gssr.reasoning.saved import BUNDLED, load_thinker

    if options.thoughts is None and options.backbone != "nano-lookups":
        raise ValueError(f"--thoughts is missing: a file of thoughts that were trained around {options.backbone!r}")
    backbone = shared.load_backbone(options)
    thinker = load_thinker(options.thoughts or BUNDLED, backbone)
    (ids,), unknown = backbone.tokenize([options.prompt]), backbone.tokenizer.unk_token_id
    if not ids or (unknown is not None and unknown in ids):
        raise ValueError(
            f"the prompt {options.prompt!r} has no token, or a word that {backbone.name!r} does not know; it knows "
            f"{', '.join(sorted(backbone.tokenizer.get_vocab())[:12])}, …"
        )
    prompt = torch.tensor([[backbone.start_id, *ids]], device=backbone.device)
    found = thinker.readouts(prompt, options.steps or options.most, options.halt, until_sure=not options.steps)
    last = options.steps - 1 if options.steps else int(found.halted[0])
    thoughts = [
        {"step": k + 1, "says": backbone.tokenizer.decode([said]).strip(), "right": round(chance, 6)}
        for k, (said, chance) in enumerate(zip(found.said[0].tolist(), found.chance[0].tolist(), strict=True))
    ][: last + 1]
    answer = {"answer": thoughts[-1]["says"], "steps": last + 1, "right": thoughts[-1]["right"]}
    if options.json:
        print(json.dumps({**answer, "thoughts": thoughts}, ensure_ascii=False))
        return
    if options.show:
        for each in thoughts:
            print(f"step {each['step']:>3}: {shown.line(str(each['says'])):<12} right with chance {each['right']:.3f}")
    print(shown.line(str(answer["answer"])))
    if not options.steps and answer["right"] < options.halt:
        print(
            f"gssr: after {last + 1} steps the head is not sure ({answer['right']:.2f}); raise --most", file=sys.stderr
        )
