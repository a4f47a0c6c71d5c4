"""A number is a change only where a word says so."""

import pytest

from gssr.understanding.change_words import has_change_word
from gssr.understanding.plain_words import plain_words
from gssr.understanding.writing import Sentence, sentences


def bases(sentence: Sentence) -> set[str]:
    """What the numbers of a sentence are."""
    return {m.basis for i, m in sentence.meanings.items() if i >= 0 and sentence.mentions[i][0] == "number"}


def test_every_change_that_is_written_has_a_word_and_most_levels_have_none() -> None:
    found: dict[bool, list[bool]] = {True: [], False: []}
    for sentence in sentences(3000, 5):
        text, _ = plain_words(sentence.text, [(start, end) for _, start, end in sentence.mentions])
        if basis := bases(sentence):
            found[basis != {"level"}].append(has_change_word(text))
            assert has_change_word(text) or basis == {"level"}, text
    assert len(found[True]) > 500 and sum(found[False]) < 0.5 * len(found[False])


@pytest.mark.parametrize(
    "text",
    [
        "Ideally, 50 units in 10 hours",
        "Exactly 50 units would please us",
        "No more than 50 units is left of it",
        "Ships report 50 units after 10 hours",
        "Stay at 50 or fewer than 50 units",
    ],
)
def test_a_bare_number_is_no_change(text: str) -> None:
    assert not has_change_word(text)


@pytest.mark.parametrize("text", ["+50 units in 10 hours", "−50 units", "50 units more than before", "It rose 50"])
def test_signs_comparisons_with_earlier_and_past_forms_are_changes(text: str) -> None:
    assert has_change_word(text)
