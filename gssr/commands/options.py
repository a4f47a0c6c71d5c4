"""Options that several `gssr` commands share, and the functions that read them.

torch and transformers take seconds to import. Functions import them when a command runs, so that help answers at once.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from gssr.domains import Few, Fraction, Items, Range, Seed, Steps, argument
from gssr.shown import quoted

if TYPE_CHECKING:
    from gssr.backbone import FrozenBackbone

Subparsers = "argparse._SubParsersAction[argparse.ArgumentParser]"
Options = argparse._ActionsContainer  # a parser or a group of its options
LARGEST_TEXT = 16 * 2**20  # characters; a model reads far fewer


def add_command(
    subparsers: Subparsers, name: str, does: str, examples: list[str], more: str = ""
) -> argparse.ArgumentParser:
    """Add the parser of a command.

    Args:
        does: the command's line in the list of commands.
        examples: commands at the end of its help.
        more: further sentences at the top of its help.
    """
    return subparsers.add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}.{more and ' '}{more}",
        epilog="\n  ".join(["examples:", *examples]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def backbone_options(parser: argparse.ArgumentParser, default: str = "nano") -> None:
    """The language model, its precision and its device; ``load_backbone`` reads them."""
    group = parser.add_argument_group("language model")
    named = f"{default} (default), a local folder or a hub id"
    group.add_argument("--backbone", default=default, metavar="NAME", help=named)
    hub_options(group)
    group.add_argument("--dtype", default="auto", help="auto (default), float32, bfloat16 or float16")
    group.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")


def hub_options(parser: Options) -> None:
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit of a hub id")
    parser.add_argument("--offline", action="store_true", help="use only what the hub cache already holds")


def run_option(parser: Options) -> None:
    """The run whose checkpoints ``best`` and ``last`` name; it is read as ``run_folder``."""
    parser.add_argument("--run", dest="run_folder", metavar="NAME", help="run of best or last; default the newest")


def seed_option(parser: Options, of: str) -> None:
    parser.add_argument("--seed", type=argument(Seed), default=0, help=f"of {of}; default 0")


def budget_option(parser: Options) -> None:
    parser.add_argument(
        "--budget", type=items, default=16_384, metavar="N", help="rollouts and particles at most; default 16384"
    )


def steps_options(parser: Options) -> None:
    """When thinking ends: after ``--steps``, or where the head is as sure as ``--halt``, after ``--most`` at last."""
    ends = parser.add_mutually_exclusive_group()
    ends.add_argument("--steps", type=argument(Few), metavar="N", help="steps in all")
    ends.add_argument(
        "--halt", type=argument(Fraction), default=0.9, metavar="P", help="chance of being right that is enough; 0.9"
    )
    parser.add_argument(
        "--most", type=argument(Few), default=32, metavar="N", help="steps at most with --halt; default 32"
    )


def json_option(parser: Options) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for programs")


def plot_option(parser: Options, picture: str) -> None:
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help=f"draw {picture}")


def load_backbone(options: argparse.Namespace) -> "FrozenBackbone":
    """The frozen language model of ``backbone_options``. Raises ValueError for an unknown model, type or device."""
    import torch
    from transformers.utils import logging

    from gssr.backbone import FrozenBackbone

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        if (device := torch.device(options.device)).type == "meta":
            raise RuntimeError("it holds no numbers")
    except RuntimeError as error:
        raise ValueError(f"the device {options.device!r} cannot be used: {str(error).splitlines()[0]}") from error
    backbone = FrozenBackbone(options.backbone, options.revision, options.dtype, options.offline, device.type)
    try:
        return backbone.to(device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(f"the device {options.device!r} cannot be used: {str(error).splitlines()[0]}") from error


def prompt_options(parser: argparse.ArgumentParser) -> None:
    """Prompts on the command line or in a file; ``read_prompts`` reads them."""
    parser.add_argument(
        "--prompt", type=utf8, action="append", default=[], metavar="TEXT", help="a text to read; may be repeated"
    )
    parser.add_argument("--prompt-file", type=Path, metavar="FILE", help="a UTF-8 file whose content is one more text")


def read_prompts(options: argparse.Namespace) -> list[str]:
    """Prompts in the order given, then that of the file.

    Raises ValueError if there is no prompt, one is empty, or the file is not UTF-8 text.
    """
    prompts = list(options.prompt)
    if options.prompt_file is not None:
        prompts.append(read_text(options.prompt_file))
    if not prompts:
        raise ValueError('no prompt was given; give --prompt "a text" or --prompt-file FILE')
    if not all(prompts):
        raise ValueError("a prompt is empty; give a text of at least one character")
    return prompts


def read_text(file: Path) -> str:
    """Raises ValueError if the file cannot be read, is not UTF-8 text, or is too long to be read by a model."""
    try:
        with open(file, encoding="utf-8") as opened:
            text = opened.read(LARGEST_TEXT + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read as UTF-8 text: {error}") from error
    if len(text) > LARGEST_TEXT:
        raise ValueError(f"{file} has more than {LARGEST_TEXT:,} characters; give a shorter text")
    return text


def decoding_options(parser: argparse.ArgumentParser) -> None:
    """How new text is decoded; ``read_decoding`` reads them."""
    group = parser.add_argument_group("decoding")
    group.add_argument("--tokens", type=count, default=64, help="new tokens at most; default 64")
    group.add_argument(
        "--temperature", type=temperature, default=0.8, help="0 takes the most likely token; default 0.8"
    )
    group.add_argument(
        "--top-p", type=real(0, 1, above=True), default=1.0, help="sample within this probability mass; default 1"
    )
    seed_option(group, "sampling")


def read_decoding(options: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of ``model.generate``; the caller sets the seed."""
    if options.temperature == 0:
        return {"max_new_tokens": options.tokens, "do_sample": False}
    sampling = {"temperature": options.temperature, "top_p": options.top_p, "top_k": 0}
    return {"max_new_tokens": options.tokens, "do_sample": True, **sampling}


def layer_list(text: str) -> list[int]:
    """Layers counted from 0: ``0,2,4-6`` is 0, 2, 4, 5 and 6. An argparse type."""
    layers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not all(_is_digits(n) and len(n) < 5 for n in ((first, last) if dash else (first,))) or (
            dash and int(first) > int(last)
        ):
            raise argparse.ArgumentTypeError(
                f"{quoted(text)} is no list of layers; expected numbers from 0 such as 0,2,4-6"
            )
        layers.update(range(int(first), int(last or first) + 1))
    return sorted(layers)


def whole(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: a whole number from ``low`` to ``high``."""
    return argument(Annotated[int, Range(low, high)])


def real(low: float, high: float, above: bool = False) -> Callable[[str], float]:
    """An argparse type: a number from ``low`` to ``high``, with ``above`` without ``low`` itself."""
    return argument(Annotated[float, Range(low, high, open_low=above)])


# Far above any use, and far below where a computation overflows or never ends.
MOST = 1_000_000
count, number, positive, signed = whole(1, MOST), real(0, MOST), real(0, MOST, above=True), real(-MOST, MOST)


def temperature(text: str) -> float:
    """0, or a number by which scores can be divided. An argparse type."""
    value = real(0, 1000)(text)
    if 0 < value < 0.001:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is too small a temperature; expected 0, or 0.001 to 1,000")
    return value


def utf8(text: str) -> str:
    """A text that can be written as UTF-8, which bytes of another encoding cannot. An argparse type."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not UTF-8 text") from error
    return text


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdecimal()


steps, items = argument(Steps), argument(Items)
