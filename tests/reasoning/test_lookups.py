"""Generated problems against solvers that read their text alone."""

import re

import numpy as np
import pytest
import torch

from datamodules.lookups import ThoughtChains, WrittenChains
from datamodules.lookups.data import make_tokenizer
from datamodules.lookups.tasks import TASKS, Task


def chains(text: str) -> str:
    facts, asked = text.split(" ? ")
    means = dict(re.findall(r"(\w) = (\w) ;", facts))
    while asked in means:
        asked = means[asked]
    return asked


def arithmetic(text: str) -> str:
    facts, asked = text.split(" ? ")
    if asked.startswith("="):
        return asked
    means = {a: (b, int(n)) for a, b, n in re.findall(r"(\w) ([\w=]) \+(\d) ;", facts)}
    name, total = asked.split("+")
    total = int(total)
    while name != "=":
        name, amount = means[name]
        total += amount
    return f"={total % 7}"


def permutations(text: str) -> str:
    facts, asked = text.split(" ? ")
    goes = {(int(r), int(a)): int(b) for r, a, b in re.findall(r"r(\d+)\.(\d) \.(\d)", facts)}
    r, place = map(int, asked[1:].split("."))
    while (r, place) in goes:
        place, r = goes[r, place], r + 1
    return f"r{r}.{place}"


def pointers(text: str) -> str:
    facts, asked = text.split(" ? ")
    goes = dict(re.findall(r"@(\d+) @(\d+) ;", facts))
    cell, hops = asked[1:].split("x")
    for _ in range(int(hops)):
        cell = goes[cell]
    return f"@{cell}x0"


SOLVERS = {"chains": chains, "arithmetic": arithmetic, "permutations": permutations, "pointers": pointers}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("part", ["train_dataloader", "val_dataloader", "test_dataloader"])
def test_answers_are_those_of_the_text(name: str, part: str) -> None:
    tokenizer = make_tokenizer()
    loader = getattr(ThoughtChains([name], batch_size=8, rows=64, heldout_rows=32), part)()
    for batch in loader if part == "train_dataloader" else loader[0]:
        for prompt, chain, answer in zip(*(batch[key].tolist() for key in ("prompt", "chain", "answer")), strict=True):
            text = tokenizer.decode(prompt[1:])
            assert SOLVERS[name](text) == tokenizer.decode([answer]) == tokenizer.decode([chain[-1]])
            assert prompt[-1] == chain[0]
            facts = text.split(" ? ")[0]
            for word in chain[1:]:  # from each word of the chain the answer is the same
                assert SOLVERS[name](f"{facts} ? {tokenizer.decode([word])}") == tokenizer.decode([answer])


@pytest.mark.parametrize("name", TASKS)
def test_what_is_written_is_looked_up_and_alone_counts(name: str) -> None:
    tokenizer = make_tokenizer()
    for batch in WrittenChains([name], batch_size=8, rows=64).train_dataloader():
        for tokens, weights in zip(batch["tokens"], batch["weights"], strict=True):
            text = tokenizer.decode(tokens[1:])
            facts, said = text.split(" ? ")
            words = said.split(" ")
            assert weights.sum() == len(words) - 1 and weights[-len(words) + 1 :].all()
            assert len({SOLVERS[name](f"{facts} ? {word}") for word in words}) == 1
            if name in ("chains", "pointers"):  # what is deeper is held out
                assert len(set(words)) <= 5


def test_a_batch_has_one_size_and_seed_part_and_row_decide_it() -> None:
    def rows(seed: int, part: str) -> list[torch.Tensor]:
        data = ThoughtChains(batch_size=4, rows=64, heldout_rows=64, seed=seed)
        loaders = [data.train_dataloader()] if part == "train" else data.val_dataloader()
        return [batch["prompt"] for loader in loaders for batch in loader]

    first, again, other, held = rows(0, "train"), rows(0, "train"), rows(1, "train"), rows(0, "val")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    texts = [{tuple(row.tolist()) for batch in part for row in batch} for part in (first, other, held)]
    assert not texts[0] & texts[1] and not texts[0] & texts[2]


@pytest.mark.parametrize("task", TASKS.values())
def test_answers_are_balanced(task: Task) -> None:
    g = np.random.default_rng(0)
    size = {"Chains": (4, 4, 4), "Arithmetic": (4, 4), "Permutations": (8,), "Pointers": (8,)}[type(task).__name__]
    ends = [task.problem(g, size).chains[0][-1].split(".")[-1] for _ in range(2000)]
    shares = np.unique(ends, return_counts=True)[1] / len(ends)
    assert shares.max() < 1.35 * shares.mean()


@pytest.mark.parametrize(
    "name, size", [("chains", (20, 5)), ("arithmetic", (13,)), ("permutations", (17,)), ("pointers", (9,))]
)
def test_more_lookups_than_there_are_names_are_refused(name: str, size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="were asked for"):
        TASKS[name].problem(np.random.default_rng(0), size)
