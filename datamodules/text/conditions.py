"""Sentences that set conditions on the columns of a table, in many kinds, and sentences that set none.

A language model that has read such sentences tells "by 20 knots" from "to 20 knots" and "do not reach" from "reach".
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml

from gssr.sequences.phrases import number_word, tidy

CONDITIONS_FILE = Path(__file__).parent / "conditions.yaml"
KINDS = ("levels", "negations", "changes", "sides", "ranges", "several", "times", "others")
IN_WORDS = 0.3  # share of sentences with numbers in words
_SMALL = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def in_words(number: int) -> str:
    """A whole number below a million in words: 105 gives "one hundred and five"."""
    if number < 0:
        return f"minus {in_words(-number)}"
    if number < 20:
        return _SMALL[number]
    if number < 100:
        tens, rest = divmod(number, 10)
        return _TENS[tens - 2] + (f"-{_SMALL[rest]}" if rest else "")
    size, word, link = (100, "hundred", " and ") if number < 1000 else (1000, "thousand", " ")
    count, rest = divmod(number, size)
    return f"{in_words(count)} {word}" + (f"{link}{in_words(rest)}" if rest else "")


def condition_sentences(size: int, seed: int) -> Iterator[str]:
    """Sentences of all kinds in turn, of ``size`` characters in all."""
    about = yaml.safe_load(CONDITIONS_FILE.read_text(encoding="utf-8"))
    generator, number = np.random.default_rng(seed), 0
    while size > 0:
        sentence = _sentence(about, KINDS[number % len(KINDS)], generator)
        yield sentence
        size, number = size - len(sentence), number + 1


def _sentence(about: dict, kind: str, generator: np.random.Generator) -> str:
    def choose(options):
        return options[generator.integers(len(options))]

    names = list(about["columns"])
    # Half of all sentences are about the first columns, those of the bundled storms.
    name = choose(names[:4]) if generator.random() < 0.5 else choose(names)
    unit, low, high, step, wordings = about["columns"][name]
    other = choose([n for n in names[:4] if n != name] if name in names[:4] else [n for n in names if n != name])
    other_unit, other_low, other_high, other_step, other_wordings = about["columns"][other]
    spoken = generator.random() < IN_WORDS

    def value(low: float, high: float, step: float) -> str:
        number = round(generator.uniform(low, high) / step) * step
        return in_words(round(number)) if spoken and step >= 1 else number_word(number, step)

    middle = generator.uniform(low, high)
    span = choose(about["spans"])
    column = choose(wordings)
    if unit == "kt":
        unit = choose(["knots", "knots", "kt"])
    text = choose(about[kind]).format(
        c=column, C=column, u=unit, v=value(low, middle, step), w=value(middle, high, step),
        d=value(step, step + (high - low) / 3, step), k=choose(other_wordings), m=other_unit,
        l=value(other_low, other_high, other_step), s=span, t=choose(about["phrases"]).format(s=span),
        n=generator.integers(1, 49), day=choose(about["days"]), name=choose(about["names"]),
        thing=choose(about["things"]),
    )  # fmt: skip
    return tidy(text)
