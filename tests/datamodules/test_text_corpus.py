"""TextCorpus: packing, held-out text, the tokenizer's round trip, and messages."""

import itertools
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from datamodules.text.corpus import Mixture, TextCorpus, train_tokenizer
from datamodules.text.rows import ANSWER_WEIGHT, MixedRows, Packing, Rows, repeated_rows

LENGTH, VOCABULARY = 16, 400
SOURCES = ("ledger", "tales")
HELD_OUT_WORD = "quizzaciously"


def documents(source: str, split: str) -> list[str]:
    """Numbered documents of different lengths; the held-out ones share a word that no training document has."""
    count, first = (12, 100) if split == "train" else (4, 900)
    word = HELD_OUT_WORD if split == "heldout" else "the quick brown fox"
    return [f"{source} {first + i}: " + f"{word} jumps over {i} lazy dogs.\n" * (1 + i % 4) for i in range(count)]


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    pd.DataFrame(rows).to_parquet(path)
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> TextCorpus:
    rows = [
        {"source": source, "split": split, "text": text}
        for source in SOURCES
        for split in ("train", "heldout")
        for text in documents(source, split)
    ]
    file = write(tmp_path / "corpus.parquet", rows)
    made = TextCorpus(
        str(file),
        str(tmp_path / "tokenizer"),
        {"ledger": 3.0, "tales": 1.0},
        VOCABULARY,
        LENGTH,
        batch_size=4,
        rows=80,
        seed=5,
    )
    made.prepare_data()
    made.setup("fit")
    return made


def stream(rows: torch.Tensor) -> list[int]:
    """Each token of packed rows once, in order; rows must overlap by one token."""
    assert torch.equal(rows[1:, 0], rows[:-1, -1])
    return [*rows[:, :-1].flatten().tolist(), int(rows[-1, -1])]


def test_held_out_rows_hold_every_token_in_order(corpus: TextCorpus) -> None:
    end, pad = corpus.tokenizer.eos_token_id, corpus.tokenizer.pad_token_id
    assert end != pad
    for source in SOURCES:
        expected = [end]
        for text in documents(source, "heldout"):
            expected += [*corpus.tokenizer.encode(text, add_special_tokens=False), end]
        found = stream(corpus.heldout[source])
        assert found[: len(expected)] == expected
        assert set(found[len(expected) :]) <= {pad}
        assert corpus.heldout[source].shape[1] == LENGTH + 1
        assert corpus.heldout_bytes[source] == sum(len(text.encode()) for text in documents(source, "heldout"))


def test_training_rows_hold_each_training_document_once_and_whole(corpus: TextCorpus) -> None:
    for source in SOURCES:
        text = corpus.tokenizer.decode(stream(corpus.train[source].tokens))
        found = text.replace("<|pad|>", "").split("<|end_of_text|>")
        assert found[0] == found[-1] == ""
        assert Counter(found[1:-1]) == Counter(documents(source, "train"))
        assert found[1:-1] != documents(source, "train"), (
            "documents keep the order of the file; neighbours would go together"
        )


def test_no_held_out_text_reaches_training_or_the_tokenizer(corpus: TextCorpus) -> None:
    seen = "".join(corpus.tokenizer.decode(row) for batch in corpus.train_dataloader() for row in batch["tokens"])
    assert HELD_OUT_WORD not in seen and " 900" not in seen and "fox" in seen
    heldout = "".join(corpus.tokenizer.decode(row) for name in SOURCES for row in corpus.heldout[name])
    assert HELD_OUT_WORD in heldout
    # A word of the training part becomes one token; one of the held-out part would, had the tokenizer seen it.
    assert len(corpus.tokenizer.tokenize(" quick")) == 1
    both = train_tokenizer(
        [t for s in SOURCES for split in ("train", "heldout") for t in documents(s, split)], VOCABULARY
    )
    assert len(both.tokenize(" " + HELD_OUT_WORD)) == 1 < len(corpus.tokenizer.tokenize(" " + HELD_OUT_WORD))


def test_a_row_is_decided_by_seed_and_index_alone(corpus: TextCorpus) -> None:
    def rows(seed: int) -> MixedRows:
        return MixedRows(corpus.train, {"ledger": 3.0, "tales": 1.0}, 80, seed)

    first, again, other = rows(1), rows(1), rows(2)
    in_order = torch.stack([first[0, i]["tokens"] for i in range(80)])
    for i in np.random.default_rng(0).permutation(80).tolist():
        assert torch.equal(again[1, i]["tokens"], in_order[i])
    assert not torch.equal(torch.stack([other[0, i]["tokens"] for i in range(80)]), in_order)
    torch.manual_seed(3)  # whatever others draw, the rows stay
    assert torch.equal(torch.stack([rows(1)[0, i]["tokens"] for i in range(80)]), in_order)


