"""Rare words become plain ones, and mentions stay what and where they are."""

import pytest

from gssr.sequences.vocabulary import Vocabulary
from gssr.understanding.mentions import masked, mentions
from gssr.understanding.plain_words import plain_words

WORDS = Vocabulary.of(("wind",), ("kt",))


def plain(text: str) -> str:
    seen, places = masked(text, mentions(text, WORDS))
    found, moved = plain_words(seen, places)
    assert [seen[a:b] for a, b in places] == [found[a:b] for a, b in moved]
    return found


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Anything but 90 kt in two days", "Not 50 units in 10 hours"),
        ("Avoid becoming 90 kt", "Do not become 50 units"),
        ("Shun 90 kt in a day", "Do not reach 50 units in 10 hours"),
        ("Nobody wants to see 90 kt", "We do not want 50 units"),
        ("Decline to weaken", "Do not weaken"),
        ("Keep the wind out of the zone under 40 kt", "Keep the value at at least 50 units"),
        ("Sink beneath 40 kt", "Sink below 50 units"),
        ("Climb past 40 kt", "Climb above 50 units"),
        ("Let it surpass the 40 kt", "Let it exceed the 50 units"),
        ("No slower than 40 kt", "No less than 50 units"),
        ("From 40 kt upwards in a day", "50 units or more in 10 hours"),
        ("From 40 kt up to 60 kt", "From 50 units up to 50 units"),
        ("Cap the wind at 75 kt for two days", "Limit the value to 50 units for 10 hours"),
        ("A lid of 75 kt", "A maximum of 50 units"),
        ("Nothing but 75 kt", "Exactly 50 units"),
        ("Knock 20 kt off in two days", "Lose 50 units in 10 hours"),
        ("20 kt on top of today's value", "50 units more than today's value"),
        ("Two days down the line, 60 kt", "10 hours from now, 50 units"),
        ("Could it kindly reach 60 kt?", "It should reach 50 units?"),
        ("The dial reads 60 kt", "It is at 50 units"),
    ],
)
def test_rare_words_become_plain(given: str, expected: str) -> None:
    assert plain(given) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Reach 50 units in 10 hours",
        "Top of the morning to you",
        "They avoid rain and top the list",
        "The bottle has a cap",
        "Nowhere near the coast",
        "They passed the test on Monday",
    ],
)
def test_other_sentences_stay_as_they_are(text: str) -> None:
    assert plain(text) == text
