"""What a (value, text, goal) sequence is: records, windows, scalers, goal writers, collation. Knows no other room."""

from gssr.sequences.batches import DealtBatches, EpochBatches, EpochLoader
from gssr.sequences.collate import collate
from gssr.sequences.context import context_length, last_observed
from gssr.sequences.dataset import WindowDataset
from gssr.sequences.goals import Forms, GoalClass, GoalSentence, GoalWriter
from gssr.sequences.record import Batch, Record
from gssr.sequences.scaler import Scaler
from gssr.sequences.source import SequenceSource
from gssr.sequences.windows import check_window, cut, rows_once, window_starts

__all__ = [
    "Batch",
    "DealtBatches",
    "EpochBatches",
    "EpochLoader",
    "Forms",
    "GoalClass",
    "GoalSentence",
    "GoalWriter",
    "Record",
    "Scaler",
    "SequenceSource",
    "WindowDataset",
    "check_window",
    "collate",
    "context_length",
    "cut",
    "last_observed",
    "rows_once",
    "window_starts",
]
