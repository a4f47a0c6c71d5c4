"""The tables that the README begins with are tables that its commands take."""

import csv
from pathlib import Path

from datamodules.storms.datamodule import Storms
from datamodules.table_sequences import TableSequences
from datamodules.tables import example
from datamodules.tables.history import read_history


def test_tables_with_texts_and_with_goals(tmp_path: Path) -> None:
    example.write(tmp_path, days=200)
    prices = TableSequences(str(tmp_path / "my.csv"), time_column="date", value_columns=["price"], text_column="news")
    prices.setup()
    assert prices.has_text and any(prices.train_records[i].goal for i in range(20))
    machines = TableSequences(str(tmp_path / "runs.jsonl"), series_column="id", goals=str(tmp_path / "goals.csv"))
    machines.setup()
    record = machines.val_records[0]
    assert record.goal and record.goal_low[0] < record.goal_high[0]


def test_the_history_of_a_storm(tmp_path: Path) -> None:
    example.write_storm(tmp_path)
    file = tmp_path / "ian.csv"
    names = Storms.value_names
    record = read_history(file, names, horizon=8)
    assert record.value.shape == (16, len(names)) and record.goal_start == 7
    with open(file, newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["text"] for row in rows] == record.text[:8] and rows[-1]["time"] == "2022-09-25T12:00Z"
