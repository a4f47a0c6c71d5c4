"""Storms around SmolLM2-135M, random weights of its shape, and nano: what does a real language model buy?

    python -m benchmarks.real_model                  # all three, a quarter of an hour of one core
    python -m benchmarks.real_model --models nano    # one of them

Each model is read by a goal network of the same size, at a third of its layers, for the same steps of the same batches.
That network reads no texts and learns no words, so that the minutes go to goals. Hits are of test years, of the mean
of the rollouts at the goal's step: within 10 knots for sentence forms that training never writes; within 5 knots of
the bounds for the goals of `goals.txt`, each behind windows whose wind is 10 to 40 knots outside of them. Words are
those of the frozen model alone, behind the last advisory and the row of values: nats a byte of the true text, and what
it writes along the true rows for eight steps, in percent of the texts that agree with their row. ± is a standard error
over storms, or over sentences. Minutes are of the processor.
"""

from __future__ import annotations

import argparse
import re
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from benchmarks.ablations.readings import NoReading
from benchmarks.short_training import train
from benchmarks.words.__main__ import SIDES, follow, make_prompts
from datamodules import Storms
from gssr.backbone import FrozenBackbone
from gssr.backbone.cpu import prepare_cpu
from gssr.backbone.gguf_file import unpacked
from gssr.evaluation.imagining import evaluating, pick_evenly
from gssr.evaluation.intervals import Estimate, cluster_mean, cluster_ratio
from gssr.files import cache_folder
from gssr.metrics import at_step, goal_hits
from gssr.network import GoalNetwork
from gssr.network.speaker import Speaker, SpeechConfig
from gssr.sequences.collate import collate
from gssr.sequences.context import context_length
from gssr.sequences.record import Record

SMOLLM, RANDOM, NANO = "smollm2-135m", "smollm2-135m-random", "nano"
GOALS = Path(__file__).parent / "goals.txt"
NEAR, FAR = 10.0, 40.0  # knots between a window's wind and a goal's bounds
PROMPT = {"history": 1, "row": SIDES}
SAMPLES = 16


@dataclass(frozen=True)
class Goal:
    """A sentence in a language, true of winds (kt) from low to high."""

    language: str
    text: str
    low: float
    high: float


def read_goals() -> list[Goal]:
    form = re.compile(r"(\w\w): (.+) => (\d+) (\d+)")
    lines = GOALS.read_text(encoding="utf-8").splitlines()
    found = [form.fullmatch(line) for line in lines if line and not line.startswith("#")]
    return [Goal(match[1], match[2], float(match[3]), float(match[4])) for match in found if match is not None]


def random_weights(like: str) -> str:
    """A folder with random weights of a model's shape and its tokenizer, written once."""
    folder, source = cache_folder() / "backbones" / RANDOM, str(unpacked(like))
    if not (folder / "model.safetensors").exists():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source)).bfloat16().save_pretrained(folder)
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return str(folder)


