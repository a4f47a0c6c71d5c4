"""Memory and time of training on tables of different sizes: it must not grow with the number of rows.

    python -m benchmarks.large_table --rows 10000 100000 1000000 --steps 200
    python -m benchmarks.large_table --rows 1000000 --text --format parquet

Each size runs in a process of its own: a table is written, and a small goal network is trained on it for some steps. Printed:
the file's size, processor seconds until the first batch and until a wrong table (a bad cell in its last row) is refused, and
the process's largest memory (resident set) after reading the table and after training, each above what it was before.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
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


def peak() -> float:
    """Largest resident set of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def train(path: Path, bad: Path, steps: int, batch_size: int, text: bool, told: multiprocessing.Queue) -> None:
    from lightning import Trainer

    from datamodules import TableSequences
    from gssr.network import GoalNetwork

    options = {"time_column": "time", "value_columns": ["price"], "text_column": "news" if text else None}
    network = GoalNetwork(
        "nano", text_layers=(1,), goal_layer=1, latent_dim=8, hidden_dim=32, text_steps=2, open_samples=2
    )
    before, start = peak(), time.process_time()
    data = TableSequences(str(path), batch_size=batch_size, **options)
    data.prepare_data()
    data.setup("fit")
    next(iter(data.train_dataloader()))
    read, first = peak(), time.process_time() - start
    start, refused = time.process_time(), "not refused"
    try:
        TableSequences(str(bad), **options).setup()
    except ValueError:
        refused = f"{time.process_time() - start:.1f} s"
    start = time.process_time()
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=2, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(network, datamodule=data)
    told.put(
        (len(data.train_records), first, refused, read - before, peak() - before, peak(), time.process_time() - start)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--text", action="store_true", help="read a text in each row, too")
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv")
    options = parser.parse_args()
    print(
        "| rows | file, MB | training windows | first batch | a wrong table is refused after | memory for reading, MB | and training, MB | in all, MB | training, s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    context = multiprocessing.get_context("fork")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            path, bad = Path(folder) / f"t.{options.format}", Path(folder) / f"bad.{options.format}"
            for file, wrong in ((path, False), (bad, True)):
                writing = context.Process(target=write_table, args=(file, rows, 0, wrong))
                writing.start()
                writing.join()
            told: multiprocessing.Queue = context.Queue()
            process = context.Process(
                target=train, args=(path, bad, options.steps, options.batch_size, options.text, told)
            )
            process.start()
            windows, first, refused, read, trained, total, seconds = told.get()
            process.join()
            size = path.stat().st_size / 2**20
            print(
                f"| {rows:,} | {size:.1f} | {windows:,} | {first:.1f} s | {refused} | {read:.0f} | {trained:.0f} | {total:.0f} | {seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
