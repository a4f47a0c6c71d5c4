"""How much faster a session is resumed than read again, and how its file grows.

    python -m benchmarks.reasoning.sessions
    python -m benchmarks.reasoning.sessions --width 768 --repeats 3

The clock runs from a loaded model to the first new token: once from the file, once from the tokens. It counts the CPU
time of this process, so that others on the machine do not matter. The first resumption in a process, in which the
model tells once what its states look like, is not counted.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from gssr.backbone import FrozenBackbone
from gssr.backbone.cpu import prepare_cpu
from gssr.backbone.precision import DTYPES
from gssr.reasoning.session import Session
from gssr.training.architectures import Nano

WORDS = "The river rose by two feet after three days of rain, and the mayor of the town asked for help. "
ONE = {"max_new_tokens": 1, "do_sample": False}


def wide(width: int, dtype: str) -> FrozenBackbone:
    """Nano's layers and tokenizer in another width, with random weights."""
    nano = FrozenBackbone("nano")
    with tempfile.TemporaryDirectory() as folder:
        Nano(len(nano.table.weight), width).build().save_pretrained(folder)
        nano.tokenizer.save_pretrained(folder)
        return FrozenBackbone(folder, dtype=dtype)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="nano", help="default nano")
    parser.add_argument("--tokens", type=int, nargs="+", default=[500, 1000, 2000, 4000], help="of the sessions")
    parser.add_argument("--repeats", type=int, default=7, help="the median counts; default 7")
    parser.add_argument("--dtype", choices=("auto", *DTYPES), default="auto", help="precision of the weights")
    parser.add_argument("--width", type=int, help="measure nano's layers in this width, with random weights")
    options = parser.parse_args(arguments)
    prepare_cpu()
    torch.set_num_threads(1)
    backbone = (
        FrozenBackbone(options.backbone, dtype=options.dtype)
        if options.width is None
        else wide(options.width, options.dtype)
    )
    table = Table(
        "tokens",
        "file, bytes",
        "resume, CPU ms",
        "read again, CPU ms",
        "times",
        title=f"first token, {backbone.model.num_parameters() / 1e6:.1f}M parameters",
    )
    with tempfile.TemporaryDirectory() as folder:
        for tokens in options.tokens:
            file = Path(folder) / f"{tokens}.safetensors"
            text = WORDS * tokens
            (ids,) = backbone.tokenize([text])
            session = Session.new(file, backbone, backbone.tokenizer.decode(ids[: tokens - 1]))
            resumed, again = [], []
            Session.load(file, backbone).talk.write(**ONE)
            for _ in range(options.repeats):
                began = time.process_time()
                Session.load(file, backbone).talk.write(**ONE)
                between = time.process_time()
                with torch.no_grad():
                    backbone.model.generate(
                        input_ids=session.talk.tokens, attention_mask=torch.ones_like(session.talk.tokens), **ONE,
                        pad_token_id=backbone.pad_id,
                    )  # fmt: skip
                resumed.append(between - began)
                again.append(time.process_time() - between)
            a, b = median(resumed), median(again)
            length, size = session.talk.tokens.shape[1], file.stat().st_size
            table.add_row(f"{length:,}", f"{size:,}", f"{1000 * a:.1f}", f"{1000 * b:.1f}", f"{b / a:.1f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
