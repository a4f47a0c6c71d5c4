"""Sentences from which the head learns: what is written is what is meant."""

import re
from collections import Counter

from gssr.understanding.mentions import WORDS
from gssr.understanding.writing import Sentence, sentences

WRITTEN: list[Sentence] = list(sentences(1500, 3, ["Return a list of names."]))


def test_sentences_are_the_same_for_a_seed_and_differ_otherwise() -> None:
    assert list(sentences(40, 3, ["Return a list of names."])) == WRITTEN[:40]
    assert list(sentences(40, 4)) != WRITTEN[:40]


def test_mentions_stand_where_they_say() -> None:
    for sentence in WRITTEN:
        for kind, start, end in sentence.mentions:
            word = WORDS[kind]
            assert start < end <= len(sentence.text)
            assert word is None or sentence.text[start:end].lower() == word.lower()
        assert not re.search(r"[{}\[\]|]|  ", sentence.text), sentence.text


def test_every_kind_is_written_and_only_goals_mean_something() -> None:
    kinds = Counter(sentence.kind for sentence in WRITTEN)
    assert min(kinds[kind] for kind in ("goal", "other", "none")) > 100
    assert all((sentence.kind == "goal") == bool(sentence.meanings) for sentence in WRITTEN)
    means = Counter((m.bound, m.basis, m.negated) for s in WRITTEN for m in s.meanings.values())
    assert {bound for bound, _, _ in means} >= {"exact", "least", "most", "above", "below", "low", "high"}
    assert {basis for _, basis, _ in means} == {"level", "rise", "fall"} and {n for *_, n in means} == {True, False}


def test_a_bound_is_what_its_words_say() -> None:
    for sentence in WRITTEN:
        text = sentence.text.lower()
        alone = list(sentence.meanings.values()) if len(sentence.meanings) == 1 else []
        for meaning in alone:
            if re.search(r"\bat least (50|a class|class)", text):
                assert meaning.bound == "least", text
            if re.search(r"\bat most (50|a class|class)", text):
                assert meaning.bound == "most", text
            if re.search(r"\bwithin (the next )?10 hours", text):
                assert meaning.when == "within", text


def test_both_ends_of_a_range_come_in_order_and_belong_together() -> None:
    for sentence in WRITTEN:
        bounds = [m.bound for _, m in sorted(sentence.meanings.items()) if m.bound in ("low", "high")]
        assert bounds == ["low", "high"] * (len(bounds) // 2)
