"""Plans in words on storms: do they speak of their own storm and their own numbers, and what does a text cost?

    python -m benchmarks.words                                    # real advisories, and the bundled nano alone
    python -m benchmarks.words --run storms --ckpt_path last      # and what a run's plans and belief reach
    python -m benchmarks.words --model runs/nano/weights          # other weights of the frozen model
    python -m benchmarks.words --model runs/nano/weights --follow  # and what it alone writes along the true rows
    python -m benchmarks.words --part val --windows 64 --run storms --examples 2

The first table says how often texts agree with the row of values that they stand in, in percent of the texts that can
be judged: the storm's name, the place within 1.5 degrees, the pressure within 5 hPa, a wind within 10 knots, the status
that the wind has, the direction of motion within 45 degrees of the row's own, and whether a text differs from the one
before it where the values do. Real advisories beside their own rows are the ceiling. Plans are of eight steps under
goals that came true; their rows are those of the rollout that is told. The second table has the nats a token of
advisories behind prompts, without any training; the third those of a run, behind its own prompts and beliefs that have
read all before the text's step. ± is a standard error over storms.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transformers
from lightning.fabric.utilities import move_data_to_device

from benchmarks.words.advisory import agreement
from datamodules import Storms
from datamodules.storms.best_tracks import spoken_name
from gssr.backbone import FrozenBackbone
from gssr.backbone.cpu import prepare_cpu
from gssr.evaluation.belief import text_evidence
from gssr.evaluation.imagining import evaluating, pick_evenly, seed_of
from gssr.evaluation.intervals import Estimate, cluster_mean, cluster_ratio
from gssr.network import GoalNetwork
from gssr.network.prompt import Prompts, Said
from gssr.network.speaker import Speaker, SpeechConfig
from gssr.runs.trained import load_trained
from gssr.sequences.collate import collate
from gssr.sequences.context import context_length
from gssr.sequences.record import Batch
from gssr.sequences.row_in_words import RowInWords
from gssr.states.prompts import ReadPrompts

BATCH = 64
REAL = "real advisories"
SIDES = "wind {wind} kt, pressure {pressure} hPa, {latitude:north|south} {longitude:east|west}:"
ADVISORY = "Storm near {latitude:north|south} {longitude:east|west}. Central pressure {pressure} hPa.\n"
PROMPTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "the last advisory": {"history": 1},
    "the last two": {"history": 2},
    "the last advisory, and the own row by name": {"history": 1, "row": "{values}:"},
    "the last advisory, and the own row with sides": {"history": 1, "row": SIDES},
    "the last advisory, and the own row as an advisory": {"history": 1, "row": ADVISORY},
    "the last advisory with its row, and the own row": {"history": 1, "row": SIDES, "rows": True},
    "the last two with their rows, and the own row": {"history": 2, "row": SIDES, "rows": True},
}
NOTHING, TOKENS = "\n", 64
FOLLOWED: dict[str, dict[str, Any]] = {
    "own texts": {"history": 1},
    "own texts, row": {"history": 1, "row": SIDES},
    "own texts and rows": {"history": 1, "row": SIDES, "rows": True},
    "own texts and rows, two": {"history": 2, "row": SIDES, "rows": True},
    "observed, row": {"history": 1, "row": SIDES, "own": False},
    "observed and its row": {"history": 1, "row": SIDES, "rows": True, "own": False},
    "observed and rows, two": {"history": 2, "row": SIDES, "rows": True, "own": False},
}


def names_of(batch: Batch) -> list[str]:
    """What advisories call the storms of a batch."""
    return [spoken_name(series.rsplit(" ", 1)[0]) for series in batch.series]


def values(batch: Batch) -> np.ndarray:
    """(B, T, Y), NaN where nothing was observed."""
    return batch.value.masked_fill(~batch.value_mask, torch.nan).cpu().numpy()


def real(batch: Batch) -> dict[str, np.ndarray]:
    """Agreement of the advisories of the horizon with their own rows."""
    first, rows = context_length(batch), values(batch)
    texts = [row[first:] for row in batch.text]
    return agreement(texts, rows[:, first:], rows[:, first - 1], names_of(batch))


def planned(network: GoalNetwork, batch: Batch, samples: int, seed: int) -> tuple[dict[str, np.ndarray], list[Any]]:
    """Agreement of plans' texts with their own rows, and the texts beside these rows."""
    first, texts, rows = context_length(batch), [], []
    with evaluating(network, seed_of(seed, "words")):
        for start in range(0, len(batch), BATCH):
            part = batch.select(list(range(start, min(start + BATCH, len(batch)))))
            part = move_data_to_device(part, network.device)
            generator = torch.Generator().manual_seed(seed_of(seed, "words", start))
            plan = network.plan(part, part.goal, samples, generator=generator)
            assert plan.spoken is not None
            texts += plan.text
            rows.append(plan.spoken.cpu().numpy())
    told = np.concatenate(rows)
    return agreement(texts, told, values(batch)[:, first - 1], names_of(batch)), list(zip(texts, told, strict=True))


