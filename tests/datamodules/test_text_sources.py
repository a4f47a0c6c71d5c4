"""Generated sources of the corpus: facts and their questions, conditions, runs of advisories."""

import re

import numpy as np
import pytest

from datamodules.storms.best_tracks import advisories, read_storms
from datamodules.text import build
from datamodules.text.advisory_runs import MOST, advisory_runs, row_in_words
from datamodules.text.conditions import condition_sentences, in_words
from datamodules.text.facts import MOST_FACTS, FactWriter, fact_documents, is_held_out_name

OTHER = ["one two three four five six seven eight nine ten " * 60]


def test_what_is_asked_was_said_and_stands_in_its_place() -> None:
    found = 0
    for text, places in fact_documents(60, OTHER, held_out=False, seed=0):
        for start, end in zip(places[::2], places[1::2], strict=True):
            answer = text[start:end]
            assert answer and answer in text[:start], "the answer is known from the text before it"
            found += 1
    assert found > 60 * 2


def test_training_and_held_out_documents_share_no_name() -> None:
    names = {}
    for held_out in (False, True):
        writer = FactWriter(np.random.default_rng(1), held_out)
        persons = [f for f in writer.facts(200) if f.relation == "friend"]
        names[held_out] = {name for fact in persons for name in (fact.subject, fact.answer)}
        assert {is_held_out_name(name) for name in names[held_out]} == {held_out}
    assert not names[False] & names[True]


def test_a_document_has_one_to_eight_facts_no_two_with_the_same_question() -> None:
    writer = FactWriter(np.random.default_rng(2))
    for count in (1, MOST_FACTS):
        facts = writer.facts(count)
        assert len({(fact.relation, fact.subject) for fact in facts}) == count
        assert all(fact.answer != fact.subject for fact in facts)


def test_phrases_kept_out_of_training_are_other_phrases() -> None:
    trained, new = (FactWriter(np.random.default_rng(3), new_phrases=new) for new in (False, True))
    fact = trained.facts(1)[0]
    phrases = trained.about["relations"][fact.relation]["predicates"]
    assert {trained._phrase(fact, "predicates") for _ in range(200)} == set(phrases[:-1])
    assert new._phrase(fact, "predicates") == phrases[-1]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (90, "ninety"),
        (105, "one hundred and five"),
        (985, "nine hundred and eighty-five"),
        (1024, "one thousand twenty-four"),
        (-30, "minus thirty"),
    ],
)
def test_numbers_in_words(number: int, words: str) -> None:
    assert in_words(number) == words


def test_conditions_are_filled_sentences_of_many_kinds() -> None:
    sentences = list(condition_sentences(40_000, seed=0))
    assert sentences == list(condition_sentences(40_000, seed=0))
    assert not [s for s in sentences if re.search(r"[{}]|\s\s|^\s|\snan", s)]
    for wanted in ("Do not", " by ", "Between", "At least", "until", "What is the capital", " hundred", " kt"):
        assert any(wanted in s for s in sentences), wanted


def test_runs_hold_every_advisory_of_their_years_and_rows_agree_with_them() -> None:
    years = range(1995, 1997)
    runs = [run.split("\n") for run in advisory_runs(years, passes=1, seed=0)]
    said = [re.sub(r"^wind [^:]*: ", "", line) for run in runs for line in run]
    assert said == [text for storm in read_storms(years=years) for text in advisories(storm)]
    assert max(map(len, runs)) == MOST
    rows = [line for run in runs for line in run if line.startswith("wind ")]
    assert 0.2 < len(rows) / len(said) < 0.8
    for line in rows:
        row, text = line.split(": ", 1)
        if pressure := re.search(r"pressure (\d+) hPa", row):
            assert f" {pressure[1]} hPa." in text
        if place := re.search(r"[\d.]+ north [\d.]+ west", row):
            assert place[0] in text


def test_a_row_leaves_out_what_was_not_observed() -> None:
    storm = read_storms(years=range(2005, 2006))[0]
    storm.wind[0] = np.nan
    assert re.fullmatch(r"pressure \d+ hPa, [\d.]+ north [\d.]+ west:", row_in_words(storm, 0, named=False))
    named = row_in_words(storm, 1, named=True)
    assert re.fullmatch(r"wind \d+ kt, pressure \d+ hPa, latitude [\d.-]+ deg, longitude [\d.-]+ deg:", named)


CAPITALISED = re.compile(r"\b[A-Z][a-z]+(?: [A-Z][a-z]+)?")


def test_no_held_out_name_stands_in_a_training_document() -> None:
    """Neither a name of one word on its own nor a full name; words of a full name may be part of others."""
    kinds = ("person", "town", "river", "country")
    writer = FactWriter(np.random.default_rng(4), held_out=True)
    held_out = {writer._thing(kind) for kind in kinds for _ in range(150)}
    assert len(held_out) > 150
    documents = [text for text, _ in fact_documents(1500, OTHER, held_out=False, seed=0)]
    said = {name for text in documents for name in CAPITALISED.findall(text)}
    assert not held_out & said
    other = [text for text, _ in fact_documents(300, OTHER, held_out=True, seed=0)]
    assert len(held_out & {name for text in other for name in CAPITALISED.findall(text)}) > 20


def test_runs_of_training_are_of_training_years(monkeypatch: pytest.MonkeyPatch) -> None:
    years = {"train": range(1995, 1997), "val": range(2010, 2011), "test": range(2016, 2018)}
    monkeypatch.setattr(build, "YEARS", years)
    monkeypatch.setattr(build, "RUN_PASSES", 2)
    monkeypatch.setattr(build, "CONDITION_SIZE", 40_000)
    monkeypatch.setattr(build, "FACT_COUNT", 200)
    natural = [
        {"source": source, "split": split, "text": f"{source} {split} " * 300}
        for source in ("tales", "storms")
        for split in ("train", "heldout")
    ]
    rows = list(build.generated(natural))
    said = {
        split: {re.sub(r"^wind [^:]*: ", "", line) for row in rows if row["source"] == "runs" and row["split"] == split
                for line in row["text"].split("\n")}
        for split in ("train", "heldout")
    }  # fmt: skip
    texts = {
        part: {text for storm in read_storms(years=span) for text in advisories(storm)} for part, span in years.items()
    }
    assert said["train"] == texts["train"] and said["heldout"] == texts["val"]
    facts = {
        split: "".join(row["text"] for row in rows if row["source"] == "facts" and row["split"] == split)
        for split in said
    }
    assert "tales train" in facts["train"] and "heldout" not in facts["train"]
    assert "tales heldout" in facts["heldout"] and "storms" not in facts["train"] + facts["heldout"]
    assert {split: sum(row["split"] == split for row in rows if row["source"] == "facts") for split in said} == {
        "train": 200, "heldout": 4,
    }  # fmt: skip
    sentences = {
        split: {row["text"] for row in rows if row["source"] == "conditions" and row["split"] == split}
        for split in said
    }
    assert len(sentences["heldout"]) > 5 and len(sentences["train"] & sentences["heldout"]) < 0.2 * len(
        sentences["heldout"]
    )
