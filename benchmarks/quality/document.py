"""Markdown files with the plots beside them: one of each data set's part, and docs/results.md of all."""

from __future__ import annotations

from pathlib import Path

from benchmarks.quality.ablation_report import ablations
from benchmarks.quality.cells import Cells
from benchmarks.quality.plots import draw
from benchmarks.quality.report import Part, table
from benchmarks.quality.sets import NAMES
from benchmarks.quality.summary import summary
from benchmarks.quality.training import NUMBERS
from benchmarks.quality.work import REFIT
from gssr.files import atomic_write

PARTS = {"val": "Validation part", "test": "Test part", REFIT: "Test part, refitted"}
INTRO = """\
# Results

Does the language model help, does the goal do anything, is it better than the simple thing? Written by
`python -m benchmarks.quality --report docs/results.md` from what was measured; what is not here was not run. All settings were chosen on
the validation part; the checkpoint of a run is the one with the smallest `val/open_loop_mae`, and the GRU is the best of its epochs
there too, so that the validation part flatters both alike. One choice was made again, on more years of validation, after the test part had been seen: how much the levels
of strikes are jittered ([small series](small-series.md)).

Every method forecasts from the same origins. The network, linear autoregression and the GRU see the steps of the context; AutoETS and
AutoARIMA see the series from its first step to the origin (at most its last 600 steps), anew at each, behind a decomposition by STL where the
season is longer than 24 (AutoARIMA: 4) steps; climatology and all fits see the training part. Persistence,
the seasonal naive forecast and linear autoregression get their distribution from their own errors on training windows, AutoETS and
AutoARIMA from their 80 % intervals. The GRU has as many parameters as the network's numeric part and learns from the same windows, at jittered levels where the
network does, by the closed form of the CRPS; "of changes" forecasts changes from the last value. Where `--forecasts` is in the command, the network was trained
without the text loss: it reads texts and writes none. Ablations train without it, too, except for `with_text_loss`.
"""

SUMMARY = """\
## In short

CRPS of the test part, mean over steps and seeds, ± one standard error; differences paired, with a 95 % interval, negative where the
network is better, and for texts positive where it needs them. The best of the others is the best of them *on this part*, which nobody could have
known; the one that is best on validation is what would have been chosen in place of the network. What a test part can show at all is told by which of all methods have an
interval beside that one that ends below +2 %, and by the network beside itself with another seed: the upper end of the interval, for the pair of seeds where it is largest.
"""

REFITTED = """\
**Refitted.** The same, by methods that have learned from the validation part, too, as one would before forecasting in earnest: the network for as many passes
and the GRU for as many epochs as were best on validation before, the simple ones from all windows of both parts. AutoETS and AutoARIMA knew that part in any case.
Of the network nothing is left to calibrate its fans with. The one that is best on validation was so before. It was asked after the test part had been seen, and nothing was chosen by it.
"""


def of_part(folder: Path, part: str, draws: int) -> str:
    """The report of a part, written into its folder too."""
    found = Part(folder / part, draws)
    text = found.markdown([ablations(found), *draw(found, folder / "images", part)])
    with atomic_write(folder / f"{part}.md") as file:
        file.write(f"# {folder.name}: {PARTS[part].lower()}\n\n{text}")
    return text


def write(out: Path, file: Path) -> None:
    """`file` of all data sets that were measured under `out`.

    Raises ValueError where nothing was.
    """
    parts = {
        part: {name: Part(out / name / part) for name in NAMES if (out / name / part / "origins.json").exists()}
        for part in PARTS
    }
    lines = [INTRO]
    for part, words in (("test", SUMMARY), (REFIT, REFITTED)):
        if rows := summary(parts[part], parts["val"], texts=part == "test"):
            lines += [words, *table(rows), ""]
    start = len(lines)
    for name in NAMES:
        measured = [part for part in PARTS if name in parts[part]]
        if not measured:
            continue
        more = "" if name in ("storms", "strikes") else " --path FOLDER"
        networks = Cells(out / name / measured[0]).named("network")
        if any(cell["settings"]["run"].startswith(NUMBERS) for cell in networks.values()):
            more += " --forecasts"
        command = f"python -m benchmarks.quality --data {name}{more}"
        lines += [f"## {name[0].upper()}{name[1:]}", "", f"    {command}", ""]
        # Pictures of one part alone: two sets of the same kind are hard to tell apart.
        pictured = "test" if "test" in measured else measured[0]
        for part in measured:
            found = parts[part][name]
            charts = draw(found, file.parent / "images", f"{name}_{part}") if part == pictured else []
            refit = [f"    {command} --part {REFIT}", ""] if part == REFIT else []
            lines += [f"### {PARTS[part]}", "", *refit, found.markdown([ablations(found), *charts]), ""]
    if len(lines) == start:
        raise ValueError(f"nothing was measured under {out} yet; name a data set with --data")
    with atomic_write(file) as stream:
        stream.write("\n".join(lines).rstrip() + "\n")
