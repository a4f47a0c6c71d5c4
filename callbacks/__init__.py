"""What accompanies a Trainer: guards, schedules and pictures, and what a run needs to be stopped and resumed."""

from callbacks.atomic_io import AtomicCheckpointIO
from callbacks.checkpoints import Interrupted, RunCheckpoints
from callbacks.csv_log import CsvLog
from callbacks.free_nats import FreeNatsAnnealing
from callbacks.progress import LossBar
from callbacks.resume import HonourOptimizerOptions, ResumeLoader, TrainingRandomness

__all__ = [
    "AtomicCheckpointIO",
    "CsvLog",
    "FreeNatsAnnealing",
    "HonourOptimizerOptions",
    "Interrupted",
    "LossBar",
    "ResumeLoader",
    "RunCheckpoints",
    "TrainingRandomness",
]