def test_a_mixture_has_its_shares_and_repeats_no_row_before_all_were_seen() -> None:
    tokens = {"a": torch.arange(50)[:, None], "b": torch.arange(1000, 1300)[:, None]}
    rows = {name: Rows(part, torch.ones(part.shape)) for name, part in tokens.items()}
    mixture = MixedRows(rows, {"a": 3.0, "b": 1.0}, 1000, seed=0)
    drawn = [int(mixture[0, i]["tokens"]) for i in range(1000)]
    of_a = [row for row in drawn if row < 1000]
    assert len(of_a) == pytest.approx(750, abs=4 * (1000 * 0.75 * 0.25) ** 0.5)  # four standard deviations
    for start in range(0, len(of_a) - 50, 50):
        assert len(set(of_a[start : start + 50])) == 50
    assert of_a[:50] != of_a[50:100]
    of_b = [row for row in drawn if row >= 1000]
    assert len(set(of_b)) == len(of_b)


def test_a_large_source_is_shuffled_without_a_list_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamodules.text.rows.MOST_SHUFFLED", 40)
    tokens = torch.arange(50)[:, None]
    rows = {"a": Rows(tokens, torch.ones(tokens.shape))}
    drawn, again, other = (
        [int(mixture[0, i]["tokens"]) for i in range(120)]
        for mixture in (MixedRows(rows, {"a": 1.0}, 120, seed) for seed in (0, 0, 1))
    )
    assert drawn == again != other
    assert all(sorted(drawn[start : start + 50]) == list(range(50)) for start in (0, 50))
    assert len(set(drawn[100:])) == 20 and drawn[:50] not in (drawn[50:100], list(range(50)))


def test_a_loader_goes_on_in_the_middle(corpus: TextCorpus) -> None:
    loader = corpus.train_dataloader()
    iterator = iter(loader)
    for _ in range(7):
        next(iterator)
    state = loader.state_dict()
    rest = list(iterator)
    fresh = corpus.train_dataloader()
    fresh.load_state_dict(state)
    resumed = list(fresh)
    assert len(rest) == len(resumed) == 80 // 4 - 7
    assert all(torch.equal(a["tokens"], b["tokens"]) for a, b in zip(rest, resumed, strict=True))


def test_answers_weigh_more_and_stay_with_what_they_ask_for(corpus: TextCorpus) -> None:
    texts = [f"fact {i}: the dog is lazy. {'jumps over dogs ' * 3}the dog is lazy" for i in range(9)]
    places = [[text.rindex("lazy"), len(text)] for text in texts]
    rows = Packing(corpus.tokenizer, 64, seed=0).training(texts, places)
    heavy = rows.weights == ANSWER_WEIGHT
    for row, mark in zip(rows.tokens, heavy, strict=True):
        assert row[0] == corpus.tokenizer.eos_token_id
        for document in corpus.tokenizer.decode(row).split("<|end_of_text|>")[1:-1]:
            assert document in texts
        said = corpus.tokenizer.decode(row[mark]).replace(" ", "")
        assert said == "lazy" * said.count("lazy") and said
    whole = "".join(corpus.tokenizer.decode(row) for row in rows.tokens)
    assert all(text in whole for text in texts)
    assert set(rows.weights[rows.tokens != corpus.tokenizer.pad_token_id].unique().tolist()) == {1.0, ANSWER_WEIGHT}


def test_some_documents_follow_each_other_without_a_mark(corpus: TextCorpus) -> None:
    texts, end = documents("ledger", "train"), corpus.tokenizer.eos_token_id
    found = {}
    for joined in (0.0, 0.5, 1.0):
        rows = Packing(corpus.tokenizer, LENGTH, 5, joined).training(texts, [[]] * len(texts))
        tokens = stream(rows.tokens)
        found[joined] = tokens.count(end) - 1
        whole = corpus.tokenizer.decode([token for token in tokens if token != end])
        assert all(text in whole for text in texts)
    assert found[0.0] == len(texts) > found[0.5] > found[1.0] == 0


