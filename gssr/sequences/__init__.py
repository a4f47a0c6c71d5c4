"""What a (value, text, goal) sequence is: records, windows, scalers, goal writers, collation. Knows no other room."""

from gssr.sequences.batches import DealtBatches, EpochBatches, EpochLoader
from gssr.sequences.collate import collate
from gssr.sequences.dataset import WindowDataset
from gssr.sequences.goals import Forms, Goal, GoalClass, GoalWriter
from gssr.sequences.record import Batch, Record
from gssr.sequences.scaler import Scaler
from gssr.sequences.windows import check_window, cut, rows_once, window_starts

__all__ = [
    "Batch",
    "DealtBatches",
    "EpochBatches",
    "EpochLoader",
    "Forms",
    "Goal",
    "GoalClass",
    "GoalWriter",
    "Record",
    "Scaler",
    "WindowDataset",
    "check_window",
    "collate",
    "cut",
    "rows_once",
    "window_starts",
]