def followed(name: str, data: Storms, steps: int, seed: int) -> GoalNetwork:
    """A goal network around a model, trained for some steps to follow goals."""
    made: list[GoalNetwork] = []

    def make() -> GoalNetwork:
        backbone = {"name": random_weights(SMOLLM) if name == RANDOM else name, "dtype": "float32"}
        third = max(1, len(FrozenBackbone(**backbone).layers) // 3)

        world = {"text_layers": [1], "text_reading": NoReading, "goal_layer": third}
        objective = {"alpha_text": 0.0, "text_steps": 0}
        made.append(GoalNetwork(backbone=backbone, world=world, objective=objective, seed=seed))
        return made[0]

    train(make, data, steps, seed)
    return made[0].eval()


@torch.no_grad()
def hits(network: GoalNetwork, windows: Sequence[Record], goals: Sequence[Goal | None], given: bool) -> np.ndarray:
    """Whether windows end where their own goals (None) or other ones say, with goals ``given`` or withheld; (N)."""
    batch, tolerance = collate(windows), np.array([10.0 if goal is None else 5.0 for goal in goals])
    for row, goal in enumerate(goals):
        if goal is not None:
            batch.goal[row], batch.goal_low[row, 0], batch.goal_high[row, 0] = goal.text, goal.low, goal.high
    said = batch.goal if given else [None] * len(batch)
    with evaluating(network, 0):
        path = network.rollout(batch, said, SAMPLES).mean.mean(0)
    reached = at_step(path, batch.goal_step - context_length(batch))
    each = [goal_hits(reached, batch.goal_low, batch.goal_high, float(slack)) for slack in (10.0, 5.0)]
    return np.where(tolerance == 10.0, *(part.numpy() for part in each)).astype(float)


def free_cases(windows: Sequence[Record], most: int) -> tuple[list[Record], list[Goal]]:
    """Windows from which a goal is some way off, at most ``most`` for each goal."""
    found: tuple[list[Record], list[Goal]] = ([], [])
    for goal in read_goals():
        fits = []
        for record in windows:
            wind = record.value[record.goal_start, 0]
            if NEAR <= max(goal.low - wind, wind - goal.high) <= FAR:
                fits.append(record)
        for i in pick_evenly(len(fits), most):
            found[0].append(fits[i])
            found[1].append(goal)
    return found


@torch.no_grad()
def nats_a_byte(backbone: FrozenBackbone, data: Storms, windows: Sequence[Record], texts: int) -> Estimate:
    batch, speaker = collate(windows), Speaker(SpeechConfig(), backbone, 1, 1)
    steps = [(row, context_length(batch) + row % 8) for row in pick_evenly(len(batch), texts)]
    prompts, nats = make_prompts(data, PROMPT).of(batch, steps), []
    said = [batch.text[b][t] or "" for b, t in steps]
    for start in range(0, len(said), 16):
        nats += speaker.silent_nats(said[start : start + 16], prompts[start : start + 16])[0].tolist()
    sizes = np.array([len(text.encode()) for text in said], dtype=float)
    return cluster_ratio(np.array(nats), sizes, [batch.series[b] for b, _ in steps])


def shown(found: Estimate, factor: float = 100.0, digits: int = 1) -> str:
    return f"{factor * found.value:.{digits}f} ± {factor * found.error:.{digits}f}"


def row(name: str, data: Storms, options: argparse.Namespace) -> dict[str, str]:
    """The line of a model."""
    start, cells = time.process_time(), {}
    network = followed(name, data, options.steps, options.seed)
    data.setup("test")
    forms = data.windows_evaluation("test", "forms")
    forms = [forms[i] for i in pick_evenly(len(forms), options.windows)]
    own: list[Goal | None] = [None] * len(forms)
    series = [record.series for record in forms]
    for given, words in ((False, "no goal"), (True, "unseen forms")):
        cells[f"{words}, hits"] = shown(cluster_mean(hits(network, forms, own, given), series))
    windows, goals = free_cases(data.windows("test"), options.each)
    free = {given: hits(network, windows, goals, given) for given in (False, True)}
    for words, chosen in (("60 free goals", {"en"}), ("20 in German, French, Spanish", {"de", "fr", "es"})):
        here = np.array([goal.language in chosen for goal in goals])
        sentences = [goal.text for goal in goals if goal.language in chosen]
        without, found = (cluster_mean(free[given][here], sentences) for given in (False, True))
        cells[f"{words}, hits (without)"] = f"{shown(found)} ({100 * without.value:.1f})"
    backbone, test = network.backbone, data.windows("test")
    cells["nats a byte"] = shown(nats_a_byte(backbone, data, test, options.texts), 1.0, 3)
    few = collate([forms[i] for i in pick_evenly(len(forms), options.plans)])
    told = follow(backbone, data, few, PROMPT) if name != RANDOM else {}  # which writes no words
    for part in ("name", "place", "pressure", "status", "motion"):
        right = told.get(part, np.array([np.nan]))
        cells[part] = "none" if np.isnan(right).all() else f"{100 * np.nanmean(right):.0f}"
    cells["minutes"] = f"{(time.process_time() - start) / 60:.1f}"
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=(NANO, SMOLLM, RANDOM), default=[NANO, SMOLLM, RANDOM])
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps; default 300")
    parser.add_argument("--batch_size", type=int, default=32, help="windows in a batch; default 32")
    parser.add_argument("--windows", type=int, default=192, help="windows with unseen forms; default 192")
    parser.add_argument("--each", type=int, default=8, help="windows of each free goal; default 8")
    parser.add_argument("--texts", type=int, default=64, help="advisories whose nats are measured; default 64")
    parser.add_argument("--plans", type=int, default=8, help="windows that are told in words; default 8")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="(lightning|transformers|torch).*")
    transformers.logging.set_verbosity_error()
    prepare_cpu()
    for number, name in enumerate(options.models):
        cells = row(name, Storms(batch_size=options.batch_size), options)
        if number == 0:
            print("| model | " + " | ".join(cells) + " |\n" + "|---" * (1 + len(cells)) + "|")
        print(f"| {name} | " + " | ".join(cells.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