def test_repeated_rows_weigh_only_what_was_said_before() -> None:
    rows = repeated_rows(20, 300, 4000, 0, seed=3)
    again = repeated_rows(20, 300, 4000, 0, seed=3)
    assert torch.equal(rows.tokens, again.tokens) and rows.tokens.shape == rows.weights.shape == (20, 301)
    for tokens, weights in zip(rows.tokens.tolist(), rows.weights.tolist(), strict=True):
        for place, weight in enumerate(weights):
            if weight:
                pair = tokens[place - 1 : place + 1]  # both stood beside each other before
                assert any(tokens[i : i + 2] == pair for i in range(place - 1))
    assert 0.2 < rows.weights.mean() < 0.8
    # Half of the rows begin as a text that is read; the token of a text's end stands nowhere else.
    assert not rows.tokens[1::2, 0].any() and (rows.tokens == 0).sum() == 10


def test_attention_sees_a_window_in_a_share_of_the_rows() -> None:
    rows = {"a": Rows(torch.zeros(4, 513, dtype=torch.int32), torch.ones(4, 513))}
    for share in (0.0, 0.5, 1.0):
        mixture = MixedRows(rows, {"a": 1.0}, 200, seed=0, cut_share=share, windows=(4, 64))
        first = torch.stack([mixture[0, i]["first"] for i in range(200)])
        assert torch.equal(first, torch.stack([mixture[1, i]["first"] for i in range(200)]))
        seen = torch.arange(513) - first + 1  # tokens in sight, the own one included
        cut = seen[:, -1] < 513
        assert share - 0.1 <= cut.float().mean() <= share + 0.1
        widths = seen[cut].amax(1)
        assert all((row == torch.arange(1, 514).clamp(max=w)).all() for row, w in zip(seen[cut], widths, strict=True))
        if share:
            assert 4 <= widths.min() < 8 and 32 < widths.max() <= 64


def test_each_source_has_its_own_share_of_cut_rows() -> None:
    rows = {name: Rows(torch.full((4, 65), i), torch.ones(4, 65)) for i, name in enumerate("abc")}
    mixture = MixedRows(rows, dict.fromkeys("abc", 1.0), 300, seed=0, cut_share={"a": 1.0, "b": 0.0}, windows=(4, 4))
    drawn = [mixture[0, i] for i in range(300)]
    assert all(bool(x["first"][-1] > 0) == (int(x["tokens"][0]) == 0) for x in drawn)


def test_rows_of_a_source_say_how_much_is_dropped(corpus: TextCorpus) -> None:
    made = TextCorpus(**{**corpus.hparams, "repeats": 2.0, "dropout": {"tales": 0.2}})
    made.setup("fit")
    (mixture,) = made.train_dataloader().dataset.mixtures
    rates = {(mixture.names[mixture.source[i]], round(mixture[0, i]["dropout"].item(), 3)) for i in range(80)}
    assert rates == {("ledger", 0.0), ("tales", 0.2), ("repeats", 0.0)}
    with pytest.raises(ValueError, match=r"dropout names \['letters'\]"):
        TextCorpus(**{**corpus.hparams, "dropout": {"letters": 0.2}}).setup("fit")


def test_training_begins_with_its_opening_and_goes_on_with_the_rest(corpus: TextCorpus) -> None:
    opening = (
        Mixture(rows=8, weights={}, repeats=1.0, windows=(4, 4)),
        Mixture(rows=12, weights={"tales": 1.0}, cut_share=0.0),
    )
    made = TextCorpus(**{**corpus.hparams, "opening": opening, "cut_share": {"ledger": 1.0}, "windows": (3, 3)})
    made.setup("fit")
    rows = [{k: v[i] for k, v in batch.items()} for batch in made.train_dataloader() for i in range(4)]
    assert len(rows) == 80
    tales = {tuple(row.tolist()) for row in made.train["tales"].tokens}
    assert all(row["first"][-1] == len(row["first"]) - 4 and row["weights"].min() == 0 for row in rows[:8])
    assert [bool(row["repeated"]) for row in rows] == 8 * [True] + 72 * [False]
    assert all(tuple(row["tokens"].tolist()) in tales and row["first"][-1] == 0 for row in rows[8:20])
    ledger = {tuple(row.tolist()) for row in made.train["ledger"].tokens}
    cut = [bool(row["first"][-1] > 0) for row in rows[20:]]
    assert 30 < sum(cut) < 60  # three quarters of 60
    assert all(tuple(r["tokens"].tolist()) in (ledger if c else tales) for r, c in zip(rows[20:], cut, strict=True))


