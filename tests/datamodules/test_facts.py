"""The language of facts: splits that hold, answers that can be known, batches without padding."""

import numpy as np
import pytest
import torch

from datamodules.facts import FactDocuments, FactQuestions, ForcedTokens
from datamodules.facts.data import Batches
from datamodules.facts.documents import Document, episode, write
from datamodules.facts.language import UNKNOWN, UNREAD, Language, Writer, is_held_out, make_tokenizer
from datamodules.facts.tasks import IGNORED, is_held_out_target, question_batch


@pytest.fixture(scope="module")
def language() -> Language:
    return Language()


def flat(phrases: list[list[str]]) -> set[str]:
    return {word for phrase in phrases for word in phrase}


def test_there_are_enough_relations_and_phrasings(language: Language) -> None:
    assert len(language.relations) >= 8
    for kind, frames in (("statements", "statement"), ("questions", "question")):
        for relation in language.relations:
            trained, held = language.phrases[relation, kind]
            whole = len(trained) + len(held)
            assert whole == len({tuple(phrase) for phrase in trained + held})
            assert len(trained) * len(language.frames[frames][0]) >= 30
            assert len(held) * len(language.frames[frames][1]) >= 5


def test_every_word_held_out_is_known_from_training(language: Language) -> None:
    known = flat([phrase for pair in language.phrases.values() for phrase in pair[0]])
    known |= flat([frame for pair in language.frames.values() for frame in pair[0]])
    held = flat([phrase for pair in (*language.phrases.values(), *language.frames.values()) for phrase in pair[1]])
    assert held <= known


def test_answers_of_relations_do_not_overlap_and_no_name_is_one(language: Language) -> None:
    answers = [word for about in language.about["relations"].values() for word in about["answer"]]
    names = [word for kind in language.about["names"].values() for word in kind]
    assert len(answers) == len(set(answers)) and len(names) == len(set(names)) and not set(answers) & set(names)
    assert not (set(answers) | set(names)) & flat(
        [p for pair in language.phrases.values() for part in pair for p in part]
    )


