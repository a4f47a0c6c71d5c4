"""Markdown of what was measured: a summary page, and a page with plots for each data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

from benchmarks.quality.ablation_report import ablations
from benchmarks.quality.cells import Cells
from benchmarks.quality.plots import draw
from benchmarks.quality.report import Part, table
from benchmarks.quality.sets import NAMES
from benchmarks.quality.summary import BEST, CHOSEN, DIFFERENCE, LARGER, OURS, SEEDS, SHOWN, TEXTS, summary
from benchmarks.quality.training import NUMBERS
from benchmarks.quality.work import REFIT
from gssr.files import atomic_write

PARTS = {"val": "Validation part", "test": "Test part", REFIT: "Test part, refitted"}
WIDTH = 110
INTRO = """\
# Results

CRPS of the goal network on the test part of every data set, beside the best other method. Smaller is better.
Each name leads to a page with all methods, steps, seeds, goals and ablations. [What the results
show](findings.md) draws the conclusions.
"""

COLUMNS = f"""\
- Scores are means over steps and seeds, ± one standard error.
- *{BEST}*: the best one on this test part, which nobody could have known beforehand.
- *{DIFFERENCE}*: paired, in percent of the other method's CRPS, with a 95 % interval. Negative: the network
  is better.
- *{TEXTS}*: the change of the CRPS on validation when the network reads no texts.
  Positive: it needs them.

The pages of the data sets add four more rows:

- *{CHOSEN}*: the same difference, to the method that one would
  have chosen in place of the network.
- *{SHOWN}*: the methods whose interval beside that one ends below
  +2 %. A test part that lists none can show it for no method.
- *{LARGER}*: how many methods have a larger CRPS than the network.
- *{SEEDS}*: the upper end of the interval of one seed beside another, for the
  pair where it is largest. Smaller differences between methods may be chance.
"""

REFITTED = """\
## Refitted

Before forecasting in earnest one trains on the validation part too. These methods did: the network for as
many passes and the GRU for as many epochs as were best on validation before, the simple methods from all
windows of both parts. AutoETS and AutoARIMA knew that part in any case. The network has no data left to
calibrate its fans with. This comparison was made after the test part had been seen. Nothing was chosen by it.
"""

METHODS = """\
## How it was measured

- `python -m benchmarks.quality --report docs/results.md` writes these pages from the measurements. What is
  not here was not run.
- All settings were chosen on the validation part, with one exception: how much the levels of strikes are
  jittered was chosen again, on more years of validation, after the test part had been seen ([small
  series](small-series.md)).
- The checkpoint of a run is the one with the smallest `val/open_loop_mae`. The GRU is the best of its epochs
  on validation. So the validation part flatters both alike.
- Every method forecasts from the same origins.
- The network, linear autoregression and the GRU see the steps of the context.
- AutoETS and AutoARIMA are fitted anew at each origin, on the series from its first step to the origin (at
  most its last 600 steps). Where the season is longer than 24 steps (AutoARIMA: 4), STL decomposes the series
  first.
- Climatology and all fits see the training part.
- Persistence, the seasonal naive forecast and linear autoregression get their distribution from their own
  errors on training windows. AutoETS and AutoARIMA get it from their 80 % intervals.
- The GRU has as many parameters as the numeric part of the network. It learns from the same windows, at
  jittered levels where the network does, by the closed form of the CRPS. "GRU of changes" forecasts changes
  from the last value.
- Where a command has `--forecasts`, the network was trained without the text loss: it reads texts and writes
  none. Ablations train without it too, except for `with_text_loss`.
"""


def of_part(folder: Path, part: str) -> str:
    """The report of a part. It is also written into the folder of the data set."""
    found = Part(folder / part)
    text = found.markdown([ablations(found), *draw(found, folder / "images", part)])
    with atomic_write(folder / f"{part}.md") as file:
        file.write(f"# {folder.name}: {PARTS[part].lower()}\n\n{text}")
    return text


def write(out: Path, file: Path) -> None:
    """Write the summary of all measurements under `out` into `file`, and a page for each data set beside it.

    The pages lie in a folder that has the file's name without its suffix, the pictures in its folder `images`.

    Raises ValueError where nothing was measured.
    """
    parts = {
        part: {name: Part(out / name / part) for name in NAMES if (out / name / part / "origins.json").exists()}
        for part in PARTS
    }
    rows = {part: summary(parts[part], parts["val"], texts=part == "test") for part in ("test", REFIT)}
    folder, pages = file.parent / file.stem, {}
    for name in NAMES:
        measured = [part for part in PARTS if name in parts[part]]
        if not measured:
            continue
        more = "" if name in ("storms", "strikes") else " --path FOLDER"
        networks = Cells(out / name / measured[0]).named("network")
        if any(cell["settings"]["run"].startswith(NUMBERS) for cell in networks.values()):
            more += " --forecasts"
        # Pictures of one part only: two sets of the same kind are hard to tell apart.
        pictured = "test" if "test" in measured else measured[0]
        texts = {}
        for part in measured:
            found = parts[part][name]
            charts = draw(found, folder / "images", f"{name}_{part}") if part == pictured else []
            texts[part] = found.markdown([ablations(found), *charts])
        short = {part: row for part, found in rows.items() for row in found if row[""] == name}
        pages[name] = page(name, f"python -m benchmarks.quality --data {name}{more}", short, texts)
    if not pages:
        raise ValueError(f"nothing was measured under {out} yet; name a data set with --data")
    for name, text in pages.items():
        with atomic_write(folder / f"{name}.md") as stream:
            stream.write(text)
    with atomic_write(file) as stream:
        stream.write(index(rows, pages, folder.name))


def index(rows: Mapping[str, Sequence[dict[str, str]]], pages: Sequence[str], folder: str) -> str:
    """The summary page: `rows` of the test part and of the refitted one, with links to the `pages` in `folder`."""
    lines = [INTRO]
    for part, words in (("test", COLUMNS), (REFIT, REFITTED)):
        shown = [
            {"": f"[{row['']}]({folder}/{row['']}.md)"}
            | {key: row[key] for key in (OURS, BEST, DIFFERENCE, TEXTS) if key in row}
            for row in rows[part]
        ]
        if shown:
            lines += [*table(shown), "", words] if part == "test" else [words, *table(shown), ""]
    listed = ", ".join(f"[{name}]({folder}/{name}.md)" for name in pages)
    return "\n".join([*lines, wrapped(f"All pages: {listed}."), "", METHODS])


def page(name: str, command: str, short: Mapping[str, dict[str, str]], texts: Mapping[str, str]) -> str:
    """The page of a data set: its rows of the summary first, then the text of every part that was measured."""
    lines = [f"# Results: {name}", ""]
    keys = [key for key in dict.fromkeys(key for row in short.values() for key in row) if key]
    if keys:
        lines += table([{"": key} | {PARTS[part]: row.get(key, "") for part, row in short.items()} for key in keys])
        lines += [
            "",
            "The [summary](../results.md) explains these rows and how everything was measured.",
            "",
        ]
    commands = [command, *([f"{command} --part {REFIT}"] if REFIT in texts else [])]
    lines += ["```bash", *commands, "```", ""]
    for part, text in texts.items():
        lines += [f"## {PARTS[part]}", "", wrapped(text.strip()), ""]
    return "\n".join(lines)


def wrapped(text: str) -> str:
    """Prose in lines of at most `WIDTH` characters; tables and pictures stay as they are."""
    return "\n".join(
        fill(line, WIDTH, break_long_words=False, break_on_hyphens=False) if line[:1] not in ("|", "!", "") else line
        for line in text.splitlines()
    )
