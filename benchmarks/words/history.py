"""What a history is worth for the texts of any run: nats a token of its test part, and plans to read.

    python -m benchmarks.words.history --run strikes
    python -m benchmarks.words.history --run mine --plans 3

The run says of which data. Each text of a horizon that is picked is measured behind the belief that has read all before
its step, with the prompt of the run and with the same prompt without any earlier text; and without a belief, too. ± is
a standard error over stretches of time. Plans are of windows of the test part, without a goal, also where `plan` writes
no texts since beliefs tell nothing of them; each is written behind its own texts, and under it stands what was said.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from importlib import import_module
from inspect import signature
from typing import Any

import numpy as np
import torch
import transformers
from lightning.fabric.utilities import move_data_to_device

from datamodules.sequence_data import SequenceData
from gssr.backbone.cpu import prepare_cpu
from gssr.evaluation.forecast_report import stretches
from gssr.evaluation.imagining import evaluating, pick_evenly
from gssr.evaluation.intervals import Estimate, cluster_ratio
from gssr.network import GoalNetwork
from gssr.runs.trained import load_trained
from gssr.sequences.collate import collate
from gssr.sequences.context import context_length
from gssr.sequences.record import Batch

BATCH = 32
CLASS_PATH = "_class_path"  # of a data module, among the options that a checkpoint holds


def data_of(options: dict[str, Any]) -> SequenceData:
    """The data module that a run was trained on, from its options."""
    module, _, name = options[CLASS_PATH].rpartition(".")
    kind = getattr(import_module(module), name)
    own = "step" in signature(kind).parameters  # other data have a step that nobody chooses
    data = kind(**{key: options[key] for key in options if not key.startswith("_") and (own or key != "step")})
    data.setup("fit")
    data.setup("test")
    return data


@torch.no_grad()
def measure(network: GoalNetwork, batch: Batch, texts: int) -> dict[str, Estimate]:
    """Nats a token with the history and without it, behind the belief and behind none."""
    first, steps = context_length(batch), batch.value.shape[1]
    said = [(b, t) for b in range(len(batch)) for t in range(first, steps) if batch.text[b][t] is not None]
    rows = [said[i] for i in pick_evenly(len(said), texts)]
    x = network.forecaster.prior_samples(batch)
    numbers, nobody = network.forecaster.numbers(batch), torch.zeros(len(batch), dtype=torch.bool)
    series, found = stretches(batch), {}
    for words, heard in (("with the history", None), ("without it", nobody)):
        parts: dict[str, list[np.ndarray]] = {"belief": [], "no belief": []}
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            b, t = torch.tensor(part).T
            wanted, prompts = [batch.text[i][j] for i, j in part], network.speaker.prompts.of(batch, part, heard)
            own = network.speaker.text_nats(x[b, t], wanted, prompts, numbers[b, t])
            for kept, cost in zip(parts.values(), (own, network.speaker.silent_nats(wanted, prompts)), strict=True):
                kept.append(torch.stack(cost).double().numpy())
        for name, costs in parts.items():
            nats, tokens = np.concatenate(costs, 1)
            found[f"{name}, {words}"] = cluster_ratio(nats, tokens, [series[b] for b, _ in rows])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="the run; by default the newest")
    parser.add_argument("--ckpt_path", default="best", help="a checkpoint of it, best (default) or last")
    parser.add_argument("--texts", type=int, default=300, help="texts that are measured; default 300; 0: none")
    parser.add_argument("--plans", type=int, default=0, help="plans to print")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="(lightning|transformers|torch).*")
    transformers.logging.set_verbosity_error()
    prepare_cpu()
    try:
        network, trained = load_trained(options.ckpt_path, options.run)
        data = data_of(trained)
    except ValueError as error:
        sys.exit(f"benchmarks.words.history: {error}")
    windows = data.windows("test")
    batch = move_data_to_device(collate([windows[i] for i in pick_evenly(len(windows), 300)]), network.device)
    network.encode_texts(text for row in batch.text for text in row if text is not None)
    few = batch.select(pick_evenly(len(batch), options.plans) if options.plans else [])
    with evaluating(network, 0):
        if options.texts:
            print("| a text behind … | nats a token |\n|---|---|")
            for name, found in measure(network, batch, options.texts).items():
                print(f"| {name} | {found.value:.3f} ± {found.error:.3f} |")
        # `plan` writes no texts where beliefs tell nothing of them; a history may.
        told = network.forecaster.described(few, network.rollout(few, [None] * len(few))) if len(few) else None
    first = context_length(batch)
    for row in range(len(few)):
        print(f"\n{few.series[row]}, behind: {' | '.join(text for text in few.text[row][:first] if text)[-200:]}")
        for step, text in enumerate(told.text[row]):
            values = " ".join(f"{value:.4g}" for value in told.spoken[row, step].tolist())
            print(f"  {values}: {text}\n    in truth: {few.text[row][first + step]}")


if __name__ == "__main__":
    main()
