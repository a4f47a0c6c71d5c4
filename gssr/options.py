"""Options that several `gssr` commands share, and what becomes of them; knows `gssr.backbone` alone."""

import argparse
from pathlib import Path

from gssr.backbone import FrozenBackbone
from gssr.backbone.loading import DTYPES, NANO


def add_command(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    does: str,
    example: str,
    more: str = "",
) -> argparse.ArgumentParser:
    """A command's parser: ``does`` is its line in the list of commands, ``example`` stands under its own help."""
    return subparsers.add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}.{more and ' '}{more}",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def backbone_options(parser: argparse.ArgumentParser) -> None:
    """Which language model, and in which precision; ``load_backbone`` reads them."""
    group = parser.add_argument_group("language model")
    group.add_argument(
        "--backbone", default=NANO, metavar="NAME", help="nano (bundled), a local folder or a hub id; default nano"
    )
    group.add_argument("--revision", metavar="REV", help="of a hub id: branch, tag or commit")
    group.add_argument("--dtype", default="float32", choices=sorted(DTYPES), help="of the weights; default float32")
    group.add_argument("--offline", action="store_true", help="use only what the hub cache already holds")


def load_backbone(options: argparse.Namespace) -> FrozenBackbone:
    return FrozenBackbone(options.backbone, options.revision, options.dtype, options.offline)


def prompt_options(parser: argparse.ArgumentParser) -> None:
    """Prompts on the command line or in a file; ``read_prompts`` reads them."""
    parser.add_argument(
        "--prompt", action="append", default=[], metavar="TEXT", help="a text to read; repeat it for a batch"
    )
    parser.add_argument("--prompt-file", type=Path, metavar="FILE", help="a whole file as one more text, UTF-8")


def read_prompts(options: argparse.Namespace) -> list[str]:
    """Prompts in the order given, the file's last.

    Raises:
        ValueError: no prompt, an empty one, or a file that cannot be read as text.
    """
    prompts = list(options.prompt)
    if options.prompt_file is not None:
        try:
            prompts.append(options.prompt_file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the prompt file {options.prompt_file} cannot be read as UTF-8 text: {error}") from error
    if not prompts:
        raise ValueError('no prompt was given; give --prompt "a text" or --prompt-file FILE')
    for prompt in prompts:
        if not prompt:
            raise ValueError("a prompt is empty; give a text of at least one character")
    return prompts


def layer_list(text: str) -> list[int]:
    """Layers counted from 0: ``0,2,4-6`` is 0, 2, 4, 5 and 6. An argparse type; whether they exist the backbone knows."""
    layers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise argparse.ArgumentTypeError(f"{text!r} is no list of layers; expected numbers from 0 such as 0,2,4-6")
        layers += range(int(first), int(last or first) + 1)
    if not layers:
        raise argparse.ArgumentTypeError(f"{text!r} names no layer; a range goes upwards, such as 4-6")
    return sorted(set(layers))


def count(text: str) -> int:
    """A whole number above 0. An argparse type."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