def test_an_answer_weighs_what_its_mixture_says(corpus: TextCorpus) -> None:
    texts = ["the dog is lazy. the dog is lazy"] * 3
    rows = {
        "a": Packing(corpus.tokenizer, 32, seed=0).training(texts, [[text.rindex("lazy"), len(text)] for text in texts])
    }
    drawn = MixedRows(rows, {"a": 1.0}, 5, seed=0, answer_weight=30.0)[0, 0]["weights"]
    assert set(drawn.tolist()) <= {0.0, 1.0, 30.0} and (drawn == 30.0).any()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"opening": (Mixture(80, {"tales": 1.0}),)}, "the opening has 80 rows and the training has 80"),
        ({"opening": (Mixture(8, {"tale": 1.0}),)}, r"a mixture names \['tale'\]; .* has \['ledger', 'tales'\]"),
        ({"cut_share": {"tale": 1.0}}, r"a mixture names \['tale'\]; .* has \['ledger', 'tales'\]"),
        ({"windows": (9, 4)}, r"windows are \(9, 4\); expected the narrowest first"),
    ],
)
def test_an_opening_that_cannot_be_is_refused(corpus: TextCorpus, given: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TextCorpus(**{**corpus.hparams, **given}).setup("fit")


def test_a_mixture_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="all of its weights and its repeats are 0"):
        Mixture(8, {})


