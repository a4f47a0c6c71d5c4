"""Write small example tables, and goals for one of them.

    python -m datamodules.tables.example        writes my.csv, runs.jsonl, goals.csv and ian.csv into this folder

my.csv: a daily price with a period of twelve days, and news that announce the next day's jump.
runs.jsonl: machines that warm up, each to its own temperature; 24 readings each, without times.
goals.csv: a goal for the last reading of each machine.
ian.csv: two days of Hurricane Ian of 2022, a history for `gssr plan`.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from datamodules.storms.datamodule import Storms

NEWS = {
    1: ["A shortage is expected", "Demand is rising fast", "The harvest was lost to hail"],
    -1: ["A glut is expected", "Demand is collapsing", "A record harvest was brought in"],
    0: ["A quiet day on the market", "Nothing new"],
}


def write(folder: Path = Path("."), days: int = 1500, machines: int = 60, seed: int = 0) -> None:
    """Write the tables of prices and machines; a seed gives the same numbers each time."""
    g = np.random.default_rng(seed)
    with open(folder / "my.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["date", "price", "news"])
        off, day = 0.0, np.datetime64("2020-01-01")
        for i in range(days):
            move = int(g.choice([-1, 0, 1], p=[0.2, 0.6, 0.2]))
            news = str(g.choice(NEWS[move])) if move or g.random() < 0.5 else ""
            table.writerow([day + i, f"{30 + 5 * np.sin(2 * np.pi * i / 12) + off:.2f}", news])
            off = 0.7 * off + 3.0 * move + g.normal(0, 0.3)
    with (
        open(folder / "runs.jsonl", "w", encoding="utf-8") as runs,
        open(folder / "goals.csv", "w", newline="", encoding="utf-8") as goals,
    ):
        table = csv.writer(goals)
        table.writerow(["id", "goal", "low", "high"])
        for machine in range(machines):
            end, pace = g.uniform(40, 90), g.uniform(0.1, 0.3)
            readings = end - (end - 20) * np.exp(-pace * np.arange(24)) + g.normal(0, 0.5, 24)
            for reading in readings:
                runs.write(json.dumps({"id": f"m{machine:02d}", "temperature": round(float(reading), 1)}) + "\n")
            form = ("Warm up to {:.0f} degrees", "End at {:.0f} degrees", "Reach {:.0f} degrees")[machine % 3]
            last = round(float(readings[-1]))
            table.writerow([f"m{machine:02d}", form.format(last), last - 1, last + 1])


def write_storm(folder: Path = Path("."), window: int = 4) -> None:
    """Write ian.csv: the context of one window of the storm, a row a step."""
    storms = Storms(storm="Ian 2022")
    storms.setup("predict")
    record = storms.predict_records[window]
    with open(folder / "ian.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["time", *storms.value_names, "text"])
        for step in range(record.goal_start + 1):
            time = np.datetime64(round(record.time[step]), "h")
            table.writerow([f"{time}:00Z", *(f"{value:g}" for value in record.value[step]), record.text[step] or ""])


if __name__ == "__main__":
    write()
    write_storm()
