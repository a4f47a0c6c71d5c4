"""Callbacks, loggers and plugins of a Trainer: guards, schedules, pictures, checkpoints, and exact resuming."""

from lightning import Callback

from callbacks.atomic_io import AtomicCheckpointIO
from callbacks.board_log import BoardLog
from callbacks.checkpoints import Interrupted, RunCheckpoints
from callbacks.chosen import ChosenOptions
from callbacks.csv_log import CsvLog
from callbacks.free_nats import FreeNatsAnnealing
from callbacks.frozen_backbone import FrozenBackboneGuard
from callbacks.gradient_norms import GradientError, GradientNormCheck
from callbacks.plan_rollouts import PlanRollouts
from callbacks.progress import LossBar
from callbacks.results import PredictionWriter, TestReport
from callbacks.resume import ConfigOfResumedRun, HonourOptimizerOptions, ResumePosition, TrainingRandomness
from callbacks.scalar_layout import ScalarLayout
from callbacks.weight_average import WeightAverage

# Callbacks that a section of the config turns on, by the section's name, in the order in which they are called. A
# callback is off where the model lacks one of the attributes in the callback's `needs`.
OPTIONAL: dict[str, type[Callback]] = {
    "weight_average": WeightAverage,
    "free_nats": FreeNatsAnnealing,
    "gradient_norms": GradientNormCheck,
    "frozen_backbone": FrozenBackboneGuard,
    "plan_rollouts": PlanRollouts,
    "scalar_layout": ScalarLayout,
    "test_report": TestReport,
    "prediction_writer": PredictionWriter,
}

__all__ = [
    "OPTIONAL",
    "AtomicCheckpointIO",
    "ConfigOfResumedRun",
    "BoardLog",
    "ChosenOptions",
    "CsvLog",
    "FreeNatsAnnealing",
    "FrozenBackboneGuard",
    "GradientError",
    "GradientNormCheck",
    "HonourOptimizerOptions",
    "Interrupted",
    "LossBar",
    "PlanRollouts",
    "PredictionWriter",
    "ResumePosition",
    "RunCheckpoints",
    "ScalarLayout",
    "TestReport",
    "TrainingRandomness",
    "WeightAverage",
]
