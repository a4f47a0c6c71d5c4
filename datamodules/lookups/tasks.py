"""Problems whose answer takes several lookups, each of which depends on the one before.

A problem is a prompt of facts, and chains: words of which each is looked up behind the one before it. A chain ends in
an answer, which is looked up as itself. Every word is one token.

- *chains*: variables that stand for variables, in random order. The chains of a problem end in different digits.
- *arithmetic*: variables that are another variable plus a number modulo 7. A word such as ``c+4`` is a variable with
  what has been added so far.
- *permutations*: rounds that permute five places. A word such as ``r3.2`` is a place before a round. By theory (Merrill
  et al. 2024, "The illusion of state in state-space models") no pass of fixed depth follows permutations of five for
  any number of rounds.
- *pointers*: cells that point at each other in a ring, and a number of hops. A word such as ``@3x5`` is a cell with the
  hops that are left. Facts are always equally many, and chains are written out for four lookups at most.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

PAD, BEGIN, IS, END, ASK = "<pad>", "<begin>", "=", ";", "?"
MARKS = (PAD, BEGIN, IS, END, ASK)
VARIABLES, DIGITS = "abcdefghijklmnopqrstuvwx", "0123456789"  # of chains
DEEPEST = 4  # lookups of a chain in training
NAMES, MODULUS = "ABCDEFGHIJKL", 7  # of arithmetic
PLACES, ROUNDS = 5, 16  # of permutations
CELLS, RING, HOPS, WRITTEN = 16, 10, 8, 4  # of pointers


class Problem(NamedTuple):
    """Words of the facts, up to the question mark, and chains of words, of which one is asked for.

    ``written``: lookups at most of a chain that is written out; None for all.
    """

    facts: list[str]
    chains: list[list[str]]
    written: int | None = None


class Task:
    """A kind of problems.

    ``words`` are those that it needs. ``size`` draws the size of a problem of training: the number of lookups of each
    chain.
    """

    words: tuple[str, ...] = ()

    def size(self, generator: np.random.Generator) -> tuple[int, ...]:
        raise NotImplementedError

    def problem(self, generator: np.random.Generator, size: Sequence[int]) -> Problem:
        """A problem whose chains have these numbers of lookups. Raises ValueError for a size it cannot have."""
        raise NotImplementedError


class Chains(Task):
    """``a = b ; c = 7 ; b = 3 ; ? a`` is 3; chance is one over the number of chains."""

    words = (*VARIABLES, *DIGITS)

    def size(self, generator: np.random.Generator) -> tuple[int, ...]:
        total = int(generator.integers(6, 13))
        while max(found := split(generator, total, 3)) > DEEPEST:
            pass
        return found

    def problem(self, generator: np.random.Generator, size: Sequence[int]) -> Problem:
        names = _draw(generator, VARIABLES, sum(size), "variables")
        ends = _draw(generator, DIGITS, len(size), "digits")
        chains, at = [], 0
        for length, end in zip(size, ends, strict=True):
            chains.append([*names[at : at + length], end])
            at += length
        facts = [(a, b) for chain in chains for a, b in zip(chain, chain[1:], strict=False)]
        return Problem(_said(generator, [[a, IS, b, END] for a, b in facts]), chains)


class Arithmetic(Task):
    """``a = b 3 ; b = 6 ; ? a+0`` is 2; chance is 1 in 7."""

    words = (
        *NAMES,
        *(f"+{n}" for n in range(MODULUS)),
        *(f"{name}+{n}" for name in NAMES for n in range(MODULUS)),
        *(f"={n}" for n in range(MODULUS)),
    )

    def size(self, generator: np.random.Generator) -> tuple[int, ...]:
        return split(generator, int(generator.integers(4, 9)), 2)

    def problem(self, generator: np.random.Generator, size: Sequence[int]) -> Problem:
        names = _draw(generator, NAMES, sum(size), "variables")
        chains, facts, at = [], [], 0
        for length in size:
            own, sums = names[at : at + length], generator.integers(MODULUS, size=length + 1)
            at += length
            chain = [f"{own[0]}+{sums[0]}"]
            for k, name in enumerate(own):
                amount = f"+{(sums[k + 1] - sums[k]) % MODULUS}"
                last = k == length - 1
                facts.append([name, IS if last else own[k + 1], amount, END])
                chain.append(f"={sums[k + 1]}" if last else f"{own[k + 1]}+{sums[k + 1]}")
            chains.append(chain)
        return Problem(_said(generator, facts), chains)


class Permutations(Task):
    """``r3.0 .2`` says that round 3 moves what is in place 0 to place 2; then ``r4.2`` is looked up. Chance is 1 in 5.

    The rounds of a problem follow each other from a random one on, so that a model knows all rounds although no problem
    of training has so many.
    """

    words = (
        *(f".{p}" for p in range(PLACES)),
        *(f"r{r}.{p}" for r in range(ROUNDS + 1) for p in range(PLACES)),
    )

    def size(self, generator: np.random.Generator) -> tuple[int, ...]:
        return (int(generator.integers(1, 9)),)

    def problem(self, generator: np.random.Generator, size: Sequence[int]) -> Problem:
        (count,) = size
        if not 1 <= count <= ROUNDS:
            raise ValueError(f"{count} rounds were asked for; expected 1 to {ROUNDS}")
        first = int(generator.integers(ROUNDS - count + 1))
        goes = [generator.permutation(PLACES) for _ in range(count)]
        facts = [BEGIN]
        for r, places in enumerate(goes, first):
            facts += [word for place, to in enumerate(places) for word in (f"r{r}.{place}", f".{to}")]
        chains = []
        for place in range(PLACES):
            chain = [f"r{first}.{place}"]
            for r, places in enumerate(goes, first + 1):
                place = int(places[place])
                chain.append(f"r{r}.{place}")
            chains.append(chain)
        return Problem([*facts, ASK], chains)


class Pointers(Task):
    """``@3 @7 ; @7 @1 ; ? @3x2`` is ``@1x0``; chance is one over the cells of a ring."""

    words = (*(f"@{c}" for c in range(CELLS)), *(f"@{c}x{hops}" for c in range(CELLS) for hops in range(HOPS + 1)))

    def size(self, generator: np.random.Generator) -> tuple[int, ...]:
        return (HOPS,)

    def problem(self, generator: np.random.Generator, size: Sequence[int]) -> Problem:
        (hops,) = size
        if not 1 <= hops <= HOPS:
            raise ValueError(f"{hops} hops were asked for; expected 1 to {HOPS}")
        ring = generator.permutation(CELLS)[:RING]
        facts = [[f"@{a}", f"@{b}", END] for a, b in zip(ring, np.roll(ring, -1), strict=True)]
        chains = [[f"@{ring[(i + k) % RING]}x{hops - k}" for k in range(hops + 1)] for i in range(RING)]
        return Problem(_said(generator, facts), chains, WRITTEN)


# A new kind stands behind the others, so that words keep their ids.
TASKS: dict[str, Task] = {
    "chains": Chains(),
    "arithmetic": Arithmetic(),
    "permutations": Permutations(),
    "pointers": Pointers(),
}
WORDS = (*MARKS, *(word for task in TASKS.values() for word in task.words))


def split(generator: np.random.Generator, total: int, parts: int) -> tuple[int, ...]:
    """``total`` as a sum of ``parts`` numbers of at least 1, each sum as likely as any other."""
    cuts = np.sort(generator.choice(np.arange(1, total), parts - 1, replace=False))
    return tuple(np.diff([0, *cuts, total]).tolist())


def _draw(generator: np.random.Generator, names: Sequence[str], count: int, what: str) -> list[str]:
    if count > len(names):
        raise ValueError(f"{count} {what} were asked for, there are {len(names)}; take shorter or fewer chains")
    return [names[i] for i in generator.permutation(len(names))[:count]]


def _said(generator: np.random.Generator, facts: list[list[str]]) -> list[str]:
    return [BEGIN, *(word for i in generator.permutation(len(facts)) for word in facts[i]), ASK]
