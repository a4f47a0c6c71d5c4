"""`gssr inspect` and `gssr state capture | show | blend | generate`."""

import argparse
import json
from pathlib import Path

from gssr import shown
from gssr.commands import options as shared
from gssr.commands.options import Subparsers
from gssr.files import require_file

INSPECT_PROMPT = "The river rose by two feet after three days of rain. The mayor of the town"
PICTURES = (".png", ".pdf", ".svg", ".jpg", ".webp")


def add_commands(subparsers: Subparsers) -> None:
    parser = shared.add_command(
        subparsers, "inspect", "show the state of each layer after a prompt, and what a change of it does",
        ["gssr inspect", 'gssr inspect --prompt "The storm turned north" --leverage --share 0.5 --plot leverage.png'],
    )  # fmt: skip
    shared.prompt_options(parser)
    shared.backbone_options(parser)
    group = parser.add_argument_group("leverage")
    group.add_argument("--leverage", action="store_true", help="measure the effect of a random change of each layer")
    group.add_argument("--share", type=shared.number, default=0.5, help="change over the state's norm; default 0.5")
    group.add_argument("--tokens", type=shared.count, default=32, help="new tokens under which to measure; default 32")
    group.add_argument(
        "--directions", type=shared.whole(1, 1000), default=4, help="random directions for each layer; default 4"
    )
    group.add_argument("--layers", type=shared.layer_list, metavar="LIST", help="such as 0,2,4-6, from 0; default all")
    shared.seed_option(group, "the directions")
    shared.json_option(parser)
    shared.plot_option(parser, "the states, and the leverage if it is measured")
    parser.set_defaults(run=inspect)

    state = shared.add_command(
        subparsers, "state", "capture, show, blend and continue states", ["gssr state capture --help"],
        "A state is all that the model keeps of a text. It continues from the state without reading the text again.",
    ).add_subparsers(title="commands", metavar="COMMAND", required=True)  # fmt: skip

    parser = shared.add_command(
        state, "capture", "read prompts and save the state after them",
        ['gssr state capture --prompt "The storm turned north" --out storm.safetensors'],
    )  # fmt: skip
    shared.prompt_options(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="safetensors file to write")
    shared.backbone_options(parser)
    parser.set_defaults(run=capture)

    parser = shared.add_command(
        state, "show", "show the parts of a saved state, and which of them grow with the text",
        ["gssr state show storm.safetensors"],
    )  # fmt: skip
    parser.add_argument("file", type=Path)
    shared.json_option(parser)
    parser.set_defaults(run=show)

    parser = shared.add_command(
        state, "blend", "blend two or many saved states",
        ["gssr state blend a.safetensors b.safetensors --ratio 0.5 --out c.safetensors",
         "gssr state blend a.safetensors b.safetensors --ratio 0 --layer 4-6=0.8 --out c.safetensors",
         "gssr state blend a.safetensors b.safetensors c.safetensors --weights 1,1,2 --out d.safetensors"],
        "Recurrent states become weighted means. Attention keys and values, conv states and the text come from one\n"
        "state, the anchor. By default the anchor is the state with the largest weight.",
    )  # fmt: skip
    parser.add_argument("files", type=Path, nargs="+", metavar="file")
    share = parser.add_mutually_exclusive_group()
    share.add_argument("--ratio", type=shared.number, default=0.5, help="0 is the first of two states, 1 the second")
    share.add_argument("--weights", type=weight_list, metavar="LIST", help="one for each state, such as 1,1,2")
    layer = {"type": layer_share, "action": "append", "default": [], "metavar": "LIST=SHARE"}
    parser.add_argument("--layer", **layer, help="ratio or weights of some layers, such as 4-6=0.8; may be repeated")
    parser.add_argument("--anchor", type=Path, metavar="FILE", help="the file of the anchor")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="safetensors file to write")
    parser.set_defaults(run=blend)

    parser = shared.add_command(
        state, "generate", "continue from a saved state without reading its text again",
        ["gssr state generate storm.safetensors --tokens 64",
         'gssr state generate storm.safetensors --read " In the evening" --temperature 0'],
    )  # fmt: skip
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--read", type=shared.utf8, metavar="TEXT", help="a further text to read first; mind the space at its start"
    )
    shared.decoding_options(parser)
    shared.json_option(parser)
    shared.backbone_options(parser)
    parser.set_defaults(run=generate)


def weight_list(text: str) -> list[float]:
    """Numbers with commas between them. An argparse type."""
    return [shared.number(part) for part in text.split(",")]


