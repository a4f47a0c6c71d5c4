"""How much faster a session is resumed than read again, and how its file grows.

    python -m benchmarks.reasoning.sessions

The clock runs from a loaded model to the first new token: once from the file, once from the tokens.
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
from gssr.reasoning.session import Session

WORDS = "The river rose by two feet after three days of rain, and the mayor of the town asked for help. "
ONE = {"max_new_tokens": 1, "do_sample": False}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="nano", help="default nano")
    parser.add_argument("--tokens", type=int, nargs="+", default=[500, 1000, 2000, 4000], help="of the sessions")
    parser.add_argument("--repeats", type=int, default=7, help="the median counts; default 7")
    options = parser.parse_args(arguments)
    prepare_cpu()
    backbone = FrozenBackbone(options.backbone)
    table = Table(
        "tokens", "file, bytes", "resume, ms", "read again, ms", "times", title=f"first token, {backbone.name}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for tokens in options.tokens:
            file = Path(folder) / f"{tokens}.safetensors"
            text = WORDS * tokens
            (ids,) = backbone.tokenize([text])
            session = Session.new(file, backbone, backbone.tokenizer.decode(ids[: tokens - 1]))
            resumed, again = [], []
            for _ in range(options.repeats):
                began = time.perf_counter()
                Session.load(file, backbone).talk.write(**ONE)
                between = time.perf_counter()
                with torch.no_grad():
                    backbone.model.generate(
                        input_ids=session.talk.tokens, attention_mask=torch.ones_like(session.talk.tokens), **ONE,
                        pad_token_id=backbone.pad_id,
                    )  # fmt: skip
                resumed.append(between - began)
                again.append(time.perf_counter() - between)
            a, b = median(resumed), median(again)
            length, size = session.talk.tokens.shape[1], file.stat().st_size
            table.add_row(f"{length:,}", f"{size:,}", f"{1000 * a:.1f}", f"{1000 * b:.1f}", f"{b / a:.1f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
