"""Put the test tables of several runs side by side.

for s in 0 1 2; do
    python train.py fit --run seed$s --seed_everything $s --model.seed $s --data.seed $s
    python train.py test --ckpt_path best --run seed$s
done
python -m benchmarks.seeds runs/seed0 runs/seed1 runs/seed2
"""

import argparse
import json
from pathlib import Path
from typing import Any

ROWS = {  # table, row and column of a report -> words
    ("forecast", "persistence", "48 h"): "no goal, MAE at 48 h in kt: persistence",
    ("forecast", "linear autoregression", "48 h"): "linear autoregression",
    ("forecast", "network, unsteered (mean of rollouts)", "48 h"): "network",
    ("forecast", "network (mean) − linear autoregression", "48 h"): "network − linear autoregression, paired",
    ("intervals", "48 h", "coverage of 80 % intervals"): "coverage of 80 % intervals at 48 h",
    ("intervals", "48 h", "CRPS (kt)"): "CRPS at 48 h in kt",
}
for who in ("came true", "borrowed"):
    for kind in ("combinations not trained on", "numbers not trained on", "sentence forms never seen"):
        row = f"{who}, {kind}"
        ROWS["goals", row, "steered"] = f"hits, {row}"
        ROWS["goals", row, "unsteered"] = "the same windows, unsteered"
        ROWS["single_goals", row, "steered"] = "single rollouts, steered"
        ROWS["plausibility", row, "steered / truth"] = "large changes, times the truth's"
ROWS |= {
    ("belief", "latent dimensions above 0.02 nats (validation)", "value"): "share of latent dimensions in use",
    (
        "belief",
        "value error with x permuted, times its own (validation)",
        "value",
    ): "value error with x permuted, times",
    ("belief", "raw KL, nats (validation)", "value"): "raw KL, nats",
    ("belief", "text: nats a token gained over another storm's belief", "value"): "text, nats a token gained",
}


def newest_report(run: Path) -> dict[str, Any]:
    """The newest ``storms_test.json`` of a run. Raises ValueError where there is none."""
    files = sorted(run.glob("test*/storms_test.json"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise ValueError(f"{run} has no test report; make one: python train.py test --ckpt_path best --run {run}")
    return json.loads(files[-1].read_text(encoding="utf-8"))


def cell(report: dict[str, Any], table: str, row: str, column: str) -> str:
    found = report["tables"][table][row][column]
    value, error = (found["value"], found["error"]) if isinstance(found, dict) else (found, None)
    percent = table in ("goals", "single_goals") or column.startswith("coverage")
    scale, digits = (100, 1) if percent else (1, 3 if "nats" in row or "dimensions" in row else 2)
    text = f"{scale * value:.{digits}f}" + (f" ± {scale * error:.{digits}f}" if error is not None else "")
    return text + (" %" if percent else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    runs = parser.parse_args().runs
    reports = [newest_report(run) for run in runs]
    print("| | " + " | ".join(run.name for run in runs) + " |")
    print("|---" * (len(runs) + 1) + "|")
    for (table, row, column), words in ROWS.items():
        print(f"| {words} | " + " | ".join(cell(report, table, row, column) for report in reports) + " |")


if __name__ == "__main__":
    main()