def layer_share(text: str) -> tuple[list[int], list[float]]:
    """``4-6=0.8`` or ``4-6=1,2,1``. An argparse type."""
    layers, equals, share = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no share for layers; expected such as 4-6=0.8 or 4-6=1,2,1")
    return shared.layer_list(layers), weight_list(share)


def inspect(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from gssr.states import tables
    from gssr.states.hybrid_state import HybridState
    from gssr.states.inspect import describe, leverage

    if options.layers is not None and not options.leverage:
        raise ValueError("--layers chooses the layers of --leverage, which is missing; add --leverage")
    if options.plot is not None:
        require_file(options.plot)
        if options.plot.suffix.lower() not in PICTURES:
            raise ValueError(f"--plot {options.plot} is no picture; expected an ending of {', '.join(PICTURES)}")
    if not options.prompt and options.prompt_file is None:
        options.prompt = [INSPECT_PROMPT]
    prompts = shared.read_prompts(options)
    backbone = shared.load_backbone(options)
    state = HybridState.capture(backbone, prompts)
    effects = None
    if options.leverage:
        effects = leverage(
            backbone, state, options.share, options.tokens, options.directions, options.layers, options.seed
        )
    if options.plot is not None:
        from gssr.states.plots import plot_states, save

        save(plot_states(describe(state), effects, options.share), options.plot)
    if options.json:
        found = tables.summary(state)
        if effects is not None:
            settings = {name: getattr(options, name) for name in ("share", "tokens", "directions", "seed")}
            found["leverage"] = settings | {"layers": [asdict(effect) for effect in effects]}
        print(json.dumps(found, indent=2))
        return
    tables.print_state(state, prompts)
    if effects is not None:
        tables.print_leverage(effects, options.share, options.tokens, options.directions)
    if options.plot is not None:
        print(f"picture: {shown.line(options.plot)}")


def capture(options: argparse.Namespace) -> None:
    require_file(options.out)
    prompts = shared.read_prompts(options)
    backbone = shared.load_backbone(options)

    from gssr.states import tables
    from gssr.states.hybrid_state import HybridState

    state = HybridState.capture(backbone, prompts)
    state.save(options.out)
    tables.print_summary(state)
    print(f"written: {shown.line(options.out)}")


def show(options: argparse.Namespace) -> None:
    from gssr.states import tables
    from gssr.states.hybrid_state import HybridState

    state = HybridState.load(options.file)
    if options.json:
        print(json.dumps(tables.summary(state), indent=2))
    else:
        tables.print_state(state)


def blend(options: argparse.Namespace) -> None:
    require_file(options.out)
    files: list[Path] = options.files
    if len(files) < 2:
        raise ValueError("a blend needs at least two states; give their files one after the other")
    if options.weights is None and len(files) > 2:
        raise ValueError(f"--ratio blends two states, and {len(files)} were given; give --weights, one for each")
    if options.anchor is not None and options.anchor not in files:
        raise ValueError(f"the anchor {options.anchor} is not one of the files: {', '.join(map(str, files))}")

    from gssr.states import blend as blending
    from gssr.states import tables
    from gssr.states.hybrid_state import HybridState

    def weights(share: list[float]) -> list[float]:
        """Weights of the states; one number for two states is a ratio."""
        return list(blending.ratio_weights(share[0])) if len(files) == 2 and len(share) == 1 else share

    overall = weights([options.ratio]) if options.weights is None else options.weights
    layers = {layer: weights(share) for layers, share in options.layer for layer in layers}
    anchor = None if options.anchor is None else files.index(options.anchor)
    blended = blending.blend([HybridState.load(file) for file in files], overall, layers, anchor)
    blended.save(options.out)
    tables.print_summary(blended)
    print(f"written: {shown.line(options.out)}")


def generate(options: argparse.Namespace) -> None:
    how = shared.read_decoding(options)

    from gssr.states.hybrid_state import HybridState

    HybridState.load(options.file)  # a wrong file is refused before the model is loaded
    backbone = shared.load_backbone(options)
    state = HybridState.load(options.file, backbone)
    if options.read is not None:
        state = state.read_on(backbone, options.read)

    import torch

    torch.manual_seed(options.seed)
    new = state.generate(backbone, **how)
    before = [
        backbone.tokenizer.decode(tokens[mask], skip_special_tokens=True)
        for tokens, mask in zip(state.tokens, state.mask, strict=True)
    ]
    after = backbone.tokenizer.batch_decode(new, skip_special_tokens=True)
    if options.json:
        print(json.dumps([{"text": b, "continuation": a} for b, a in zip(before, after, strict=True)], indent=2))
        return

    from gssr.states import tables

    tables.print_continuations(before, after)
