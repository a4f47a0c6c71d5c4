"""`gssr generate`: a text without and with steering, side by side; with several rows, the best by a score."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gssr import shown
from gssr.commands import options as shared
from gssr.commands import planned, selecting
from gssr.commands.options import Subparsers
from gssr.files import require_file

if TYPE_CHECKING:
    from torch import Tensor

    from gssr.backbone import FrozenBackbone
    from gssr.states.learned_state import LearnedState
    from gssr.states.rules import Rule

EXAMPLES = [
    'gssr generate --prompt "The Congress shall" --random --max-share 0.5',
    'gssr generate --prompt "The Congress shall" --learn storms.txt --save storms.safetensors',
    'gssr generate --prompt "The Congress shall" --learned storms.safetensors --strength 0.8 --json',
    'gssr generate --prompt "The Congress shall" --best-of 4 --scorer builtins:len',
    'gssr generate --prompt "The Congress shall" --best-of 4 --every 8 --critic critic.safetensors',
    'gssr generate --prompt "The Congress shall" --draft ngram',
    'gssr generate --prompt "The Congress shall" --plan --scorer builtins:len --pace 10',
    'gssr generate --prompt "The Congress shall" --plan --scorer builtins:len --lag 8 --ahead 8',
]
SOURCES = ("learn", "learned", "towards", "like", "state", "random")


def add_commands(subparsers: Subparsers) -> None:
    parser = shared.add_command(
        subparsers, "generate", "continue a prompt without and with steering, side by side", EXAMPLES,
        "Both texts have the same decoding and seed. A line of --- separates the texts of a file.",
    )  # fmt: skip
    parser.add_argument("--prompt", type=shared.utf8, required=True, help="the text to continue")
    shared.backbone_options(parser)

    group = parser.add_argument_group("source of the direction, one of; none is needed to select among several texts")
    sources, file = group.add_mutually_exclusive_group(), {"type": Path, "metavar": "FILE"}
    sources.add_argument("--learn", **file, help="learn a state from texts that should follow the prompt")
    sources.add_argument("--learned", **file, help="a learned state that --save wrote")
    sources.add_argument("--towards", **file, help="mean state after these texts minus that after those of --away")
    sources.add_argument("--like", type=shared.utf8, metavar="TEXT", help="pull the states to those after this text")
    sources.add_argument("--state", **file, help="pull the states to one that gssr state capture wrote")
    sources.add_argument("--random", action="store_true", help="a random direction as large as the states")
    parser.add_argument("--learn-from", **file, help="prompts of the texts to learn; default the prompt")
    parser.add_argument("--away", **file, help="texts whose mean state is subtracted, for --towards")
    parser.add_argument("--save", **file, help="write the learned state, .safetensors")
    parser.add_argument("--steps", type=shared.count, default=200, help="steps of learning; default 200")

    rule = parser.add_argument_group("how the direction acts")
    rule.add_argument(
        "--strength", type=shared.signed, default=1.0, help="factor of a direction, share of a pull; default 1"
    )
    rule.add_argument("--max-share", type=shared.positive, help="largest change, as a share of the state's norm")
    rule.add_argument("--layers", type=shared.layer_list, metavar="LIST", help="such as 0,2,4-6; default all")
    rule.add_argument("--heads", type=shared.layer_list, metavar="LIST", help="as --layers, but not for learned states")
    rule.add_argument("--once", action="store_true", help="act before the first new token only; default when learned")
    rule.add_argument(
        "--stop", type=shared.whole(0, shared.MOST), help="act before this many new tokens; default 24, 0 for all"
    )
    rule.add_argument("--half-life", type=shared.positive, metavar="TOKENS", help="tokens in which the strength halves")

    selecting.add_options(parser)
    planned.add_options(parser)
    shared.decoding_options(parser)
    shared.json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from gssr.states.intervention import steer

    _check(options)
    backbone = shared.load_backbone(options)
    if options.draft is not None:
        selecting.write_drafted(backbone, options, _prompt(backbone, options))
        return 0
    rules = [] if _source(options) is None else _rules(backbone, options)
    if options.plan:
        planned.write(backbone, options, _prompt(backbone, options), rules)
        return 0
    unsteered = _write(backbone, options)
    if selecting.rows_of(options):
        found = selecting.select_texts(backbone, options, _prompt(backbone, options), rules)
        selecting.show_selected(options, unsteered, found, is_steered=bool(rules))
        return 0
    with steer(backbone.model, *rules, kl=True) as report:
        steered = _write(backbone, options)
    rows = report.as_rows()
    if options.json:
        print(json.dumps({"prompt": options.prompt, "unsteered": unsteered, "steered": steered, "steps": rows}))
        return 0
    console = Console()
    table = Table("unsteered", "steered", title=Text(shown.lines(options.prompt)), show_lines=True)
    table.add_row(Text(shown.lines(unsteered)), Text(shown.lines(steered)))
    console.print(table)
    shares = [share for row in rows for share in row["share"].values()]
    kl = [row["kl"] for row in rows]
    if not rows:
        print("the strength is 0, so no state was changed")
    elif shares:
        print(
            f"changed the states before {sum(bool(row['share']) for row in rows)} of {len(rows)} tokens, by "
            f"{sum(shares) / len(shares):.2g} of their norm on average; KL to the unsteered model: "
            f"{sum(kl) / len(kl):.2f} nats a token"
        )
    return 0


def _source(options: argparse.Namespace) -> str | None:
    """The option that gives a direction, if there is one."""
    return next((name for name in SOURCES if getattr(options, name) not in (None, False)), None)


def _check(options: argparse.Namespace) -> None:
    if not options.prompt:
        raise ValueError("the prompt is empty; give a text of at least one character")
    if _source(options) is None and not (selecting.rows_of(options) or options.draft or options.plan):
        names = ", ".join(f"--{name}" for name in SOURCES)
        raise ValueError(
            f"there is nothing to do beside the plain text; give one of {names}, --best-of, --particles, --draft, "
            "--plan"
        )
    selecting.check(options, is_steered=_source(options) is not None)
    planned.check(options)
    if (options.towards is None) != (options.away is None):
        raise ValueError("--towards and --away belong together: the direction is the difference of their mean states")
    if options.save is not None:
        require_file(options.save)
    for name in ("save", "learn_from"):
        if getattr(options, name) is not None and options.learn is None:
            raise ValueError(f"--{name.replace('_', '-')} belongs to --learn, which is missing; add it")
    for path in (options.learn, options.learn_from, options.towards, options.away):
        if path is not None:
            _texts(path)  # a wrong file is refused before the model is loaded


def _rules(backbone: "FrozenBackbone", options: argparse.Namespace) -> "list[Rule]":
    from gssr.states.directions import mean_difference, random_like, recurrent_states
    from gssr.states.hybrid_state import HybridState
    from gssr.states.learned_state import LearnedState
    from gssr.states.rules import Interpolation, Offset, Schedule

    is_learned = options.learn is not None or options.learned is not None
    if options.once or (is_learned and options.stop is None and options.half_life is None):
        schedule = Schedule.once()
    else:
        schedule = Schedule(stop=(24 if options.stop is None else options.stop) or None, half_life=options.half_life)
    common = {"strength": options.strength, "layers": options.layers, "heads": options.heads}
    pulls = [name for name in ("learn", "learned", "like", "state") if getattr(options, name) is not None]
    if pulls and options.max_share is not None:
        raise ValueError(
            f"--max-share bounds an added direction; --{pulls[0]} pulls to a state, and --strength is its bound"
        )
    if is_learned:
        if options.heads is not None:
            raise ValueError("--heads selects heads of recurrent states; a learned state has other parts, too")
        kept = options.learned
        learned = _learn(backbone, options) if kept is None else LearnedState.load(kept, backbone)
        return [*learned.rules(options.strength, options.layers, schedule)]
    if options.like is not None or options.state is not None:
        like, file = [options.like], options.state
        state = HybridState.capture(backbone, like) if file is None else HybridState.load(file, backbone)
        target = {layer: state.layers[layer].recurrent[0] for layer in state.recurrent_layers}
        return [Interpolation(target, schedule=schedule, **common)]
    if options.towards is not None:
        direction = mean_difference(backbone, _texts(options.towards), _texts(options.away))
    else:
        states = recurrent_states(backbone, [options.prompt])
        direction = random_like({layer: x[0] for layer, x in states.items()}, options.seed)
    return [Offset(direction, schedule=schedule, max_share=options.max_share, **common)]


def _learn(backbone: "FrozenBackbone", options: argparse.Namespace) -> "LearnedState":
    from tqdm import tqdm

    from gssr.states.examples import Examples, Learning
    from gssr.states.learned_state import learn_state

    follow = ["\n" + text.lstrip() for text in _texts(options.learn)]
    prompts = [options.prompt] if options.learn_from is None else _texts(options.learn_from)
    with tqdm(total=options.steps, desc="learning", file=sys.stderr) as bar:

        def progress(step: int, loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.2f}")
            bar.update()

        settings = Learning(steps=options.steps, seed=options.seed)
        learned, _ = learn_state(Examples(backbone, prompts, follow), settings, progress=progress)
    if options.save is not None:
        learned.save(options.save, backbone)
    return learned


def _texts(path: Path) -> list[str]:
    texts = [part.strip("\n") for part in shared.read_text(path).split("\n---\n") if part.strip()]
    if not texts:
        raise ValueError(f"{path} holds no text; expected texts with a line of --- between two")
    return texts


def _prompt(backbone: "FrozenBackbone", options: argparse.Namespace) -> "Tensor":
    import torch

    return torch.tensor([[backbone.start_id, *backbone.tokenize([options.prompt])[0]]], device=backbone.device)


def _write(backbone: "FrozenBackbone", options: argparse.Namespace) -> str:
    import torch

    torch.manual_seed(options.seed)
    ids = _prompt(backbone, options)
    out = backbone.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pad_token_id=backbone.tokenizer.eos_token_id,
        **shared.read_decoding(options),
    )
    return backbone.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