def show(found: Mapping[str, Mapping[str, np.ndarray]], batch: Batch) -> None:
    """The table of agreement: over all steps, and at the first and the last one."""
    steps = batch.value.shape[1] - context_length(batch)
    print(f"| {'texts':30} | " + " | ".join(f"{part:>13}" for part in found[REAL]) + " |")
    print("|---" * (len(found[REAL]) + 1) + "|")
    for name, parts in found.items():
        for which, at in ((name, slice(None)), (f"{name}, step 1", [0]), (f"{name}, step {steps}", [steps - 1])):
            cells = []
            for part in parts.values():
                shown = part[:, at]
                estimate = cluster_mean(shown.ravel(), np.repeat(batch.series, shown.shape[1]))
                cells.append(_percent(estimate, np.isfinite(shown).mean()))
            print(f"| {which:30} | " + " | ".join(f"{cell:>13}" for cell in cells) + " |")


def _percent(estimate: Estimate, judged: float) -> str:
    return "" if judged == 0 else f"{100 * estimate.value:.1f} ± {100 * estimate.error:.1f}"


def alone(backbone: FrozenBackbone, data: Storms, batch: Batch, texts: int) -> dict[str, Estimate]:
    """Nats a token of advisories behind prompts, of the frozen model alone."""
    speaker, first = Speaker(SpeechConfig(), backbone, 1, 1), context_length(batch)
    steps = [(row, first + row % (batch.value.shape[1] - first)) for row in pick_evenly(len(batch), texts)]
    found = {}
    for name, options in PROMPTS.items():
        prompts = make_prompts(data, options).of(batch, steps)
        nats, tokens = [], []
        for start in range(0, len(steps), BATCH):
            part = slice(start, start + BATCH)
            said = [batch.text[b][t] or "" for b, t in steps[part]]
            with torch.no_grad():
                cost = speaker.silent_nats(said, prompts[part])
            for kept, numbers in zip((nats, tokens), cost, strict=True):
                kept += numbers.tolist()
        found[name] = cluster_ratio(np.array(nats), np.array(tokens), [batch.series[b] for b, _ in steps])
    return found