def test_every_byte_and_any_unicode_comes_back(tmp_path: Path) -> None:
    train_tokenizer(["Numbers and words, " * 20], 300).save_pretrained(tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert len(tokenizer.backend_tokenizer.encode("".join(map(chr, range(256)))).ids) > 0
    alphabet = {token for token in tokenizer.get_vocab() if len(token) == 1}
    assert len(alphabet) == 256  # one for each byte, so that any byte string has tokens

    g = np.random.default_rng(0)
    planes = [(0, 0x80), (0x80, 0x800), (0x800, 0xD800), (0xE000, 0x10000), (0x10000, 0x110000)]
    texts = [
        "",
        " ",
        "  two  spaces ",
        "\t\r\n\n \n",
        "don 't , stop .",
        "e\u0301\u200d\ufeff\x00",
        "".join(map(chr, range(256))),
    ]
    for _ in range(60):
        low, high = planes[g.integers(len(planes))]
        texts.append("".join(chr(code) for code in g.integers(low, high, g.integers(1, 40))))
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text, repr(text)


def test_a_digit_is_a_token_of_its_own() -> None:
    tokenizer = train_tokenizer(["at 25 knots, 1004 hPa, 1004 hPa, 25 knots, 25 knots " * 30], 400)
    words = ("at", " ", "2", "5", " knots")
    tokens = [tokenizer.decode([i]) for i in tokenizer.encode("at 25 knots", add_special_tokens=False)]
    assert "".join(tokens) == "".join(words)
    assert [token.strip() for token in tokens if token.strip().isdigit()] == ["2", "5"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    file = tmp_path / "corpus.parquet"
    with pytest.raises(
        ValueError, match="no corpus at .*corpus.parquet; build it with: python -m datamodules.text.build"
    ):
        TextCorpus(str(file), str(tmp_path / "tokenizer")).prepare_data()
    write(file, [{"source": "a", "text": "some words"}])
    with pytest.raises(ValueError, match=r"lacks the columns \['split'\]; it has \['source', 'text'\]"):
        TextCorpus(str(file), str(tmp_path / "tokenizer")).prepare_data()


def test_weights_must_name_the_sources(tmp_path: Path) -> None:
    file = write(
        tmp_path / "corpus.parquet", [{"source": "a", "split": s, "text": "some words"} for s in ("train", "heldout")]
    )
    for weights in ({"a": 1.0, "b": 1.0}, {"b": 1.0}):
        corpus = TextCorpus(str(file), str(tmp_path / "tokenizer"), weights, vocab_size=260)
        corpus.prepare_data()
        with pytest.raises(ValueError, match=r"weights name .*'b'.* holds \['a'\]"):
            corpus.setup()


def sharded(corpus: TextCorpus, folder: Path, **options: object) -> TextCorpus:
    given = {**corpus.hparams, "shards": str(folder), **options}
    made = TextCorpus(**given)
    made.prepare_data()
    made.setup("fit")
    return made


def test_shards_hold_the_same_heldout_rows_and_each_training_document(corpus: TextCorpus, tmp_path: Path) -> None:
    mapped = sharded(corpus, tmp_path / "shards")
    for source in SOURCES:
        rows = torch.stack(list(mapped.heldout[source]))
        assert torch.equal(rows, corpus.heldout[source])
        text = corpus.tokenizer.decode(stream(torch.stack(list(mapped.train[source].tokens))), skip_special_tokens=True)
        assert all(document in text for document in documents(source, "train"))
        padding = torch.stack(list(mapped.train[source].tokens)) == corpus.tokenizer.pad_token_id
        assert torch.equal(torch.stack(list(mapped.train[source].weights)) == 0, padding)
    assert mapped.heldout_bytes == corpus.heldout_bytes and mapped.sources == corpus.sources
    batches = list(mapped.train_dataloader())
    assert len(batches) == 20 and batches[0]["tokens"].shape == (4, LENGTH + 1)
    assert [len(loader) for loader in mapped.val_dataloader()] == [len(loader) for loader in corpus.val_dataloader()]


def test_shards_are_what_the_tokenizer_says_even_if_its_file_cuts_and_pads(corpus: TextCorpus, tmp_path: Path) -> None:
    backend = Tokenizer.from_str(corpus.tokenizer.backend_tokenizer.to_str())
    backend.enable_truncation(5)
    backend.enable_padding(length=90)
    shutil.copytree(corpus.tokenizer_folder, tmp_path / "cutting")
    backend.save(str(tmp_path / "cutting" / "tokenizer.json"))
    for folder in (corpus.tokenizer_folder, tmp_path / "cutting"):
        sharded(corpus, tmp_path / "shards", tokenizer=str(folder))
        for source, split in itertools.product(SOURCES, ("train", "heldout")):
            expected = [corpus.tokenizer.eos_token_id]
            for document in documents(source, split):
                expected += [*corpus.tokenizer.encode(document, add_special_tokens=False), expected[0]]
            written = np.fromfile(tmp_path / "shards" / f"{source}.{split}.tokens", np.uint16)
            assert written.tolist() == expected


def test_a_loader_over_shards_goes_on_exactly(corpus: TextCorpus, tmp_path: Path) -> None:
    mapped = sharded(corpus, tmp_path / "shards")
    whole = [batch["tokens"] for batch in mapped.train_dataloader()]
    loader = mapped.train_dataloader()
    taken = [batch["tokens"] for _, batch in zip(range(7), loader, strict=False)]
    state = loader.state_dict()
    later = sharded(corpus, tmp_path / "shards").train_dataloader()
    later.load_state_dict(state)
    rest = [batch["tokens"] for batch in later]
    assert all(torch.equal(a, b) for a, b in zip([*taken, *rest], whole, strict=True))


def test_shards_are_written_once_and_again_for_another_corpus(corpus: TextCorpus, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    sharded(corpus, folder)
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    sharded(corpus, folder)
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    (folder / "about.json").unlink()  # as after an interruption
    sharded(corpus, folder)
    assert (folder / "about.json").exists()
    more = [*({"source": s, "split": p, "text": f"{s} anew. " * 9} for s in SOURCES for p in ("train", "heldout"))]
    write(corpus.path, more)
    assert len(sharded(corpus, folder).train["tales"]) < before["tales.train.tokens"]


def test_shards_refuse_what_they_cannot_keep(corpus: TextCorpus, tmp_path: Path) -> None:
    rows = [{"source": "a", "split": split, "text": "some words"} for split in ("train", "heldout")]
    weighed = write(tmp_path / "weighed.parquet", [{**row, "answers": [0, 4]} for row in rows])
    other = write(tmp_path / "other.parquet", [{**row, "split": "test"} for row in rows])
    bare = write(tmp_path / "bare.parquet", [{"text": "some words"}])
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for options, message in (
        ({"path": str(weighed)}, "weighs answers"),
        ({"path": str(other)}, "the split 'test'"),
        ({"path": str(bare)}, "lacks the columns"),
        ({"shards": str(mine)}, "other files"),
        ({"weights": {"ledger": 1.0}}, "give each source a weight"),
    ):
        with pytest.raises(ValueError, match=message):
            sharded(corpus, tmp_path / "s", **{"weights": None, **options})
    assert (mine / "thesis.txt").read_text() == "years of work"
