"""Memory and time of training on tables of different sizes: it must not grow with the number of rows.

    python -m benchmarks.large_table --rows 10000 100000 1000000 --steps 200
    python -m benchmarks.large_table --rows 1000000 --text --format parquet

A process of its own writes each table and trains a small goal network on it for some steps. Printed are the size of
the file, processor seconds until the first batch, processor seconds until a table with a bad cell in its last row is
refused, and the largest growth of the process's memory since before the table is opened, after reading and training.

Anonymous memory counts. The rest of the resident set are pages of files, which the system takes back when it needs
room. The kernel keeps no maximum of it, so a thread looks every few milliseconds. The largest resident set is printed,
too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

CHUNK = 100_000
WORDS = ("calm", "rain", "storm", "supply", "demand", "glut", "shortage", "holiday", "strike", "repair")


def write_table(path: Path, rows: int, seed: int = 0, bad_last: bool = False) -> None:
    """A mean-reverting price every minute with a text of its own in each row, written chunk by chunk."""
    g, last, writer = np.random.default_rng(seed), 30.0, None
    for start in range(0, rows, CHUNK):
        n = min(CHUNK, rows - start)
        noise, price = g.normal(0, 0.3, n), np.empty(n)
        for i in range(n):
            last = price[i] = 30 + 0.95 * (last - 30) + noise[i]
        picked = g.integers(0, len(WORDS), (n, 6))
        texts = [f"report {start + i}: " + " ".join(WORDS[w] for w in row) for i, row in enumerate(picked)]
        minutes = (np.datetime64("2020-01-01T00:00", "m") + np.arange(start, start + n)).astype(str)
        cells = [f"{p:.2f}" for p in price]
        if bad_last and start + n == rows:
            cells[-1] = "about thirty"
        table = pa.table({"time": list(minutes), "price": cells, "news": texts})
        if writer is None:
            make = pa.csv.CSVWriter if path.suffix == ".csv" else pa.parquet.ParquetWriter
            writer = make(str(path), table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


class Watch(threading.Thread):
    """The largest anonymous memory of this process while it was watched, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0.0

    def run(self) -> None:
        while True:
            self.look()
            time.sleep(0.005)

    def look(self) -> float:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        now = int(status.split("RssAnon:")[1].split()[0]) / 1024
        self.most = max(self.most, now)
        return now


def train(path: Path, bad: Path, options: argparse.Namespace, results: multiprocessing.Queue) -> None:
    from lightning import Trainer

    from datamodules import TableSequences
    from gssr.network import GoalNetwork

    columns = {"time_column": "time", "value_columns": ["price"], "text_column": "news" if options.text else None}
    network = GoalNetwork(
        world={"text_layers": (1,), "goal_layer": 1, "latent_dim": 8, "hidden_dim": 32},
        objective={"text_steps": 2, "open_samples": 4},
    )
    watch = Watch()
    before, start = watch.look(), time.process_time()
    watch.start()
    data = TableSequences(str(path), batch_size=options.batch_size, **columns)
    data.prepare_data()
    data.setup("fit")
    next(iter(data.train_dataloader()))
    read, first = watch.most, time.process_time() - start
    start, refused = time.process_time(), "not refused"
    try:
        TableSequences(str(bad), **columns).setup()
    except ValueError:
        refused = f"{time.process_time() - start:.1f} s"
    start = time.process_time()
    trainer = Trainer(
        max_steps=options.steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=2, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(network, datamodule=data)
    results.put(
        (
            f"{len(data.train_records):,}", f"{first:.1f} s", refused,
            f"{read - before:.0f}", f"{watch.most - before:.0f}",
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}", f"{time.process_time() - start:.0f}",
        )
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--text", action="store_true", help="read a text in each row, too")
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv")
    options = parser.parse_args()
    heads = (
        "rows", "file, MB", "training windows", "first batch", "a wrong table is refused after",
        "anonymous memory for reading, MB", "and training, MB", "resident set in all, MB", "training, s",
    )  # fmt: skip
    print(f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", sep="\n")
    context = multiprocessing.get_context("fork")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            path, bad = Path(folder) / f"t.{options.format}", Path(folder) / f"bad.{options.format}"
            os.environ["GSSR_CACHE"] = folder
            for file, wrong in ((path, False), (bad, True)):
                writing = context.Process(target=write_table, args=(file, rows, 0, wrong))
                writing.start()
                writing.join()
            results: multiprocessing.Queue = context.Queue()
            process = context.Process(target=train, args=(path, bad, options, results))
            process.start()
            found = results.get()
            process.join()
            size = path.stat().st_size / 2**20
            print(f"| {rows:,} | {size:.1f} | {' | '.join(found)} |", flush=True)


if __name__ == "__main__":
    main()