def follow(backbone: FrozenBackbone, data: Storms, batch: Batch, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Agreement of texts that the frozen model alone writes along the rows as they came true, step after step."""
    first, rows = context_length(batch), values(batch)
    prompts = make_prompts(data, options)
    said, texts = prompts.observed(batch), [[] for _ in range(len(batch))]
    for step in range(first, rows.shape[1]):
        for start in range(0, len(batch), BATCH):
            part = range(start, min(start + BATCH, len(batch)))
            asked = [prompts(said[b], rows[b, step].tolist()) or NOTHING for b in part]
            read = ReadPrompts(backbone, [prompt.rstrip(" ") for prompt in asked])
            nothing = backbone.table.weight.new_zeros(len(part), 0, backbone.hidden_size)
            for b, text in zip(part, backbone.generate(nothing, TOKENS, read.write), strict=True):
                texts[b].append(text)
                if text and prompts.own:
                    said[b].append(Said(text, rows[b, step].tolist()))
    return agreement(texts, rows[:, first:], rows[:, first - 1], names_of(batch))


def make_prompts(data: Storms, options: Mapping[str, Any]) -> Prompts:
    row = options.get("row")
    words = None if row is None else RowInWords(row, data.value_names, data.value_units, data.value_resolution)
    return Prompts(**{"history": 0} | dict(options) | {"row": words})


def show_nats(title: str, rows: Mapping[str, Estimate]) -> None:
    print(f"\n| {title} | nats a token |\n|---|---|")
    for name, found in rows.items():
        print(f"| {name} | {found.value:.4f} ± {found.error:.4f} ({found.low:.4f} to {found.high:.4f}) |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="the run whose plans are read; without it, no plans")
    parser.add_argument("--ckpt_path", default="last", help="a checkpoint of it, last (default) or best")
    parser.add_argument("--model", default="nano", help="without a run, the frozen model: nano or a folder")
    parser.add_argument("--part", choices=("val", "test"), default="test")
    parser.add_argument("--windows", type=int, default=128, help="windows that are planned; default 128")
    parser.add_argument("--samples", type=int, default=16, help="rollouts of a window; default 16")
    parser.add_argument("--texts", type=int, default=600, help="advisories whose nats are measured; default 600")
    parser.add_argument("--follow", action="store_true", help="let the frozen model alone write along the true rows")
    parser.add_argument("--examples", type=int, default=0, help="plans to print")
    parser.add_argument("--seed", type=int, default=0, help="of rollouts")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="(lightning|transformers|torch).*")
    transformers.logging.set_verbosity_error()
    prepare_cpu()
    try:
        run(options)
    except ValueError as error:
        sys.exit(f"benchmarks.words: {error}")


def run(options: argparse.Namespace) -> None:
    data = Storms()
    data.setup("fit")
    data.setup("test")
    windows = data.windows_evaluation(options.part, "combinations")
    batch = collate([windows[i] for i in pick_evenly(len(windows), options.windows)])
    found, examples = {REAL: real(batch)}, []
    network = None
    if options.run is not None or options.ckpt_path.endswith(".ckpt"):
        network, _ = load_trained(options.ckpt_path, options.run)
        network.encode_texts(text for row in batch.text for text in row if text is not None)
        found["plans"], examples = planned(network, batch, options.samples, options.seed)
    backbone = network.backbone if network is not None else FrozenBackbone(options.model)
    for name, about in FOLLOWED.items() if options.follow else ():
        found[name] = follow(backbone, data, batch, about)
        print(f"followed: {name}", file=sys.stderr, flush=True)
    show(found, batch)
    for row in range(min(options.examples, len(examples))):
        print(f"\n{batch.series[row]}: {batch.goal[row]}")
        for text, told in zip(*examples[row], strict=True):
            print("  " + " ".join(f"{value:7.1f}" for value in told) + f"  {text}")
    if not options.texts:
        return
    every = data.windows(options.part)
    every = collate([every[i] for i in pick_evenly(len(every), 1500)])
    show_nats("an advisory behind …", alone(backbone, data, every, options.texts))
    evidence = None if network is None else text_evidence(network, every, options.texts)
    if evidence is not None:
        rows = {"its prompt alone": evidence.none, "its prompt and another storm's belief": evidence.other}
        rows |= {"its prompt and the own belief": evidence.own, "gain of the own belief over another's": evidence.gain}
        rows |= {"gain of the own belief, values and row over another's": evidence.gain_of_all}
        show_nats("an advisory, of the run, behind …", rows)


if __name__ == "__main__":
    main()