def test_every_sentence_is_made_of_known_words(language: Language) -> None:
    tokenizer, writer = make_tokenizer(language), Writer(language, np.random.default_rng(0))
    unread = tokenizer.convert_tokens_to_ids(UNREAD)
    for _ in range(60):
        (fact,) = writer.facts(1)
        sentences = (writer.statement, writer.question, writer.correction, writer.forget)
        for words in (*(sentence(fact) for sentence in sentences), writer.other()):
            ids = tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]
            assert unread not in ids and len(ids) == len(words)
    (ids,) = tokenizer(["Where does Mira live?"], add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["where", "does", "mira", "live", "?"]


def test_a_slip_changes_one_word_and_neither_subject_nor_answer(language: Language) -> None:
    generator = np.random.default_rng(3)
    lengths = set()
    for _ in range(200):
        (fact,) = Writer(language, generator).facts(1)
        state = generator.bit_generator.state
        meant = Writer(language, generator, slips=0.0).statement(fact)
        generator.bit_generator.state = state
        said = Writer(language, generator, slips=1.0).statement(fact)
        for words in (fact.subject, fact.answer):
            assert " ".join(words) in " ".join(said)
        same = next((i for i, (a, b) in enumerate(zip(meant, said, strict=False)) if a != b), len(said))
        left = len(said) - len(meant)
        assert left in (-1, 0) and meant[same + 1 :] == said[same + 1 + left :]
        assert said[-1] == "." and set(said) <= set(language.ids)
        lengths.add(left)
    assert lengths == {-1, 0}


def test_in_most_documents_of_many_facts_only_the_subject_tells_them_apart(language: Language) -> None:
    relation_of = {word: name for name, about in language.about["relations"].items() for word in about["answer"]}
    crowded = []
    for seed in range(100):
        made = Document()
        episode(Writer(language, np.random.default_rng(seed)), made, 500, 10, easy=True)
        told = [word for word, weight in zip(made.words, made.weights, strict=True) if weight == 1.0]
        answers = [relation_of[word] for word in told if word in relation_of]
        if len(answers) > 6:
            crowded.append(len(set(answers)) <= 2)
    assert len(crowded) > 40 and 0.5 < np.mean(crowded) < 0.9


def test_crowded_facts_have_the_relations_given_and_different_subjects(language: Language) -> None:
    writer = Writer(language, np.random.default_rng(0))
    facts = writer.facts(8, relations=["home"])
    assert {fact.relation for fact in facts} == {"home"} and len({fact.subject for fact in facts}) == 8


@pytest.mark.parametrize("held_out", [False, True])
def test_names_stay_on_their_side_of_the_split(language: Language, held_out: bool) -> None:
    writer = Writer(language, np.random.default_rng(1), held_out)
    names = {fact.subject for _ in range(100) for fact in writer.facts(2)}
    assert all(is_held_out(name) == held_out for name in names)
    assert not held_out or all(2 <= len(name) <= 3 for name in names)
    answers = {len(fact.answer) for _ in range(60) for fact in writer.facts(1)}
    assert answers == {1, 2, 3}


def test_answers_follow_from_what_was_said_last(language: Language) -> None:
    """Read by rules of their own: the relation is known by the words that it alone uses, the subject by its name."""
    of_word = {word: relation for relation, about in language.about["relations"].items() for word in about["answer"]}
    checked = {"known": 0, UNKNOWN: 0}
    for seed in range(30):
        document = write(Writer(language, np.random.default_rng(seed)), 400, 8, easy=True)
        sentences, sentence = [], []
        for word, weight in zip(document.words, document.weights, strict=True):
            sentence.append((word, weight))
            if word in ".?":
                sentences.append(sentence)
                sentence = []
        said: list[set[str]] = []
        for before, own in zip([[], *sentences], sentences, strict=False):
            answer = [word for word, weight in own if weight == 1.0][:-1]
            if not answer:
                said.append({word for word, _ in own})
                continue
            if answer == [UNKNOWN]:
                checked[UNKNOWN] += 1
                continue
            subject = {word for word, _ in before} & {
                word for kind in language.about["names"].values() for word in kind
            }
            base = next(word for word in answer if word in of_word)
            assert any(subject | {base} <= words for words in said), (before, own)
            checked["known"] += 1
    assert min(checked.values()) > 20


def test_a_batch_is_decided_by_seed_part_and_number(language: Language) -> None:
    first, again = (Batches(language, "train", 50, 2048, seed=3) for _ in range(2))
    for index in (0, 20, 49):
        a, b = first[(0, index)], again[(5, index)]
        assert torch.equal(a["tokens"], b["tokens"]) and a["tokens"].shape == a["weights"].shape
        assert 0 < (a["weights"] == 1.0).float().mean() < 0.5
    other = Batches(language, "train", 50, 2048, seed=4)
    assert not torch.equal(first[0]["tokens"][:, :60], other[0]["tokens"][:, :60])


def test_the_data_module_gives_training_and_two_kinds_of_held_out_documents() -> None:
    data = FactDocuments(tokens=256, batches=3, heldout_batches=1)
    assert len(list(data.train_dataloader())) == 3
    for loader in data.val_dataloader():
        (batch,) = loader
        assert set(batch["weights"].unique().tolist()) == {0.0, 1.0}


def test_questions_have_one_length_and_answers_of_their_facts(language: Language) -> None:
    batch = question_batch(language, np.random.default_rng(0), 4, 3, 20, held_out=True)
    assert batch["facts"].shape[:2] == batch["questions"].shape[:2] == (4, 3) and batch["other"].shape == (4, 20)
    assert int(batch["facts"].min()) > 3 and int(batch["questions"].min()) > 3
    for facts, answers in zip(batch["facts"], batch["answers"], strict=True):
        for fact, answer in zip(facts.tolist(), answers.tolist(), strict=True):
            words = [i for i in answer if i != IGNORED]
            assert words[-1] == language.ids["."] and set(words[:-1]) <= set(fact)
    for new, old in zip(batch["new_answers"].tolist(), batch["answers"][:, 0].tolist(), strict=True):
        assert new != old
    assert question_batch(language, np.random.default_rng(0), 2, 1, 0)["other"].shape == (2, 0)


def test_words_to_be_forced_are_split(language: Language) -> None:
    data = ForcedTokens(rows=20, longest=16, batches=2, heldout_batches=1)
    words = list(language.ids)
    for loader, held_out in ((data.train_dataloader(), False), (data.val_dataloader()[0], True)):
        for batch in loader:
            assert all(is_held_out_target(words[i]) == held_out for i in batch["target"].tolist())
            assert len(batch["prompt"]) == 20


def test_training_and_test_of_questions_differ() -> None:
    data = FactQuestions(rows=2, facts=1, longest=4, batches=1, heldout_batches=1)
    (train,), (val,), (test,) = (
        [batch["facts"].tolist() for batch in loader]
        for loader in (data.train_dataloader(), data.val_dataloader()[0], data.test_dataloader()[0])
    )
    assert train != val != test != train
